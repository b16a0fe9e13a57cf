"""Token healing: a cursor inside a token gets the tokens the model would have used there.

The prompt's last tokens are dropped where some longer token could bridge the cursor, and the output is made to begin
with exactly their bytes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forelook.decoding.layout import IntArray
from forelook.decoding.limits import TokenConstraint
from forelook.model.tokenizer import CodeTokenizer

_MAX_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Healing:
    """How to heal the end of a prompt.

    Attributes:
        num_dropped: how many of the prefix's last tokens to leave out of the prompt.
        forced: their bytes, with which the output begins; give them to ``TextStream(skip=…)``.
        constraint: makes the output begin with them; ``None`` when nothing was dropped.
    """

    num_dropped: int
    forced: bytes
    constraint: TokenConstraint | None


NO_HEALING = Healing(0, b"", None)


class TokenHealer:
    """The vocabulary as a sorted table of bytes, built once per model."""

    def __init__(self, tokenizer: CodeTokenizer) -> None:
        pieces = sorted((data, token_id) for token_id, data in enumerate(tokenizer.all_bytes) if data)
        self._tokenizer = tokenizer
        self._pieces = [data for data, _ in pieces]
        self._ids = np.array([token_id for _, token_id in pieces], dtype=np.int64)
        self._longest = max(map(len, self._pieces), default=0)
        self._allowed: dict[bytes, IntArray] = {}

    def heal(self, prefix_ids: Sequence[int], *, max_tokens: int = 3) -> Healing:
        """Find the longest run of last tokens that a single token of the vocabulary could replace and continue.

        Args:
            prefix_ids: tokens of the text before the cursor; a control token is never dropped.
            max_tokens: most tokens to drop.
        """
        forced, data = b"", b""
        num_dropped = 0
        for count, token_id in enumerate(reversed(prefix_ids[-max_tokens:] if max_tokens else ()), start=1):
            piece = self._tokenizer.token_bytes(token_id)
            data = piece + data
            if not piece or len(data) >= self._longest:
                break
            if self._can_be_continued(data):
                num_dropped, forced = count, data
        if not num_dropped:
            return NO_HEALING
        return Healing(num_dropped, forced, self.constraint(forced))

    def constraint(self, forced: bytes) -> TokenConstraint:
        """A constraint under which the output begins with the given bytes."""
        return _ForcedBytes(self, forced)

    def consistent_ids(self, rest: bytes) -> IntArray:
        """Ids whose bytes begin ``rest`` or begin with it, ascending."""
        known = self._allowed.get(rest)
        if known is None:
            start, end = self._range(rest)
            shorter = [self._range_of(rest[:length]) for length in range(1, len(rest))]
            known = np.sort(np.concatenate([self._ids[start:end], *shorter]))
            if len(self._allowed) >= _MAX_REMEMBERED:
                self._allowed.clear()
            self._allowed[rest] = known
        return known

    def bytes_of(self, ids: Sequence[int]) -> bytes:
        """The bytes of a token sequence."""
        return b"".join(map(self._tokenizer.token_bytes, ids))

    def _range(self, start: bytes) -> tuple[int, int]:
        """Where the pieces that begin with ``start`` stand."""
        first = bisect_left(self._pieces, start)
        trimmed = start.rstrip(b"\xff")
        if not trimmed:
            return first, len(self._pieces)
        after = trimmed[:-1] + bytes([trimmed[-1] + 1])
        return first, bisect_left(self._pieces, after, lo=first)

    def _range_of(self, piece: bytes) -> IntArray:
        """The ids whose bytes are exactly ``piece``; a few vocabularies have more than one."""
        first = last = bisect_left(self._pieces, piece)
        while last < len(self._pieces) and self._pieces[last] == piece:
            last += 1
        return self._ids[first:last]

    def _can_be_continued(self, data: bytes) -> bool:
        """Whether a piece begins with ``data`` and goes on."""
        _, end = self._range(data)
        return end > 0 and len(self._pieces[end - 1]) > len(data) and self._pieces[end - 1].startswith(data)


class _ForcedBytes:
    """The constraint: output begins with given bytes, cut into whatever tokens the model prefers."""

    def __init__(self, healer: TokenHealer, forced: bytes) -> None:
        self._healer = healer
        self._forced = forced

    def allowed_ids(self, generated: Sequence[int]) -> IntArray | None:
        done = 0
        for token_id in generated:
            done += len(self._healer.bytes_of((token_id,)))
            if done >= len(self._forced):
                return None
        return self._healer.consistent_ids(self._forced[done:]) if self._forced else None
