"""Weights in 8 or 4 bits: integers and scales of a matrix.

On a CPU all matrices are quantized, for kernels that torch has (:mod:`forelook.model.forward.quantized`); on a GPU
torchao quantizes the layers' matrices.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from forelook.errors import ConfigError, UnsupportedArchitectureError

QUANTIZED_DTYPES = ("int8", "int4")
BITS_PER_WEIGHT = {"int8": 8.1, "int4": 5.0}
"""Including scales: one per row of an 8-bit matrix; one and a zero point per group of a 4-bit matrix."""
GROUP_SIZE = 32
"""Inputs that share a scale and a zero point on a CPU; GGUF's blocks have as many.

measured: docs/decisions.md, "Quantized products on a CPU"
"""
_GROUP_SIZES_ON_GPU = (128, 64, 32)  # the largest that divides the inputs; chosen, not measured
_CHUNK_VALUES = 1 << 20  # quantized at once, to bound the float32 copies; chosen, not measured
_LEVELS = 15
Quantize = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Rows8:
    """A matrix in 8 bits: ``weight[n, k] = codes[n, k] * scales[n]``.

    Attributes:
        codes: [outputs, inputs] int8.
        scales: [outputs] bfloat16.
    """

    codes: Tensor
    scales: Tensor


@dataclass(frozen=True, slots=True)
class Groups4:
    """A matrix in 4 bits: ``weight[n, k] = codes[n, k] * scales[n, g] + minima[n, g]`` for k in group g.

    Attributes:
        codes: [outputs, inputs] uint8, 0 to 15.
        scales: [outputs, groups] float32.
        minima: likewise.
    """

    codes: Tensor
    scales: Tensor
    minima: Tensor

    @property
    def group_size(self) -> int:
        """Inputs per group."""
        return self.codes.shape[1] // self.scales.shape[1]

    def floats(self, dtype: torch.dtype) -> Tensor:
        """The matrix as floats."""
        shape = (*self.scales.shape, self.group_size)
        codes, scales, minima = self.codes.to(dtype).view(shape), self.scales.to(dtype), self.minima.to(dtype)
        return torch.addcmul(minima.unsqueeze(2), codes, scales.unsqueeze(2)).view(self.codes.shape)

    def reordered(self, change: Callable[[Tensor], Tensor]) -> Groups4:
        """The matrix with its rows in another order."""
        return Groups4(change(self.codes), change(self.scales), change(self.minima))

    @staticmethod
    def joined(parts: list[Groups4]) -> Groups4:
        """The rows of several matrices, one after the other."""
        return Groups4(
            torch.cat([part.codes for part in parts]),
            torch.cat([part.scales for part in parts]),
            torch.cat([part.minima for part in parts]),
        )


def quantize_rows(weight: Tensor) -> Rows8:
    """Quantize [outputs, inputs] symmetrically, with one scale per row."""
    codes = torch.empty(weight.shape, dtype=torch.int8)
    scales = torch.empty(weight.shape[0], dtype=torch.bfloat16)
    step = max(1, _CHUNK_VALUES // weight.shape[1])
    for start in range(0, weight.shape[0], step):
        part = weight[start : start + step].float()
        # Divided by the scale as stored, so that its rounding costs no accuracy.
        scale = (part.abs().amax(1) / 127).clamp_(min=torch.finfo(torch.bfloat16).tiny).bfloat16()
        scales[start : start + step] = scale
        codes[start : start + step] = part.div(scale.float().unsqueeze(1)).round_().clamp_(-127, 127)
    return Rows8(codes, scales)


def quantize_groups(weight: Tensor, group_size: int = GROUP_SIZE) -> Groups4:
    """Quantize [outputs, inputs] with one scale and minimum per group of inputs of a row.

    Raises:
        UnsupportedArchitectureError: the number of inputs is no multiple of the group size.
    """
    outputs, inputs = weight.shape
    if inputs % group_size:
        raise UnsupportedArchitectureError(
            f"int4 needs matrices whose input size is a multiple of {group_size}, and one has {inputs}; "
            "choose dtype int8"
        )
    codes = torch.empty(outputs, inputs, dtype=torch.uint8)
    scales = torch.empty(outputs, inputs // group_size)
    minima = torch.empty_like(scales)
    step = max(1, _CHUNK_VALUES // inputs)
    for start in range(0, outputs, step):
        part = weight[start : start + step].float().view(-1, inputs // group_size, group_size)
        low, high = part.amin(2), part.amax(2)
        # As the kernel stores it: the codes then make up for its rounding.
        scale = ((high - low) / _LEVELS).clamp_(min=torch.finfo(torch.bfloat16).tiny).bfloat16().float()
        found = ((part - low.unsqueeze(2)) / scale.unsqueeze(2)).round_().clamp_(0, _LEVELS)
        codes[start : start + step] = found.view(-1, inputs)
        scales[start : start + step] = scale
        # With these codes and scales, the minimum of the least squared error.
        minima[start : start + step] = (part - found.mul_(scale.unsqueeze(2))).mean(2)
    return Groups4(codes, scales, minima)


def torchao_quantizer(kind: str, device: torch.device, dtype: torch.dtype) -> Quantize:
    """A function that quantizes an [outputs, inputs] matrix for torch's ``linear``, on a GPU.

    Args:
        kind: ``"int8"`` (symmetric, one scale per row) or ``"int4"`` (one scale per group of at most 128 inputs).
        device: of the matrix.
        dtype: of the computation.

    Raises:
        ConfigError: torchao is not installed.
    """
    if importlib.util.find_spec("torchao") is None:
        raise ConfigError(
            "dtype", kind, "one of bfloat16, float16 and float32, as torchao is missing: pip install forelook[quantize]"
        )
    # torchao logs every kernel that this device lacks, and its use of deprecated parts of torch.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from torchao.quantization import quantize_

    def quantize(weight: Tensor) -> Tensor:
        holder = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        holder.weight = torch.nn.Parameter(weight, requires_grad=False)
        quantize_(holder, _torchao_config(kind, weight.shape[1], device, dtype))
        return holder.weight.detach()

    return quantize


def stored_bytes(weight: Tensor) -> int:
    """Size of a tensor in bytes; of a quantized one, the sum of its parts."""
    flatten = getattr(weight, "__tensor_flatten__", None)
    if flatten is None:
        return weight.nbytes
    return sum(part.nbytes for name in flatten()[0] if isinstance(part := getattr(weight, name), Tensor))


def _torchao_config(kind: str, num_inputs: int, device: torch.device, dtype: torch.dtype) -> object:
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup

    if kind == "int8":
        return Int8WeightOnlyConfig()
    group_size = next((size for size in _GROUP_SIZES_ON_GPU if num_inputs % size == 0), None)
    if group_size is None:
        raise UnsupportedArchitectureError(
            f"int4 needs matrices whose input size is a multiple of {_GROUP_SIZES_ON_GPU[-1]}, and one has "
            f"{num_inputs}; choose dtype int8"
        )
    if device.type == "cuda" and dtype == torch.bfloat16:
        return Int4WeightOnlyConfig(group_size=group_size, int4_packing_format="tile_packed_to_4d")
    # torch ships no stub for its four-bit dtype
    four_bits: torch.dtype = torch.int4  # type: ignore[attr-defined]
    return IntxWeightOnlyConfig(weight_dtype=four_bits, granularity=PerGroup(group_size))
