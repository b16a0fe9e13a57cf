"""Several cached prompts: which sequence serves the next one, and which gives way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from forelook.decoding.layout import StepModel
from forelook.text import common_prefix

_MAX_SEQUENCES = 8
_SMALL_LOSS = 64


class CachedSequence(StepModel, Protocol):
    """A sequence whose KV cache has a size."""

    @property
    def nbytes(self) -> int:
        """Memory of the KV cache."""
        ...


class SequencePool:
    """Sequences of one model, least recently used last to stay.

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
        """How many tokens of a prompt are cached already."""
        return max(
            (common_prefix(list(sequence.cached_ids), list(prompt_ids)) for sequence in self._sequences), default=0
        )

    def take(self, prompt_ids: Sequence[int]) -> CachedSequence:
        """The sequence to run a prompt on; the loop truncates it to what agrees with the prompt.

        The longest common prefix wins, unless taking it would destroy much of another prompt's cache for little.
        """
        ids = list(prompt_ids)
        overlaps = [common_prefix(list(sequence.cached_ids), ids) for sequence in self._sequences]
        chosen: CachedSequence | None = None
        if overlaps:
            best = max(range(len(overlaps)), key=lambda index: (overlaps[index], -index))
            lost = len(self._sequences[best].cached_ids) - overlaps[best]
            if lost <= _SMALL_LOSS or 2 * overlaps[best] >= len(prompt_ids) or not self._has_room():
                chosen = self._sequences[best]
                if not self._worth(overlaps[best], lost, len(prompt_ids)):
                    chosen = self._sequences[-1]
        if chosen is None:
            chosen = self._new_sequence()
            self._sequences.insert(0, chosen)
        self._sequences.remove(chosen)
        self._sequences.insert(0, chosen)
        return chosen

    def clear(self) -> None:
        """Give all memory back."""
        self._sequences.clear()

    @staticmethod
    def _worth(overlap: int, lost: int, prompt_length: int) -> bool:
        return lost <= _SMALL_LOSS or 2 * overlap >= prompt_length or overlap > lost

    def _has_room(self) -> bool:
        if len(self._sequences) >= _MAX_SEQUENCES:
            return False
        return self.nbytes + self._sequences[0].nbytes <= self._max_bytes
