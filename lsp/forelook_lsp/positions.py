"""LSP positions and code-point offsets: the only module that knows UTF-16 and LSP's line rules.

LSP ends a line at ``\\n``, ``\\r\\n`` or ``\\r`` only. ``str.splitlines`` also breaks at form feeds, U+0085 and U+2028;
every later position would be off by a line.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from enum import Enum
from itertools import accumulate

_LINE_END = re.compile(r"\r\n|\n|\r")
_LINE_END_CHARACTER = re.compile(r"[\r\n]")
_LENGTH_WITH_END = (1).__add__
_UNITS_CHUNK = 4_096  # code points whose units are counted at once; chosen, not measured


PositionEdit = tuple[int, int, int, int, str]
"""Start line and character, end line and character, new text. A plain tuple: one message may bring 20,000."""


class PositionEncoding(Enum):
    """The unit of an LSP ``character``."""

    UTF8 = "utf-8"
    UTF16 = "utf-16"
    UTF32 = "utf-32"


def line_starts(text: str, start: int = 0, end: int | None = None) -> list[int]:
    """Return the offset after each line end that lies within ``text[start:end]``."""
    if start == 0 and end is None and "\r" not in text:  # five times as fast
        ends = list(accumulate(map(_LENGTH_WITH_END, map(len, text.split("\n")))))
        ends.pop()  # no line end follows the last line
        return ends
    return [match.end() for match in _LINE_END.finditer(text, start, len(text) if end is None else end)]


def normalize_newlines(text: str) -> str:
    """Return ``text`` with every LSP line end as ``\\n``."""
    return _LINE_END.sub("\n", text) if "\r" in text else text


def units_before(line: str, offset: int, encoding: PositionEncoding) -> int:
    """Return the length in units of the first ``offset`` code points of ``line``."""
    head = line[:offset]
    if encoding is PositionEncoding.UTF32 or head.isascii():
        return len(head)
    return _num_units(head, encoding)


def offset_of_units(line: str, units: int, encoding: PositionEncoding) -> int:
    """Return how many code points of ``line`` lie before ``units``.

    A count beyond the line means its end, as in LSP; one inside a code point means the start of that code point.
    """
    head = line[:units]  # no code point is shorter than a unit
    if encoding is PositionEncoding.UTF32 or head.isascii():
        return len(head)
    codec, width = ("utf-16-le", 2) if encoding is PositionEncoding.UTF16 else ("utf-8", 1)
    try:
        data = head.encode(codec)
    except UnicodeEncodeError:  # lone surrogates cannot be decoded again
        return _offset_by_steps(head, units, encoding)
    return len(data[: width * units].decode(codec, "ignore"))  # ignores a code point that the cut splits


def _offset_by_steps(line: str, units: int, encoding: PositionEncoding) -> int:
    taken = start = 0
    # Whole chunks are counted in C: a line may have a million characters.
    while start + _UNITS_CHUNK <= len(line):
        size = _num_units(line[start : start + _UNITS_CHUNK], encoding)
        if taken + size > units:
            break
        taken, start = taken + size, start + _UNITS_CHUNK
    for offset, char in enumerate(line[start : start + _UNITS_CHUNK], start):
        if encoding is PositionEncoding.UTF16:
            taken += 2 if char > "\uffff" else 1
        else:
            taken += 1 if char < "\x80" else 2 if char < "\u0800" else 3 if char <= "\uffff" else 4
        if taken > units:
            return offset
    return len(line)


def _num_units(text: str, encoding: PositionEncoding) -> int:
    if encoding is PositionEncoding.UTF16:
        return len(text.encode("utf-16-le", "surrogatepass")) // 2
    return len(text.encode("utf-8", "surrogatepass"))


class Lines:
    """A text with the offsets of its lines; edits update both."""

    __slots__ = ("_starts", "text")

    def __init__(self, text: str, starts: list[int] | None = None) -> None:
        self.text = text
        self._starts = [0, *line_starts(text)] if starts is None else starts

    @property
    def starts(self) -> list[int]:
        """The offset of the first character of each line."""
        return self._starts

    @property
    def num_lines(self) -> int:
        """Number of lines; a text that ends with a newline has an empty last line."""
        return len(self._starts)

    def line_at(self, offset: int) -> int:
        """Return the line that contains ``offset``."""
        return bisect_right(self._starts, offset) - 1

    def line_start(self, line: int) -> int:
        """Return the offset of the first character of ``line``."""
        return self._starts[line]

    def line_end(self, line: int) -> int:
        """Return the offset of the end of ``line``, its line end excluded."""
        if line + 1 == len(self._starts):
            return len(self.text)
        end = self._starts[line + 1] - 1
        if self.text[end] == "\n" and end > self._starts[line] and self.text[end - 1] == "\r":
            end -= 1
        return end

    def offset_at(self, line: int, character: int, encoding: PositionEncoding) -> int:
        """Return the offset of an LSP position; a line beyond the last means the end of the text."""
        if line >= len(self._starts):
            return len(self.text)
        start = self._starts[line]
        return start + offset_of_units(self.text[start : self.line_end(line)], character, encoding)

    def position_at(self, offset: int, encoding: PositionEncoding) -> tuple[int, int]:
        """Return line and character of ``offset``; an offset between ``\\r`` and ``\\n`` means before both."""
        line = self.line_at(offset)
        start = self._starts[line]
        return line, units_before(self.text[start : self.line_end(line)], offset - start, encoding)

    def become(self, other: Lines) -> None:
        """Have the text of ``other``."""
        self.text, self._starts = other.text, other.starts

    def replace(self, start: int, end: int, new: str) -> None:
        """Replace ``[start, end)`` by ``new``; only the new text is searched for line ends."""
        starts, delta = self._starts, len(new) - (end - start)
        self.text = text = self.text[:start] + new + self.text[end:]
        # Whether a line starts at an offset depends on the characters on both sides of it.
        touched = [
            match.end()
            for match in _LINE_END_CHARACTER.finditer(text, max(start - 1, 0), start + len(new))
            if match.group() == "\n" or text[match.end() : match.end() + 1] != "\n"
        ]
        first = max(1, bisect_left(starts, start))
        last = max(first, bisect_right(starts, end))
        rest = starts[last:]
        self._starts = [*starts[:first], *touched, *([at + delta for at in rest] if delta else rest)]
