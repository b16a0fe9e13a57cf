"""Low-rank differences of frozen weights (Hu et al., "LoRA", 2021), computed with the weights that they amount to.

A product is one product with the merged matrix, as it is where the adapter serves; the factors' gradients need only the
inputs' and outputs' projections to the rank. So the forward costs what that of the base does, and rounding to the
weights' type is that of the merged weights. After every step of the optimizer they are merged again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Part(nn.Module):
    """The difference ``scale · up @ down`` of a matrix ``[outputs, inputs]``; fresh ones are zero.

    Args:
        outputs, inputs: of the matrix.
        rank: of the difference.
        scale: of the product of the factors.
        generator: of the random numbers.
    """

    def __init__(self, outputs: int, inputs: int, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.scale = scale
        bound = 1 / math.sqrt(inputs)
        self.down = nn.Parameter(torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator))
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def added_to(self, weight: Tensor) -> Tensor:
        """A weight with the difference, summed in float32, in the weight's type."""
        return torch.addmm(weight.float(), self.up.float(), self.down.float(), alpha=self.scale).to(weight.dtype)


class LowRankTable(nn.Module):
    """The difference ``scale · left @ right`` of a table ``[vocab_size, hidden_size]``, and rows of it that are whole.

    Attributes:
        merged: the table with both.
        row_shares: of the whole rows' gradients what is learned from; zero for a row that stays as it is.

    Args:
        table: the frozen table; its rows ``row_ids`` are the whole rows' first values.
        row_ids: the tokens whose rows are trained whole: control tokens that text never contains.
        rank, scale, generator: as of a :class:`Part`.
    """

    def __init__(
        self, table: Tensor, row_ids: Sequence[int], rank: int, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.scale = scale
        self.left = nn.Parameter(torch.zeros(len(table), rank))
        self.right = nn.Parameter(torch.randn(rank, table.shape[1], generator=generator) / math.sqrt(rank))
        self.rows = nn.Parameter(table.detach()[list(row_ids)].cpu().float().clone())
        self.row_ids = torch.tensor(list(row_ids), device=table.device)
        self.row_shares = torch.ones(len(row_ids), 1, device=table.device, dtype=table.dtype)
        self.merged = torch.empty_like(table)

    def train_only_rows(self, ids: Sequence[int]) -> None:
        """Freeze the factors, and the whole rows of other tokens than ``ids``."""
        self.left.requires_grad_(requires_grad=False)
        self.right.requires_grad_(requires_grad=False)
        self.row_shares = torch.isin(self.row_ids, torch.tensor(list(ids)).to(self.row_ids))[:, None].to(self.merged)

    def merge(self, table: Tensor) -> None:
        """Take over the factors and rows as they are now."""
        merged = torch.addmm(table.float(), self.left.float(), self.right.float(), alpha=self.scale)
        merged[self.row_ids] = self.rows.float()
        self.merged = merged.to(table.dtype)


def low_rank_product(inputs: Tensor, merged: Tensor, bias: Tensor | None, parts: Sequence[Part]) -> Tensor:
    """The products of ``[tokens, inputs]`` with joined matrices, differentiable by the inputs and the factors.

    Args:
        inputs: one input of all matrices.
        merged: the matrices with their differences, joined along the outputs.
        bias: of the joined outputs; frozen.
        parts: the matrices' differences, in order.
    """
    factors = [factor for part in parts for factor in (part.down, part.up)]
    product: Tensor = _Product.apply(inputs, merged, bias, parts[0].scale, *factors)
    return product


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, merged: Tensor, bias: Tensor | None, scale: float, *factors: Tensor
    ) -> Tensor:
        ctx.save_for_backward(inputs, merged, *factors)
        ctx.scale = scale
        return F.linear(inputs, merged, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, merged, *factors = ctx.saved_tensors
        downs, ups = factors[::2], factors[1::2]
        outputs = gradients[0].split([len(up) for up in ups], 1)
        # The projections of all matrices in one product each: they are narrow.
        inner = (inputs @ torch.cat(downs).T).mul_(ctx.scale).split([len(down) for down in downs], 1)
        back = torch.cat([output @ up for output, up in zip(outputs, ups, strict=True)], 1).mul_(ctx.scale)
        grad_downs = (back.T @ inputs).split([len(down) for down in downs])
        grad_ups = [output.T @ each for output, each in zip(outputs, inner, strict=True)]
        pairs = (grad for pair in zip(grad_downs, grad_ups, strict=True) for grad in pair)
        return gradients[0] @ merged if ctx.needs_input_grad[0] else None, None, None, None, *pairs


def lookup(ids: Tensor, table: LowRankTable) -> Tensor:
    """The rows of tokens, differentiable by the factors and the whole rows."""
    rows: Tensor = _Lookup.apply(ids, table.merged, table.scale, table.left, table.right, table.rows, table.row_ids)
    return rows


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        ids: Tensor,
        merged: Tensor,
        scale: float,
        left: Tensor,
        right: Tensor,
        _rows: Tensor,
        row_ids: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(ids, left, right, row_ids)
        ctx.scale = scale
        return F.embedding(ids, merged)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        ids, left, right, row_ids = ctx.saved_tensors
        gradient = gradients[0]
        # [tokens, whole rows]: which of them a token is.
        is_row = ids[:, None] == row_ids
        grad_rows = is_row.to(gradient.dtype).T @ gradient
        rest = gradient.masked_fill(is_row.any(1, keepdim=True), 0) * ctx.scale
        grad_left = torch.zeros_like(left).index_add_(0, ids, rest @ right.T)
        grad_right = left[ids].T @ rest
        return None, None, None, grad_left, grad_right, grad_rows, None
