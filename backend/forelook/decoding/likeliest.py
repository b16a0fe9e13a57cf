"""The likeliest tokens of some rows of logits: what a step's forward says beyond the tokens it accepts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from forelook.decoding.layout import IntArray
from forelook.decoding.native.library import native_likeliest

_STRIPES = (
    64  # chosen, not measured; what it saves: docs/decisions.md, "The likeliest tokens without sorting a vocabulary"
)


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


def likeliest(logits: torch.Tensor, rows: Sequence[int], num_kept: int) -> list[Likeliest]:
    """The ``num_kept`` likeliest tokens of some rows.

    Args:
        logits: [R, V].
        rows: which of the R; a few.
        num_kept: maximum number per row.
    """
    num_kept = min(num_kept, logits.shape[-1])
    if logits.device.type == "cpu":
        scan = native_likeliest().functions
        scanned = None if scan is None else scan(logits, rows, num_kept)
        if scanned is not None:
            return [_of(*row) for row in scanned]
        chosen = [logits[row].numpy() for row in rows]
        best = [_largest(row, num_kept) for row in chosen]
        return [_of(ids.tolist(), row[ids].tolist()) for row, ids in zip(chosen, best, strict=True)]
    found = logits[list(rows)].topk(num_kept, dim=-1)
    both = torch.stack([found.indices.double(), found.values.double()]).tolist()  # one copy: ids are exact in float64
    return [_of([int(token) for token in tokens], values) for tokens, values in zip(*both, strict=True)]


def _of(token_ids: list[int], logits: list[float]) -> Likeliest:
    weights = [math.exp(value - logits[0]) for value in logits]
    total = sum(weights)
    return Likeliest(tuple(token_ids), tuple([weight / total for weight in weights]))


def _largest(row: npt.NDArray[np.floating], count: int) -> IntArray:
    """The places of the ``count`` largest values of a row [V], the largest first.

    The row is cut into stripes that lie above each other. A column without one of the largest maxima has none of the
    largest values, so the maxima of all columns, which numpy finds in one pass, leave a few hundred candidates.
    """
    width = len(row) // _STRIPES
    if width <= count:
        places: IntArray = np.arange(len(row))
    else:
        maxima = row[: width * _STRIPES].reshape(_STRIPES, width).max(axis=0)
        columns = np.argpartition(maxima, width - count)[width - count :]
        striped = (columns + width * np.arange(_STRIPES)[:, None]).ravel()
        places = np.concatenate([striped, np.arange(width * _STRIPES, len(row))])
    values = row[places]
    if len(values) > count:
        kept = np.argpartition(values, len(values) - count)[len(values) - count :]
        places, values = places[kept], values[kept]
    best: IntArray = places[np.argsort(-values, kind="stable")]
    return best
