"""Many edits of one document at once, as "replace all" sends them, in time linear in the text and the edits.

``Lines`` copies the text per edit, which is best for the one edit of a keystroke. Twenty thousand of them in a text of
two megabytes would take twenty seconds.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, chain, pairwise

from forelook.protocol.messages import TextChange
from forelook.text_edits import EditableText

from forelook_lsp.positions import Lines, PositionEncoding, line_starts, offset_of_units

MIN_EDITS = 16  # fewer are faster one by one; chosen, not measured

# chosen, not measured
_BLOCK_LINES = 64
_MAX_STEPS = 4
_MAX_LINE_LENGTH = 8192

_LONE_RETURN = re.compile("\r(?!\n)")

PositionEdit = tuple[int, int, int, int, str]
"""Start line and character, end line and character, new text."""


def edit_within_lines(lines: Lines, edits: Sequence[PositionEdit], encoding: PositionEncoding) -> Lines | None:
    """Apply edits of which none changes the number of lines: each line is then on its own, in whatever order they come.

    Returns:
        ``None``, without having done anything, if some edit is of another kind or in a very long line.
    """
    text, num_lines = lines.text, lines.num_lines
    if "\r" in text and _LONE_RETURN.search(text) is not None:
        return None  # emptying a line after one could join the two line ends
    touched: dict[int, str] = {}
    for line, start, end_line, end, new in edits:
        if line != end_line or line >= num_lines or "\n" in new or "\r" in new:
            return None
        content = touched.get(line)
        if content is None:
            content = text[lines.line_start(line) : lines.line_end(line)]
        if len(content) > _MAX_LINE_LENGTH:
            return None
        if not content.isascii():
            start, end = offset_of_units(content, start, encoding), offset_of_units(content, end, encoding)
        if start > end:
            start, end = end, start
        touched[line] = content[:start] + new + content[end:]
    pieces: list[str] = []
    lengths = [after - before for before, after in pairwise([*lines.starts, len(text)])]
    done = 0
    for line in sorted(touched):
        start, end = lines.line_start(line), lines.line_end(line)
        pieces += (text[done:start], touched[line])
        lengths[line] += len(touched[line]) - (end - start)
        done = end
    starts = list(accumulate(lengths, initial=0))
    starts.pop()
    return Lines("".join((*pieces, text[done:])), starts)


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
