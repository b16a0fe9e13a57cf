"""Incremental decoding of tokens to text; an incomplete UTF-8 character is held back."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

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
