"""Tiny random bases for the trainer's tests, and what their adapters' files contain."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from tests.model.checkpoints import build_reference, save, write_byte_tokenizer

CONTROL = ("<|endoftext|>", "<|a|>", "<|b|>", "<|c|>", "<|d|>", "<file_sep>", "<|e|>", "<|f|>", "<|g|>")


def base_folder(folder: Path, variant: str = "grouped_queries", *, control: tuple[str, ...] = CONTROL) -> Path:
    """A tiny random base with control tokens that it does not use."""
    save(build_reference(variant), folder)
    write_byte_tokenizer(folder, 320, control)
    return folder


def floats(path: Path) -> dict[str, Tensor]:
    """A safetensors file in float32."""
    return {name: tensor.float() for name, tensor in load_file(path).items()}
