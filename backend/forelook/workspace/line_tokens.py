"""Tokens of a document, kept per part, so that an edit re-tokenizes a few lines instead of the file."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from forelook.model.tokenizer import TextSplitter
from forelook.text import common_prefix, common_suffix

MAX_PART_CHARS = 4_096
"""A longer part has no tokens: it would stop requests while it is tokenized. Chosen, not measured."""

# Text tokenized between two yields. Chosen, not measured.
_BATCH_CHARS = 2048
# The overhead of one tokenizer call, expressed in characters. Chosen, not measured.
_CALL_COST_CHARS = 64


@dataclass(frozen=True, slots=True)
class TokenEdit:
    """Replaces the tokens ``[start, end)`` by ``ids``."""

    start: int
    end: int
    ids: list[int]


@dataclass(slots=True)
class LineTokens:
    """The parts of one document and how many tokens each has; those over ``MAX_PART_CHARS`` have none.

    Attributes:
        splitter: splits and tokenizes text.
        pieces: the parts of the text, in order.
        counts: tokens per part.
    """

    splitter: TextSplitter
    pieces: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the document."""
        return sum(self.counts)

    def tokens_until(self, offset: int) -> int:
        """Number of tokens of the parts that start before ``offset``."""
        total = 0
        start = 0
        for piece, count in zip(self.pieces, self.counts, strict=True):
            if start >= offset:
                break
            total += count
            start += len(piece)
        return total

    @property
    def text(self) -> str:
        """The document's text."""
        return "".join(self.pieces)

    def updating(self, text: str) -> Iterator[TokenEdit | None]:
        """Set the document's text, tokenizing a few lines per step.

        Yields ``None`` after each step and, at the end, the edit of the tokens (``None`` if nothing changed). The
        document keeps its old text until the end.
        """
        old = self.pieces
        start, old_end, pieces = self._changed_pieces(text)
        if start == old_end and not pieces:
            yield None
            return
        encoded: list[list[int]] = []
        size = 0
        for piece in pieces:
            is_long = len(piece) > MAX_PART_CHARS
            encoded.append([] if is_long else self.splitter.encode(piece))
            size += _CALL_COST_CHARS + (0 if is_long else len(piece))
            if size >= _BATCH_CHARS:
                size = 0
                yield None
        first = sum(self.counts[:start])
        edit = TokenEdit(first, first + sum(self.counts[start:old_end]), [token for ids in encoded for token in ids])
        self.pieces = [*old[:start], *pieces, *old[old_end:]]
        self.counts[start:old_end] = [len(ids) for ids in encoded]
        yield edit

    def update(self, text: str) -> TokenEdit | None:
        """Set the document's text at once; returns the edit of its tokens, or ``None`` if nothing changed."""
        *_, edit = self.updating(text)
        return edit

    def _changed_pieces(self, text: str) -> tuple[int, int, list[str]]:
        """The parts ``[start, end)`` that change with the new text, and their replacement."""
        old = self.pieces
        ends = list(accumulate(map(len, old)))
        length = ends[-1] if ends else 0
        old_text = self.text
        same_start = common_prefix(old_text, text)
        same_end = common_suffix(old_text[same_start:], text[same_start:])
        # A border depends on the characters around it, so the adjacent parts are split again too.
        start = max(0, bisect_right(ends, same_start) - 1)
        end = min(len(old), bisect_left(ends, length - same_end) + 2)
        first_char = ends[start - 1] if start else 0
        last_char = ends[end - 1] if end else 0
        pieces = self.splitter.split(text[first_char : len(text) - (length - last_char)])
        while start < end and pieces and old[start] == pieces[0]:
            start += 1
            del pieces[0]
        while start < end and pieces and old[end - 1] == pieces[-1]:
            end -= 1
            del pieces[-1]
        return start, end, pieces
