"""Many edits of one document at once, as "replace all" sends them, in time linear in the text and the edits.

``Lines`` copies the text per edit, which is best for the one edit of a keystroke. Twenty thousand of them in a text of
two megabytes would take twenty seconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

from forelook.protocol.messages import TextChange
from forelook.text_edits import EditableText

from forelook_lsp.positions import Lines, PositionEdit, PositionEncoding, line_starts, offset_of_units, units_before

MIN_EDITS = 16  # fewer are faster one by one; chosen, not measured

# chosen, not measured
_BLOCK_LINES = 64
_MAX_STEPS = 4
_MAX_LINE_LENGTH = 8192


def edit_in_order(lines: Lines, edits: Sequence[PositionEdit], encoding: PositionEncoding) -> Lines | None:
    """Apply edits in one pass, if each lies before all former ones, as VS Code sends them, or each behind them.

    Returns:
        ``None``, without having done anything, for other edits, and for positions beyond the end of their line.
    """
    text = lines.text
    ending = _length_of_line_ends(text)
    if ending is None:
        return None
    # In a text of ASCII, units of every encoding are characters.
    old = _OldText(text, [*lines.starts, len(text) + ending], ending, None if text.isascii() else encoding)
    pieces = _backwards(old, edits) or _forwards(old, edits, encoding)
    return None if pieces is None else Lines("".join(pieces))


def _length_of_line_ends(text: str) -> int | None:
    """Length of a line end; ``None`` if there are several kinds, or a ``\\r`` that is one alone."""
    num_returns = text.count("\r")
    if not num_returns:
        return 1
    return 2 if text.count("\r\n") == num_returns == text.count("\n") else None


class _OldText(NamedTuple):
    """A text before the edits.

    Attributes:
        text: the text.
        starts: of its lines, and where a line after the last would start.
        ending: length of its line ends.
        encoding: what a position counts; ``None`` for characters.
    """

    text: str
    starts: list[int]
    ending: int
    encoding: PositionEncoding | None

    def after(self, start: int, line: int, units: int) -> int:
        """The offset ``units`` after ``start``, in the same line; -1 if that is beyond it, or if the line is long."""
        end = self.starts[line + 1] - self.ending
        if self.encoding is None:
            return start + units if start + units <= end else -1
        if end - start > _MAX_LINE_LENGTH:
            return -1
        rest = self.text[start:end]
        num_chars = offset_of_units(rest, units, self.encoding)
        is_beyond = num_chars == len(rest) and units_before(rest, num_chars, self.encoding) < units
        return -1 if is_beyond else start + num_chars


def _backwards(old: _OldText, edits: Sequence[PositionEdit]) -> list[str] | None:
    """The pieces of the new text, where each edit lies before all former ones: its position is one of the old text."""
    text, starts, ending, encoding = old
    num_lines = len(starts) - 1
    pieces: list[str] = []
    rest_from = len(text)
    for line, character, end_line, end_character, new in edits:
        if line >= num_lines or end_line >= num_lines:
            return None
        line_start = starts[line]
        start, end = line_start + character, starts[end_line] + end_character
        is_near = line == end_line and end_character <= _MAX_LINE_LENGTH
        if encoding is not None and not (is_near and text[line_start:end].isascii()):
            start = old.after(line_start, line, character)
            end = old.after(starts[end_line], end_line, end_character)
        elif start > starts[line + 1] - ending or end > starts[end_line + 1] - ending:
            return None
        if not 0 <= start <= end <= rest_from:
            return None
        pieces += (text[end:rest_from], new)
        rest_from = start
    pieces.append(text[:rest_from])
    pieces.reverse()
    return pieces


def _forwards(old: _OldText, edits: Sequence[PositionEdit], encoding: PositionEncoding) -> list[str] | None:
    """The same where each edit lies behind all former ones, which have moved its line and character."""
    text, starts = old.text, old.starts
    num_lines = len(starts) - 1
    pieces: list[str] = []
    done = 0  # the old text before it is in the pieces
    done_line = done_character = num_new_lines = 0  # where that is now, and how many lines the edits have added
    for line, character, end_line, end_character, new in edits:
        old_line, old_end_line = line - num_new_lines, end_line - num_new_lines
        if not done_line <= line <= end_line or old_end_line >= num_lines or "\r" in new:
            return None
        start, skipped = (done, done_character) if line == done_line else (starts[old_line], 0)
        end, end_skipped = (start, skipped) if end_line == line else (starts[old_end_line], 0)
        if character < skipped or end_character < end_skipped:
            return None
        start = old.after(start, old_line, character - skipped)
        end = old.after(end, old_end_line, end_character - end_skipped)
        if not done <= start <= end:
            return None
        pieces += (text[done:start], new)
        done = end
        num_breaks = new.count("\n")
        num_new_lines += num_breaks - (end_line - line)
        done_line = line + num_breaks
        tail = new[new.rindex("\n") + 1 :] if num_breaks else new
        done_character = units_before(tail, len(tail), encoding) + (0 if num_breaks else character)
    pieces.append(text[done:])
    return pieces


class BatchEdits:
    """A text and the lengths of its lines, in blocks. Where a block starts is known up to the last edit."""

    def __init__(self, lines: Lines, encoding: PositionEncoding) -> None:
        """Split the text.

        Args:
            lines: the text before the edits; it is not changed.
            encoding: the unit of the positions.
        """
        starts = [*lines.starts, len(lines.text)]
        lengths = [after - before for before, after in pairwise(starts)]
        self.text = EditableText(lines.text)
        self._encoding = encoding
        self._counts_characters = encoding is PositionEncoding.UTF32 or lines.text.isascii()
        self._blocks = [lengths[i : i + _BLOCK_LINES] for i in range(0, len(lengths), _BLOCK_LINES)]
        self._num_chars = [sum(block) for block in self._blocks]
        self._first_lines = [0]
        self._first_offsets = [0]
        self._num_lines = len(lengths)

    def apply(
        self, edits: Sequence[PositionEdit], will_edit: Callable[[EditableText, TextChange], None] | None = None
    ) -> None:
        """Apply edits in order, each in positions of the text that those before it left.

        Args:
            edits: in the editor's units.
            will_edit: receives the text and each edit before it is applied.
        """
        text, find_line, blocks = self.text, self._find_line, self._blocks
        for start_line, start_character, end_line, end_character, new in edits:
            if self._counts_characters and not new.isascii():
                self._counts_characters = self._encoding is PositionEncoding.UTF32
            block, index, line_start = find_line(start_line)
            length = blocks[block][index]
            is_in_line = start_line == end_line < self._num_lines
            if is_in_line and self._counts_characters and start_character <= end_character < length - 2:
                start, end = line_start + start_character, line_start + end_character
            else:
                start, end = self.offset_at(start_line, start_character), self.offset_at(end_line, end_character)
                if start > end:
                    start, end = end, start
            if will_edit is not None:
                will_edit(text, TextChange(start, end, new))
            # An edit within a line changes its length only, unless an empty line may now join two line ends.
            keeps_text = new or line_start < start or end < line_start + length - 2
            if is_in_line and keeps_text and "\n" not in new and "\r" not in new:
                text.replace(start, end, new)
                delta = len(new) - (end - start)
                blocks[block][index] = length + delta
                self._num_chars[block] += delta
                del self._first_lines[block + 1 :], self._first_offsets[block + 1 :]
            else:
                self._replace_lines(start, end, new)

    def lines(self) -> Lines:
        """Return the text after the edits."""
        starts = list(accumulate(chain.from_iterable(self._blocks), initial=0))
        starts.pop()
        return Lines(str(self.text), starts)

    def offset_at(self, line: int, character: int) -> int:
        """Return the offset of an LSP position; a line beyond the last means the end of the text."""
        if line >= self._num_lines:
            return len(self.text)
        block, index, start = self._find_line(line)
        end = start + self._blocks[block][index]
        if self._counts_characters and start + character < end - 2:
            return start + character
        ending = self.text[max(start, end - 2) : end]
        end -= 2 if ending == "\r\n" else 1 if ending.endswith(("\n", "\r")) else 0
        if self._counts_characters:
            return min(start + character, end)
        head = self.text[start : min(end, start + character)]
        return start + offset_of_units(head, character, self._encoding)

    def _replace_lines(self, start: int, end: int, new: str) -> None:
        """Replace ``[start, end)`` and find the lines around it again."""
        # One character earlier: a "\r" there may become "\r\n", or stop being part of it.
        first_block, first_index, first_start = self._find_offset(max(start - 1, 0))
        last_block, last_index, last_start = self._find_offset(end)
        last_end = last_start + self._blocks[last_block][last_index]
        is_last = last_end == len(self.text) and last_block + 1 == len(self._blocks)
        is_last = is_last and last_index + 1 == len(self._blocks[last_block])
        self.text.replace(start, end, new)
        region = self.text[first_start : last_end + len(new) - (end - start)]
        starts = [0, *line_starts(region)]
        if not is_last and starts[-1] == len(region):
            starts.pop()  # the next line starts there, and is known
        lengths = [after - before for before, after in zip(starts, [*starts[1:], len(region)], strict=True)]
        former = self._blocks[first_block : last_block + 1]
        merged = [*former[0][:first_index], *lengths, *former[-1][last_index + 1 :]]
        self._num_lines += len(merged) - sum(map(len, former))
        blocks = [merged]
        if first_block != last_block or len(merged) > 2 * _BLOCK_LINES:
            blocks = [merged[i : i + _BLOCK_LINES] for i in range(0, len(merged), _BLOCK_LINES)]
        self._blocks[first_block : last_block + 1] = blocks
        self._num_chars[first_block : last_block + 1] = map(sum, blocks)
        del self._first_lines[first_block + 1 :], self._first_offsets[first_block + 1 :]

    def _find_line(self, line: int) -> tuple[int, int, int]:
        """The block of a line, its index there, and the offset where it starts; the last line if there are fewer."""
        line = min(line, self._num_lines - 1)
        firsts = self._first_lines
        block = len(firsts) - 1
        if line >= firsts[block] + len(self._blocks[block]):
            self._know_blocks(lambda: line < firsts[-1] + len(self._blocks[len(firsts) - 1]))
            block = len(firsts) - 1
        if line < firsts[block]:
            block = bisect_right(firsts, line) - 1
        index = line - firsts[block]
        return block, index, self._first_offsets[block] + sum(self._blocks[block][:index])

    def _find_offset(self, offset: int) -> tuple[int, int, int]:
        """The same for the line that contains ``offset``."""
        firsts = self._first_offsets
        if offset >= firsts[-1]:
            self._know_blocks(lambda: offset < firsts[-1] + self._num_chars[len(firsts) - 1])
        block = bisect_right(firsts, offset) - 1
        start, lengths = firsts[block], self._blocks[block]
        index = 0
        while index < len(lengths) - 1 and offset >= start + lengths[index]:
            start += lengths[index]
            index += 1
        return block, index, start

    def _know_blocks(self, is_enough: Callable[[], bool]) -> None:
        """Note where the blocks after the last known one start, until it is enough or all are known."""
        lines, offsets, blocks = self._first_lines, self._first_offsets, self._blocks
        for _ in range(_MAX_STEPS):
            if len(lines) == len(blocks) or is_enough():
                return
            last = len(lines) - 1
            lines.append(lines[last] + len(blocks[last]))
            offsets.append(offsets[last] + self._num_chars[last])
        # Far away: all the rest at once, at the speed of C.
        last = len(lines) - 1
        lines[last:] = accumulate(map(len, blocks[last:-1]), initial=lines[last])
        offsets[last:] = accumulate(self._num_chars[last:-1], initial=offsets[last])
