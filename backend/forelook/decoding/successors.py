"""What the model itself said after the same last tokens: drafts that a step's forward yields for nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from forelook.decoding.calibration import AcceptanceCalibration
from forelook.decoding.drafts import DraftOrigin
from forelook.decoding.step_layout import IntArray, StepModel, lay_out
from forelook.errors import ConfigError

SUCCESSOR_CONTEXT = 3
"""Most last tokens that a successor is looked up by."""

_KEPT = 3
_MAX_KEYS = 150_000

# by (tokens of context, place in the list): the place stands in for the share of the evidence
_CELLS = tuple(
    tuple(AcceptanceCalibration.cell(DraftOrigin.SUCCESSOR, order, 1.0 - 0.3 * place) for place in range(_KEPT))
    for order in range(SUCCESSOR_CONTEXT + 1)
)


@dataclass(frozen=True, eq=False)
class SuccessorSeeds:
    """What the model says after each token of its vocabulary alone: a draft where nothing else is known.

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
    """Ask the model what follows each token alone, many tokens to a forward: siblings do not see each other.

    Args:
        model: its cache is emptied first, and left empty.
        start_ids: what opens every prompt, usually the start token; may be empty.
        batch_size: tokens per forward.
        num_kept: successors kept per token.
    """
    model.truncate(0)
    successors = np.zeros((model.vocab_size, num_kept), dtype=np.int64)
    probabilities = np.zeros((model.vocab_size, num_kept), dtype=np.float32)
    # without a start token, each batch stands behind its own first token
    batch_size = min(batch_size, model.max_positions - max(1, len(start_ids)))
    for first in range(0, model.vocab_size, batch_size):
        ids = list(range(first, min(first + batch_size, model.vocab_size)))
        pending = start_ids or ids[:1]
        logits = model.forward(lay_out(pending, 0, ids, [0] * len(ids)))[1:]
        top = torch.softmax(logits.float(), dim=-1).topk(num_kept, dim=-1)
        successors[ids] = top.indices.cpu().numpy()
        probabilities[ids] = top.values.cpu().numpy()
    return SuccessorSeeds(successors, probabilities)


class SuccessorTable:
    """Last one, two and three tokens → the successors the model chose most recently, latest first.

    A step's forward computes the model's choice after every draft node, accepted or not. Kept, these choices are free
    drafts wherever the same tokens come up again, in this request or a later one.

    Args:
        seeds: what to guess after a token that was not seen yet.
        max_keys: most contexts kept; a quarter, the oldest, goes when it is exceeded.
    """

    def __init__(self, seeds: SuccessorSeeds | None = None, max_keys: int = _MAX_KEYS) -> None:
        self._seeds = seeds
        self._max_keys = max_keys
        self._lists: dict[tuple[int, ...], list[int]] = {}
        self._seed_lists: dict[int, list[tuple[int, int]]] = {}

    def __len__(self) -> int:
        return len(self._lists)

    def learn(self, before: tuple[int, ...], successor: int) -> None:
        """The model chose ``successor`` after the tokens ``before``, of which there are at most three."""
        lists = self._lists
        for order in range(1, len(before) + 1):
            key = before[-order:]
            known = lists.get(key)
            if known is None:
                lists[key] = [successor]
            elif known[0] != successor:
                if successor in known:
                    known.remove(successor)
                elif len(known) == _KEPT:
                    known.pop()
                known.insert(0, successor)
        if len(lists) > self._max_keys:
            for key in list(lists)[: self._max_keys // 4]:
                del lists[key]

    def successors(self, before: tuple[int, ...]) -> dict[int, int]:
        """Successors known after these tokens, each with its calibration cell, the longest known context first."""
        found: dict[int, int] = {}
        if not before:
            return found
        lists = self._lists
        for order in range(len(before), 0, -1):
            known = lists.get(before[-order:])
            if known is not None:
                cells = _CELLS[order]
                for place, token in enumerate(known):
                    if token not in found:
                        found[token] = cells[place]
        for token, cell in self._seeds_of(before[-1]):
            if token not in found:
                found[token] = cell
        return found

    def _seeds_of(self, token: int) -> list[tuple[int, int]]:
        known = self._seed_lists.get(token)
        if known is None:
            known = []
            if self._seeds is not None:
                row = zip(self._seeds.token_ids[token].tolist(), self._seeds.probabilities[token].tolist(), strict=True)
                known = [
                    (successor, AcceptanceCalibration.cell(DraftOrigin.SUCCESSOR, 0, probability))
                    for successor, probability in row
                ]
            self._seed_lists[token] = known
        return known
