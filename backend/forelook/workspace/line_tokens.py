"""Tokens of a document, kept piece by piece, so that an edit re-tokenises a few lines and not the file.

A tokenizer cannot be cut anywhere: many join a line break with what stands before or after it. Which cuts leave the
tokens as they are is found by trying: the finest rule under which encoding the pieces of some awkward samples gives
the tokens of the whole.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate

from forelook.text import common_prefix, common_suffix

Encode = Callable[[str], list[int]]

_BATCH_CHARS = 2048
_PIECE_COST_CHARS = 64  # what a call of the tokenizer costs, in characters

_SAMPLES = (
    "def f(a, b):\n    return a + b\n\n\nclass A:\n    x = 1\n\n    def g(self):\n        pass\n",
    "if (x) {\n\tfoo();\n\n\tbar(1);  \n  \n}\n\nend\n",
    "a = [\n    1,\n    2,\n]\n  \n\n    b = '''\n\n  text  \n\ttab\n'''\n# comment\n\n\n\nx\n",
    "one\r\n    two\r\n\r\n  three();\r\n}\r\n",
    "x  \n  y \t\n\t z\n\n \n)\n);\n\n};\n/* é — 漢字 */\n  // 🙂\n1\n22\n   333\n",
)


class CutRule(Enum):
    """Where a document may be cut without changing its tokens; the pattern matches the empty string there."""

    BEFORE_NEWLINE = r"(?=\n)"
    AFTER_NEWLINE = r"(?<=\n)"
    BEFORE_TEXT_LINE = r"(?<=\n)(?=[ \t]*[^\s])"
    BEFORE_UNINDENTED_LINE = r"(?<=\n)(?=[^\s])"
    NOWHERE = r"(?!)"


def find_cut_rule(encode: Encode) -> CutRule:
    """The finest rule that leaves the tokens of all samples as they are."""
    for rule in CutRule:
        if all(_joined(encode, split_text(sample, rule)) == encode(sample) for sample in _SAMPLES):
            return rule
    return CutRule.NOWHERE


def split_text(text: str, rule: CutRule) -> list[str]:
    """The pieces of a text; none is empty, and joined they are the text."""
    return [piece for piece in re.split(rule.value, text) if piece]


def _joined(encode: Encode, pieces: list[str]) -> list[int]:
    return [token for piece in pieces for token in encode(piece)]


@dataclass(frozen=True, slots=True)
class TokenEdit:
    """Replace tokens ``[start, end)`` by ``ids``."""

    start: int
    end: int
    ids: list[int]


@dataclass(slots=True)
class LineTokens:
    """The pieces of one document and how many tokens each has.

    Attributes:
        encode: text to token ids.
        rule: where the text is cut.
        pieces: the text, in pieces.
        counts: tokens per piece.
    """

    encode: Encode
    rule: CutRule
    pieces: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Tokens of the document."""
        return sum(self.counts)

    def tokens_until(self, offset: int) -> int:
        """How many tokens lie in the pieces that begin before a place in the text."""
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
        """Take the document's new text, a few lines at a time; the last value is the edit of its tokens.

        ``None`` comes after each part of the work, and as the last value when nothing changed. Until the end the
        document is as it was.
        """
        old = self.pieces
        start, old_end, pieces = self._changed_pieces(text)
        if start == old_end and not pieces:
            yield None
            return
        encoded: list[list[int]] = []
        size = 0
        for piece in pieces:
            encoded.append(self.encode(piece))
            size += len(piece) + _PIECE_COST_CHARS
            if size >= _BATCH_CHARS:
                size = 0
                yield None
        first = sum(self.counts[:start])
        edit = TokenEdit(first, first + sum(self.counts[start:old_end]), [token for ids in encoded for token in ids])
        self.pieces = [*old[:start], *pieces, *old[old_end:]]
        self.counts[start:old_end] = [len(ids) for ids in encoded]
        yield edit

    def update(self, text: str) -> TokenEdit | None:
        """Take the document's new text at once; the edit of its tokens, or ``None`` when nothing changed."""
        *_, edit = self.updating(text)
        return edit

    def _changed_pieces(self, text: str) -> tuple[int, int, list[str]]:
        """Pieces ``[start, end)`` that the new text replaces, and by what."""
        old = self.pieces
        ends = list(accumulate(map(len, old)))
        length = ends[-1] if ends else 0
        old_text = self.text
        same_start = common_prefix(old_text, text)
        same_end = common_suffix(old_text[same_start:], text[same_start:])
        # A cut depends on the characters beside it: the pieces on either side are split anew as well.
        start = max(0, bisect_right(ends, same_start) - 1)
        end = min(len(old), bisect_left(ends, length - same_end) + 2)
        first_char = ends[start - 1] if start else 0
        last_char = ends[end - 1] if end else 0
        pieces = split_text(text[first_char : len(text) - (length - last_char)], self.rule)
        while start < end and pieces and old[start] == pieces[0]:
            start += 1
            del pieces[0]
        while start < end and pieces and old[end - 1] == pieces[-1]:
            end -= 1
            del pieces[-1]
        return start, end, pieces
