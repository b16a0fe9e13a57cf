"""Which request of the editor is answered from where, and what the backend is asked: decisions only, no I/O, no clock.

Every method takes the time and returns actions for the caller to carry out. For each document:

- a request the cache can answer is answered at once;
- else a running request of the backend is kept while what it has said so far still fits what was typed since;
- else the backend is asked, on a slow device only once the typing pauses.

The latest request of a document wins: the one before it is discarded, and so is one whose document changed under it. An
editor that types ahead cancels its old request before it sends the new one, so a cancelled request lets the backend run
on for a moment, and the next request may take it over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from forelook_lsp.positions import normalize_newlines
from forelook_lsp.suggestions.cache import Continuation, Hit, Place, Span, SuggestionCache, num_auto_closed

MIN_CUT_LENGTH = 12
"""With less left of a suggestion that was cut at a limit, a quick device is asked how it goes on."""


class Source(Enum):
    """Where an answer came from."""

    HIT = "hit"
    KEPT = "kept"
    NEW = "new"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Selected:
    """The popup's selection: it would replace ``[start, end)`` by ``text``."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Query:
    """One inline-completion request of the editor, in code points.

    Attributes:
        place: the cursor.
        version: the document's version.
        invoked: asked by a command, not by typing.
        num_wanted: most different suggestions wanted.
        selected: the popup's selection, which suggestions must extend.
    """

    place: Place
    version: int
    invoked: bool = False
    num_wanted: int = 1
    selected: Selected | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A suggestion for the editor: put ``text`` in place of ``[start, end)``, all within the cursor's line.

    Attributes:
        suggestion_id: the same while the user types through a suggestion.
        continuation: the part of ``text`` after the cursor.
    """

    suggestion_id: str
    start: int
    end: int
    text: str
    continuation: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the backend; partial text, the result and failures come back under ``ask_id``."""

    ask_id: int
    query: Query


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Cancel what was asked."""

    ask_id: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the editor's request ``token``; ``waited_s`` is the time since it came."""

    token: int
    query: Query
    items: tuple[Item, ...]
    source: Source
    waited_s: float


@dataclass(frozen=True, slots=True)
class Discard:
    """Tell the editor that its request ``token`` is out of date (LSP's RequestCancelled)."""

    token: int


Action = Ask | Withdraw | Answer | Discard


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in seconds.

    Attributes:
        delay_s: wait before asking the backend, ``None`` to adapt to the device and the typist.
        grace_s: how long a request nobody waits for may run on.
        patience_s: longest an editor waits for the backend while the user types.
        invoked_patience_s: the same when the user asked by a command.
        quick_s: a backend with this mean latency or less is never waited with.
        slow_s: one with this mean latency or more is waited with for a whole typing gap.
        max_delay_s: longest adaptive delay.
    """

    delay_s: float | None = None
    grace_s: float = 0.3
    patience_s: float = 3.5
    invoked_patience_s: float = 6.0

    quick_s: float = 0.1
    slow_s: float = 0.4
    max_delay_s: float = 0.4

    def patience_for(self, query: Query) -> float:
        """How long the editor waits for this."""
        return self.invoked_patience_s if query.invoked else self.patience_s


@dataclass(slots=True)
class _Waiter:
    token: int
    query: Query
    since_s: float

    def gives_up_s(self, timing: Timing) -> float:
        return self.since_s + timing.patience_for(self.query)


@dataclass(slots=True)
class _Running:
    ask_id: int
    query: Query
    span: Span
    asked_at_s: float
    said: str = ""
    orphaned_at_s: float | None = None

    def fits(self, place: Place) -> bool:
        """Whether what it has said so far fits what was typed since."""
        for closers in (0, 1) if num_auto_closed(place) else (0,):
            typed = self.span.typed_at(place, closers=closers)
            if typed is not None and len(typed) >= len(self.span.line_before):
                whole = self.span.line_before + self.said
                return whole.startswith(typed) or typed.startswith(whole)
        return False


@dataclass(slots=True)
class _Slot:
    """One document: at most one waiting request, and at most one the backend works on."""

    waiter: _Waiter | None = None
    due_s: float | None = None
    running: _Running | None = None
    edited_at_s: float | None = None


@dataclass(slots=True)
class Pace:
    """What was learnt about the device and the typist; exponential means."""

    latency_s: float | None = None
    gap_s: float = 0.2
    num_asks: int = 0
    num_withdrawn: int = 0
    num_answers: dict[Source, int] = field(default_factory=dict)

    def learn_latency(self, seconds: float) -> None:
        """Count one answer of the backend."""
        self.latency_s = seconds if self.latency_s is None else 0.7 * self.latency_s + 0.3 * seconds

    def learn_gap(self, seconds: float) -> None:
        """Count one gap between edits; long ones are pauses, not typing."""
        if seconds <= 1.0:
            self.gap_s = 0.8 * self.gap_s + 0.2 * seconds


class SuggestionMachine:
    """The requests of one editor window."""

    def __init__(self, timing: Timing | None = None) -> None:
        self.timing = timing or Timing()
        self.pace = Pace()
        self._cache = SuggestionCache()
        self._slots: dict[str, _Slot] = {}
        self._uri_of_ask: dict[int, str] = {}
        self._next_ask_id = 1

    # --- The editor ------------------------------------------------------------------------------------------

    def request(self, token: int, query: Query, now_s: float) -> list[Action]:
        """A request of the editor; ``token`` names it in the answer."""
        place = query.place
        slot = self._slots.setdefault(place.uri, _Slot())
        actions: list[Action] = []
        self._discard_waiter(slot, actions)
        running = slot.running
        if running is not None and not self._serves(running, query):
            self._withdraw(slot, actions)
            running = None
        waiter = _Waiter(token, query, now_s)
        items = self._from_cache(query)
        if items:
            self._withdraw(slot, actions)  # what the user sees is answered; another text must not take its place
            actions.append(self._answer(waiter, items, Source.HIT, now_s))
            return actions
        slot.waiter = waiter
        if running is not None:
            running.orphaned_at_s = None
            return actions
        delay_s = self._delay_s(query, slot, now_s)
        if delay_s > 0:
            slot.due_s = now_s + delay_s
        else:
            self._ask(slot, now_s, actions)
        return actions

    def cancelled(self, token: int, now_s: float) -> list[Action]:
        """The editor no longer waits for ``token``; the backend may run on for a moment."""
        for slot in self._slots.values():
            if slot.waiter is not None and slot.waiter.token == token:
                slot.waiter = None
                slot.due_s = None
                if slot.running is not None:
                    slot.running.orphaned_at_s = now_s
        return []

    def edited(self, uri: str, place: Place | None, now_s: float) -> list[Action]:
        """A document changed; ``place`` is the end of the edit, ``None`` where several places changed."""
        slot = self._slots.setdefault(uri, _Slot())
        if slot.edited_at_s is not None:
            self.pace.learn_gap(now_s - slot.edited_at_s)
        slot.edited_at_s = now_s
        actions: list[Action] = []
        self._discard_waiter(slot, actions)
        if slot.running is not None:
            if place is None or not slot.running.fits(place):
                self._withdraw(slot, actions)
            else:
                slot.running.orphaned_at_s = now_s
        return actions

    def closed(self, uri: str) -> list[Action]:
        """A document was closed."""
        actions: list[Action] = []
        slot = self._slots.pop(uri, None)
        if slot is not None:
            self._discard_waiter(slot, actions)
            self._withdraw(slot, actions)
        self._cache.forget(uri)
        return actions

    def forget_answers(self) -> None:
        """Drop what was cached: the model, or what it may say, has changed."""
        self._cache.clear()

    # --- The backend -----------------------------------------------------------------------------------------

    def said(self, ask_id: int, text: str, now_s: float) -> list[Action]:
        """All the text the backend has generated so far, from the cursor on."""
        slot = self._slot_of(ask_id)
        actions: list[Action] = []
        if slot is None or slot.running is None:
            return actions
        slot.running.said = normalize_newlines(text)
        if slot.waiter is not None and not slot.running.fits(slot.waiter.query.place):
            self._withdraw(slot, actions)
            self._ask(slot, now_s, actions)
        return actions

    def answered(
        self,
        ask_id: int,
        continuations: Sequence[Continuation],
        unused_tail: str,
        now_s: float,
        *,
        is_cut: bool = False,
    ) -> list[Action]:
        """The backend's suggestions, best first; ``is_cut`` where the first ends at a limit."""
        slot = self._slot_of(ask_id)
        actions: list[Action] = []
        if slot is None or slot.running is None:
            return actions
        running = slot.running
        slot.running = None
        del self._uri_of_ask[ask_id]
        self.pace.learn_latency(now_s - running.asked_at_s)
        place = running.query.place
        if continuations and unused_tail:
            self._cache.add_tail(place, continuations[0], first_line(unused_tail))
        self._cache.add(place, continuations, running.query.num_wanted, is_cut=is_cut)
        waiter = slot.waiter
        if waiter is None:
            return actions
        same_place = waiter.query.place.offset == place.offset
        items = self._from_cache(waiter.query)
        if items or same_place:
            slot.waiter = None
            actions.append(self._answer(waiter, items, Source.NEW if same_place else Source.KEPT, now_s))
        else:
            self._ask(slot, now_s, actions)
        return actions

    def failed(self, ask_id: int, now_s: float) -> list[Action]:
        """The backend could not answer; the editor gets nothing, at once."""
        slot = self._slot_of(ask_id)
        actions: list[Action] = []
        if slot is not None:
            slot.running = None
            del self._uri_of_ask[ask_id]
            self._give_up(slot, now_s, actions)
        return actions

    def backend_lost(self, now_s: float) -> list[Action]:
        """The connection is gone, and with it everything that was asked."""
        actions: list[Action] = []
        for slot in self._slots.values():
            slot.running = None
            self._give_up(slot, now_s, actions)
        self._uri_of_ask.clear()
        return actions

    # --- Time ------------------------------------------------------------------------------------------------

    def next_wake_s(self) -> float | None:
        """When ``tick`` must be called next, ``None`` when nothing waits for time to pass."""
        times: list[float] = []
        for slot in self._slots.values():
            if slot.due_s is not None:
                times.append(slot.due_s)
            if slot.waiter is not None:
                times.append(slot.waiter.gives_up_s(self.timing))
            if slot.running is not None and slot.running.orphaned_at_s is not None:
                times.append(slot.running.orphaned_at_s + self.timing.grace_s)
        return min(times, default=None)

    def tick(self, now_s: float) -> list[Action]:
        """Do what has become due."""
        actions: list[Action] = []
        for slot in self._slots.values():
            if slot.due_s is not None and slot.due_s <= now_s:
                self._ask(slot, now_s, actions)
            if slot.waiter is not None and slot.waiter.gives_up_s(self.timing) <= now_s:
                self._give_up(slot, now_s, actions)
                self._withdraw(slot, actions)
            running = slot.running
            if (
                running is not None
                and running.orphaned_at_s is not None
                and running.orphaned_at_s + self.timing.grace_s <= now_s
            ):
                self._withdraw(slot, actions)
        return actions

    # --- Inside ----------------------------------------------------------------------------------------------

    def _slot_of(self, ask_id: int) -> _Slot | None:
        uri = self._uri_of_ask.get(ask_id)
        slot = self._slots.get(uri) if uri is not None else None
        return slot if slot is not None and slot.running is not None and slot.running.ask_id == ask_id else None

    def _serves(self, running: _Running, query: Query) -> bool:
        """Whether a running request answers this one too; a wish for more, or another selection, needs its own."""
        asked = running.query
        return query.num_wanted <= asked.num_wanted and query.selected == asked.selected and running.fits(query.place)

    def _from_cache(self, query: Query) -> tuple[Item, ...]:
        # A suggestion cut at a limit would shrink to a stub where the model has more to say: ask anew before, unless
        # the device is so slow that the stub is better than nothing.
        is_slow = self.pace.latency_s is None or self.pace.latency_s > self.timing.slow_s
        hit = self._cache.find(query.place, query.num_wanted, 0 if is_slow else MIN_CUT_LENGTH)
        return items_of(hit, query) if hit is not None else ()

    def _delay_s(self, query: Query, slot: _Slot, now_s: float) -> float:
        timing = self.timing
        if query.invoked:
            return 0.0
        since_edit_s = now_s - slot.edited_at_s if slot.edited_at_s is not None else timing.max_delay_s
        if timing.delay_s is not None:
            return timing.delay_s
        latency_s = self.pace.latency_s
        if latency_s is None or latency_s <= timing.quick_s or not query.place.line_before.strip():
            return 0.0
        slowness = min(1.0, (latency_s - timing.quick_s) / (timing.slow_s - timing.quick_s))
        # What the editor has waited itself counts: after a gap longer than usual the typist has paused.
        return max(0.0, min(timing.max_delay_s, slowness * 1.2 * self.pace.gap_s - since_edit_s))

    def _ask(self, slot: _Slot, now_s: float, actions: list[Action]) -> None:
        waiter = slot.waiter
        slot.due_s = None
        if waiter is None:
            return
        query = waiter.query
        ask_id = self._next_ask_id
        self._next_ask_id += 1
        self._uri_of_ask[ask_id] = query.place.uri
        self.pace.num_asks += 1
        slot.running = _Running(ask_id, query, Span.at(query.place), now_s)
        actions.append(Ask(ask_id, query))

    def _withdraw(self, slot: _Slot, actions: list[Action]) -> None:
        if slot.running is not None:
            actions.append(Withdraw(slot.running.ask_id))
            self._uri_of_ask.pop(slot.running.ask_id, None)
            self.pace.num_withdrawn += 1
            slot.running = None

    def _discard_waiter(self, slot: _Slot, actions: list[Action]) -> None:
        if slot.waiter is not None:
            actions.append(Discard(slot.waiter.token))
            slot.waiter = None
        slot.due_s = None

    def _give_up(self, slot: _Slot, now_s: float, actions: list[Action]) -> None:
        slot.due_s = None
        if slot.waiter is not None:
            actions.append(self._answer(slot.waiter, (), Source.NONE, now_s))
            slot.waiter = None

    def _answer(self, waiter: _Waiter, items: tuple[Item, ...], source: Source, now_s: float) -> Answer:
        self.pace.num_answers[source] = self.pace.num_answers.get(source, 0) + 1
        return Answer(waiter.token, waiter.query, items, source, now_s - waiter.since_s)


def items_of(hit: Hit, query: Query) -> tuple[Item, ...]:
    """What a cache entry means for this request: ranges from the line's start, so that they survive backspace."""
    place, selected = query.place, query.selected
    start = place.anchor if selected is None else min(selected.start, place.offset)
    before = place.text[start : place.offset]
    items: list[Item] = []
    for index, continuation in hit.continuations:
        end = place.offset + continuation.num_replaced
        text = before + continuation.text
        if selected is not None and not (
            text.startswith(selected.text) and len(text) > len(selected.text) and end >= selected.end
        ):
            continue
        items.append(Item(f"{hit.entry_id}.{index}", start, end, text, continuation.text))
    return tuple(items[: query.num_wanted])


def first_line(tail: str) -> str:
    """The part of an unused tail to offer next: up to the end of its first line that is not blank."""
    tail = normalize_newlines(tail)
    body = len(tail) - len(tail.lstrip("\n"))
    end = tail.find("\n", body)
    return tail if end < 0 else tail[:end]
