"""Base models for training: any checkpoint of the Llama shape, from a folder or a GGUF file.

That is grouped-query attention with or without biases on queries, keys and values, RMS norms, a gated SiLU
feed-forward, and a head of its own or the embedding's. What else a family may have is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bench.llama_fields import llama_fields
from forelook.errors import UnsupportedArchitectureError
from forelook.model.checkpoint import SINGLE_NAME, shard_files
from forelook.model.config import LlamaConfig, parse_config
from forelook.model.families import FAMILIES, Activation
from forelook.model.gguf.checkpoint import read_checkpoint
from forelook.model.gguf.vocabulary import tokenizer_pipeline
from safetensors import safe_open
from torch import Tensor

Read = Callable[[str], Tensor]
"""A tensor by its name in a Hugging Face checkpoint, in float32."""


@dataclass(frozen=True)
class Base:
    """A model to train on from, without its weights.

    Attributes:
        path: a checkpoint's folder or a GGUF file.
        config: shapes and constants.
        tokenizer_json: content of its ``tokenizer.json``.
        fields: its ``config.json``, or the one that a GGUF file stands for.
    """

    path: Path
    config: LlamaConfig
    tokenizer_json: dict[str, Any]
    fields: Mapping[str, Any]

    @contextmanager
    def opened(self) -> Iterator[Read]:
        """While entered, the function that reads a tensor."""
        if self.path.is_dir():
            files = shard_files(self.path)

            def read(name: str) -> Tensor:
                path = self.path / SINGLE_NAME if files is None else files[name]
                with safe_open(path, framework="pt") as file:
                    tensor: Tensor = file.get_tensor(name)
                return tensor.float()

            yield read
            return
        with read_checkpoint(self.path).tensors(torch.float32).opened() as open_file:
            yield lambda name: open_file(name)[1].get_tensor(name)


def read_base(path: Path) -> Base:
    """Read a base's shapes and vocabulary.

    Args:
        path: a folder with ``config.json``, ``tokenizer.json`` and safetensors, or a GGUF file.

    Raises:
        ModelError: a subclass; the model cannot be read, or has something that training does not compute.
    """
    if path.is_dir():
        fields = json.loads((path / "config.json").read_text("utf-8"))
        config = parse_config(fields, str(path / "config.json"))
        tokenizer_json = json.loads((path / "tokenizer.json").read_text("utf-8"))
    else:
        checkpoint = read_checkpoint(path)
        config, tokenizer_json = checkpoint.config, tokenizer_pipeline(checkpoint.files[0])
        fields = config_fields(config)
    unsupported = [name for name, differs in _differences(config).items() if differs]
    if unsupported:
        raise UnsupportedArchitectureError(
            f"{path}: training does not compute {', '.join(unsupported)}; choose a base of the Llama shape"
        )
    return Base(path, config, tokenizer_json, fields)


def config_fields(config: LlamaConfig) -> dict[str, Any]:
    """The ``config.json`` of shapes that :func:`read_base` accepts.

    Raises:
        UnsupportedArchitectureError: the rotary embedding is scaled by factors that no ``config.json`` states.
    """
    if config.rope.frequency_factors:
        raise UnsupportedArchitectureError(
            "rotary frequency factors have no place in a config.json; use the checkpoint's folder, not its GGUF file"
        )
    scaling: dict[str, Any] = {"rope_type": config.rope.kind, **config.rope.parameters}
    return llama_fields(config) | {
        "architectures": ["Qwen2ForCausalLM" if config.model_type == "qwen2" else "LlamaForCausalLM"],
        "rope_scaling": None if config.rope.kind == "default" else scaling,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }


def _differences(config: LlamaConfig) -> dict[str, bool]:
    """What a family may have besides the Llama shape, and whether a model has it."""
    return {
        "norms with a mean": config.layer_norms,
        "norms with an offset": FAMILIES[config.model_type].norm_offset != 0,
        "norms of the heads": config.head_norms,
        "a feed-forward without a gate": not config.is_gated,
        f"the activation {config.activation.value}": config.activation is not Activation.SILU,
        "a sliding window": config.window is not None,
        "biases besides those of queries, keys and values": config.output_bias or config.mlp_bias,
        "scaled embeddings, residuals or logits": (
            (config.embedding_multiplier, config.residual_multiplier, config.logits_divisor) != (1.0, 1.0, 1.0)
        ),
        "scaled attention": abs(config.attention_scale * config.head_size**0.5 - 1.0) > 1e-6,
    }
