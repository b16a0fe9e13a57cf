"""Suggestions the model already gave, found again by what stands around the cursor, with no round trip.

An entry is anchored at the start of the cursor's line. It fits wherever everything before the anchor and everything
after the cursor is as it was and what now stands between anchor and cursor begins the entry's text: while the user
types the suggestion, takes it word by word, or steps back within the word.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from forelook_lsp.positions import normalize_newlines

MAX_ENTRIES = 128
MAX_TEXT_LENGTH = 20_000

_CLOSERS = ")]}>\"'`"


@dataclass(frozen=True, slots=True)
class Place:
    """A cursor in a document's text, with the hashes that say whether two places have the same surroundings.

    Hashes stand in for the text on both sides: entries then cost no memory per document, and a 64-bit hash of text the
    user has typed does not collide by chance.
    """

    uri: str
    text: str
    anchor: int
    offset: int
    before_hash: int
    after_hash: int

    @classmethod
    def of(cls, uri: str, text: str, anchor: int, offset: int) -> Place:
        """The place of ``offset``, whose line starts at ``anchor``."""
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
    """What a suggestion puts after the cursor, in place of the next ``num_replaced`` code points."""

    text: str
    num_replaced: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """The surroundings in which continuations hold; shared by cached suggestions and running requests.

    Attributes:
        anchor, before_hash: the start of the line, and what stands before it.
        line_before: what stood between the anchor and the cursor, newlines normalised.
        num_after, after_hash: what stands after the cursor.
        num_back: how far back of its own cursor it still holds.
    """

    anchor: int
    before_hash: int
    line_before: str
    num_after: int
    after_hash: int
    num_back: int

    @classmethod
    def at(cls, place: Place) -> Span:
        """The surroundings of ``place``."""
        line = normalize_newlines(place.line_before)
        word = len(line)
        while word > 0 and (line[word - 1].isalnum() or line[word - 1] == "_"):
            word -= 1
        return cls(place.anchor, place.before_hash, line, place.num_after, place.after_hash, len(line) - word)

    def typed_at(self, place: Place, *, closers: int = 0) -> str | None:
        """What stands between the anchor and ``place``, or ``None`` where the surroundings differ.

        Args:
            place: a later cursor in the same document.
            closers: how many closing characters the editor put after the cursor since.
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
    """1 where a closing character follows the cursor, which an editor may just have put there, else 0."""
    return int(place.text[place.offset : place.offset + 1] in _CLOSERS and place.num_after > 0)


@dataclass(frozen=True, slots=True)
class Hit:
    """A cached entry that fits.

    Attributes:
        entry_id: the entry, the same while the user types through it.
        continuations: what is left of its suggestions, best first, with each one's index in the entry.
        num_asked: how many suggestions the backend was asked for.
    """

    entry_id: int
    continuations: tuple[tuple[int, Continuation], ...]
    num_asked: int


@dataclass(frozen=True, slots=True)
class _Entry:
    entry_id: int
    span: Span
    continuations: tuple[Continuation, ...]
    num_asked: int
    is_cut: bool = False

    def left_at(self, place: Place, closers: int, min_cut: int) -> tuple[tuple[int, Continuation], ...]:
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
            left.append((index, Continuation(rest, continuation.num_replaced + closers)))
        return tuple(left)


class SuggestionCache:
    """Recent suggestions of all documents, the least recently useful leaving first."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[tuple[str, int], _Entry] = OrderedDict()
        self._next_id = 1

    def __len__(self) -> int:
        return len(self._entries)

    def add(
        self, place: Place, continuations: Sequence[Continuation], num_asked: int, *, is_cut: bool = False
    ) -> int | None:
        """Remember what the model said at ``place``; returns the entry's id, ``None`` if there is nothing to keep.

        Args:
            place: where it was asked.
            continuations: best first.
            num_asked: how many it was asked for.
            is_cut: the first one ends at a limit and not where the model ended it.
        """
        kept = tuple(item for item in continuations if 0 < len(item.text) <= MAX_TEXT_LENGTH)
        if not kept:
            return None
        return self._insert(place.uri, Span.at(place), kept, num_asked, is_cut)

    def add_tail(self, place: Place, first: Continuation, tail: str) -> None:
        """Remember what the model went on to say after ``first``, for when the user has taken it."""
        if not tail.strip() or len(tail) > MAX_TEXT_LENGTH:
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
        self._insert(place.uri, after, (Continuation(tail),), 1)

    def find(self, place: Place, num_wanted: int = 1, min_cut: int = 0) -> Hit | None:
        """The newest entry that fits ``place`` and was asked for at least ``num_wanted`` suggestions.

        Args:
            place: the cursor.
            num_wanted: most suggestions that will be used.
            min_cut: least that must be left of one that was cut at a limit, once the user has typed of it.
        """
        for closers in (0, 1) if num_auto_closed(place) else (0,):
            for key, entry in reversed(self._entries.items()):
                if key[0] != place.uri or entry.num_asked < num_wanted:
                    continue
                left = entry.left_at(place, closers, min_cut)
                if left:
                    self._entries.move_to_end(key)
                    return Hit(entry.entry_id, left, entry.num_asked)
        return None

    def forget(self, uri: str) -> None:
        """Drop everything about a document."""
        for key in [key for key in self._entries if key[0] == uri]:
            del self._entries[key]

    def clear(self) -> None:
        """Drop everything."""
        self._entries.clear()

    def _insert(
        self, uri: str, span: Span, continuations: tuple[Continuation, ...], num_asked: int, is_cut: bool = False
    ) -> int:
        entry_id = self._next_id
        self._next_id += 1
        self._entries[uri, entry_id] = _Entry(entry_id, span, continuations, num_asked, is_cut)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
        return entry_id
