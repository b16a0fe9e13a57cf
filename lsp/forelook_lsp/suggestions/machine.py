"""Decides how each query of the editor is answered and what the backend is asked: a sans-I/O machine without a clock.

Every method receives the time and returns actions for the caller to perform. Per document:

- a query that the cache can answer is answered at once;
- otherwise a running request is kept while its partial text fits what the user has typed since;
- otherwise the backend is asked; on a slow device only once typing pauses.

The latest query of a document wins: the previous one is discarded, as is one whose document changed. An editor that
types ahead cancels its old query before it sends the next. So the request of a cancelled query runs on for a moment,
and the next query may reuse it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from forelook.protocol.messages import CompletionParams, SelectedCompletion, TriggerKind

from forelook_lsp.positions import normalize_newlines
from forelook_lsp.suggestions.cache import Continuation, Place, Span, SuggestionCache, num_auto_closed
from forelook_lsp.suggestions.condition import Condition
from forelook_lsp.suggestions.pacing import Pace, Timing

MIN_CUT_LENGTH = 12  # chosen, not measured: docs/decisions.md, "A suggestion truncated by a limit"
"""A truncated suggestion with a shorter rest is requested again, unless the device is slow."""


class Source(Enum):
    """Where an answer came from."""

    HIT = "hit"
    KEPT = "kept"
    NEW = "new"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Query:
    """One inline-completion request of the editor, in code points.

    Attributes:
        query_id: identifies it in ``Answer`` and ``Discard``.
        place: the cursor.
        version: the document's version.
        condition: what else the answer depends on.
    """

    query_id: int
    place: Place
    version: int
    condition: Condition = field(default_factory=Condition)

    @property
    def start(self) -> int:
        """Where the range of each suggestion starts.

        At the line's start, so that ranges survive a backspace, but at the cursor on a long line: the text of the range
        before the cursor is sent back to the editor.
        """
        place, selected = self.place, self.condition.selected
        if selected is not None:
            return min(selected.start, place.offset)
        return place.line_start if place.anchor == place.line_start else place.offset

    @property
    def before(self) -> str:
        """The text of that range before the cursor."""
        return self.place.text[self.start : self.place.offset]

    def request(self) -> CompletionParams:
        """The request to the backend."""
        place, condition, selected = self.place, self.condition, None
        if (selection := condition.selected) is not None:
            end = len(place.text) - selection.num_after
            selected = SelectedCompletion(selection.start, end, selection.text)
        return CompletionParams(
            uri=place.uri,
            version=self.version,
            offset=place.offset,
            trigger=TriggerKind.INVOKED if condition.invoked else TriggerKind.AUTOMATIC,
            num_suggestions=condition.num_wanted,
            max_new_tokens=condition.max_new_tokens,
            deadline_ms=None if condition.invoked else condition.deadline_ms,
            multi_line=condition.multi_line,
            selected=selected,
            confidence=condition.confidence,
            partial=True,
        )


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the backend; ``request_id`` is the id on the wire."""

    request_id: int
    query: Query


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Cancel a request of the backend."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer a query of the editor.

    Attributes:
        query: the query.
        continuations: best first; may be empty.
        source: where they came from.
        waited_s: time since the query arrived.
        is_unsure: whether there is none because the model was not sure enough of its own.
    """

    query: Query
    continuations: tuple[Continuation, ...]
    source: Source
    waited_s: float
    is_unsure: bool = False


@dataclass(frozen=True, slots=True)
class Discard:
    """Answer a query of the editor as out of date (LSP's RequestCancelled)."""

    query_id: int


Action = Ask | Withdraw | Answer | Discard


@dataclass(slots=True)
class _Waiter:
    query: Query
    since_s: float

    def gives_up_s(self, timing: Timing) -> float:
        return self.since_s + (timing.invoked_patience_s if self.query.condition.invoked else timing.patience_s)


@dataclass(slots=True)
class _Running:
    request_id: int
    query: Query
    span: Span
    since_s: float
    partial: str = ""
    orphaned_s: float | None = None

    def fits(self, place: Place) -> bool:
        """Whether the partial text fits what the user has typed since."""
        for closers in (0, 1) if num_auto_closed(place) else (0,):
            typed = self.span.typed_at(place, closers=closers)
            if typed is not None and len(typed) >= len(self.span.line_before):
                whole = self.span.line_before + self.partial
                return whole.startswith(typed) or typed.startswith(whole)
        return False

    def serves(self, query: Query) -> bool:
        """Whether it answers ``query`` too."""
        return self.query.condition.serves(query.condition, query.place.offset) and self.fits(query.place)


@dataclass(slots=True)
class _Slot:
    """One document: at most one waiting query and one running request."""

    waiter: _Waiter | None = None
    due_s: float | None = None
    running: _Running | None = None
    edited_s: float | None = None


class SuggestionMachine:
    """The queries and requests of one editor window."""

    def __init__(self, timing: Timing | None = None, request_ids: Iterator[int] | None = None) -> None:
        """Create an idle machine.

        Args:
            timing: the times to keep.
            request_ids: ids for requests of the backend; the connection's own, so that an id means one request there.
        """
        self.timing = timing or Timing()
        self.pace = Pace()
        self._request_ids = request_ids or itertools.count(1)
        self._cache = SuggestionCache()
        self._slots: dict[str, _Slot] = {}

    # --- The editor ------------------------------------------------------------------------------------------

    def queried(self, query: Query, now_s: float) -> list[Action]:
        """The editor requests suggestions."""
        slot = self._slots.setdefault(query.place.uri, _Slot())
        actions = self._discard_waiter(slot)
        running = slot.running
        if running is not None and not running.serves(query):
            actions += self._withdraw(slot)
            running = None
        waiter = _Waiter(query, now_s)
        found = self._from_cache(query)
        if found:
            actions += self._withdraw(slot)  # a visible suggestion must not be replaced by another
            return [*actions, self._answer(waiter, found, Source.HIT, now_s)]
        slot.waiter = waiter
        if running is not None:
            running.orphaned_s = None
            return actions
        delay_s = self._delay_s(query, slot, now_s)
        if delay_s > 0:
            slot.due_s = now_s + delay_s
            return actions
        return actions + self._ask(slot, now_s)

    def cancelled(self, query_id: int, now_s: float) -> None:
        """The editor has cancelled a query; the request runs on for a moment."""
        for slot in self._slots.values():
            if slot.waiter is not None and slot.waiter.query.query_id == query_id:
                slot.waiter = None
                slot.due_s = None
                if slot.running is not None:
                    slot.running.orphaned_s = now_s

    def edited(self, uri: str, place: Place | None, now_s: float) -> list[Action]:
        """A document has changed; ``place`` is the end of the edit, or ``None`` after edits in several places."""
        slot = self._slots.setdefault(uri, _Slot())
        if slot.edited_s is not None:
            self.pace.learn_gap(now_s - slot.edited_s)
        slot.edited_s = now_s
        actions = self._discard_waiter(slot)
        if slot.running is not None:
            if place is None or not slot.running.fits(place):
                return actions + self._withdraw(slot)
            slot.running.orphaned_s = now_s
        return actions

    def closed(self, uri: str) -> list[Action]:
        """A document was closed."""
        slot = self._slots.pop(uri, None)
        self._cache.forget(uri)
        return [] if slot is None else self._discard_waiter(slot) + self._withdraw(slot)

    def forget_answers(self) -> None:
        """Clear the cache: no query to come has the conditions of its entries."""
        self._cache.clear()

    # --- The backend -----------------------------------------------------------------------------------------

    def progressed(self, request_id: int, text: str, now_s: float) -> list[Action]:
        """The backend has generated ``text`` so far, from the cursor on."""
        slot = self._slot_of(request_id)
        if slot is None or slot.running is None:
            return []
        slot.running.partial = normalize_newlines(text)
        if slot.waiter is None or slot.running.fits(slot.waiter.query.place):
            return []
        return self._withdraw(slot) + self._ask(slot, now_s)

    def answered(
        self,
        request_id: int,
        continuations: Sequence[Continuation],
        next_line: str,
        now_s: float,
        *,
        is_cut: bool = False,
        is_unsure: bool = False,
    ) -> list[Action]:
        """The backend has answered.

        Args:
            request_id: the request.
            continuations: best first.
            next_line: one line to show after the first one is accepted; may be empty.
            now_s: the time.
            is_cut: whether the first one was truncated by a limit.
            is_unsure: whether the model was not sure enough of what it would suggest.
        """
        slot = self._slot_of(request_id)
        if slot is None or slot.running is None:
            return []
        running, slot.running = slot.running, None
        self.pace.learn_latency(now_s - running.since_s)
        place, condition = running.query.place, running.query.condition
        if continuations and next_line:
            self._cache.add_next_line(place, condition, continuations[0], normalize_newlines(next_line))
        self._cache.add(place, condition, continuations, is_cut=is_cut)
        waiter = slot.waiter
        if waiter is None:
            return []
        same_place = waiter.query.place.offset == place.offset
        found = self._from_cache(waiter.query)
        if not found and not same_place:
            return self._ask(slot, now_s)
        slot.waiter = None
        answer = self._answer(waiter, found, Source.NEW if same_place else Source.KEPT, now_s)
        return [replace(answer, is_unsure=is_unsure and not found)]

    def failed(self, request_id: int, now_s: float) -> list[Action]:
        """The backend has failed to answer; the query is answered with nothing."""
        slot = self._slot_of(request_id)
        if slot is None:
            return []
        slot.running = None
        return self._give_up(slot, now_s)

    def backend_lost(self, now_s: float) -> list[Action]:
        """The connection was lost with all its requests; all queries are answered with nothing."""
        actions: list[Action] = []
        for slot in self._slots.values():
            slot.running = None
            actions += self._give_up(slot, now_s)
        return actions

    # --- Time ------------------------------------------------------------------------------------------------

    def next_wake_s(self) -> float | None:
        """When ``tick`` must be called next; ``None`` if nothing is scheduled."""
        times: list[float] = []
        for slot in self._slots.values():
            if slot.due_s is not None:
                times.append(slot.due_s)
            if slot.waiter is not None:
                times.append(slot.waiter.gives_up_s(self.timing))
            if slot.running is not None and slot.running.orphaned_s is not None:
                times.append(slot.running.orphaned_s + self.timing.grace_s)
        return min(times, default=None)

    def tick(self, now_s: float) -> list[Action]:
        """Do what is due."""
        actions: list[Action] = []
        for slot in self._slots.values():
            if slot.due_s is not None and slot.due_s <= now_s:
                actions += self._ask(slot, now_s)
            if slot.waiter is not None and slot.waiter.gives_up_s(self.timing) <= now_s:
                actions += self._give_up(slot, now_s) + self._withdraw(slot)
            orphaned_s = None if slot.running is None else slot.running.orphaned_s
            if orphaned_s is not None and orphaned_s + self.timing.grace_s <= now_s:
                actions += self._withdraw(slot)
        return actions

    # --- Inside ----------------------------------------------------------------------------------------------

    def _slot_of(self, request_id: int) -> _Slot | None:
        for slot in self._slots.values():
            if slot.running is not None and slot.running.request_id == request_id:
                return slot
        return None

    def _from_cache(self, query: Query) -> tuple[Continuation, ...]:
        # A truncated suggestion would shrink to a stub while the model could continue it, so it is requested again
        # before that. On a slow device the stub is better than nothing.
        min_cut = 0 if self.pace.is_slow(self.timing) else MIN_CUT_LENGTH
        found = self._cache.find(query.place, query.condition, min_cut)
        return tuple(continuation for continuation in found if _extends_selection(continuation, query))[
            : query.condition.num_wanted
        ]

    def _delay_s(self, query: Query, slot: _Slot, now_s: float) -> float:
        if query.condition.invoked or (self.timing.delay_s is None and not query.place.line_before.strip()):
            return 0.0
        since_edit_s = now_s - slot.edited_s if slot.edited_s is not None else self.timing.max_delay_s
        return self.pace.delay_s(self.timing, since_edit_s)

    def _ask(self, slot: _Slot, now_s: float) -> list[Action]:
        slot.due_s = None
        if slot.waiter is None:
            return []
        query = slot.waiter.query
        self.pace.num_asks += 1
        slot.running = _Running(next(self._request_ids), query, Span.at(query.place), now_s)
        return [Ask(slot.running.request_id, query)]

    def _withdraw(self, slot: _Slot) -> list[Action]:
        running, slot.running = slot.running, None
        if running is None:
            return []
        self.pace.num_withdrawn += 1
        return [Withdraw(running.request_id)]

    def _discard_waiter(self, slot: _Slot) -> list[Action]:
        waiter, slot.waiter, slot.due_s = slot.waiter, None, None
        return [] if waiter is None else [Discard(waiter.query.query_id)]

    def _give_up(self, slot: _Slot, now_s: float) -> list[Action]:
        waiter, slot.waiter, slot.due_s = slot.waiter, None, None
        return [] if waiter is None else [self._answer(waiter, (), Source.NONE, now_s)]

    def _answer(self, waiter: _Waiter, found: tuple[Continuation, ...], source: Source, now_s: float) -> Answer:
        self.pace.num_answers[source.value] += 1
        return Answer(waiter.query, found, source, now_s - waiter.since_s)


def _extends_selection(continuation: Continuation, query: Query) -> bool:
    selected = query.condition.selected
    if selected is None:
        return True
    text = query.before + continuation.text
    num_after = query.place.num_after - continuation.num_replaced
    return text.startswith(selected.text) and len(text) > len(selected.text) and num_after <= selected.num_after
