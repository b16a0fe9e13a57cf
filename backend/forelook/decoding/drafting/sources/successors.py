"""The model's own earlier choices after the same last tokens: drafts that every forward yields for free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from forelook.decoding.drafting.calibration import AcceptanceCalibration
from forelook.decoding.drafting.draft import DraftOrigin
from forelook.decoding.layout import IntArray, StepModel, lay_out
from forelook.errors import ConfigError

# Chosen, not measured, except that successors pay: docs/decisions.md, "Drafting".
_MAX_CONTEXT = 3
_KEPT = 3
_MAX_GUESSES = 6
_MAX_KEYS = 150_000
_ID_BITS = 24  # token ids are smaller

# by (tokens of context, place in the list): the place replaces the share of the evidence
_CELLS = tuple(
    tuple(AcceptanceCalibration.cell(DraftOrigin.SUCCESSOR, order, 1.0 - 0.3 * place) for place in range(_KEPT))
    for order in range(_MAX_CONTEXT + 1)
)


@dataclass(frozen=True, eq=False)
class SuccessorSeeds:
    """The model's choices after each token of its vocabulary alone: drafts of last resort.

    Attributes:
        token_ids: [V, K] most probable successors of each token, best first.
        probabilities: [V, K] how probable.
    """

    token_ids: IntArray
    probabilities: np.ndarray

    def __post_init__(self) -> None:
        if self.token_ids.ndim != 2 or self.token_ids.shape != self.probabilities.shape:
            raise ConfigError("token_ids.shape", self.token_ids.shape, f"{self.probabilities.shape}, two-dimensional")


def measure_successor_seeds(
    model: StepModel, start_ids: list[int], *, batch_size: int = 128, num_kept: int = _KEPT
) -> SuccessorSeeds:
    """Compute what follows each token alone, many tokens per forward: siblings do not see each other.

    Args:
        model: its cache is emptied first, and left empty.
        start_ids: the beginning of every prompt, usually the start token; may be empty.
        batch_size: tokens per forward, the start token included: a size that a GPU has a captured step for.
        num_kept: successors kept per token.
    """
    model.truncate(0)
    successors = np.zeros((model.vocab_size, num_kept), dtype=np.int64)
    probabilities = np.zeros((model.vocab_size, num_kept), dtype=np.float32)
    # without a start token, each batch follows its own first token
    num_per_batch = min(batch_size, model.max_positions) - max(1, len(start_ids))
    for first in range(0, model.vocab_size, num_per_batch):
        ids = list(range(first, min(first + num_per_batch, model.vocab_size)))
        pending = start_ids or ids[:1]
        logits = model.forward(lay_out(pending, 0, ids, [0] * len(ids)))[1:]
        top = torch.softmax(logits.float(), dim=-1).topk(num_kept, dim=-1)
        successors[ids] = top.indices.cpu().numpy()
        probabilities[ids] = top.values.cpu().numpy()
    return SuccessorSeeds(successors, probabilities)


Ending = tuple[int, int, int]
"""The last one, two and three tokens of a text, each packed into one integer: cheap to extend and to look up."""


def ending_of(token_ids: Sequence[int]) -> Ending:
    """The ending of a text of any length."""
    ending = (0, 0, 0)
    for token in token_ids[-_MAX_CONTEXT:]:
        ending = ending_then(ending, token)
    return ending


def ending_then(ending: Ending, token: int) -> Ending:
    """The ending after one more token."""
    return token, ending[0] << _ID_BITS | token, ending[1] << _ID_BITS | token


class SuccessorTable:
    """Last one, two and three tokens → the successors the model chose most recently, latest first.

    A step's forward computes the model's choice after every draft node, accepted or not. These choices are free drafts
    wherever the same tokens recur, in this request or a later one.

    Args:
        seeds: guesses after a token that was not seen yet.
        max_keys: maximum number of contexts per length; the oldest quarter is dropped when it is exceeded.
    """

    def __init__(self, seeds: SuccessorSeeds | None = None, max_keys: int = _MAX_KEYS) -> None:
        self._seeds = seeds
        self._max_keys = max_keys
        self._by_length: tuple[dict[int, list[int]], ...] = tuple({} for _ in range(_MAX_CONTEXT))
        self._seed_cells: dict[int, list[tuple[int, int]]] = {}

    def __len__(self) -> int:
        return sum(len(lists) for lists in self._by_length)

    def learn(self, ending: Ending, successor: int) -> None:
        """The model chose ``successor`` after this ending."""
        for lists, key in zip(self._by_length, ending, strict=True):
            known = lists.get(key)
            if known is None:
                lists[key] = [successor]
                if len(lists) > self._max_keys:
                    for old in list(lists)[: self._max_keys // 4]:
                        del lists[old]
            elif known[0] != successor:
                if successor in known:
                    known.remove(successor)
                elif len(known) == _KEPT:
                    known.pop()
                known.insert(0, successor)

    def successors(self, ending: Ending) -> list[tuple[int, int]]:
        """Successors known after this ending, each with its calibration cell, the longest known context first."""
        found: list[tuple[int, int]] = []
        seen: set[int] = set()
        for order in (2, 1, 0):
            known = self._by_length[order].get(ending[order])
            if known is not None:
                cells = _CELLS[order + 1]
                for place, token in enumerate(known):
                    if token not in seen:
                        seen.add(token)
                        found.append((token, cells[place]))
        if not found:
            return self._seeds_of(ending[0])
        if len(found) < _MAX_GUESSES:
            found += [pair for pair in self._seeds_of(ending[0]) if pair[0] not in seen]
        return found

    def _seeds_of(self, token: int) -> list[tuple[int, int]]:
        known = self._seed_cells.get(token)
        if known is None:
            known = []
            if self._seeds is not None:
                row = zip(self._seeds.token_ids[token].tolist(), self._seeds.probabilities[token].tolist(), strict=True)
                best: dict[int, int] = {}
                for successor, probability in row:
                    best.setdefault(successor, AcceptanceCalibration.cell(DraftOrigin.SUCCESSOR, 0, probability))
                known = list(best.items())
            self._seed_cells[token] = known
        return known
