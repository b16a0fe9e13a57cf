"""Tiny random checkpoints, saved by transformers itself, that every test of the forward pass compares against."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from forelook.model.loading import STARTER_MODEL_PATH
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

_TINY: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 160,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "tie_word_embeddings": False,
}

# Everything the family varies in; a name is a test's id.
VARIANTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "grouped_queries": ("llama", {"num_key_value_heads": 2}),
    "one_kv_head": ("llama", {"num_key_value_heads": 1}),
    "tied_head": ("llama", {"tie_word_embeddings": True}),
    "own_head_size": ("llama", {"head_dim": 20, "num_key_value_heads": 2}),
    "all_biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "large_theta": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "linear_scaling": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5}}),
    "dynamic_scaling": ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
    "llama3_scaling": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 40,
            }
        },
    ),
    "yarn_scaling": (
        "qwen2",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 40,
            }
        },
    ),
    "yarn_with_own_magnitudes": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "beta_fast": 16.0,
                "beta_slow": 2.0,
                "mscale": 0.7,
                "mscale_all_dim": 1.3,
                "truncate": False,
                "original_max_position_embeddings": 40,
            }
        },
    ),
    "qwen2_bias": ("qwen2", {"num_key_value_heads": 2, "rms_norm_eps": 1e-6}),
    "mistral": ("mistral", {"num_key_value_heads": 2, "sliding_window": None, "head_dim": 16}),
    "mistral_with_window": ("mistral", {"num_key_value_heads": 2, "sliding_window": 7}),
    "qwen2_with_windowed_layers": (
        "qwen2",
        {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
    ),
    "qwen3": ("qwen3", {"num_key_value_heads": 2, "head_dim": 24}),
    "qwen3_with_biases": ("qwen3", {"attention_bias": True, "head_dim": 12, "tie_word_embeddings": True}),
    "gemma": ("gemma", {"num_key_value_heads": 1, "head_dim": 256, "tie_word_embeddings": True}),
    "starcoder2": ("starcoder2", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "starcoder2_with_window": ("starcoder2", {"num_key_value_heads": 4, "sliding_window": 7, "use_bias": False}),
    "granite": (
        "granite",
        {
            "num_key_value_heads": 2,
            "embedding_multiplier": 6.0,
            "residual_multiplier": 0.4,
            "attention_multiplier": 0.2,
            "logits_scaling": 3.0,
        },
    ),
}


def build_reference(variant: str, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model of a variant in float32, with weights large enough that every part shows in the logits."""
    model_type, own = VARIANTS[variant]
    config = AutoConfig.for_model(model_type, **{**_TINY, **own, **changes})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.5)
            elif "norm" in name:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, 0.15)
    return model


def save(model: PreTrainedModel, folder: Path, *, max_shard_size: str = "5GB", tokenizer: Path | None = None) -> Path:
    """Save a model together with a tokenizer, like a hub checkpoint."""
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    if tokenizer is not None:
        shutil.copy(tokenizer, folder / "tokenizer.json")
    else:
        write_byte_tokenizer(folder, model.config.vocab_size)
    return folder


def write_byte_tokenizer(folder: Path, vocab_size: int, control: tuple[str, ...] = ("<s>", "</s>")) -> None:
    """A byte-level tokenizer.json without merges: the starter's pipeline over one entry per byte."""
    raw = json.loads((STARTER_MODEL_PATH / "tokenizer.json").read_text(encoding="utf-8"))
    single = [piece for piece in raw["model"]["vocab"] if len(piece) == 1]
    names = [*control, *single]
    if len(names) > vocab_size:
        raise ValueError(f"{vocab_size} entries are too few for {len(names)}")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    raw["added_tokens"] = [{"id": index, "content": name, **flags} for index, name in enumerate(control)]
    raw["model"]["vocab"] = {name: index for index, name in enumerate(names)}
    raw["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
