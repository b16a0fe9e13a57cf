"""Rotary position embeddings: a model's table of rotations, for every RoPE scaling we support."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from forelook.model.config import RopeConfig


def rotation_table(rope: RopeConfig, head_size: int, num_positions: int) -> torch.Tensor:
    """The complex number by which each position turns each pair of a head's dimensions.

    Angles and their sines are float32, as in transformers: checkpoints were trained with these roundings.

    Returns:
        [num_positions, head_size / 2] complex64.
    """
    frequencies, factor = inverse_frequencies(rope, head_size)
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32), frequencies)
    return torch.complex(angles.cos() * factor, angles.sin() * factor)


def inverse_frequencies(rope: RopeConfig, head_size: int) -> tuple[torch.Tensor, float]:
    """Radians per position of each rotated pair, [head_size / 2], and the factor on cosine and sine."""
    exponents = torch.arange(0, head_size, 2, dtype=torch.int64).to(torch.float32) / head_size
    frequencies = 1.0 / rope.theta**exponents
    if rope.frequency_factors:
        frequencies = frequencies / torch.tensor(rope.frequency_factors)
    if rope.kind == "linear":
        return frequencies / rope.parameters["factor"], 1.0
    if rope.kind == "llama3":
        return _llama3(frequencies, rope.parameters), 1.0
    if rope.kind == "yarn":
        return _yarn(rope, head_size, exponents)
    return frequencies, 1.0


def _llama3(frequencies: torch.Tensor, parameters: Mapping[str, float]) -> torch.Tensor:
    """Long wavelengths are stretched, short ones kept, those between blended."""
    factor, low, high = parameters["factor"], parameters["low_freq_factor"], parameters["high_freq_factor"]
    original = parameters["original_max_position_embeddings"]
    wavelengths = 2 * math.pi / frequencies
    blend = (original / wavelengths - low) / (high - low)
    blended = (1 - blend) * frequencies / factor + blend * frequencies
    scaled = torch.where(wavelengths > original / low, frequencies / factor, blended)
    return torch.where(wavelengths < original / high, frequencies, scaled)


def _yarn(rope: RopeConfig, head_size: int, exponents: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Dimensions that turn often keep their frequency, those that turn seldom are interpolated, with a ramp between."""
    parameters = rope.parameters
    factor, original = parameters["factor"], parameters["original_max_position_embeddings"]

    def dimension_turning(num_turns: float) -> float:
        return head_size * math.log(original / (num_turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    first = dimension_turning(parameters.get("beta_fast") or 32.0)
    last = dimension_turning(parameters.get("beta_slow") or 1.0)
    if parameters.get("truncate", 1.0):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_size - 1)
    width = last - first if last != first else 0.001
    interpolated_share = ((torch.arange(head_size // 2, dtype=torch.float32) - first) / width).clamp(0, 1)

    kept_share = 1 - interpolated_share
    periods = rope.theta**exponents
    frequencies = 1.0 / (factor * periods) * (1 - kept_share) + 1.0 / periods * kept_share
    return frequencies, _yarn_attention_factor(parameters, factor)


def _yarn_attention_factor(parameters: Mapping[str, float], factor: float) -> float:
    def magnitude(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    if "attention_factor" in parameters:
        return parameters["attention_factor"]
    if parameters.get("mscale") and parameters.get("mscale_all_dim"):
        return magnitude(parameters["mscale"]) / magnitude(parameters["mscale_all_dim"])
    return magnitude(1.0)
