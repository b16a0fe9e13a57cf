"""Matrices that the compiled kernels multiply with: 8 bits, 4 bits, and floats.

A number of a product depends on its row of activations and its row of the matrix alone, so that drafts change no
number. Products of integers are faster than those of floats at any number of rows, so prompts use them too; floats
leave prompts to torch.
"""

from __future__ import annotations

import ctypes
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from forelook.errors import InsufficientMemoryError
from forelook.model.forward.native.kernels import Kernels
from forelook.model.forward.native.large_pages import in_large_pages
from forelook.model.forward.quantized import Matrix8
from forelook.model.quantization import GROUP_SIZE, Groups4, Rows8

MAX_ROWS = 64
"""Up to as many tokens a step is one call of the kernels, and floats are multiplied by them; chosen, not measured."""

INPUTS_MULTIPLE = 32
"""What the number of inputs of every matrix must be a multiple of."""

_FLOAT32, _BFLOAT16, _ROWS8, _GROUPS4 = range(4)  # as in matrix.h
_GROUPS_MULTIPLE = 8  # groups of a row are padded to it


@cache
def has_half_products() -> bool:
    """Whether the processor multiplies bfloat16 by itself; elsewhere torch's products of it take many times as long."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


class MatrixStruct(ctypes.Structure):
    """``Matrix`` of matrix.h."""

    _fields_ = (
        ("format", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("minima", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


class NativeMatrix:
    """What all formats share.

    Attributes:
        num_outputs, num_inputs: its shape.
        nbytes: memory in bytes.
        dtype: of activations.
        kernels: the compiled functions.
    """

    num_outputs: int
    num_inputs: int
    nbytes: int
    dtype: torch.dtype
    kernels: Kernels
    _format: int
    _parts: tuple[Tensor, ...]  # codes, scales, minima

    def struct(self, bias: Tensor | None = None) -> MatrixStruct:
        """The matrix for a kernel; it points into tensors that this object and the caller keep.

        Args:
            bias: [outputs] float32.
        """
        pointers = [part.data_ptr() for part in self._parts] + [None] * (3 - len(self._parts))
        return MatrixStruct(
            self._format, self.num_outputs, self.num_inputs, *pointers, None if bias is None else bias.data_ptr()
        )

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x @ matrix.T + bias``."""
        rows = x.to(torch.float32).contiguous()
        product = torch.empty(x.shape[0], self.num_outputs)
        struct = self.struct()
        failed = self.kernels.product(
            ctypes.addressof(struct), rows.data_ptr(), rows.shape[0], product.data_ptr(), torch.get_num_threads()
        )
        if failed:
            raise InsufficientMemoryError("a product ran out of memory; close other programs or choose a smaller model")
        if bias is not None:
            product.add_(bias)
        return product.to(self.dtype)


class NativeRows8(NativeMatrix, Matrix8):
    """A matrix of one byte per weight and one scale per row; activations are integers of 15 bits."""

    def __init__(self, rows: Rows8, dtype: torch.dtype, kernels: Kernels) -> None:
        """Store a matrix whose inputs are a multiple of :data:`INPUTS_MULTIPLE`."""
        Matrix8.__init__(self, Rows8(in_large_pages(rows.codes), in_large_pages(rows.scales.float())), dtype)
        self.kernels, self._format = kernels, _ROWS8
        self._parts = (self._codes, self._scales)


class NativeGroups4(NativeMatrix):
    """A matrix of half a byte per weight, with a scale and a minimum per row and group of inputs."""

    def __init__(self, groups: Groups4, dtype: torch.dtype, kernels: Kernels) -> None:
        """Store a matrix in groups of :data:`~forelook.model.quantization.GROUP_SIZE`."""
        self.num_outputs, self.num_inputs = groups.codes.shape
        self.dtype = dtype
        self.kernels, self._format = kernels, _GROUPS4
        pairs = groups.codes.view(self.num_outputs, -1, 2, GROUP_SIZE // 2)
        packed = (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).view(self.num_outputs, -1)
        padding = (0, -groups.scales.shape[1] % _GROUPS_MULTIPLE)
        scales, minima = (F.pad(part, padding).to(torch.float16) for part in (groups.scales, groups.minima))
        self._parts = (in_large_pages(packed), in_large_pages(scales), in_large_pages(minima))
        self.nbytes = sum(part.nbytes for part in self._parts)


def as_stored(groups: Groups4) -> Groups4:
    """A matrix with scales and minima as :class:`NativeGroups4` rounds them; those of a GGUF file are so already."""
    scales, minima = (part.to(torch.float16).float() for part in (groups.scales, groups.minima))
    return Groups4(groups.codes, scales, minima)


class NativeFloats(NativeMatrix):
    """A matrix in float32 or bfloat16, multiplied in float32."""

    device = torch.device("cpu")

    def __init__(self, weight: Tensor, kernels: Kernels) -> None:
        """Store an [outputs, inputs] matrix whose inputs are a multiple of :data:`INPUTS_MULTIPLE`."""
        self.num_outputs, self.num_inputs = weight.shape
        self.dtype, self.nbytes = weight.dtype, weight.nbytes
        self.kernels, self._format = kernels, _FLOAT32 if weight.dtype is torch.float32 else _BFLOAT16
        self._parts = (in_large_pages(weight),)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x @ matrix.T + bias``."""
        weight = self._parts[0]
        if x.shape[0] <= MAX_ROWS:
            return super().product(x, bias)
        if weight.dtype is torch.float32 or has_half_products():
            return F.linear(x, weight, bias)
        return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(self.dtype)

    def rows(self, ids: Tensor) -> Tensor:
        """The rows of ids."""
        return self._parts[0].index_select(0, ids)
