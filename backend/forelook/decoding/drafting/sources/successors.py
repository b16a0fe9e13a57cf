"""The model's own earlier choices after the same last tokens: drafts that every forward yields for free."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np

from forelook.decoding.drafting.calibration import AcceptanceCalibration
from forelook.decoding.drafting.draft import DraftOrigin
from forelook.decoding.layout import BoolArray, IntArray, StepLayout, StepModel, causal_layout
from forelook.errors import ConfigError

# Chosen, not measured, except that successors pay: docs/decisions.md, "Drafting".
_MAX_CONTEXT = 3
_KEPT = 8
_MAX_OLDER = 3
_MAX_GUESSES = 6
_MAX_KEYS = 150_000
_ID_BITS = 24  # token ids are smaller

NUM_CHOICES = 4
"""The model's likeliest tokens of a row that are learned. Measured: docs/decisions.md, "Second and third choices of
every verified row"."""

_MIN_SHARE = 0.02  # likewise: of a choice that is learned

_MIN_NEW = 0.06
"""Likewise: least probability of a seed that the text around the cursor does not have. Measured: docs/decisions.md,
"Guesses that the text has already"."""

_SEED = 0
_LATEST = 0  # + tokens of context: what the model said last after these tokens, …
_OLDER = _MAX_CONTEXT  # … and its best choices before that
_PRESENT = 1 + 2 * _MAX_CONTEXT  # + any of these: guesses that the text around the cursor has already


def _cells(kind: int) -> tuple[tuple[int, int], ...]:
    """By eighth of the share: the calibration cells of guesses that the text does not have, and that it has."""
    return tuple(
        (
            AcceptanceCalibration.cell(DraftOrigin.SUCCESSOR, kind, (eighth + 0.5) / 8),
            AcceptanceCalibration.cell(DraftOrigin.SUCCESSOR, kind + _PRESENT, (eighth + 0.5) / 8),
        )
        for eighth in range(8)
    )


_SEED_CELLS = _cells(_SEED)
_LATEST_CELLS = tuple(_cells(_LATEST + order) for order in range(_MAX_CONTEXT + 1))
_OLDER_CELLS = tuple(_cells(_OLDER + order) for order in range(_MAX_CONTEXT + 1))


class SuccessorSeeds:
    """The model's choices after single tokens alone, for those that it was asked about: drafts of last resort.

    Attributes:
        token_ids: [V, K] most probable successors of each token, best first; -1 where the model was not asked.
        probabilities: [V, K] how probable.

    Args:
        vocab_size: V.
        num_kept: K.
    """

    def __init__(self, vocab_size: int, num_kept: int = _KEPT) -> None:
        self.token_ids = np.full((vocab_size, num_kept), -1, dtype=np.int32)
        self.probabilities = np.zeros((vocab_size, num_kept), dtype=np.float32)

    @property
    def is_known(self) -> BoolArray:
        """[V] whether the model was asked."""
        return self.token_ids[:, 0] >= 0

    def add(self, token_ids: Sequence[int] | IntArray, successors: np.ndarray, probabilities: np.ndarray) -> None:
        """Keep what follows some tokens.

        Args:
            token_ids: [n] the tokens.
            successors: [n, K] best first.
            probabilities: [n, K].

        Raises:
            ConfigError: of another vocabulary or another K.
        """
        num_kept = self.token_ids.shape[1]
        if not successors.shape == probabilities.shape == (len(token_ids), num_kept):
            raise ConfigError("successors.shape", successors.shape, f"({len(token_ids)}, {num_kept})")
        self.token_ids[token_ids] = successors
        self.probabilities[token_ids] = probabilities

    def of(self, token: int) -> list[tuple[int, float]]:
        """What follows a token, and how probably; empty if the model was not asked."""
        row = self.token_ids[token].tolist()
        return [] if row[0] < 0 else list(zip(row, self.probabilities[token].tolist(), strict=True))


def ask_successors(
    model: StepModel, start_ids: list[int], token_ids: Sequence[int], num_kept: int = _KEPT
) -> tuple[np.ndarray, np.ndarray]:
    """Compute what follows each of some tokens alone, all in one forward: they do not see each other.

    Args:
        model: its cache is left with the start tokens.
        start_ids: what is before each token, usually the start token. After nothing at all a model says little: a first
            token gets the same attention whatever it is.
        token_ids: [n] the tokens, as many as fit into one step.
        num_kept: K, successors per token.

    Returns:
        [n, K] successors, best first, and [n, K] their probabilities.
    """
    if list(model.cached_ids) != start_ids:
        model.truncate(0)
        if start_ids:
            model.forward(causal_layout(start_ids, 0))
            model.commit(range(len(start_ids)))
    rows = np.arange(len(token_ids))
    alone = np.eye(len(rows), dtype=np.bool_)
    positions = np.full(len(rows), len(start_ids))
    logits = model.forward(StepLayout(np.asarray(token_ids, dtype=np.int64), positions, alone, rows)).float()
    best = logits.topk(num_kept, dim=-1)
    probabilities = (best.values - logits.logsumexp(dim=-1, keepdim=True)).exp()
    return best.indices.cpu().numpy(), probabilities.cpu().numpy()


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


_Guesses = tuple[tuple[int, int], ...]
"""Tokens, each with the eighth of its share."""


class SuccessorTable:
    """Last one, two and three tokens → what the model said after them: its latest choices, and earlier best ones.

    A step's forward computes the model's choices after every draft node, accepted or not. These choices are free drafts
    wherever the same tokens recur, in this request or a later one. Its second and third choices are further guesses:
    what was less likely in one place is often right in another. Source: Luo et al., arXiv 2408.08696, whose table
    knows one token of context and no probabilities.

    Args:
        seeds: guesses after a token that was not seen yet; they may grow.
        max_keys: maximum number of contexts per length; the oldest quarter is dropped when it is exceeded.
    """

    def __init__(self, seeds: SuccessorSeeds | None = None, max_keys: int = _MAX_KEYS) -> None:
        self._seeds = seeds
        self._max_keys = max_keys
        # context → the latest row's guesses, best first; older rows' best guesses, latest first
        self._by_length: tuple[dict[int, tuple[_Guesses, _Guesses]], ...] = tuple({} for _ in range(_MAX_CONTEXT))
        self._seed_cells: dict[int, list[tuple[int, bool, tuple[int, int]]]] = {}

    def __len__(self) -> int:
        return sum(len(lists) for lists in self._by_length)

    def learn(self, ending: Ending, token_ids: Sequence[int], shares: Sequence[float]) -> None:
        """The model's likeliest tokens after this ending, best first."""
        pairs = zip(token_ids, shares, strict=True)
        guesses = tuple([(token, min(int(8 * share), 7)) for token, share in pairs if share >= _MIN_SHARE])
        best = guesses[0][0]
        alone: tuple[_Guesses, _Guesses] = (guesses, ())
        for lists, key in zip(self._by_length, ending, strict=True):
            known = lists.get(key)
            if known is None:
                lists[key] = alone
                if len(lists) > self._max_keys:
                    for old in list(lists)[: self._max_keys // 4]:
                        del lists[old]
                continue
            latest, older = known
            if latest[0][0] != best:
                older = (latest[0], *[pair for pair in older if pair[0] != best])[:_MAX_OLDER]
            lists[key] = (guesses, older) if older else alone

    def successors(self, ending: Ending, present: Collection[int] = ()) -> list[tuple[int, int]]:
        """Successors known after this ending, each with its calibration cell, the longest known context first.

        Args:
            ending: the last tokens.
            present: tokens that the text around the cursor has, whose guesses are calibrated apart.
        """
        found: list[tuple[int, int]] = []
        seen: set[int] = set()
        for order in (2, 1, 0):
            known = self._by_length[order].get(ending[order])
            if known is None:
                continue
            for guesses, cells in zip(known, (_LATEST_CELLS[order + 1], _OLDER_CELLS[order + 1]), strict=True):
                for token, eighth in guesses:
                    if token not in seen:
                        seen.add(token)
                        found.append((token, cells[eighth][token in present]))
        if len(found) < _MAX_GUESSES:
            for token, is_likely, cells_of_seed in self._seeds_of(ending[0]):
                is_present = token in present
                if (is_likely or is_present) and token not in seen:
                    found.append((token, cells_of_seed[is_present]))
        return found

    def _seeds_of(self, token: int) -> list[tuple[int, bool, tuple[int, int]]]:
        """A token's seeds: each with whether it is a guess where the text does not have it, and with its cells."""
        known = self._seed_cells.get(token)
        if known is None:
            known = [
                # low probabilities differ most, so the root is divided into eighths
                (successor, probability >= _MIN_NEW, _SEED_CELLS[min(int(8 * math.sqrt(probability)), 7)])
                for successor, probability in ([] if self._seeds is None else self._seeds.of(token))
            ]
            if known:  # otherwise the model may yet be asked
                self._seed_cells[token] = known
        return known
