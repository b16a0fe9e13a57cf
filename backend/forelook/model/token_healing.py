"""Token healing: the model may choose a token that spans the cursor.

If some longer token could span the cursor, the last tokens of the prompt are dropped and the output is constrained to
begin with their bytes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np

from forelook.decoding.layout import IntArray
from forelook.decoding.limits import TokenConstraint
from forelook.model.tokenizer import CodeTokenizer

_MAX_REMEMBERED = 256  # constraints; chosen, not measured


@dataclass(frozen=True, slots=True)
class Healing:
    """How to heal the end of a prompt.

    Attributes:
        num_dropped: number of tokens to drop from the end of the prefix.
        forced: their bytes, with which the output begins; pass them to ``TextStream(skip=…)``.
        constraint: makes the output begin with ``forced``; ``None`` if nothing was dropped.
    """

    num_dropped: int
    forced: bytes
    constraint: TokenConstraint | None


NO_HEALING = Healing(0, b"", None)


class TokenHealer:
    """Finds tokens by their bytes in a sorted table of the vocabulary, built once per model."""

    def __init__(self, tokenizer: CodeTokenizer) -> None:
        pieces = sorted((data, token_id) for token_id, data in enumerate(tokenizer.all_bytes) if data)
        self._tokenizer = tokenizer
        self._pieces = [data for data, _ in pieces]
        self._ids = np.array([token_id for _, token_id in pieces], dtype=np.int64)
        self._longest = max(map(len, self._pieces), default=0)
        self._allowed: dict[bytes, IntArray] = {}

    def with_own_memory(self) -> TokenHealer:
        """The same healer for another user; the slow table is shared, what it remembers of requests is not."""
        healer = copy(self)
        healer._allowed = {}  # noqa: SLF001 - of the same class
        return healer

    def heal(self, prefix_ids: Sequence[int], *, max_tokens: int = 3) -> Healing:
        """Find the longest run of last tokens whose bytes are a proper prefix of some token.

        Args:
            prefix_ids: tokens of the text before the cursor; control tokens are never dropped.
            max_tokens: maximum number of tokens to drop; the default is chosen, not measured.
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
        """A constraint that makes the output begin with the given bytes."""
        return _ForcedBytes(self, forced)

    def consistent_ids(self, rest: bytes) -> IntArray:
        """Ids of tokens that are a prefix of ``rest`` or start with it, ascending."""
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
        """The slice of the table with the pieces that begin with ``start``."""
        first = bisect_left(self._pieces, start)
        trimmed = start.rstrip(b"\xff")
        if not trimmed:
            return first, len(self._pieces)
        after = trimmed[:-1] + bytes([trimmed[-1] + 1])
        return first, bisect_left(self._pieces, after, lo=first)

    def _range_of(self, piece: bytes) -> IntArray:
        """The ids of tokens that are exactly ``piece``; a few vocabularies have several."""
        first = last = bisect_left(self._pieces, piece)
        while last < len(self._pieces) and self._pieces[last] == piece:
            last += 1
        return self._ids[first:last]

    def _can_be_continued(self, data: bytes) -> bool:
        """Whether ``data`` is a proper prefix of some piece."""
        _, end = self._range(data)
        return end > 0 and len(self._pieces[end - 1]) > len(data) and self._pieces[end - 1].startswith(data)


class _ForcedBytes:
    """Constrains the output to begin with given bytes, in whatever tokens the model prefers."""

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
