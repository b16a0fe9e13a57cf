"""How fast a model runs prompts on a device: estimated from its operations, and kept per device, model and dtype."""

from __future__ import annotations

import json
import math

from forelook.model.device_file import DeviceFile
from forelook.model.forward.layers import LlamaWeights
from forelook.model.memory import num_parameters
from forelook.model.step_costs import operations_per_s


def estimated_prefill(weights: LlamaWeights) -> float:
    """Tokens per second that a prompt should run at: each multiplies all weights of the layers."""
    config = weights.config
    embeddings = config.vocab_size * config.hidden_size * (1 if config.tied_head else 2)
    return operations_per_s(weights) / (2 * (num_parameters(config) - embeddings))


def _parse(data: bytes) -> float:
    tokens_per_s = float(json.loads(data)["tokens_per_s"])
    if not (math.isfinite(tokens_per_s) and tokens_per_s > 0.0):
        raise ValueError("a speed that is no positive number")
    return tokens_per_s


PREFILL_SPEED = DeviceFile("prefill", 1, _parse, lambda tokens_per_s: {"tokens_per_s": tokens_per_s})
"""Tokens per second of prompts between starts."""
