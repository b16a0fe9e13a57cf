"""Matrix products with weights laid out for the device: in oneDNN's blocked layout on a CPU, unchanged elsewhere.

Torch's own compiler emits these two oneDNN operators for CPUs; they have no public name.
"""
# ruff: noqa: SLF001

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from torch import Tensor

from forelook.model.quantization import Quantize, stored_bytes

# An operator is compiled per number of rows. oneDNN keeps 1024 of them, and so does torch's layer above it: half a
# megabyte each, for every length that a prompt ever had. Decode steps need some 70. Both read their limit at first use.
# measured: docs/decisions.md, "Compiled operators were most of the memory"
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.putenv(_name, "96")

# Rows of input for which the blocked layout is chosen: a decode step. A prefill was measured to be as fast with it.
_LAYOUT_ROWS = 16


class Projection:
    """``x @ weight.T + bias``.

    On a CPU the weight is stored only in oneDNN's blocked layout. In the small products of a decode step ``F.linear``
    spends up to half of its time on a lookup and a re-ordering at every call; this layout avoids both.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, quantize: Quantize | None = None) -> None:
        """Store an [outputs, inputs] weight, which the caller should then drop, and its [outputs] bias.

        Args:
            weight: the matrix.
            bias: added to the product.
            quantize: makes a quantized matrix of it, which is stored instead.
        """
        self.num_outputs, self.num_inputs = weight.shape
        self._bias = bias
        self._packed = quantize is None and _can_pack(weight)
        if quantize is not None:
            weight = quantize(weight)
        self.nbytes = stored_bytes(weight) + (0 if bias is None else bias.nbytes)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _LAYOUT_ROWS) if self._packed else weight

    def shares(self, weight: Tensor) -> bool:
        """Whether the projection stores this very tensor and no copy of it."""
        return self._weight is weight

    def __call__(self, x: Tensor) -> Tensor:
        """[T, inputs] → [T, outputs] in the weight's dtype."""
        if self._packed:
            product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self._weight, self._bias, "none", (), "")
            return product
        return F.linear(x, self._weight, self._bias)


def _can_pack(weight: Tensor) -> bool:
    """Whether oneDNN can store this weight in its own layout."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        # oneDNN's bfloat16 kernels need AVX-512; F.linear converts where they are missing.
        and (weight.dtype is torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    )
