"""Checkpoints of random weights, for times that do not depend on what a model knows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from forelook.model.loading import STARTER_MODEL_PATH

SHAPES: dict[str, dict[str, Any]] = {
    "qwen-0.5b": {
        "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 32_768,
        "rope_theta": 1e6, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 1,
    },
    "deepseek-1.3b": {
        "vocab_size": 32_256, "hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 24,
        "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 128, "max_position_embeddings": 16_384,
        "rope_theta": 1e5, "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1,
    },
    "tiny": {
        "vocab_size": 8192, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512,
        "rope_theta": 1e4, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 1,
    },
}  # fmt: skip
"""Shapes of Qwen2.5-Coder-0.5B and DeepSeek-Coder-1.3B, without their biases, and one for tests."""


def save_random_llama(folder: Path, dtype: torch.dtype, **config: Any) -> int:
    """Write a checkpoint without a tokenizer and return its number of parameters.

    Args:
        folder: where to write it.
        dtype: of the weights.
        config: fields of transformers' ``LlamaConfig``.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**config)).to(dtype)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def save_shape(folder: Path, name: str) -> int:
    """Write random weights of a shape in bfloat16, and a vocabulary of its size whose further tokens never occur.

    Returns:
        The number of parameters.
    """
    shape = SHAPES[name]
    num_parameters = save_random_llama(folder, torch.bfloat16, **shape)
    tokenizer = json.loads((STARTER_MODEL_PATH / "tokenizer.json").read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    for number in range(len(vocabulary), shape["vocab_size"]):
        vocabulary[f"never{number}"] = number
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    shutil.copy(STARTER_MODEL_PATH / "tokenizer_config.json", folder)
    return num_parameters
