"""Cost of a decode step: estimated from a model's bytes and operations, and kept per device, model and dtype."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import torch

from forelook.decoding.drafting.costs import StepCosts
from forelook.model.device_file import DeviceFile
from forelook.model.forward.layers import LlamaWeights
from forelook.model.forward.native.step import NativeStep
from forelook.model.memory import num_parameters

_SIZES = (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64)
MAX_DRAFTS_ON_CPU = 12
"""Measured on non-repetitive prompts: at most 48 drafts gave 1.62 times the speed of plain decoding, at most 11 gave
1.71. On a CPU the cost of a step rises from the first token on."""

# measured: docs/decisions.md, "Step costs are estimated, and corrected by each step"; of a GPU chosen, not measured
# "native" is a CPU with the compiled kernels; measured: docs/decisions.md, "A step in one call"
_BYTES_PER_S = {"cpu": 40e9, "native": 20e9, "cuda": 1.5e12}
_LAYER_S = {"cpu": 150e-6, "native": 10e-6, "cuda": 10e-6}  # of the operators between the matrix products
_OPERATIONS_PER_S = {"cpu": 50e9, "native": 100e9, "cuda": 50e12}  # per core of a CPU
_HALF_WIDTH_SPEED = 6.0  # times the operations where a weight has two bytes
_ATTENTION_OPERATIONS_PER_S = {"cpu": 20e9, "native": 20e9, "cuda": 20e12}


def operations_per_s(weights: LlamaWeights) -> float:
    """What the matrix products of many rows should reach."""
    kind = _kind(weights)
    faster = _HALF_WIDTH_SPEED if weights.dtype.itemsize == 2 and kind != "native" else 1.0
    return _OPERATIONS_PER_S[kind] * _num_cores(kind) * faster


def _kind(weights: LlamaWeights) -> str:
    return "native" if NativeStep.serves(weights) else weights.device.type


def _num_cores(kind: str) -> int:
    return 1 if kind == "cuda" else torch.get_num_threads()


def estimated_costs(weights: LlamaWeights) -> StepCosts:
    """What a step should cost: all weights are read once, and each row multiplies all of them.

    Only the ratios matter: the first steps set the scale.
    """
    config, kind = weights.config, _kind(weights)
    cores = _num_cores(kind)
    fixed_s = weights.nbytes / _BYTES_PER_S[kind] + config.num_layers * _LAYER_S[kind]
    row_s = 2 * num_parameters(config) / operations_per_s(weights)
    cached_bytes = config.kv_values_per_token * weights.kv_dtype.itemsize
    cached_operations = 4 * config.num_layers * config.num_heads * config.head_size
    return StepCosts(
        _SIZES,
        tuple(fixed_s + size * row_s for size in _SIZES),
        tuple(
            cached_bytes / _BYTES_PER_S[kind] + size * cached_operations / (_ATTENTION_OPERATIONS_PER_S[kind] * cores)
            for size in _SIZES
        ),
    )


def _parse_costs(data: bytes) -> StepCosts:
    content = json.loads(data)
    seconds = [tuple(float(value) for value in content[name]) for name in ("seconds", "seconds_per_cached")]
    if not all(math.isfinite(value) for values in seconds for value in values):
        raise ValueError("a cost that is not finite")
    return StepCosts(tuple(int(size) for size in content["sizes"]), *seconds)


STEP_COSTS = DeviceFile("step-costs", 4, _parse_costs, asdict)
"""Step costs between starts."""
