"""The likeliest tokens of some rows of logits: what a step's forward says beyond the tokens it accepts."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Likeliest:
    """The likeliest tokens after one node, best first.

    Attributes:
        token_ids: the tokens.
        shares: their probabilities relative to all tokens that were kept, which for a model that is sure of a few
            tokens is close to the probability, and costs no sum over the vocabulary.
    """

    token_ids: tuple[int, ...]
    shares: tuple[float, ...]


def likeliest(logits: torch.Tensor, num_kept: int) -> list[Likeliest]:
    """The ``num_kept`` likeliest tokens of each row.

    Args:
        logits: [R, V]; a few rows only, as each takes some 0.1 ms on a CPU.
        num_kept: maximum number per row.
    """
    best = logits.topk(min(num_kept, logits.shape[-1]), dim=-1)
    shares = best.values.softmax(dim=-1)
    both = torch.stack([best.indices.double(), shares.double()]).tolist()  # one copy: ids are exact in float64
    return [Likeliest(tuple([int(token) for token in tokens]), tuple(row)) for tokens, row in zip(*both, strict=True)]
