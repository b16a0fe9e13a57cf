"""The likeliest tokens of each row of logits: what a step's forward says beyond the tokens it accepts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

_GROUPS = 256


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
        logits: [R, V].
        num_kept: maximum number per row.
    """
    num_kept = min(num_kept, logits.shape[-1])
    if logits.device.type == "cpu":
        tokens, values = _likeliest_on_host(logits.numpy(), num_kept)
    else:
        best = logits.topk(num_kept, dim=-1)
        # one copy: ids are exact in float64
        both = torch.stack([best.indices.double(), best.values.double()]).cpu().numpy()
        tokens, values = both[0].astype(np.int64), both[1]
    weights = np.exp(values - values[:, :1])
    shares = weights / weights.sum(axis=1, keepdims=True)
    return [Likeliest(tuple(row), tuple(part)) for row, part in zip(tokens.tolist(), shares.tolist(), strict=True)]


def _likeliest_on_host(logits: np.ndarray, num_kept: int) -> tuple[np.ndarray, np.ndarray]:
    """[R, k] tokens and logits, best first; of equal ones the first token.

    The vocabulary is dealt out to groups; the best k tokens are in the k groups with the best maxima, so one scan
    for the maxima replaces a partition of the whole vocabulary.
    """
    num_rows, vocab_size = logits.shape
    if vocab_size < 4 * _GROUPS or num_kept >= _GROUPS:
        places = np.broadcast_to(np.arange(vocab_size), logits.shape)
        return _best(places, logits, num_kept)
    depth = vocab_size // _GROUPS
    whole = depth * _GROUPS
    maxima = logits[:, :whole].reshape(num_rows, depth, _GROUPS).max(axis=1)
    groups = np.argpartition(-maxima, num_kept - 1, axis=1)[:, :num_kept]
    places = (groups[:, :, None] + np.arange(depth) * _GROUPS).reshape(num_rows, -1)
    if whole < vocab_size:
        rest = np.broadcast_to(np.arange(whole, vocab_size), (num_rows, vocab_size - whole))
        places = np.concatenate([places, rest], axis=1)
    return _best(places, np.take_along_axis(logits, places, axis=1), num_kept)


def _best(places: np.ndarray, values: np.ndarray, num_kept: int) -> tuple[np.ndarray, np.ndarray]:
    kept = np.argpartition(-values, num_kept - 1, axis=1)[:, :num_kept]
    places, values = np.take_along_axis(places, kept, axis=1), np.take_along_axis(values, kept, axis=1)
    order = np.lexsort((places, -values), axis=1)
    return np.take_along_axis(places, order, axis=1), np.take_along_axis(values, order, axis=1)
