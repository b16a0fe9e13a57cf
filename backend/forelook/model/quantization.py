"""Weights in 8 or 4 bits, by torchao: only the layers' matrices, not embedding, head and norms."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable

import torch

from forelook.errors import ConfigError, UnsupportedArchitectureError

QUANTIZED_DTYPES = ("int8", "int4")
BITS_PER_WEIGHT = {"int8": 8.1, "int4": 4.5}
"""Including scales: one per row of an 8-bit matrix; one and a zero point per group of a 4-bit matrix."""
_GROUP_SIZES = (128, 64, 32)  # the largest that divides the inputs; chosen, not measured
Quantize = Callable[[torch.Tensor], torch.Tensor]


def quantizer(kind: str, device: torch.device, dtype: torch.dtype) -> Quantize:
    """A function that quantizes an [outputs, inputs] matrix for torch's ``linear``.

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

    def quantize(weight: torch.Tensor) -> torch.Tensor:
        holder = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        holder.weight = torch.nn.Parameter(weight, requires_grad=False)
        quantize_(holder, _config(kind, weight.shape[1], device, dtype))
        return holder.weight.detach()

    return quantize


def stored_bytes(weight: torch.Tensor) -> int:
    """Size of a tensor in bytes; of a quantized one, the sum of its parts."""
    flatten = getattr(weight, "__tensor_flatten__", None)
    if flatten is None:
        return weight.nbytes
    return sum(part.nbytes for name in flatten()[0] if isinstance(part := getattr(weight, name), torch.Tensor))


def _config(kind: str, num_inputs: int, device: torch.device, dtype: torch.dtype) -> object:
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup

    if kind == "int8":
        return Int8WeightOnlyConfig()
    group_size = next((size for size in _GROUP_SIZES if num_inputs % size == 0), None)
    if group_size is None:
        raise UnsupportedArchitectureError(
            f"int4 needs matrices whose input size is a multiple of {_GROUP_SIZES[-1]}, and one has {num_inputs}; "
            "choose dtype int8"
        )
    if device.type == "cuda" and dtype == torch.bfloat16:
        return Int4WeightOnlyConfig(group_size=group_size, int4_packing_format="tile_packed_to_4d")
    # torch ships no stub for its four-bit dtype
    four_bits: torch.dtype = torch.int4  # type: ignore[attr-defined]
    return IntxWeightOnlyConfig(weight_dtype=four_bits, granularity=PerGroup(group_size))
