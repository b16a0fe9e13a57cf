"""How fast a model runs prompts on a device: estimated from its operations, and kept per device, model and dtype."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import torch

from forelook.local.files import read_or_set_aside, write_atomically
from forelook.model.forward.layers import LlamaWeights
from forelook.model.memory import num_parameters
from forelook.model.step_costs import device_key, operations_per_s

_FORMAT = 1


def estimated_prefill(weights: LlamaWeights) -> float:
    """Tokens per second that a prompt should run at: each multiplies all weights of the layers."""
    config = weights.config
    embeddings = config.vocab_size * config.hidden_size * (1 if config.tied_head else 2)
    return operations_per_s(weights) / (2 * (num_parameters(config) - embeddings))


def prefill_path(cache_dir: Path, fingerprint: str, device: torch.device, dtype: torch.dtype) -> Path:
    """The file of a model's prefill speed on a device."""
    text = f"{_FORMAT} {fingerprint} {device_key(device)} {dtype} torch {torch.__version__}"
    return cache_dir / f"prefill-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def read_prefill(path: Path) -> float | None:
    """The tokens per second in a file; ``None`` if there is none that can be read."""
    return read_or_set_aside(path, _parse)


def write_prefill(path: Path, tokens_per_s: float) -> None:
    """Keep a speed for the next start.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({"format": _FORMAT, "tokens_per_s": tokens_per_s}, allow_nan=False))


def _parse(data: bytes) -> float:
    tokens_per_s = float(json.loads(data)["tokens_per_s"])
    if not (math.isfinite(tokens_per_s) and tokens_per_s > 0.0):
        raise ValueError("a speed that is no positive number")
    return tokens_per_s
