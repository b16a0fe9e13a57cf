"""Tokens of a document, kept piece by piece, so that an edit re-tokenises a few lines and not the file.

A tokenizer cannot be cut anywhere: many join a line break with what stands before or after it. Which cuts leave the
tokens as they are is found by trying: the finest rule under which encoding the pieces of some awkward samples gives
the tokens of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

Encode = Callable[[str], list[int]]

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

    def update(self, text: str) -> TokenEdit | None:
        """Take the document's new text; the edit of its tokens, or ``None`` when nothing changed."""
        pieces = split_text(text, self.rule)
        old = self.pieces
        shortest = min(len(old), len(pieces))
        first = 0
        while first < shortest and old[first] == pieces[first]:
            first += 1
        if first == len(old) == len(pieces):
            return None
        last = 0
        while last < shortest - first and old[-1 - last] == pieces[-1 - last]:
            last += 1
        changed = pieces[first : len(pieces) - last]
        encoded = [self.encode(piece) for piece in changed]
        start = sum(self.counts[:first])
        end = start + sum(self.counts[first : len(old) - last])
        self.counts[first : len(old) - last] = [len(ids) for ids in encoded]
        self.pieces = pieces
        return TokenEdit(start, end, [token for ids in encoded for token in ids])
