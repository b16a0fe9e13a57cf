"""Weights in 8 or 4 bits, by torchao: matrices of the layers only; embedding, head and norms stay as they are."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable

import torch

from forelook.errors import ConfigError, UnsupportedArchitectureError

QUANTIZED_DTYPES = ("int8", "int4")
BITS_PER_WEIGHT = {"int8": 8.1, "int4": 4.5}
"""With the scales: one for each row of an 8-bit matrix, one and a zero point for each group of a 4-bit one."""
_GROUP_SIZES = (128, 64, 32)
Quantize = Callable[[torch.Tensor], torch.Tensor]


def quantizer(kind: str, device: torch.device, dtype: torch.dtype) -> Quantize:
    """What turns a [outputs, inputs] matrix into a quantized one that torch's ``linear`` multiplies with.

    Args:
        kind: ``"int8"`` (symmetric, a scale for each row) or ``"int4"`` (one for each group of at most 128 inputs).
        device: where the matrix is.
        dtype: in which it computes.

    Raises:
        ConfigError: torchao is not installed.
    """
    if importlib.util.find_spec("torchao") is None:
        raise ConfigError(
            "dtype", kind, "one of bfloat16, float16 and float32, as torchao is missing: pip install forelook[quantize]"
        )
    # They report every kernel that this device cannot have, and what of torch torchao uses that will be gone.
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
    """Bytes of a tensor, of what a quantized one consists of."""
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
            f"int4 needs matrices whose inputs are a multiple of {_GROUP_SIZES[-1]}, and one has {num_inputs}; "
            "choose dtype int8"
        )
    if device.type == "cuda" and dtype == torch.bfloat16:
        return Int4WeightOnlyConfig(group_size=group_size, int4_packing_format="tile_packed_to_4d")
    # torch ships no stub for its four-bit dtype
    four_bits: torch.dtype = torch.int4  # type: ignore[attr-defined]
    return IntxWeightOnlyConfig(weight_dtype=four_bits, granularity=PerGroup(group_size))
