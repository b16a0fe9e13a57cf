"""Several cached prompts: which sequence serves the next one, and which is evicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def nbytes(self) -> int:
        """Memory of all KV caches."""
        return sum(sequence.nbytes for sequence in self._sequences)

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
        return chosen

    def clear(self) -> None:
        """Free all memory."""
        self._sequences.clear()

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
        if len(self._sequences) >= _MAX_SEQUENCES:
            return False
        return self.nbytes + self._sequences[0].nbytes <= self._max_bytes
