"""Incremental decoding of tokens to text; an incomplete UTF-8 character is held back."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from forelook.model.tokenizer import CodeTokenizer


class TextStream:
    """Decodes a growing token sequence; text once returned never changes.

    Args:
        tokenizer: of the model.
        skip: leading bytes to drop, because they repeat the prompt (the forced bytes of token healing).
    """

    def __init__(self, tokenizer: CodeTokenizer, *, skip: bytes = b"") -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._skip = len(skip)

    def push(self, ids: Iterable[int]) -> str:
        """Add tokens; returns the text that is now complete."""
        data = b"".join(map(self._tokenizer.token_bytes, ids))
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        return self._decoder.decode(data)

    def finish(self) -> str:
        """The remaining text; an incomplete character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)
