"""A stored matrix, whatever its format: products with rows of activations, and rows looked up by index."""
# ruff: noqa: SLF001

from __future__ import annotations

import os
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from forelook.model.quantization import stored_bytes

# An operator is compiled per number of rows. oneDNN keeps 1024 of them, and so does torch's layer above it: half a
# megabyte each, for every length that a prompt ever had. Decode steps need some 70. Both read their limit at first use.
# measured: docs/decisions.md, "Compiled operators were most of the memory"
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.putenv(_name, "96")

# Rows of input for which the blocked layout is chosen: a decode step. A prefill was measured to be as fast with it.
_LAYOUT_ROWS = 16


class Matrix(Protocol):
    """An [outputs, inputs] matrix.

    Attributes:
        num_outputs: number of rows.
        num_inputs: number of columns.
        nbytes: memory in bytes.
    """

    num_outputs: int
    num_inputs: int
    nbytes: int

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x @ matrix.T + bias``: [T, inputs] → [T, outputs]."""


class RowTable(Protocol):
    """A matrix whose rows can be looked up: an embedding.

    Attributes:
        nbytes: memory in bytes.
        dtype: of the rows.
        device: of the rows.
    """

    nbytes: int
    dtype: torch.dtype
    device: torch.device

    def rows(self, ids: Tensor) -> Tensor:
        """The rows of ids, [T] → [T, inputs]."""


class DenseMatrix:
    """A tensor as it is, also one of torchao."""

    def __init__(self, weight: Tensor) -> None:
        """Keep an [outputs, inputs] weight."""
        self.num_outputs, self.num_inputs = weight.shape
        self.nbytes = stored_bytes(weight)
        self.dtype, self.device = weight.dtype, weight.device
        self._weight = weight

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x @ matrix.T + bias``."""
        return F.linear(x, self._weight, bias)

    def rows(self, ids: Tensor) -> Tensor:
        """The rows of ids."""
        return self._weight.index_select(0, ids)


class BlockedMatrix:
    """A weight on a CPU, stored only in oneDNN's blocked layout.

    In the small products of a decode step ``F.linear`` spends up to half of its time on a lookup and a re-ordering at
    every call; this layout avoids both. Torch's own compiler emits these two operators; they have no public name.
    """

    def __init__(self, weight: Tensor) -> None:
        """Store an [outputs, inputs] weight, which the caller should then drop."""
        self.num_outputs, self.num_inputs = weight.shape
        self.nbytes = weight.nbytes
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _LAYOUT_ROWS)

    @staticmethod
    def serves(weight: Tensor) -> bool:
        """Whether oneDNN can store this weight in its own layout."""
        return (
            weight.device.type == "cpu"
            and weight.dtype in (torch.float32, torch.bfloat16)
            and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
            and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
            # oneDNN's bfloat16 kernels need AVX-512; F.linear converts where they are missing.
            and (weight.dtype is torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))
        )

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x @ matrix.T + bias``."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self._weight, bias, "none", (), "")
        return product


def dense(weight: Tensor) -> Matrix:
    """A weight in the fastest layout for its device."""
    return BlockedMatrix(weight) if BlockedMatrix.serves(weight) else DenseMatrix(weight)
