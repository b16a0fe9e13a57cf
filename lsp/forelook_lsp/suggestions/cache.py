"""Recent suggestions, looked up by the text around the cursor, without asking the backend.

An entry is anchored at the start of the cursor's line. It fits where its condition applies, the text before the anchor
and the text after the cursor are unchanged and the text between anchor and cursor begins the entry's text. So it fits
while the user types the suggestion, accepts it word by word, or steps back within the word.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from forelook_lsp.positions import normalize_newlines
from forelook_lsp.suggestions.condition import Condition

MAX_ENTRIES = 128  # chosen, not measured
MAX_TEXT_LENGTH = 20_000  # chosen, not measured

LINE_STEP = 1_000
"""On a line with more than two steps before the cursor, the anchor is at a multiple of a step. Chosen, not measured."""

CLOSERS = ")]}>\"'`"


@dataclass(frozen=True, slots=True)
class Place:
    """A cursor in a document, with hashes that show whether two places have the same surroundings.

    With hashes the cache need not retain whole documents. They are 64-bit: typed text does not collide by chance.

    Attributes:
        uri: the document.
        text: its text.
        line_start: where the cursor's line starts.
        offset: the cursor.
        anchor: the line's start, or on a long line a place that stays the same for a while; the work per key is bounded
            by the distance between anchor and cursor.
    """

    uri: str
    text: str
    line_start: int
    offset: int
    anchor: int
    _hashes: dict[tuple[int, int], int] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, uri: str, text: str, line_start: int, offset: int) -> Place:
        """Return the place of ``offset``, in the line that starts at ``line_start``."""
        num_steps = max(0, (offset - line_start) // LINE_STEP - 1)
        return cls(uri, text, line_start, offset, line_start + num_steps * LINE_STEP)

    @property
    def num_after(self) -> int:
        """Code points after the cursor."""
        return len(self.text) - self.offset

    @property
    def line_before(self) -> str:
        """The text between anchor and cursor."""
        return self.text[self.anchor : self.offset]

    def hash_before(self, end: int) -> int:
        """Hash of the text before ``end``."""
        return self._hash(0, end)

    def hash_after(self, start: int) -> int:
        """Hash of the text after ``start``."""
        return self._hash(start, len(self.text))

    def _hash(self, start: int, end: int) -> int:
        # One place is compared with every entry of the cache, and entries share anchors.
        found = self._hashes.get((start, end))
        if found is None:
            found = self._hashes[start, end] = hash(self.text[start:end])
        return found


@dataclass(frozen=True, slots=True)
class Continuation:
    """A suggestion as the text it inserts at the cursor.

    Attributes:
        text: the inserted text, newlines normalized.
        num_replaced: code points after the cursor that it replaces.
        suggestion_id: identifies the suggestion while the user types through it; the cache assigns it.
    """

    text: str
    num_replaced: int = 0
    suggestion_id: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """The surroundings in which continuations are valid, for cached suggestions and running requests.

    Attributes:
        anchor, before_hash: the start of the line, and the text before it.
        line_before: the text between anchor and cursor, newlines normalized.
        num_after, after_hash: the text after the cursor.
        num_back: code points before its own cursor at which it is still valid.
    """

    anchor: int
    before_hash: int
    line_before: str
    num_after: int
    after_hash: int
    num_back: int

    @classmethod
    def at(cls, place: Place) -> Span:
        """Return the surroundings of ``place``."""
        line = normalize_newlines(place.line_before)
        word = len(line)
        while word > 0 and (line[word - 1].isalnum() or line[word - 1] == "_"):
            word -= 1
        before, after = place.hash_before(place.anchor), place.hash_after(place.offset)
        return cls(place.anchor, before, line, place.num_after, after, len(line) - word)

    def typed_at(self, place: Place, *, closers: int = 0) -> str | None:
        """Return the text between the anchor and ``place``, or ``None`` where the surroundings differ.

        Args:
            place: a later cursor in the same document.
            closers: closing characters that the editor has inserted after the cursor since.
        """
        if place.offset < self.anchor or place.num_after - closers != self.num_after:
            return None
        if place.hash_after(place.offset + closers) != self.after_hash:
            return None
        if place.hash_before(self.anchor) != self.before_hash:
            return None
        typed = normalize_newlines(place.text[self.anchor : place.offset])
        return typed if len(typed) >= len(self.line_before) - self.num_back else None


def num_auto_closed(place: Place) -> int:
    """Return 1 where a closing character follows the cursor, which the editor may just have inserted, else 0."""
    return int(place.text[place.offset : place.offset + 1] in CLOSERS and place.num_after > 0)


@dataclass(frozen=True, slots=True)
class _Entry:
    span: Span
    condition: Condition
    continuations: tuple[Continuation, ...]
    is_cut: bool

    def left_at(self, place: Place, closers: int, min_cut: int) -> tuple[Continuation, ...]:
        typed = self.span.typed_at(place, closers=closers)
        if typed is None:
            return ()
        left = []
        for index, continuation in enumerate(self.continuations):
            whole = self.span.line_before + continuation.text
            if len(whole) <= len(typed) or not whole.startswith(typed):
                continue
            rest = whole[len(typed) :]
            if self.is_cut and index == 0 and len(typed) > len(self.span.line_before) and len(rest) < min_cut:
                continue
            if closers and place.text[place.offset] not in rest:
                continue
            left.append(replace(continuation, text=rest, num_replaced=continuation.num_replaced + closers))
        return tuple(left)


class SuggestionCache:
    """Recent suggestions of all documents, in LRU order."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[tuple[str, int], _Entry] = OrderedDict()
        self._next_id = 1

    def __len__(self) -> int:
        return len(self._entries)

    def add(
        self, place: Place, condition: Condition, continuations: Sequence[Continuation], *, is_cut: bool = False
    ) -> None:
        """Remember the model's suggestions at ``place``.

        Args:
            place: the cursor of the request.
            condition: under which they were requested.
            continuations: best first.
            is_cut: whether the first one was truncated by a limit.
        """
        kept = [item for item in continuations if 0 < len(item.text) <= MAX_TEXT_LENGTH]
        self._insert(place.uri, _Entry(Span.at(place), condition, tuple(kept), is_cut))

    def add_next_line(self, place: Place, condition: Condition, first: Continuation, line: str) -> None:
        """Remember the line generated after ``first``, to show once the user has accepted ``first``."""
        if not line.strip() or len(line) > MAX_TEXT_LENGTH:
            return
        end = place.offset + first.num_replaced
        span = Span.at(place)
        after = Span(
            span.anchor,
            span.before_hash,
            span.line_before + first.text,
            len(place.text) - end,
            place.hash_after(end),
            0,
        )
        typing = replace(condition, invoked=False, num_wanted=1, selected=None)
        self._insert(place.uri, _Entry(after, typing, (Continuation(line),), is_cut=False))

    def find(self, place: Place, condition: Condition, min_cut: int = 0) -> tuple[Continuation, ...]:
        """Return the rest of the newest entry that fits ``place``, best first; empty if none fits.

        Args:
            place: the cursor.
            condition: the entry must come from a request under one that serves it.
            min_cut: minimum rest of a suggestion truncated by a limit, once the user has typed part of it.
        """
        for closers in (0, 1) if num_auto_closed(place) else (0,):
            for key, entry in reversed(self._entries.items()):
                if key[0] != place.uri or not entry.condition.serves(condition, place.offset):
                    continue
                left = entry.left_at(place, closers, min_cut)
                if left:
                    self._entries.move_to_end(key)
                    return left
        return ()

    def forget(self, uri: str) -> None:
        """Drop all entries of a document."""
        for key in [key for key in self._entries if key[0] == uri]:
            del self._entries[key]

    def clear(self) -> None:
        """Drop all entries."""
        self._entries.clear()

    def _insert(self, uri: str, entry: _Entry) -> None:
        if not entry.continuations:
            return
        entry_id = self._next_id
        self._next_id += 1
        named = tuple(
            replace(continuation, suggestion_id=f"{entry_id}.{index}")
            for index, continuation in enumerate(entry.continuations)
        )
        self._entries[uri, entry_id] = replace(entry, continuations=named)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
