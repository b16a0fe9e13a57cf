"""Matrix products of the forward pass: a stored matrix and its bias."""

from __future__ import annotations

from torch import Tensor

from forelook.model.forward.matrix import Matrix, dense


class Projection:
    """``x @ matrix.T + bias``.

    Attributes:
        matrix: [outputs, inputs].
        bias: [outputs] or ``None``.
        num_outputs, num_inputs, nbytes: of both.
    """

    def __init__(self, matrix: Tensor | Matrix, bias: Tensor | None = None) -> None:
        """Store a matrix.

        Args:
            matrix: [outputs, inputs]; a tensor is laid out for its device, and the caller should then drop it.
            bias: [outputs], added to the product.
        """
        self.matrix = dense(matrix) if isinstance(matrix, Tensor) else matrix
        self.bias = bias
        self._product = self.matrix.product
        self.num_outputs, self.num_inputs = self.matrix.num_outputs, self.matrix.num_inputs
        self.nbytes = self.matrix.nbytes + (0 if bias is None else bias.nbytes)

    def shares(self, table: object) -> bool:
        """Whether the projection stores this very object and no copy of it."""
        return self.matrix is table

    def __call__(self, x: Tensor) -> Tensor:
        """[T, inputs] → [T, outputs] in the matrix's dtype."""
        return self._product(x, self.bias)
