"""Matrices in 8 and 4 bits on a CPU, for three kernels that torch has.

A row's result does not depend on the other rows: each row has its own sums, in one order. So a token gets the same
numbers whatever tail it is in, up to :data:`STEP_ROWS` rows. Beyond them, a measured number of rows decides whether the
matrix is converted to floats first, as a prefill wants it.
"""
# ruff: noqa: SLF001

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor

from forelook.errors import UnsupportedArchitectureError
from forelook.model.forward.matrix import Matrix, dense
from forelook.model.quantization import GROUP_SIZE, Groups4, Rows8

STEP_ROWS = 16
"""Up to as many rows one kernel computes all products, so that drafts change no number."""

NEVER = 1 << 30
"""Number of rows from which a matrix is converted, if it is never."""

_HALF = torch.bfloat16  # of activations: the only one for which torch's kernels are vectorized on x86
_INPUTS_MULTIPLE = 16  # the 8-bit kernel reads 16 values at once
_OUTPUTS_MULTIPLE = 16  # of the 4-bit kernel
_MAX_DENSE_VALUES = 1 << 23  # converted to floats at once, to bound the memory; chosen, not measured
_PACKED_ROWS = 1 << 12  # packed at once, to bound the four bytes per value that the packing takes; chosen, not measured
_CPU = torch.device("cpu")

# Bytes of two activations times a weight must fit into 16 bits, in which AVX2 adds pairs: 2 * 127 * 127.
_LEVELS = 63
_ZERO_POINT = 64


class Matrix8:
    """A matrix of one byte per weight and one scale per row, for a kernel that multiplies in floats."""

    device = _CPU

    def __init__(self, rows: Rows8, dtype: torch.dtype, dense_from: int = NEVER) -> None:
        """Store a matrix.

        Args:
            rows: the matrix, of a shape that :meth:`serves` accepts.
            dtype: of activations, and of the floats that it is converted to.
            dense_from: number of rows from which it is.
        """
        self.num_outputs, self.num_inputs = rows.codes.shape
        self.nbytes = rows.codes.nbytes + rows.scales.nbytes
        self.dtype = dtype
        self._codes, self._scales, self._dense_from = rows.codes, rows.scales, dense_from

    @property
    def stored(self) -> Rows8:
        """The matrix."""
        return Rows8(self._codes, self._scales)

    @staticmethod
    def serves(num_inputs: int) -> bool:
        """Whether the kernel can read rows of a length."""
        return num_inputs % _INPUTS_MULTIPLE == 0

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x @ matrix.T + bias``."""
        if x.shape[0] >= self._dense_from:
            return _dense_product(self, x, bias)
        halves = x.to(_HALF).contiguous()
        product: Tensor = torch.ops.aten._weight_int8pack_mm(halves, self._codes, self._scales).to(self.dtype)
        return product if bias is None else product.add_(bias)

    def rows(self, ids: Tensor) -> Tensor:
        """The rows of ids."""
        scales = self._scales.index_select(0, ids).to(self.dtype)
        return self._codes.index_select(0, ids).to(self.dtype).mul_(scales.unsqueeze(1))

    def transposed(self, start: int, stop: int) -> Tensor:
        """Rows as floats: [inputs, stop - start]."""
        scales = self._scales[start:stop].to(self.dtype)
        return self._codes[start:stop].to(self.dtype).mul_(scales.unsqueeze(1)).t()


class IntegerMatrix8:
    """A matrix of one byte per weight and one scale per row, for a kernel that multiplies integers.

    Each row of activations is scaled to its own largest value and rounded to two bytes of 7 bits, which are two rows of
    one product: 14 bits, more than bfloat16 has. Sums of integers are exact.
    """

    def __init__(self, rows: Rows8, dtype: torch.dtype) -> None:
        """Store a matrix, whose codes the caller may drop.

        Args:
            rows: the matrix.
            dtype: of activations.
        """
        self.num_outputs, self.num_inputs = rows.codes.shape
        # The library keeps a sum and two scales per row besides.
        self.nbytes = rows.codes.nbytes + 16 * self.num_outputs
        self._dtype = dtype
        zeros = torch.zeros(self.num_outputs, dtype=torch.int64)
        with warnings.catch_warnings():  # torch plans to drop tensors with integers and scales; see `serves`
            warnings.simplefilter("ignore")
            codes = torch._make_per_channel_quantized_tensor(rows.codes, rows.scales.double(), zeros, 0)
            self._packed = torch.ops.quantized.linear_prepack(codes, None)

    @staticmethod
    @cache
    def serves() -> bool:
        """Whether torch has this kernel here, and it computes what it should."""
        rows = Rows8(torch.full((8, 64), 127, dtype=torch.int8), torch.ones(8, dtype=torch.bfloat16))
        try:
            found = IntegerMatrix8(rows, torch.float32).product(torch.ones(1, 64), None)
        except (AttributeError, RuntimeError, NotImplementedError):
            return False
        return bool((found - 64 * 127).abs().max() < 1)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x @ matrix.T + bias``."""
        num_rows = x.shape[0]
        unit = torch.linalg.vector_norm(x, float("inf"), 1, keepdim=True, dtype=torch.float32)
        unit = unit.clamp_(min=1e-30).mul_(1 / _LEVELS)
        scaled = torch.div(x, unit)
        high = scaled.round()
        halves = torch.cat((high, scaled.sub_(high).mul_(2 * _LEVELS)))
        both = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(halves, 1.0, _ZERO_POINT, self._packed)
        product: Tensor = both[:num_rows].add_(both[num_rows:], alpha=0.5 / _LEVELS).mul_(unit)
        if self._dtype is not torch.float32:
            product = product.to(self._dtype)
        return product if bias is None else product.add_(bias)


class Matrix4:
    """A matrix of half a byte per weight, with a scale and a zero point per row and group of inputs."""

    def __init__(self, groups: Groups4, dtype: torch.dtype, dense_from: int = NEVER) -> None:
        """Store a matrix.

        Args:
            groups: the matrix, of a shape that :meth:`check_shape` accepts.
            dtype: of activations, and of the floats that it is converted to.
            dense_from: number of rows from which it is.
        """
        self.num_outputs, self.num_inputs = groups.codes.shape
        self._packed = torch.cat(
            [
                torch.ops.aten._convert_weight_to_int4pack_for_cpu(part.to(torch.int32), 1)
                for part in torch.split(groups.codes, _PACKED_ROWS)
            ]
        )
        # The kernel computes (code - 8) * scale + zero.
        zeros = groups.minima + 8 * groups.scales
        self._scales_and_zeros = torch.stack([groups.scales, zeros], -1).transpose(0, 1).to(_HALF).contiguous()
        self._group_size = self.num_inputs // groups.scales.shape[1]
        self.nbytes = self._packed.nbytes + self._scales_and_zeros.nbytes
        self.dtype = dtype
        self._dense_from = dense_from

    @staticmethod
    def check_shape(num_outputs: int, num_inputs: int) -> None:
        """Raise if the kernel cannot multiply with a matrix.

        Raises:
            UnsupportedArchitectureError: states the shape.
        """
        if num_inputs % GROUP_SIZE or num_outputs % _OUTPUTS_MULTIPLE or _block_size() is None:
            raise UnsupportedArchitectureError(
                f"int4 needs matrices whose input size is a multiple of {GROUP_SIZE} and whose output size is one of "
                f"{_OUTPUTS_MULTIPLE}, and one is {num_outputs} x {num_inputs}; choose dtype int8"
            )

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x @ matrix.T + bias``."""
        if x.shape[0] >= self._dense_from:
            return _dense_product(self, x, bias)
        halves = x.to(_HALF).contiguous()
        product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            halves, self._packed, self._group_size, self._scales_and_zeros
        ).to(self.dtype)
        return product if bias is None else product.add_(bias)

    def transposed(self, start: int, stop: int) -> Tensor:
        """Rows as floats: [inputs, stop - start]; start is a multiple of 64."""
        block = _block_size()
        assert block is not None, "check_shape refuses what cannot be read back"
        codes = _unpacked(self._packed[start:stop], self.num_inputs, self.dtype, block)
        parameters = self._scales_and_zeros[:, start:stop].to(self.dtype)
        scales, zeros = parameters[..., 0].unsqueeze(1), parameters[..., 1].unsqueeze(1)
        groups = codes.view(-1, self._group_size, stop - start)
        return torch.addcmul(zeros - 8 * scales, groups, scales).view(self.num_inputs, stop - start)


_BLOCK_SIZES = (64, 32, 2)
"""Outputs per whole block: of AVX-512, of AVX2, and of kernels whose outputs are all adjacent."""


def _unpacked(packed: Tensor, num_inputs: int, dtype: torch.dtype, block: int) -> Tensor:
    """The codes of a packed matrix, [inputs, outputs].

    Blocks of outputs follow one another. A byte has two outputs of one input: those of a whole block are half a block
    apart, and those of a last, smaller block are adjacent.
    """
    outputs = packed.shape[0]
    codes = torch.empty(num_inputs, outputs, dtype=dtype)
    whole = outputs - outputs % block
    pairs = packed[:whole].view(-1, num_inputs, block // 2)
    target = codes[:, :whole].view(num_inputs, -1, 2, block // 2).transpose(0, 1)
    target[:, :, 0].copy_(pairs & 15)
    target[:, :, 1].copy_(pairs >> 4)
    if whole < outputs:
        pairs = packed[whole:].view(num_inputs, -1)
        codes[:, whole::2].copy_(pairs & 15)
        codes[:, whole + 1 :: 2].copy_(pairs >> 4)
    return codes


@cache
def _block_size() -> int | None:
    """Outputs per block of this machine's packed format, found by packing a known matrix; ``None`` if unknown."""
    generator = torch.Generator().manual_seed(0)
    shape = (_BLOCK_SIZES[0] + _OUTPUTS_MULTIPLE, GROUP_SIZE)
    codes = torch.randint(0, 16, shape, generator=generator, dtype=torch.int32)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    for block in _BLOCK_SIZES:
        if torch.equal(_unpacked(packed, GROUP_SIZE, torch.int32, block), codes.t()):
            return block
    return None


def _dense_product(matrix: Matrix8 | Matrix4, x: Tensor, bias: Tensor | None) -> Tensor:
    """A product with a matrix that is converted to floats, a part of its rows at a time."""
    step = max(64, _MAX_DENSE_VALUES // matrix.num_inputs // 64 * 64)
    if matrix.num_outputs <= step:
        product = x @ matrix.transposed(0, matrix.num_outputs)
    else:
        product = torch.empty(x.shape[0], matrix.num_outputs, dtype=matrix.dtype)
        for start in range(0, matrix.num_outputs, step):
            stop = min(start + step, matrix.num_outputs)
            product[:, start:stop] = x @ matrix.transposed(start, stop)
    return product if bias is None else product.add_(bias)


def converted(matrix: Matrix8 | Matrix4) -> Matrix:
    """A quantized matrix, which the caller may then drop, back in floats, where no kernel is faster than these."""
    weight = torch.empty(matrix.num_outputs, matrix.num_inputs, dtype=matrix.dtype)
    for start in range(0, matrix.num_outputs, _PACKED_ROWS):
        stop = min(start + _PACKED_ROWS, matrix.num_outputs)
        weight[start:stop] = matrix.transposed(start, stop).t()
    return dense(weight)
