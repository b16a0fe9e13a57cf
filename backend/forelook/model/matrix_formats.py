"""The formats in which a model's matrices are kept: as they are, or in 8 or 4 bits."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from forelook.errors import UnsupportedArchitectureError
from forelook.model.forward.kernel_choice import PLAIN, kernel_choice, matrix4, matrix8
from forelook.model.forward.matrix import BlockedMatrix, DenseMatrix, Matrix, RowTable, dense
from forelook.model.forward.native.kernels import Kernels
from forelook.model.forward.native.matrices import NativeFloats, NativeGroups4, NativeRows8
from forelook.model.forward.quantized import Matrix4, Matrix8, converted
from forelook.model.quantization import Groups4, Quantize, Rows8, quantize_groups, quantize_rows


class MatrixFormat(Protocol):
    """A way to keep matrices.

    Attributes:
        read_dtype: in which it needs them.
        takes_groups: whether it keeps 4-bit groups as they are in a file.
        keeps_tensors: whether it keeps the tensors that it is given, rather than what it makes of them.
    """

    read_dtype: torch.dtype
    takes_groups: bool
    keeps_tensors: bool

    def layer(self, weight: Tensor) -> Matrix:
        """Keep an [outputs, inputs] matrix of a layer."""

    def layer_of_groups(self, groups: Groups4) -> Matrix:
        """Keep a matrix of a layer that is in 4 bits already."""

    def embedding(self, weight: Tensor) -> RowTable:
        """Keep a [V, C] embedding."""

    def head(self, weight: Tensor) -> Matrix:
        """Keep a [V, C] head."""

    def tied_head(self, table: RowTable, weight: Tensor) -> Matrix:
        """The head of a model whose embedding, kept as a table, is also its head."""


class PlainFormat:
    """Matrices as they are, laid out for their device."""

    takes_groups = False
    keeps_tensors = True

    def __init__(self, dtype: torch.dtype) -> None:
        self.read_dtype = dtype

    def layer(self, weight: Tensor) -> Matrix:
        """Keep a matrix of a layer."""
        return dense(weight)

    def layer_of_groups(self, groups: Groups4) -> Matrix:
        """Keep a matrix of a layer as floats."""
        return self.layer(groups.floats(self.read_dtype))

    def embedding(self, weight: Tensor) -> RowTable:
        """Keep an embedding."""
        return DenseMatrix(weight)

    def head(self, weight: Tensor) -> Matrix:
        """Keep a head."""
        return dense(weight)

    def tied_head(self, table: RowTable, weight: Tensor) -> Matrix:
        """The embedding itself, or a copy in oneDNN's layout, which no row can be read from."""
        if isinstance(table, DenseMatrix) and not BlockedMatrix.serves(weight):
            return table
        return dense(weight)


class TorchaoFormat(PlainFormat):
    """Matrices of the layers by torchao, embedding and head as they are."""

    def __init__(self, dtype: torch.dtype, quantize: Quantize) -> None:
        super().__init__(dtype)
        self._quantize = quantize

    def layer(self, weight: Tensor) -> Matrix:
        """Keep a matrix of a layer."""
        return DenseMatrix(self._quantize(weight))


class NativeFormat:
    """All matrices for the compiled kernels of a CPU: the layers in 8 or 4 bits, embedding and head in 8; or floats."""

    def __init__(self, kind: str, dtype: torch.dtype, kernels: Kernels) -> None:
        """Choose a format.

        Args:
            kind: ``"int8"``, ``"int4"``, or :data:`~forelook.model.forward.kernel_choice.PLAIN` for floats.
            dtype: of activations, and of floats.
            kernels: the compiled functions.
        """
        self._kind, self._dtype, self._kernels = kind, dtype, kernels
        self.keeps_tensors = kind == PLAIN
        self.read_dtype = dtype if kind == PLAIN else torch.float32
        self.takes_groups = kind == "int4"

    def layer(self, weight: Tensor) -> Matrix:
        """Keep a matrix of a layer."""
        return self.layer_of_groups(quantize_groups(weight)) if self.takes_groups else self._table(weight)

    def layer_of_groups(self, groups: Groups4) -> Matrix:
        """Keep a matrix of a layer that is in 4 bits already."""
        return NativeGroups4(groups, self._dtype, self._kernels)

    def embedding(self, weight: Tensor) -> RowTable:
        """Keep an embedding."""
        return self._table(weight)

    def head(self, weight: Tensor) -> Matrix:
        """Keep a head."""
        return self._table(weight)

    def tied_head(self, table: RowTable, weight: Tensor) -> Matrix:  # noqa: ARG002
        """The embedding itself."""
        assert isinstance(table, NativeRows8 | NativeFloats), "the table is this format's own"
        return table

    def _table(self, weight: Tensor) -> NativeRows8 | NativeFloats:
        if self._kind == PLAIN:
            return NativeFloats(weight, self._kernels)
        return NativeRows8(quantize_rows(weight), self._dtype, self._kernels)


class CpuQuantizedFormat:
    """All matrices in torch's quantized formats of a CPU: the layers in 8 or 4 bits, embedding and head in 8.

    A matrix for which no kernel is faster than floats on this machine is converted back, to the same numbers.
    """

    read_dtype = torch.float32
    keeps_tensors = False

    def __init__(self, kind: str, dtype: torch.dtype, *, is_cold: bool) -> None:
        """Choose a format.

        Args:
            kind: ``"int8"`` or ``"int4"``.
            dtype: of activations.
            is_cold: whether the model is larger than the caches.
        """
        self.takes_groups = kind == "int4"
        self._dtype = dtype
        self._is_cold = is_cold

    def layer(self, weight: Tensor) -> Matrix:
        """Keep a matrix of a layer."""
        if self.takes_groups:
            Matrix4.check_shape(*weight.shape)
            return self.layer_of_groups(quantize_groups(weight))
        return self.head(weight)

    def layer_of_groups(self, groups: Groups4) -> Matrix:
        """Keep a matrix of a layer that is in 4 bits already."""
        outputs, inputs = groups.codes.shape
        Matrix4.check_shape(outputs, inputs)
        choice = kernel_choice("int4", (outputs, inputs), self._dtype, is_cold=self._is_cold)
        matrix = matrix4(groups, self._dtype, choice)
        return converted(matrix) if choice.kernel == PLAIN else matrix

    def embedding(self, weight: Tensor) -> Matrix8:
        """Keep an embedding."""
        return Matrix8(quantize_rows(_checked(weight)), self._dtype)

    def head(self, weight: Tensor) -> Matrix:
        """Keep a head."""
        return self._fastest(quantize_rows(_checked(weight)))

    def tied_head(self, table: RowTable, weight: Tensor) -> Matrix:  # noqa: ARG002
        """The embedding itself, or a copy of it for a kernel that cannot read rows."""
        assert isinstance(table, Matrix8), "the table is this format's own"
        head = self._fastest(table.stored)
        return table if isinstance(head, Matrix8) else head

    def _fastest(self, rows: Rows8) -> Matrix:
        outputs, inputs = rows.codes.shape
        choice = kernel_choice("int8", (outputs, inputs), self._dtype, is_cold=self._is_cold)
        if choice.kernel == PLAIN:
            return converted(Matrix8(rows, self._dtype))
        return matrix8(rows, self._dtype, choice)


def _checked(weight: Tensor) -> Tensor:
    outputs, inputs = weight.shape
    if not Matrix8.serves(inputs):
        raise UnsupportedArchitectureError(
            f"int8 needs matrices whose input size is a multiple of 16, and one is {outputs} x {inputs}; choose dtype "
            "float32"
        )
    return weight
