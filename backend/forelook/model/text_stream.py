"""Tokens in, text out: characters that are still incomplete and possible stop strings are held back."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from forelook.model.tokenizer import CodeTokenizer


class TextStream:
    """Decodes a growing token sequence without ever taking a character back.

    Args:
        tokenizer: the model's.
        skip: bytes that the output repeats and the reader already has (token healing's forced bytes).
    """

    def __init__(self, tokenizer: CodeTokenizer, *, skip: bytes = b"") -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._skip = len(skip)

    def push(self, ids: Iterable[int]) -> str:
        """Take tokens, return the text that became certain."""
        data = b"".join(map(self._tokenizer.token_bytes, ids))
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        return self._decoder.decode(data)

    def finish(self) -> str:
        """The rest; an unfinished character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)


class StopStrings:
    """Cuts a text stream before the first stop string, holding back what could be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped_at: str | None = None

    def push(self, text: str) -> str:
        """Take text, return the part that certainly precedes every stop string; nothing after one was met."""
        if self.stopped_at is not None:
            return ""
        held = self._held + text
        hits = [(position, stop) for stop in self._stops if (position := held.find(stop)) >= 0]
        if hits:
            position, self.stopped_at = min(hits, key=lambda hit: (hit[0], -len(hit[1])))
            self._held = ""
            return held[:position]
        keep = self._longest_start(held)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def finish(self) -> str:
        """The text held back, when the stream ends without a stop string."""
        held, self._held = self._held, ""
        return held

    def _longest_start(self, text: str) -> int:
        """Length of the longest end of ``text`` that begins a stop string."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest
