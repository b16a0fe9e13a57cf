"""Cross-entropy of a head, in blocks of rows whose gradients are computed on the way forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.low_rank import LowRankTable

_MAX_LOGITS = 1 << 24


def logit_rows(vocab_size: int) -> int:
    """Rows of a block of logits: as many as a CPU's memory likes."""
    return max(16, _MAX_LOGITS // vocab_size)


def cross_entropy(
    hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, table: LowRankTable | None
) -> tuple[Tensor, Tensor]:
    """Weighted mean loss in nats, and each row's loss, without gradient.

    Args:
        hidden: ``[rows, hidden_size]``.
        head: ``[vocab_size, hidden_size]``; its gradient is computed where it is trained itself.
        targets: ``[rows]``.
        weights: ``[rows]`` float32.
        table: the head's low-rank difference and whole rows, whose gradients are computed instead, without one of the
            head's size.
    """
    if table is None:
        whole: tuple[Tensor, Tensor] = _Whole.apply(hidden, head, targets, weights)
        return whole
    low_rank: tuple[Tensor, Tensor] = _LowRank.apply(
        hidden,
        head,
        targets,
        weights,
        table.scale,
        table.left,
        table.right,
        table.rows,
        table.row_ids,
        table.row_shares,
    )
    return low_rank


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        shares = weights / weights.sum().clamp_min(1e-9)
        grad_hidden, grad_head = torch.empty_like(hidden), torch.zeros_like(head, dtype=torch.float32)
        per_token = torch.empty_like(weights)
        for rows in _blocks(len(hidden), len(head)):
            share = shares[rows, None].to(hidden.dtype)
            gradient, per_token[rows] = _gradient(hidden[rows], head, targets[rows])
            grad_hidden[rows] = (gradient @ head) * share
            grad_head += (gradient.T @ (hidden[rows] * share)).float()
        ctx.save_for_backward(grad_hidden, grad_head.to(head.dtype))
        ctx.mark_non_differentiable(per_token)
        return (per_token * shares).sum(), per_token

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        scale = gradients[0].to(grad_hidden.dtype)
        return grad_hidden * scale, grad_head * scale, None, None


class _LowRank(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        weights: Tensor,
        scale: float,
        left: Tensor,
        right: Tensor,
        whole_rows: Tensor,
        row_ids: Tensor,
        row_shares: Tensor,
    ) -> tuple[Tensor, Tensor]:
        shares = weights / weights.sum().clamp_min(1e-9)
        grad_hidden = torch.empty_like(hidden)
        grad_left, grad_right, grad_rows = (
            torch.zeros_like(part, dtype=torch.float32) for part in (left, right, whole_rows)
        )
        per_token = torch.empty_like(weights)
        for rows in _blocks(len(hidden), len(head)):
            share = shares[rows, None].to(hidden.dtype)
            gradient, per_token[rows] = _gradient(hidden[rows], head, targets[rows])
            grad_hidden[rows] = (gradient @ head) * share
            weighted = hidden[rows] * share
            grad_rows += (gradient[:, row_ids].T @ weighted).float() * row_shares
            if not left.requires_grad:
                continue
            gradient[:, row_ids] = 0  # these rows replace what the low rank says of them
            grad_left += (gradient.T @ (weighted @ right.T)).float()
            grad_right += ((gradient @ left).T @ weighted).float()
        grad_left *= scale
        grad_right *= scale
        ctx.save_for_backward(grad_hidden, *(grad.to(head.dtype) for grad in (grad_left, grad_right, grad_rows)))
        ctx.mark_non_differentiable(per_token)
        return (per_token * shares).sum(), per_token

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale = gradients[0].to(ctx.saved_tensors[0].dtype)
        grad_hidden, *others = (saved * scale for saved in ctx.saved_tensors)
        return grad_hidden, None, None, None, None, *others, None, None


def _blocks(num_rows: int, vocab_size: int) -> list[slice]:
    size = logit_rows(vocab_size)
    return [slice(start, start + size) for start in range(0, num_rows, size)]


def _gradient(hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of each row's loss by its logits, and the loss in nats."""
    # Everything of the size of the logits stays in the weights' type: on a CPU this is bound by memory.
    gradient = (hidden @ head.T).softmax(-1)
    wanted = targets[:, None]
    likely = gradient.gather(1, wanted)
    # One target a row: no adding up, which in bfloat16 would copy all of it to float32 and back.
    gradient.scatter_(1, wanted, likely - 1)
    return gradient, -likely.squeeze(1).float().clamp_min(1e-30).log()
