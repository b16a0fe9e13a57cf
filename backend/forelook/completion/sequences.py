"""Several cached prompts: which sequence serves the next one, and which is evicted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from forelook.decoding.layout import StepModel
from forelook.text import common_prefix

_MAX_SEQUENCES = 8  # chosen, not measured
_SMALL_LOSS = 64  # tokens; chosen, not measured: fewer are soon recomputed


class CachedSequence(StepModel, Protocol):
    """A sequence whose KV cache has a size."""

    @property
    def nbytes(self) -> int:
        """Memory of the KV cache."""
        ...


class SequencePool:
    """Sequences of one model, kept in LRU order.

    Args:
        new_sequence: makes an empty one.
        max_bytes: memory of all of them; one is always kept.
    """

    def __init__(self, new_sequence: Callable[[], CachedSequence], max_bytes: int) -> None:
        self._new_sequence = new_sequence
        self._max_bytes = max_bytes
        self._sequences: list[CachedSequence] = []  # most recently used first
        self._held: list[CachedSequence] = []

    def __len__(self) -> int:
        return len(self._sequences) + len(self._held)

    @property
    def nbytes(self) -> int:
        """Memory of all KV caches."""
        return sum(sequence.nbytes for sequence in (*self._sequences, *self._held))

    @property
    def holds_several(self) -> bool:
        """Whether a prompt may be cached beside another."""
        return len(self) != 1 or self._has_room()

    def best_overlap(self, prompt_ids: Sequence[int]) -> int:
        """Number of a prompt's tokens that are cached already."""
        return max(self._overlaps(prompt_ids), default=0)

    def take(self, prompt_ids: Sequence[int]) -> CachedSequence:
        """The sequence to run a prompt on; the decoding loop truncates it to what agrees with the prompt.

        The longest common prefix wins, unless reusing it would destroy much of another prompt's cache for little.
        """
        chosen = self._choose(prompt_ids)
        if chosen is None:
            chosen = self._new_sequence()
        else:
            self._sequences.remove(chosen)
        self._sequences.insert(0, chosen)
        while len(self._sequences) > 1 and self.nbytes > self._max_bytes:  # caches grow with their prompts
            self._sequences.pop()
        return chosen

    @contextlib.contextmanager
    def holding(self, prompt_ids: Sequence[int]) -> Iterator[CachedSequence]:
        """As ``take``, and no other prompt is run on the sequence while the context lasts."""
        sequence = self.take(prompt_ids)
        self._sequences.remove(sequence)
        self._held.append(sequence)
        try:
            yield sequence
        finally:
            self._held.remove(sequence)
            self._sequences.insert(0, sequence)

    def _choose(self, prompt_ids: Sequence[int]) -> CachedSequence | None:
        """The sequence to reuse; ``None`` for a new one."""
        if not self._sequences:
            return None
        overlaps = self._overlaps(prompt_ids)
        overlap = max(overlaps)
        best = self._sequences[overlaps.index(overlap)]
        lost = len(best.cached_ids) - overlap
        if lost <= _SMALL_LOSS or 2 * overlap >= len(prompt_ids):
            return best
        if self._has_room():
            return None
        return best if overlap > lost else self._sequences[-1]

    def _overlaps(self, prompt_ids: Sequence[int]) -> list[int]:
        ids = list(prompt_ids)
        return [common_prefix(list(sequence.cached_ids), ids) for sequence in self._sequences]

    def _has_room(self) -> bool:
        if len(self) >= _MAX_SEQUENCES:
            return False
        # The next one may grow as large as the largest.
        largest = max((sequence.nbytes for sequence in (*self._sequences, *self._held)), default=0)
        return self.nbytes + largest <= self._max_bytes
