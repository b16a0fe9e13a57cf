"""What became of each suggestion: shown, withheld, accepted whole or in part, typed through, rejected, and kept or not.

A sans-I/O machine without a clock. No text leaves it but that of an accepted suggestion, which feeds the pool. Editors
rarely report what the user did, so it is inferred from the edits that follow; an editor's report has precedence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Protocol

from forelook.protocol.events import EventCounts, EventKind
from forelook.protocol.messages import TextChange

from forelook_lsp.positions import normalize_newlines
from forelook_lsp.suggestions.machine import Answer

SETTLE_S = 1.0  # chosen, not measured
# After how many seconds to look whether accepted text is still there; chosen, not measured.
RETENTION: tuple[tuple[float, EventKind, EventKind], ...] = (
    (30.0, EventKind.RETAINED_30S, EventKind.REMOVED_30S),
    (300.0, EventKind.RETAINED_300S, EventKind.REMOVED_300S),
)
MIN_SIMILARITY = 0.5  # chosen, not measured
MAX_TRACKED = 64  # chosen, not measured
MAX_COMPARED = 2000  # chosen, not measured

_AUTO_CLOSED = frozenset(("()", "[]", "{}", "<>", '""', "''", "``"))


class Sliceable(Protocol):
    """A text of which only slices are read."""

    def __getitem__(self, where: slice, /) -> str:
        """The characters of a slice."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """One thing the user did with a suggestion.

    Attributes:
        uri: the document.
        kind: what the user did.
        num_chars: length of the text concerned.
        text: the accepted text, for the pool; ``None`` for all other kinds.
        first_use: whether no part of the suggestion was used before.
    """

    uri: str
    kind: EventKind
    num_chars: int
    text: str | None = None
    first_use: bool = False


@dataclass(slots=True)
class _Showing:
    """The last suggestions sent to the editor for one document: on the screen, or about to be.

    Attributes:
        rests: the text after the cursor by suggestion id, best first; only of those that fit what was typed.
        cursor: where the rests start.
        num_replaced: code points after the cursor that they replace.
        num_before: length of the first one's text before the cursor.
        num_typed: how much the user typed.
        num_announced: how much the editor has reported as accepted before the edit arrived.
        is_used: whether a part was accepted by a key, or all of it typed.
        is_shown: whether it was on the screen; one that was not is neither rejected nor typed through.
    """

    rests: dict[str, str]
    cursor: int
    num_replaced: int
    num_before: int
    num_typed: int = 0
    num_announced: int = 0
    is_used: bool = False
    is_shown: bool = False

    @property
    def first_rest(self) -> str:
        """The rest of the best one."""
        return next(iter(self.rests.values()))

    def use(self) -> bool:
        """Mark it as used; return whether it was not."""
        first, self.is_used = not self.is_used, True
        return first

    def continues(self, former: _Showing) -> bool:
        """Whether it is the same suggestion as ``former``, or its text with more at the end."""
        if self.rests.keys() & former.rests.keys():
            return True
        # The rest of a truncated suggestion has another id: the text on the screen grows.
        begun = former.num_typed > 0 or former.is_used
        return begun and former.cursor == self.cursor and self.first_rest.startswith(former.first_rest)


@dataclass(slots=True)
class _Accepted:
    """A range of accepted text, followed through later edits."""

    uri: str
    start: int
    end: int
    text: str
    since_s: float
    num_checked: int = 0


@dataclass(slots=True)
class _Doubt:
    """A suggestion presumed rejected, pending confirmation by the editor or a timeout."""

    showing: _Showing
    uri: str
    since_s: float


class Outcomes:
    """Follows the suggestions of one window."""

    def __init__(self) -> None:
        self.statistics = EventCounts()
        self._showings: dict[str, _Showing] = {}
        self._withholding: dict[str, int] = {}
        self._doubts: list[_Doubt] = []
        self._accepted: deque[_Accepted] = deque(maxlen=MAX_TRACKED)
        self._settled: deque[str] = deque(maxlen=MAX_TRACKED)

    # --- Events ----------------------------------------------------------------------------------------------

    def answered(self, answer: Answer, now_s: float) -> list[Outcome]:
        """An answer was sent to the editor."""
        place, found, outcomes = answer.query.place, answer.continuations, list[Outcome]()
        former = self._showings.get(place.uri)
        withholding = self._withholding.pop(place.uri, None)
        if answer.is_unsure:
            # Every key asks again, but the user misses one suggestion.
            self._withholding[place.uri] = place.line_start
            if withholding != place.line_start:
                outcomes = self._emit(Outcome(place.uri, EventKind.WITHHELD, 0))
        if not found:
            self._drop(place.uri, now_s)
            return outcomes
        showing = _Showing(
            {continuation.suggestion_id: continuation.text for continuation in found},
            place.offset,
            max(continuation.num_replaced for continuation in found),
            len(answer.query.before),
        )
        if former is None or not showing.continues(former):
            self._drop(place.uri, now_s)
            self._showings[place.uri] = showing
            return outcomes
        former.rests, former.cursor = showing.rests, showing.cursor
        former.num_replaced, former.num_before = showing.num_replaced, showing.num_before
        return outcomes

    def shown(self, suggestion_id: str) -> list[Outcome]:
        """A suggestion is on the screen."""
        shown = [(uri, showing) for uri, showing in self._showings.items() if suggestion_id in showing.rests]
        return [outcome for uri, showing in shown for outcome in self._show(uri, showing)]

    def follows(self, uri: str) -> bool:
        """Whether an edit of the document may concern a suggestion."""
        return uri in self._showings or any(accepted.uri == uri for accepted in self._accepted)

    def edited(self, uri: str, before: Sliceable, edit: TextChange, now_s: float) -> list[Outcome]:
        """A document is about to change by ``edit``; ``before`` is its text until then."""
        for accepted in self._accepted:
            if accepted.uri == uri:
                _follow(accepted, edit)
        showing = self._showings.get(uri)
        if showing is None:
            return []
        inserted = _inserted_at(before, edit, showing)
        if inserted is None:
            deleted = _deleted_before(before, edit, showing.cursor, showing.num_typed)
            if deleted is None:
                self._drop(uri, now_s)
            else:
                showing.rests = {name: deleted + rest for name, rest in showing.rests.items()}
                showing.cursor -= len(deleted)
                showing.num_typed -= len(deleted)
            return []
        text, at = normalize_newlines(inserted), showing.cursor
        if text in _AUTO_CLOSED and not any(rest.startswith(text) for rest in showing.rests.values()):
            # The editor closed the bracket that was typed.
            text = inserted = text[0]
            showing.num_replaced += 1
        fitting = {name: rest for name, rest in showing.rests.items() if text and rest.startswith(text)}
        if not fitting:
            if text:
                self._drop(uri, now_s)
            return []
        showing.rests = fitting
        outcomes = self._use(uri, showing, text)
        showing.cursor += len(inserted)
        showing.num_before += len(text)
        showing.rests = {name: rest[len(text) :] for name, rest in fitting.items()}
        if len(text) > 1:
            self._accepted.append(_Accepted(uri, at, at + len(inserted), inserted, now_s))
        if not showing.first_rest:
            self._settled.extend(showing.rests)
            del self._showings[uri]
        return outcomes

    def accepted(self, suggestion_id: str) -> list[Outcome]:
        """The editor reports that a suggestion was accepted whole."""
        if suggestion_id in self._settled:
            return []
        for doubt in self._doubts:
            if suggestion_id in doubt.showing.rests:
                self._doubts.remove(doubt)
                return self._accept_whole(doubt.uri, doubt.showing, suggestion_id)
        for uri, showing in self._showings.items():
            if suggestion_id in showing.rests:
                del self._showings[uri]
                return self._accept_whole(uri, showing, suggestion_id)
        return []

    def partly_accepted(self, suggestion_id: str, num_chars: int) -> list[Outcome]:
        """The editor reports that the first ``num_chars`` of a suggestion were accepted; the edit may come later."""
        outcomes: list[Outcome] = []
        for uri, showing in self._showings.items():
            rest = showing.rests.get(suggestion_id, "")
            text = rest[: max(0, num_chars - showing.num_before - showing.num_announced)]
            if text:
                showing.num_announced += len(text)
                outcomes += self._accept(uri, showing, text, rest)
        return outcomes

    def closed(self, uri: str, now_s: float) -> None:
        """A document was closed."""
        self._drop(uri, now_s)
        self._withholding.pop(uri, None)
        for accepted in [accepted for accepted in self._accepted if accepted.uri == uri]:
            self._accepted.remove(accepted)

    # --- Time ------------------------------------------------------------------------------------------------

    def next_wake_s(self) -> float | None:
        """When ``tick`` must be called next; ``None`` if nothing is scheduled."""
        times = [doubt.since_s + SETTLE_S for doubt in self._doubts]
        times += [accepted.since_s + RETENTION[accepted.num_checked][0] for accepted in self._accepted]
        return min(times, default=None)

    def tick(self, texts: Mapping[str, str], now_s: float) -> list[Outcome]:
        """Settle what is due; ``texts`` are the open documents' texts by uri."""
        outcomes: list[Outcome] = []
        for doubt in [doubt for doubt in self._doubts if doubt.since_s + SETTLE_S <= now_s]:
            self._doubts.remove(doubt)
            self._settled.extend(doubt.showing.rests)
            outcomes += self._emit(Outcome(doubt.uri, EventKind.REJECTED, len(doubt.showing.first_rest)))
        for accepted in list(self._accepted):
            while accepted.num_checked < len(RETENTION):
                after_s, retained, removed = RETENTION[accepted.num_checked]
                if accepted.since_s + after_s > now_s:
                    break
                accepted.num_checked += 1
                now = texts.get(accepted.uri, "")[accepted.start : accepted.end]
                kind = retained if similar(accepted.text, now) else removed
                outcomes += self._emit(Outcome(accepted.uri, kind, len(accepted.text)))
            if accepted.num_checked == len(RETENTION):
                self._accepted.remove(accepted)
        return outcomes

    # --- Inside ----------------------------------------------------------------------------------------------

    def _use(self, uri: str, showing: _Showing, text: str) -> list[Outcome]:
        """Count ``text``, the beginning of the first rest, which an edit inserts at the cursor."""
        if len(text) == 1 and len(showing.first_rest) > 1:
            showing.num_typed += 1
        elif len(text) == 1:
            if showing.is_shown:
                return self._emit(Outcome(uri, EventKind.TYPED_THROUGH, showing.num_typed + 1, None, showing.use()))
        elif showing.num_announced >= len(text):
            showing.num_announced -= len(text)
        else:
            return self._accept(uri, showing, text, showing.first_rest)
        return []

    def _accept(self, uri: str, showing: _Showing, text: str, rest: str) -> list[Outcome]:
        """Count ``text``, the beginning of ``rest``, as accepted by a key of the editor."""
        if len(text) == len(rest):
            kind = EventKind.ACCEPTED
        elif text.endswith("\n") or rest[len(text)] == "\n":
            kind = EventKind.ACCEPTED_LINE
        else:
            kind = EventKind.ACCEPTED_WORD
        return self._show(uri, showing) + self._emit(Outcome(uri, kind, len(text), text, showing.use()))

    def _accept_whole(self, uri: str, showing: _Showing, suggestion_id: str) -> list[Outcome]:
        rest = showing.rests[suggestion_id]
        self._settled.extend(showing.rests)
        return self._accept(uri, showing, rest, rest)

    def _show(self, uri: str, showing: _Showing) -> list[Outcome]:
        """Count it as shown, once; an accepted suggestion was shown, reported or not."""
        if showing.is_shown:
            return []
        showing.is_shown = True
        return self._emit(Outcome(uri, EventKind.SHOWN, len(showing.first_rest)))

    def _drop(self, uri: str, now_s: float) -> None:
        showing = self._showings.pop(uri, None)
        if showing is not None and showing.is_shown and not showing.is_used:
            self._doubts.append(_Doubt(showing, uri, now_s))

    def _emit(self, outcome: Outcome) -> list[Outcome]:
        self.statistics.add(outcome.kind, outcome.num_chars, first_use=outcome.first_use)
        return [outcome]


def similar(accepted: str, now: str) -> bool:
    """Whether at least half of the accepted text is still there."""
    if accepted == now:
        return True
    matcher = SequenceMatcher(None, accepted[:MAX_COMPARED], now[:MAX_COMPARED], autojunk=False)
    return matcher.ratio() >= MIN_SIMILARITY


def _inserted_at(before: Sliceable, edit: TextChange, showing: _Showing) -> str | None:
    """Return the text that ``edit`` inserts at the cursor, ``None`` if it changes more than the suggestion would.

    Editors send an insertion either as one, or as the replacement of a longer range that starts and ends with its old
    text.
    """
    cursor = showing.cursor
    if not edit.start <= cursor <= edit.end:
        return None
    head, tail = before[edit.start : cursor], before[cursor : edit.end]
    if not edit.text.startswith(head):
        return None
    rest = edit.text[len(head) :]
    if len(tail) == showing.num_replaced and normalize_newlines(rest) in showing.rests.values():
        return rest
    return rest[: len(rest) - len(tail)] if len(rest) >= len(tail) and rest.endswith(tail) else None


def _deleted_before(before: Sliceable, edit: TextChange, cursor: int, num_typed: int) -> str | None:
    """Return the text that ``edit`` deletes before the cursor, ``None`` if it is more than was typed."""
    if edit.text or edit.end != cursor or cursor - edit.start > num_typed:
        return None
    return normalize_newlines(before[edit.start : cursor])


def _follow(accepted: _Accepted, edit: TextChange) -> None:
    """Move the range of accepted text with an edit; text typed at its borders is not part of it."""
    start, end = accepted.start, accepted.end
    after = edit.start + len(edit.text)
    delta = after - edit.end
    if edit.end <= start:
        accepted.start, accepted.end = start + delta, end + delta
    elif edit.start >= end:
        return
    elif edit.start <= start and edit.end >= end:
        accepted.start, accepted.end = edit.start, after
    else:
        accepted.start = start if edit.start >= start else after
        accepted.end = end + delta if edit.end <= end else edit.start
