"""What became of each suggestion: shown, taken whole or in part, typed, turned down, and whether it was kept.

Decisions only: no I/O, no clock, and no text leaves but that of an accepted suggestion, which feeds the pool. Editors
rarely say what the user did, so it is read off the edits that follow; an editor that does say so is believed first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Literal

from forelook_lsp.mirror import Edit
from forelook_lsp.positions import normalize_newlines
from forelook_lsp.suggestions.machine import Item

Kind = Literal[
    "shown",
    "accepted",
    "accepted_word",
    "accepted_line",
    "typed_through",
    "rejected",
    "retained_30s",
    "retained_300s",
    "removed_30s",
    "removed_300s",
]

SETTLE_S = 1.0
RETENTION: tuple[tuple[float, Kind, Kind], ...] = (
    (30.0, "retained_30s", "removed_30s"),
    (300.0, "retained_300s", "removed_300s"),
)
MIN_SIMILARITY = 0.5
MAX_TRACKED = 64
MAX_COMPARED = 2000

_AUTO_CLOSED = frozenset(("()", "[]", "{}", "<>", '""', "''", "``"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One thing the user did with a suggestion.

    Attributes:
        num_chars: how much of it this is about.
        text: what was accepted, for the pool; ``None`` for every other kind.
        latency_ms: how long the user waited for it, for ``shown``.
    """

    uri: str
    kind: Kind
    num_chars: int
    text: str | None = None
    latency_ms: float | None = None


@dataclass(slots=True)
class Statistics:
    """Counts of one window since it opened."""

    counts: dict[str, int] = field(default_factory=dict)
    num_chars_accepted: int = 0
    num_keystrokes_saved: int = 0

    def count(self, outcome: Outcome) -> None:
        """Add one outcome; taking text by a key saves all its keystrokes but that one."""
        self.counts[outcome.kind] = self.counts.get(outcome.kind, 0) + 1
        if outcome.text is not None:
            self.num_chars_accepted += outcome.num_chars
            self.num_keystrokes_saved += max(0, outcome.num_chars - 1)

    @property
    def accept_rate(self) -> float | None:
        """Accepted, whole or by typing it, over shown; ``None`` before the first."""
        shown = self.counts.get("shown", 0)
        return min(1.0, self.num_taken / shown) if shown else None

    @property
    def num_taken(self) -> int:
        """Suggestions of which at least a part was used."""
        return self.counts.get("taken", 0)


@dataclass(slots=True)
class _Showing:
    """The suggestions that one document's editor was last answered: on its screen, or about to be.

    Attributes:
        rests: what is left of each after the cursor.
        latency_ms: how long the user waited for them.
        num_before: how much of the first one's text stands before the cursor.
        num_typed, num_taken: how much of it was typed, and how much put in by a key.
        num_announced: how much the editor has said it put in, before the edit that does it.
        is_shown: whether it is on the screen; one that never was is neither turned down nor typed through.
    """

    suggestion_ids: tuple[str, ...]
    cursor: int
    rests: tuple[str, ...]
    num_replaced: int
    num_before: int
    latency_ms: float
    num_typed: int = 0
    num_taken: int = 0
    num_announced: int = 0
    is_shown: bool = False


@dataclass(slots=True)
class _Accepted:
    """A stretch of accepted text, followed through later edits."""

    uri: str
    start: int
    end: int
    text: str
    since_s: float
    num_checked: int = 0


@dataclass(slots=True)
class _Doubt:
    """A suggestion that looks turned down, until an editor's word or a little time settles it."""

    showing: _Showing
    uri: str
    since_s: float


class Outcomes:
    """Follows the suggestions of one window."""

    def __init__(self) -> None:
        self.statistics = Statistics()
        self._showings: dict[str, _Showing] = {}
        self._doubts: list[_Doubt] = []
        self._accepted: deque[_Accepted] = deque(maxlen=MAX_TRACKED)
        self._settled: deque[str] = deque(maxlen=MAX_TRACKED)

    # --- What happens ----------------------------------------------------------------------------------------

    def answered(self, uri: str, cursor: int, items: Sequence[Item], latency_ms: float, now_s: float) -> list[Outcome]:
        """An answer went to the editor; one that goes on with what is on the screen is no other suggestion."""
        former = self._showings.get(uri)
        if not items:
            return self._drop(uri, now_s)
        ids = tuple(item.suggestion_id for item in items)
        replaced = max(item.end for item in items) - cursor
        rests = tuple(item.continuation for item in items)
        num_before = len(items[0].text) - len(rests[0])
        # The rest of a suggestion that was cut at a limit comes under another id: the text on the screen grows.
        if former is not None and (set(ids) & set(former.suggestion_ids) or _goes_on(former, cursor, rests)):
            former.suggestion_ids, former.rests, former.num_replaced = ids, rests, replaced
            former.cursor, former.num_before = cursor, num_before
            return []
        outcomes = self._drop(uri, now_s)
        self._showings[uri] = _Showing(ids, cursor, rests, replaced, num_before, latency_ms)
        return outcomes

    def shown(self, suggestion_id: str) -> list[Outcome]:
        """A suggestion that was answered is on the screen."""
        outcomes: list[Outcome] = []
        for uri, showing in self._showings.items():
            if suggestion_id in showing.suggestion_ids:
                self._show(outcomes, uri, showing)
        return outcomes

    def edited(self, uri: str, before: str, edit: Edit, now_s: float) -> list[Outcome]:
        """A document is about to change by ``edit``; ``before`` is its text until then."""
        outcomes: list[Outcome] = []
        for accepted in self._accepted:
            if accepted.uri == uri:
                _follow(accepted, edit)
        showing = self._showings.get(uri)
        if showing is None:
            return outcomes
        inserted = _inserted_at(before, edit, showing)
        if inserted is None:
            deleted = _deleted_before(before, edit, showing.cursor, showing.num_typed)
            if deleted is None:
                outcomes.extend(self._drop(uri, now_s))
            else:
                showing.rests = tuple(deleted + rest for rest in showing.rests)
                showing.cursor -= len(deleted)
                showing.num_typed -= len(deleted)
            return outcomes
        text, at = normalize_newlines(inserted), showing.cursor
        if text in _AUTO_CLOSED and not any(rest.startswith(text) for rest in showing.rests):
            # The editor closed the bracket that was typed.
            text = inserted = text[0]
            showing.num_replaced += 1
        fitting = [rest for rest in showing.rests if text and rest.startswith(text)]
        if not fitting:
            if text:
                outcomes.extend(self._drop(uri, now_s))
            return outcomes
        self._take(outcomes, uri, showing, text, fitting[0])
        showing.cursor += len(inserted)
        showing.num_before += len(text)
        showing.rests = tuple(rest[len(text) :] for rest in fitting)
        if len(text) > 1:
            self._accepted.append(_Accepted(uri, at, at + len(inserted), inserted, now_s))
        if not showing.rests[0]:
            self._settle(showing.suggestion_ids)
            del self._showings[uri]
        return outcomes

    def accepted(self, suggestion_id: str) -> list[Outcome]:
        """The editor says that a suggestion was accepted whole."""
        outcomes: list[Outcome] = []
        if suggestion_id in self._settled:
            return outcomes
        for doubt in self._doubts:
            if suggestion_id in doubt.showing.suggestion_ids:
                self._doubts.remove(doubt)
                self._whole(outcomes, doubt.uri, doubt.showing, suggestion_id)
                return outcomes
        for uri, showing in self._showings.items():
            if suggestion_id in showing.suggestion_ids:
                self._whole(outcomes, uri, showing, suggestion_id)
                del self._showings[uri]
                return outcomes
        return outcomes

    def partly_accepted(self, suggestion_id: str, num_chars: int) -> list[Outcome]:
        """The editor says that a suggestion was accepted up to ``num_chars`` of its text; the edit may come later."""
        outcomes: list[Outcome] = []
        for uri, showing in self._showings.items():
            rest = showing.rests[0]
            if suggestion_id in showing.suggestion_ids:
                text = rest[: max(0, num_chars - showing.num_before - showing.num_announced)]
                if text:
                    showing.num_announced += len(text)
                    self._put_in(outcomes, uri, showing, text, rest)
        return outcomes

    def closed(self, uri: str, now_s: float) -> list[Outcome]:
        """A document was closed: nothing more can be learnt from it."""
        outcomes = self._drop(uri, now_s)
        for accepted in [accepted for accepted in self._accepted if accepted.uri == uri]:
            self._accepted.remove(accepted)
        return outcomes

    # --- Time ------------------------------------------------------------------------------------------------

    def next_wake_s(self) -> float | None:
        """When ``tick`` has something to do."""
        times = [doubt.since_s + SETTLE_S for doubt in self._doubts]
        times += [
            accepted.since_s + RETENTION[accepted.num_checked][0]
            for accepted in self._accepted
            if accepted.num_checked < len(RETENTION)
        ]
        return min(times, default=None)

    def tick(self, texts: dict[str, str], now_s: float) -> list[Outcome]:
        """Settle what has become certain; ``texts`` are the open documents' texts."""
        outcomes: list[Outcome] = []
        for doubt in [doubt for doubt in self._doubts if doubt.since_s + SETTLE_S <= now_s]:
            self._doubts.remove(doubt)
            self._reject(outcomes, doubt.uri, doubt.showing)
        for accepted in list(self._accepted):
            while accepted.num_checked < len(RETENTION):
                after_s, retained, removed = RETENTION[accepted.num_checked]
                if accepted.since_s + after_s > now_s:
                    break
                accepted.num_checked += 1
                now = texts.get(accepted.uri, "")[accepted.start : accepted.end]
                kind = retained if similar(accepted.text, now) else removed
                self._emit(outcomes, Outcome(accepted.uri, kind, len(accepted.text)))
            if accepted.num_checked == len(RETENTION):
                self._accepted.remove(accepted)
        return outcomes

    # --- Inside ----------------------------------------------------------------------------------------------

    def _take(self, outcomes: list[Outcome], uri: str, showing: _Showing, text: str, rest: str) -> None:
        """Count ``text``, the beginning of ``rest``, which has just been put where the suggestion said it would be."""
        if len(text) == 1 and len(rest) > 1:
            showing.num_typed += 1
            return
        if len(text) == 1:
            if showing.is_shown:
                self._count_taken(showing)
                self._emit(outcomes, Outcome(uri, "typed_through", showing.num_typed + 1))
        elif showing.num_announced >= len(text):
            showing.num_announced -= len(text)
        else:
            self._put_in(outcomes, uri, showing, text, rest)

    def _put_in(self, outcomes: list[Outcome], uri: str, showing: _Showing, text: str, rest: str) -> None:
        """Count text that came by a key of the editor."""
        self._show(outcomes, uri, showing)
        self._count_taken(showing)
        showing.num_taken += len(text)
        if len(text) == len(rest):
            kind: Kind = "accepted"
        elif text.endswith("\n") or rest[len(text)] == "\n":
            kind = "accepted_line"
        else:
            kind = "accepted_word"
        self._emit(outcomes, Outcome(uri, kind, len(text), text=text))

    def _whole(self, outcomes: list[Outcome], uri: str, showing: _Showing, suggestion_id: str) -> None:
        rest = showing.rests[showing.suggestion_ids.index(suggestion_id)] if showing.rests else ""
        self._show(outcomes, uri, showing)
        self._count_taken(showing)
        self._settle(showing.suggestion_ids)
        self._emit(outcomes, Outcome(uri, "accepted", len(rest), text=rest))

    def _show(self, outcomes: list[Outcome], uri: str, showing: _Showing) -> None:
        """Count it as shown, once; what is taken was on the screen, whether the editor has said so or not."""
        if not showing.is_shown:
            showing.is_shown = True
            self._emit(outcomes, Outcome(uri, "shown", len(showing.rests[0]), latency_ms=showing.latency_ms))

    def _count_taken(self, showing: _Showing) -> None:
        if showing.num_taken == 0:
            showing.num_taken = 1
            self.statistics.counts["taken"] = self.statistics.num_taken + 1

    def _drop(self, uri: str, now_s: float) -> list[Outcome]:
        showing = self._showings.pop(uri, None)
        if showing is not None and showing.is_shown and showing.num_taken == 0:
            self._doubts.append(_Doubt(showing, uri, now_s))
        return []

    def _reject(self, outcomes: list[Outcome], uri: str, showing: _Showing) -> None:
        self._settle(showing.suggestion_ids)
        self._emit(outcomes, Outcome(uri, "rejected", len(showing.rests[0])))

    def _settle(self, suggestion_ids: Sequence[str]) -> None:
        self._settled.extend(suggestion_ids)

    def _emit(self, outcomes: list[Outcome], outcome: Outcome) -> None:
        self.statistics.count(outcome)
        outcomes.append(outcome)


def similar(accepted: str, now: str) -> bool:
    """Whether at least half of what was accepted still stands."""
    if accepted == now:
        return True
    matcher = SequenceMatcher(None, accepted[:MAX_COMPARED], now[:MAX_COMPARED], autojunk=False)
    return matcher.ratio() >= MIN_SIMILARITY


def _inserted_at(before: str, edit: Edit, showing: _Showing) -> str | None:
    """What ``edit`` puts at the cursor, where it changes nothing else but what the suggestion would replace.

    Editors send an insertion as it is, or as the replacement of a longer range that begins and ends with what stood
    there before.
    """
    cursor = showing.cursor
    if not edit.start <= cursor <= edit.end:
        return None
    head, tail = before[edit.start : cursor], before[cursor : edit.end]
    if not edit.text.startswith(head):
        return None
    rest = edit.text[len(head) :]
    if len(tail) == showing.num_replaced and normalize_newlines(rest) in showing.rests:
        return rest
    return rest[: len(rest) - len(tail)] if len(rest) >= len(tail) and rest.endswith(tail) else None


def _deleted_before(before: str, edit: Edit, cursor: int, num_typed: int) -> str | None:
    """What ``edit`` takes away before the cursor, where that is no more than was typed of the suggestion."""
    if edit.text or edit.end != cursor or cursor - edit.start > num_typed:
        return None
    return normalize_newlines(before[edit.start : cursor])


def _goes_on(former: _Showing, cursor: int, rests: Sequence[str]) -> bool:
    """Whether an answer begins with what is left of the one before it."""
    begun = former.num_typed + former.num_taken > 0
    return begun and former.cursor == cursor and rests[0].startswith(former.rests[0])


def _follow(accepted: _Accepted, edit: Edit) -> None:
    """Move the borders of accepted text along with an edit; what is typed at its borders is not part of it."""
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
