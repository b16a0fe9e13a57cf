"""The model's own earlier choices after the same last tokens: drafts that every forward yields for free."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np

from forelook.decoding.drafting.calibration import AcceptanceCalibration
from forelook.decoding.drafting.draft import ID_BITS, DraftOrigin, pair_of
from forelook.decoding.layout import BoolArray, IntArray, StepLayout, StepModel, causal_layout
from forelook.errors import ConfigError

# That successors pay: docs/decisions.md, "Drafting". Chosen, not measured.
_MAX_CONTEXT = 3
_KEPT = 8
_MAX_KEYS = 150_000

# Measured: docs/decisions.md, "The constants of drafting lie on a plateau".
_MAX_OLDER = 3
_MAX_GUESSES = 6

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
_PAIR_SEED = 1 + 2 * _MAX_CONTEXT
_PRESENT = 1 + _PAIR_SEED  # + any of these: guesses that the text around the cursor has already


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
_PAIR_SEED_CELLS = _cells(_PAIR_SEED)
_LATEST_CELLS = tuple(_cells(_LATEST + order) for order in range(_MAX_CONTEXT + 1))
_OLDER_CELLS = tuple(_cells(_OLDER + order) for order in range(_MAX_CONTEXT + 1))


class PairTable:
    """The model's choices after frequent pairs of tokens, asked when the model was made; sorted arrays, no objects.

    Args:
        pairs: [P] as ``pair_of`` packs them, ascending.
        counts: [P] how many successors each has.
        token_ids: all successors, pair by pair, best first.
        probabilities: of each, likewise.

    Raises:
        ConfigError: the arrays do not belong together.
    """

    def __init__(self, pairs: IntArray, counts: np.ndarray, token_ids: np.ndarray, probabilities: np.ndarray) -> None:
        ends = np.cumsum(counts, dtype=np.int64)
        total = int(ends[-1]) if len(ends) else 0
        if len(pairs) != len(counts) or not total == len(token_ids) == len(probabilities):
            raise ConfigError("counts", total, f"{len(token_ids)} successors of {len(pairs)} pairs")
        if len(pairs) > 1 and int(np.diff(pairs).min()) <= 0:
            raise ConfigError("pairs", "out of order", "ascending")
        self.pairs = pairs
        self._starts = np.concatenate([np.zeros(1, dtype=np.int64), ends])
        self._token_ids = token_ids
        self._probabilities = probabilities

    def __len__(self) -> int:
        return len(self.pairs)

    def of(self, pair: int) -> list[tuple[int, float]]:
        """What follows a pair, and how probably; empty if the table does not have it."""
        place = int(self.pairs.searchsorted(pair))
        if place == len(self.pairs) or self.pairs[place] != pair:
            return []
        part = slice(int(self._starts[place]), int(self._starts[place + 1]))
        return list(zip(self._token_ids[part].tolist(), self._probabilities[part].tolist(), strict=True))


class SuccessorSeeds:
    """The model's choices after one and two tokens alone, for those that it was asked about: drafts of last resort.

    Attributes:
        token_ids: [V, K] most probable successors of each token, best first; -1 where the model was not asked.
        probabilities: [V, K] how probable.

    Args:
        vocab_size: V.
        num_kept: K.
        published: pairs that are known from the start.
    """

    def __init__(self, vocab_size: int, num_kept: int = _KEPT, published: PairTable | None = None) -> None:
        self.token_ids = np.full((vocab_size, num_kept), -1, dtype=np.int32)
        self.probabilities = np.zeros((vocab_size, num_kept), dtype=np.float32)
        self.published = published
        self._rows: dict[int, int] = {}  # pair → its row
        self._pair_ids, self._pair_probabilities = self.token_ids[:0], self.probabilities[:0]  # with room to grow

    @property
    def is_known(self) -> BoolArray:
        """[V] whether the model was asked."""
        return self.token_ids[:, 0] >= 0

    @property
    def num_pairs(self) -> int:
        """How many pairs the model was asked about here."""
        return len(self._rows)

    @property
    def pairs(self) -> IntArray:
        """[P] the pairs that the model was asked about here."""
        return np.fromiter(self._rows, dtype=np.int64, count=len(self._rows))

    def add(self, token_ids: Sequence[int] | IntArray, successors: np.ndarray, probabilities: np.ndarray) -> None:
        """Keep what follows some tokens.

        Args:
            token_ids: [n] the tokens.
            successors: [n, K] best first.
            probabilities: [n, K].

        Raises:
            ConfigError: of another vocabulary or another K.
        """
        self._check(len(token_ids), successors, probabilities)
        self.token_ids[token_ids] = successors
        self.probabilities[token_ids] = probabilities

    def add_pairs(self, pairs: Sequence[int] | IntArray, successors: np.ndarray, probabilities: np.ndarray) -> None:
        """Keep what follows some pairs of tokens, none of them known.

        Args:
            pairs: [n] as ``pair_of`` packs them.
            successors: [n, K] best first.
            probabilities: [n, K].

        Raises:
            ConfigError: of another K.
        """
        self._check(len(pairs), successors, probabilities)
        start = len(self._rows)
        end = start + len(pairs)
        if end > len(self._pair_ids):
            room = max(end, 2 * len(self._pair_ids))
            self._pair_ids = np.resize(self._pair_ids, (room, successors.shape[1]))
            self._pair_probabilities = np.resize(self._pair_probabilities, (room, successors.shape[1]))
        self._pair_ids[start:end] = successors
        self._pair_probabilities[start:end] = probabilities
        self._rows.update(zip(map(int, pairs), range(start, end), strict=True))

    def of(self, token: int) -> list[tuple[int, float]]:
        """What follows a token, and how probably; empty if the model was not asked."""
        row = self.token_ids[token].tolist()
        return [] if row[0] < 0 else list(zip(row, self.probabilities[token].tolist(), strict=True))

    def of_pair(self, pair: int) -> list[tuple[int, float]]:
        """What follows two tokens; empty if the model was not asked."""
        row = self._rows.get(pair)
        if row is None:
            return [] if self.published is None else self.published.of(pair)
        return list(zip(self._pair_ids[row].tolist(), self._pair_probabilities[row].tolist(), strict=True))

    def knows_pair(self, pair: int) -> bool:
        """Whether the model was asked about two tokens."""
        return pair in self._rows or (self.published is not None and bool(self.published.of(pair)))

    def knows_pairs(self, pairs: IntArray) -> BoolArray:
        """[n] the same for many pairs."""
        is_known: BoolArray = np.isin(pairs, self.pairs)
        if self.published is not None and len(self.published):
            table = self.published.pairs
            is_known |= table[np.minimum(table.searchsorted(pairs), len(table) - 1)] == pairs
        return is_known

    def _check(self, count: int, successors: np.ndarray, probabilities: np.ndarray) -> None:
        num_kept = self.token_ids.shape[1]
        if not successors.shape == probabilities.shape == (count, num_kept):
            raise ConfigError("successors.shape", successors.shape, f"({count}, {num_kept})")


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
    rows = np.arange(len(token_ids))
    alone = np.eye(len(rows), dtype=np.bool_)
    positions = np.full(len(rows), len(start_ids))
    return _ask(model, start_ids, StepLayout(np.asarray(token_ids, np.int64), positions, alone, rows), num_kept)


def ask_pair_successors(
    model: StepModel, start_ids: list[int], groups: Sequence[tuple[int, Sequence[int]]], num_kept: int = _KEPT
) -> tuple[IntArray, np.ndarray, np.ndarray]:
    """Compute what follows pairs of tokens, all in one forward, each first token once.

    Args:
        model: its cache is left with the start tokens.
        start_ids: what is before each pair.
        groups: first tokens, each with the second ones; as many as fit into one step.
        num_kept: K, successors per pair.

    Returns:
        [n] the pairs, [n, K] successors, best first, and [n, K] their probabilities.
    """
    ids: list[int] = []
    firsts: list[int] = []  # by row, the row of its first token
    for first, seconds in groups:
        firsts += [len(ids)] * (1 + len(seconds))
        ids += [first, *seconds]
    size = len(ids)
    visibility = np.eye(size, dtype=np.bool_)
    visibility[np.arange(size), firsts] = True
    is_second = np.arange(size) != firsts
    rows = np.flatnonzero(is_second)
    layout = StepLayout(np.array(ids, dtype=np.int64), len(start_ids) + is_second.astype(np.int64), visibility, rows)
    pairs = np.array([pair_of(ids[firsts[row]], ids[row]) for row in rows.tolist()], dtype=np.int64)
    return pairs, *_ask(model, start_ids, layout, num_kept)


def _ask(model: StepModel, start_ids: list[int], layout: StepLayout, num_kept: int) -> tuple[np.ndarray, np.ndarray]:
    if list(model.cached_ids) != start_ids:
        model.truncate(0)
        if start_ids:
            model.forward(causal_layout(start_ids, 0))
            model.commit(range(len(start_ids)))
    logits = model.forward(layout).float()
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
    return token, ending[0] << ID_BITS | token, ending[1] << ID_BITS | token


_Guesses = tuple[tuple[int, int], ...]
"""Tokens, each with the eighth of its share."""


class SuccessorTable:
    """Last one, two and three tokens → what the model said after them: its latest choices, and earlier best ones.

    A step's forward computes the model's choices after every draft node, accepted or not. These choices are free drafts
    wherever the same tokens recur, in this request or a later one. Its second and third choices are further guesses:
    what was less likely in one place is often right in another. Source: Luo et al., arXiv 2408.08696, whose table
    knows one token of context and no probabilities.

    Args:
        seeds: guesses after a pair or a token that was not seen yet; they may grow.
        max_keys: maximum number of contexts per length; the oldest quarter is dropped when it is exceeded.
    """

    def __init__(self, seeds: SuccessorSeeds | None = None, max_keys: int = _MAX_KEYS) -> None:
        self._seeds = seeds
        self._max_keys = max_keys
        # context → the latest row's guesses, best first; older rows' best guesses, latest first
        self._by_length: tuple[dict[int, tuple[_Guesses, _Guesses]], ...] = tuple({} for _ in range(_MAX_CONTEXT))
        self._seed_cells: dict[int, list[_Seed]] = {}
        self._pair_cells: dict[int, list[_Seed]] = {}

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
            for token, is_likely, cells_of_seed in self._pair_seeds_of(ending[1]) or self._seeds_of(ending[0]):
                is_present = token in present
                if (is_likely or is_present) and token not in seen:
                    found.append((token, cells_of_seed[is_present]))
        return found

    def _seeds_of(self, token: int) -> list[_Seed]:
        known = self._seed_cells.get(token)
        if known is None:
            known = _with_cells([] if self._seeds is None else self._seeds.of(token), _SEED_CELLS)
            if known:  # otherwise the model may yet be asked
                self._seed_cells[token] = known
        return known

    def _pair_seeds_of(self, pair: int) -> list[_Seed]:
        known = self._pair_cells.get(pair)
        if known is None:
            known = _with_cells([] if self._seeds is None else self._seeds.of_pair(pair), _PAIR_SEED_CELLS)
            if known:
                self._pair_cells[pair] = known
        return known


_Seed = tuple[int, bool, tuple[int, int]]
"""A token, whether it is a guess where the text does not have it, and its cells."""


def _with_cells(seeds: list[tuple[int, float]], cells: tuple[tuple[int, int], ...]) -> list[_Seed]:
    # low probabilities differ most, so the root is divided into eighths
    return [
        (successor, probability >= _MIN_NEW, cells[min(int(8 * math.sqrt(probability)), 7)])
        for successor, probability in seeds
    ]
