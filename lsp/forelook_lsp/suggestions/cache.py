"""Recent suggestions, looked up by the text around the cursor, without asking the backend.

An entry is anchored at the start of the cursor's line. It fits where the text before the anchor and the text after the
cursor are unchanged and the text between anchor and cursor begins the entry's text. So it fits while the user types the
suggestion, accepts it word by word, or steps back within the word.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from forelook_lsp.positions import normalize_newlines

MAX_ENTRIES = 128  # chosen, not measured
MAX_TEXT_LENGTH = 20_000  # chosen, not measured

CLOSERS = ")]}>\"'`"


@dataclass(frozen=True, slots=True)
class Place:
    """A cursor in a document, with hashes that show whether two places have the same surroundings.

    With hashes the cache need not retain whole documents. They are 64-bit: typed text does not collide by chance.
    """

    uri: str
    text: str
    anchor: int
    offset: int
    before_hash: int
    after_hash: int

    @classmethod
    def of(cls, uri: str, text: str, anchor: int, offset: int) -> Place:
        """Return the place of ``offset``, whose line starts at ``anchor``."""
        return cls(uri, text, anchor, offset, hash(text[:anchor]), hash(text[offset:]))

    @property
    def num_after(self) -> int:
        """Code points after the cursor."""
        return len(self.text) - self.offset

    @property
    def line_before(self) -> str:
        """The text between anchor and cursor."""
        return self.text[self.anchor : self.offset]


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
        return cls(place.anchor, place.before_hash, line, place.num_after, place.after_hash, len(line) - word)

    def typed_at(self, place: Place, *, closers: int = 0) -> str | None:
        """Return the text between the anchor and ``place``, or ``None`` where the surroundings differ.

        Args:
            place: a later cursor in the same document.
            closers: closing characters that the editor has inserted after the cursor since.
        """
        if place.offset < self.anchor or place.num_after - closers != self.num_after:
            return None
        after = place.after_hash if not closers else hash(place.text[place.offset + closers :])
        before = place.before_hash if place.anchor == self.anchor else hash(place.text[: self.anchor])
        if after != self.after_hash or before != self.before_hash:
            return None
        typed = normalize_newlines(place.text[self.anchor : place.offset])
        return typed if len(typed) >= len(self.line_before) - self.num_back else None


def num_auto_closed(place: Place) -> int:
    """Return 1 where a closing character follows the cursor, which the editor may just have inserted, else 0."""
    return int(place.text[place.offset : place.offset + 1] in CLOSERS and place.num_after > 0)


@dataclass(frozen=True, slots=True)
class _Entry:
    span: Span
    continuations: tuple[Continuation, ...]
    num_wanted: int
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
        self, place: Place, continuations: Sequence[Continuation], num_wanted: int, *, is_cut: bool = False
    ) -> None:
        """Remember the model's suggestions at ``place``.

        Args:
            place: the cursor of the request.
            continuations: best first.
            num_wanted: number of suggestions requested.
            is_cut: whether the first one was truncated by a limit.
        """
        kept = [item for item in continuations if 0 < len(item.text) <= MAX_TEXT_LENGTH]
        self._insert(place.uri, Span.at(place), kept, num_wanted, is_cut)

    def add_next_line(self, place: Place, first: Continuation, line: str) -> None:
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
            hash(place.text[end:]),
            0,
        )
        self._insert(place.uri, after, [Continuation(line)], 1, is_cut=False)

    def find(self, place: Place, num_wanted: int = 1, min_cut: int = 0) -> tuple[Continuation, ...]:
        """Return the rest of the newest entry that fits ``place``, best first; empty if none fits.

        Args:
            place: the cursor.
            num_wanted: the entry must come from a request for at least this many suggestions.
            min_cut: minimum rest of a suggestion truncated by a limit, once the user has typed part of it.
        """
        for closers in (0, 1) if num_auto_closed(place) else (0,):
            for key, entry in reversed(self._entries.items()):
                if key[0] != place.uri or entry.num_wanted < num_wanted:
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

    def _insert(
        self, uri: str, span: Span, continuations: Sequence[Continuation], num_wanted: int, is_cut: bool
    ) -> None:
        if not continuations:
            return
        entry_id = self._next_id
        self._next_id += 1
        named = tuple(
            replace(continuation, suggestion_id=f"{entry_id}.{index}")
            for index, continuation in enumerate(continuations)
        )
        self._entries[uri, entry_id] = _Entry(span, named, num_wanted, is_cut)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
