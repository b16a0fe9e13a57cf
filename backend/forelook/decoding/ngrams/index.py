"""A token log with sorted segments over it: where did these tokens occur before, and what followed?

Tokens of all documents lie in one append-only array, the *log*. An *entry* is a log position: the n-gram that ends
there is its key, the tokens after it are its continuation. Entries are kept in a few immutable segments, each sorted
by the last four tokens packed into 64 bits (nearest token highest), so that one binary search gives the ranges of all
entries that match one, two, three and four tokens. The newest few thousand positions are not sorted yet and are
scanned. Segments grow by merging, like those of a log-structured merge tree, in steps of a fraction of a millisecond.

An entry is live while its position has an owner. Disowned positions stay in the log and the segments until a merge or
a rebuild drops them; a lookup skips them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TokenArray = npt.NDArray[np.int32]
KeyArray = npt.NDArray[np.uint64]

BORDER = -1
"""Ends a run of tokens in the log; no token id equals it."""

MAX_MATCH = 16
"""Maximum number of context tokens compared. Chosen, not measured."""

MAX_REACH = 32
"""Maximum number of tokens of a continuation. Chosen, not measured."""

NO_OWNER = 0
"""Owner of a position that is no entry: a border, a copy kept for context, or a stale token."""

HEAD_TOKENS = 4096
"""Default number of newest positions that are scanned rather than sorted. Chosen, not measured."""

HEAD_SCAN = 192
"""Maximum number of unsorted positions that are compared. Chosen, not measured."""

WIDE_SCAN = 96
"""Maximum number of a segment's entries with the whole key of a context that are compared. Chosen, not measured."""

LENGTH_RATIO = 8
"""Next to a match of so many tokens, one of a single token is left out.

Measured: docs/decisions.md, "The workspace pool"."""

_KEY_TOKENS = 4
_KEY_BITS = 16
_KEY_MASK = 0xFFFF
_SHIFTS = tuple(_KEY_BITS * (_KEY_TOKENS - 1 - k) for k in range(_KEY_TOKENS))
_MAX_KEY = (1 << 64) - 1
_MAX_SEGMENTS = 8  # measured: docs/decisions.md, "The workspace pool"
_MERGE_TOKENS = 8192  # this and the following are chosen, not measured
_SEGMENT_RATIO = 4


@dataclass(frozen=True, slots=True)
class Segment:
    """Entries sorted by key; ``positions[i]`` is the log position of ``keys[i]``."""

    keys: KeyArray
    positions: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Entries that agree with a context.

    Attributes:
        match_lengths: per entry, how many context tokens it agrees with, at least one.
        owners: per entry, the owner of its position.
        continuations: per entry, the tokens after it; a border or the row's end closes it.
    """

    match_lengths: list[int]
    owners: list[int]
    continuations: list[list[int]]


@dataclass(frozen=True, slots=True)
class IndexState:
    """An index as plain arrays, for the disk.

    Attributes:
        tokens: the log.
        sorted_length: positions before it are in the segments.
        segments: per segment, its positions in key order.
    """

    tokens: TokenArray
    sorted_length: int
    segments: list[TokenArray]


_NO_EVIDENCE = Evidence([], [], [])
_NO_TOKEN = [-3] * (MAX_MATCH + 1)
"""Pads a context to the width of a comparison; equal to nothing in a log."""


class NgramIndex:
    """The log and its segments. Positions stay valid for the life of the index."""

    def __init__(self, capacity: int = 1 << 14, *, head_tokens: int = HEAD_TOKENS) -> None:
        """Make an empty index.

        Args:
            capacity: tokens to make room for at first.
            head_tokens: how many of the newest positions are scanned rather than sorted.
        """
        self._head_tokens = head_tokens
        self._tokens: TokenArray = np.full(max(capacity, 4 * MAX_REACH), BORDER, dtype=np.int32)
        self._owners: TokenArray = np.zeros(len(self._tokens), dtype=np.int32)
        self._length = MAX_MATCH
        self._sorted_length = MAX_MATCH
        self._view_log()
        self._segments: tuple[Segment, ...] = ()
        self._work: Iterator[None] | None = None
        self._num_owned = 0

    @property
    def num_owned(self) -> int:
        """Live entries."""
        return self._num_owned

    @property
    def num_logged(self) -> int:
        """Positions used in the log, stale ones and borders included."""
        return self._length

    @property
    def num_unsorted(self) -> int:
        """Positions that are not sorted yet; beyond twice the head, lookups miss the oldest of them."""
        return self._length - self._sorted_length

    @property
    def num_sorted(self) -> int:
        """Positions before it are in the segments."""
        return self._sorted_length

    @property
    def head_tokens(self) -> int:
        """How many of the newest positions are scanned rather than sorted."""
        return self._head_tokens

    @property
    def log(self) -> tuple[TokenArray, TokenArray]:
        """Tokens and owners by position, :data:`MAX_REACH` longer than their used part; other arrays after growth."""
        return self._tokens, self._owners

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        segments = sum(s.keys.nbytes + s.positions.nbytes for s in self._segments)
        return self._tokens.nbytes + self._owners.nbytes + segments

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The sorted part, oldest and largest first; another tuple after every change."""
        return self._segments

    # -- persistence --------------------------------------------------------------------------------------------

    def dump(self) -> IndexState:
        """The index as plain arrays, which later changes of the index leave alone."""
        # The last border is left out: an extension may overwrite it.
        return IndexState(
            self._tokens[: self._length - 1], self._sorted_length, [segment.positions for segment in self._segments]
        )

    @classmethod
    def load(
        cls, state: IndexState, runs: Iterable[tuple[int, int, int]], *, head_tokens: int = HEAD_TOKENS
    ) -> NgramIndex:
        """An index from dumped arrays.

        Args:
            state: a result of :meth:`dump`.
            runs: (position, length, owner) of all live runs.
            head_tokens: as for a new index.

        Raises:
            ValueError: the parts do not fit together.
        """
        length = len(state.tokens) + 1
        index = cls(length + length // 8 + MAX_REACH, head_tokens=head_tokens)
        index._tokens[: length - 1] = state.tokens
        index._length = length
        if not MAX_MATCH <= state.sorted_length <= length:
            raise ValueError("the sorted part exceeds the log")
        index._sorted_length = state.sorted_length
        for position, run_length, owner in runs:
            if position < MAX_MATCH or run_length < 0 or position + run_length >= length:
                raise ValueError("a run lies outside the log")
            index._owners[position : position + run_length] = owner
            index._num_owned += run_length
        segments = []
        for positions in state.segments:
            if len(positions) and (positions.min() < MAX_MATCH or positions.max() >= state.sorted_length):
                raise ValueError("an entry lies outside the log")
            keys = index._keys(positions)
            if np.any(keys[1:] < keys[:-1]):
                raise ValueError("a segment is not sorted")
            segments.append(Segment(keys, positions))
        index._segments = tuple(segments)
        return index

    # -- the log ------------------------------------------------------------------------------------------------

    def read(self, start: int, end: int) -> TokenArray:
        """A view of log tokens ``[start, end)``; valid until the next append."""
        return self._tokens[start:end]

    def append(self, lead: TokenArray, ids: TokenArray, trail: TokenArray, owner: int) -> int:
        """Log a run of tokens of which ``ids`` become entries; ``lead`` and ``trail`` only surround them.

        Returns:
            The position of the first of ``ids``.
        """
        start = self._length + len(lead)
        end = start + len(ids)
        self._reserve(end + len(trail) + 1)
        self._tokens[self._length : start] = lead
        self._tokens[start:end] = ids
        self._tokens[end : end + len(trail)] = trail
        self._owners[start:end] = owner
        self._length = end + len(trail) + 1
        self._num_owned += len(ids)
        return start

    def extend(self, end: int, ids: TokenArray, owner: int) -> bool:
        """Lengthen the run that ends at ``end`` in place; False when it is not the log's last run."""
        if end != self._length - 1:
            return False
        new_end = end + len(ids)
        self._reserve(new_end + 1)
        self._tokens[end:new_end] = ids
        self._owners[end:new_end] = owner
        self._length = new_end + 1
        self._num_owned += len(ids)
        return True

    def disown(self, start: int, end: int) -> None:
        """Make entries ``[start, end)``, all of them live, stale."""
        self._owners[start:end] = NO_OWNER
        self._num_owned -= end - start

    def _reserve(self, length: int) -> None:
        needed = length + MAX_REACH
        if needed <= len(self._tokens):
            return
        capacity = max(needed, len(self._tokens) + len(self._tokens) // 4)
        tokens = np.full(capacity, BORDER, dtype=np.int32)
        tokens[: self._length] = self._tokens[: self._length]
        owners = np.zeros(capacity, dtype=np.int32)
        owners[: self._length] = self._owners[: self._length]
        self._tokens, self._owners = tokens, owners
        self._view_log()

    def _view_log(self) -> None:
        """Windows on the log: element ``i`` is the tokens from ``i`` to just after ``i + MAX_MATCH``.

        Of a type without inner structure, so that a gather copies whole rows and not token by token.
        """
        tokens = self._tokens
        row = np.dtype((np.void, (MAX_MATCH + 2) * tokens.itemsize))
        self._rows = np.ndarray((len(tokens) - MAX_MATCH - 1,), row, tokens, strides=(tokens.itemsize,))
        self._view = tokens.data

    # -- lookup -------------------------------------------------------------------------------------------------

    def find(self, context: Sequence[int], *, limit: int, reach: int, without: int = NO_OWNER) -> Evidence:
        """Entries that match the end of ``context``, longest matches first, about ``limit`` of them.

        If there is a long match, entries that agree on only a token or two are left out.

        Args:
            context: tokens before the next one, the nearest last.
            limit: maximum number of entries.
            reach: tokens of continuation to return.
            without: entries of this owner are left out.
        """
        tail = list(context[-MAX_MATCH:])
        if not tail or self._length == MAX_MATCH:
            return _NO_EVIDENCE
        positions = self._candidates(tail, limit)
        if not positions:
            return _NO_EVIDENCE
        places = np.array(positions)
        rows = self._rows[places - MAX_MATCH].view(np.int32).reshape(-1, MAX_MATCH + 2)
        # One column more than can match, where no log token is wanted: every row ends in a mismatch.
        wanted = np.array([*tail[::-1], *_NO_TOKEN[len(tail) :]], dtype=np.int32)
        matches = (rows[:, MAX_MATCH::-1] != wanted).argmax(1).tolist()
        owners = self._owners[places].tolist()
        # Integers that sort by match, then as gathered: for a few dozen places faster than arrays.
        total = len(positions)
        scores = [
            match * total - number
            for number, match, owner, token in zip(range(total), matches, owners, rows[:, -1].tolist(), strict=True)
            if match and owner != NO_OWNER and owner != without and token != BORDER
        ]
        if not scores:
            return _NO_EVIDENCE
        scores.sort(reverse=True)
        # If there is a long match, what agrees on a token or two is too improbable to be drafted.
        least = 1 + matches[-scores[0] % total] // LENGTH_RATIO
        chosen = [number for score in scores[:limit] if matches[number := -score % total] >= least]
        view = self._view
        return Evidence(
            [matches[number] for number in chosen],
            [owners[number] for number in chosen],
            [view[(place := positions[number]) + 1 : place + 1 + reach].tolist() for number in chosen],
        )

    def _candidates(self, tail: list[int], limit: int) -> list[int]:
        """Positions worth comparing: more than ``limit`` only where many match four tokens."""
        found = self._scan_head(tail)
        room = limit - len(found) // 2
        keys = self._range_keys(tail)
        depth = len(keys) // 2
        last = 2 * depth - 1
        ranges: list[tuple[Segment, list[int]]] = []
        # first all that match four tokens, then those that match three and no more, and so on
        for segment in reversed(self._segments):
            ends = segment.keys.searchsorted(keys).tolist()
            if ends[0] < ends[last]:
                ranges.append((segment, ends))
                low, high = ends[depth - 1], ends[depth]
                if low < high:
                    room -= _take(segment, low, high, WIDE_SCAN, found, newest=True)
        for level in range(depth - 2, -1, -1):
            for segment, ends in ranges:
                if room <= 0:
                    return found
                quota = room
                low, high = ends[level], ends[level + 1]
                if low < high:
                    room -= _take(segment, low, high, quota, found)
                low, high = ends[last - level - 1], ends[last - level]
                if low < high:
                    room -= _take(segment, low, high, quota, found)
        return found

    @staticmethod
    def _range_keys(tail: list[int]) -> KeyArray:
        """Ascending: per match length the least key that matches; then, longest first, the least key above those."""
        key = 0
        lows: list[int] = []
        highs: list[int] = []
        for token, shift in zip(reversed(tail), _SHIFTS, strict=False):
            key |= (token if 0 <= token <= _KEY_MASK else (token ^ (token >> 16)) & _KEY_MASK) << shift
            lows.append(key)
            high = key + (1 << shift)
            highs.append(high if high <= _MAX_KEY else _MAX_KEY)
        return np.array(lows + highs[::-1], dtype=np.uint64)

    def _scan_head(self, tail: list[int]) -> list[int]:
        start = max(self._sorted_length, self._length - 2 * self._head_tokens)
        if start >= self._length:
            return []
        hits = (self._tokens[start : self._length] == tail[-1]).nonzero()[0]
        if len(hits) == 0:
            return []
        hits += start
        if len(hits) > HEAD_SCAN:
            hits = hits[self._owners[hits] != NO_OWNER]  # stale entries must not crowd out live ones
        if len(hits) > HEAD_SCAN and len(tail) > 1:
            closer = hits[self._tokens[hits - 1] == tail[-2]]
            hits = closer if len(closer) else hits
        newest: list[int] = hits[-HEAD_SCAN:].tolist()
        return newest

    # -- sorting and merging, in small steps ----------------------------------------------------------------------

    @property
    def is_behind(self) -> bool:
        """Whether lookups miss positions or are slow until :meth:`step` has run more often."""
        return self.num_unsorted > 2 * self._head_tokens or len(self._segments) > _MAX_SEGMENTS

    @property
    def has_work(self) -> bool:
        """Whether :meth:`step` has something to do."""
        return (
            self._work is not None
            or self._length - self._sorted_length > self._head_tokens
            or self._merge_from() is not None
        )

    def step(self) -> bool:
        """Do a fraction of a millisecond of sorting or merging; True when there was something to do."""
        if self._work is None:
            # Every segment costs each lookup a search: while much is unsorted, merge just often enough.
            is_unsorted = self._length - self._sorted_length > self._head_tokens
            first = None if is_unsorted and len(self._segments) <= _MAX_SEGMENTS else self._merge_from()
            if first is not None:
                self._work = self._merge(first)
            elif is_unsorted:
                self._sort_head()
                return True
            else:
                return False
        if next(self._work, True):  # a step yields None
            self._work = None
        return True

    def _sort_head(self) -> None:
        start = self._sorted_length
        end = min(start + self._head_tokens, self._length)
        positions = np.flatnonzero(self._owners[start:end] != NO_OWNER) + start
        self._sorted_length = end
        if len(positions) == 0:
            return
        keys = self._keys(positions)
        order = keys.argsort(kind="stable")
        self._segments += (Segment(keys[order], positions[order].astype(np.int32)),)

    def _keys(self, positions: npt.NDArray[np.int64] | TokenArray) -> KeyArray:
        keys = np.zeros(len(positions), dtype=np.uint64)
        for back in range(_KEY_TOKENS):
            tokens = self._tokens[positions - back]
            folded = (tokens ^ (tokens >> 16)) & _KEY_MASK
            keys |= folded.astype(np.uint64) << np.uint64(_KEY_BITS * (_KEY_TOKENS - 1 - back))
        return keys

    def _merge_from(self) -> int | None:
        """The first of the segments to merge, or ``None`` as long as sizes fall fast enough."""
        first = None
        tail = 0
        for i in range(len(self._segments) - 1, -1, -1):
            size = len(self._segments[i])
            if tail and size < _SEGMENT_RATIO * tail:
                first = i
            tail += size
        return first

    def _merge(self, first: int) -> Iterator[None]:
        """Merge segments ``first`` to the last into one, dropping stale entries."""
        parts = self._segments[first:]
        total = sum(len(part) for part in parts)
        keys = np.empty(total, dtype=np.uint64)
        positions = np.empty(total, dtype=np.int32)
        largest = max(parts, key=len)
        stride = max(1, len(largest) * _MERGE_TOKENS // total)
        splitters = largest.keys[stride::stride]
        cuts = [np.concatenate(([0], part.keys.searchsorted(splitters), [len(part)])) for part in parts]
        filled = 0
        for block in range(len(splitters) + 1):
            yield
            slices = [slice(int(cut[block]), int(cut[block + 1])) for cut in cuts]
            block_positions = np.concatenate([p.positions[s] for p, s in zip(parts, slices, strict=True)])
            live = self._owners[block_positions] != NO_OWNER
            block_positions = block_positions[live]
            block_keys = np.concatenate([p.keys[s] for p, s in zip(parts, slices, strict=True)])[live]
            order = block_keys.argsort(kind="stable")
            end = filled + len(order)
            keys[filled:end] = block_keys[order]
            positions[filled:end] = block_positions[order]
            filled = end
        yield
        merged = (Segment(keys[:filled], positions[:filled]),) if filled else ()
        self._segments = self._segments[:first] + merged + self._segments[first + len(parts) :]


def _take(segment: Segment, low: int, high: int, quota: int, found: list[int], *, newest: bool = False) -> int:
    """Add the positions of entries ``[low, high)``, at most about ``quota``, the newest or a sample; how many."""
    size = high - low
    entries = segment.positions[low:high]
    if size > quota:
        entries = entries[-quota:] if newest else entries[:: size // quota + 1]
    found += entries.tolist()
    return len(entries)
