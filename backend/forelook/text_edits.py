"""A text under many edits: each costs little more than the characters it touches, not the length of the text."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from math import isqrt

# chosen, not measured
_MIN_CHUNK = 1024
_MAX_STEPS = 4


class EditableText:
    """A text in chunks of a few times the square root of its length, so that an edit copies one chunk.

    Where a chunk starts is known up to the last edit and found again on demand: edits in ascending or descending order
    find their chunk at once, others after a walk over the chunks.
    """

    __slots__ = ("_chunk_length", "_chunks", "_length", "_starts")

    def __init__(self, text: str) -> None:
        size = self._chunk_length = max(_MIN_CHUNK, 8 * isqrt(len(text)))
        self._chunks = [text[start : start + size] for start in range(0, len(text), size)] or [""]
        self._starts = [0]  # of the first chunks; those after the last edit are missing
        self._length = len(text)

    def __len__(self) -> int:
        return self._length

    def __str__(self) -> str:
        return "".join(self._chunks)

    def __getitem__(self, where: slice) -> str:
        """The characters of a slice without a step, as of a string."""
        start, end, _ = where.indices(self._length)
        if start >= end:
            return ""
        chunks = self._chunks
        index = self._find(start)
        at = self._starts[index]
        piece = chunks[index][start - at : end - at]
        if len(piece) == end - start:
            return piece
        pieces, left = [piece], end - start - len(piece)
        while left > 0:
            index += 1
            piece = chunks[index][:left]
            pieces.append(piece)
            left -= len(piece)
        return "".join(pieces)

    def replace(self, start: int, end: int, new: str) -> None:
        """Replace ``[start, end)``, which must lie within the text, by ``new``."""
        chunks, index = self._chunks, self._find(start)
        at = self._starts[index]
        chunk = chunks[index]
        last, tail_from = index, end - at
        length = len(chunk)
        while tail_from > length:
            tail_from -= length
            last += 1
            length = len(chunks[last])
        merged = chunk[: start - at] + new + chunks[last][tail_from:]
        size = self._chunk_length
        if last == index and len(merged) <= 2 * size:
            chunks[index] = merged
        else:
            chunks[index : last + 1] = [merged[i : i + size] for i in range(0, len(merged), size)] or [""]
        del self._starts[index + 1 :]
        self._length += len(new) - (end - start)

    def _find(self, offset: int) -> int:
        """The chunk that ``offset`` lies in, or at the end of."""
        starts, chunks = self._starts, self._chunks
        index = len(starts) - 1
        if offset < starts[index]:
            return bisect_right(starts, offset) - 1
        end = starts[index] + len(chunks[index])
        for _ in range(_MAX_STEPS):
            if offset < end or index + 1 == len(chunks):
                return index
            starts.append(end)
            index += 1
            end += len(chunks[index])
        if offset < end or index + 1 == len(chunks):
            return index
        # Far away: all the rest at once, at the speed of C.
        starts.extend(accumulate(map(len, chunks[index + 1 : -1]), initial=end))
        return bisect_right(starts, offset) - 1
