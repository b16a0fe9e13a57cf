"""Checkpoints of random weights, for times that do not depend on what a model knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


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
