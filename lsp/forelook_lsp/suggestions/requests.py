"""Carrying out what ``suggestions`` and ``outcomes`` decide: asking the backend, answering the editor, keeping time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from forelook.protocol import messages

from forelook_lsp.backend_connection import BackendConnection
from forelook_lsp.mirror import Document, Edit, EditorRange
from forelook_lsp.positions import PositionEncoding, normalize_newlines
from forelook_lsp.settings import Options
from forelook_lsp.status import WindowStatus
from forelook_lsp.suggestions.cache import Continuation
from forelook_lsp.suggestions.machine import (
    Action,
    Answer,
    Ask,
    Discard,
    Query,
    Selected,
    Source,
    SuggestionMachine,
    Timing,
    Withdraw,
)
from forelook_lsp.suggestions.outcomes import Outcome, Outcomes

logger = logging.getLogger(__name__)

PATIENCE_S = 3.0  # beyond a deadline: a backend that keeps it has answered long before
ASKS_BETWEEN_POOL_STATS = 20
CUT_REASONS = frozenset({"max_tokens", "deadline", "context_full"})
SHOW_AFTER_S = 0.1


@dataclass(frozen=True, slots=True)
class PlacedItem:
    """A suggestion in the editor's units: put ``text`` in place of the range from ``start`` to ``end``."""

    suggestion_id: str
    start: tuple[int, int]
    end: tuple[int, int]
    text: str


class SuggestionRequests:
    """The suggestions of one window."""

    def __init__(
        self,
        client: BackendConnection,
        documents: Mapping[str, Document],
        status: WindowStatus,
        show_status: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            client: the way to the backend.
            documents: the window's open documents.
            status: what the user sees; latency, counts and rates are kept here.
            show_status: is called when it has changed.
            clock: seconds that only go forward.
        """
        self.options = Options()
        self.encoding = PositionEncoding.UTF16
        self.editor_says_shown = False
        self.suggestions = SuggestionMachine()
        self.outcomes = Outcomes()
        self._client = client
        self._documents = documents
        self._status = status
        self._show_status = show_status
        self._clock = clock
        self._answers: dict[int, asyncio.Future[tuple[PlacedItem, ...]]] = {}
        self._next_token = 1
        self._request_of_ask: dict[int, int] = {}
        self._ask_of_request: dict[int, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._show_timer: asyncio.TimerHandle | None = None

    # --- The editor ------------------------------------------------------------------------------------------

    def configure(self, options: Options) -> None:
        """Take new settings; answers that other settings would not give are forgotten."""
        old, self.options = self.options, options
        self.suggestions.timing = Timing(
            delay_s=options.delay_ms / 1000 if isinstance(options.delay_ms, int) else None,
            patience_s=PATIENCE_S + (options.deadline_ms or 500) / 1000,
        )
        if (options.max_new_tokens, options.multi_line) != (old.max_new_tokens, old.multi_line):
            self.suggestions.forget_answers()

    async def suggest(
        self,
        document: Document,
        offset: int,
        *,
        invoked: bool,
        num_wanted: int,
        selected: tuple[EditorRange, str] | None,
    ) -> tuple[PlacedItem, ...]:
        """Suggestions at ``offset``.

        Raises:
            asyncio.CancelledError: a later request or edit made this one out of date.
        """
        query = Query(
            document.place_at(offset),
            document.version,
            invoked=invoked,
            num_wanted=num_wanted,
            selected=self._selected(document, selected),
        )
        token = self._next_token
        self._next_token += 1
        answer: asyncio.Future[tuple[PlacedItem, ...]] = asyncio.get_running_loop().create_future()
        self._answers[token] = answer
        self._perform(self.suggestions.request(token, query, self._clock()))
        try:
            return await answer
        finally:
            if self._answers.pop(token, None) is not None:
                self._perform(self.suggestions.cancelled(token, self._clock()))

    def will_edit(self, document: Document, edit: Edit) -> None:
        """A document is about to change."""
        self._report(self.outcomes.edited(document.uri, document.text, edit, self._clock()))

    def edited(self, document: Document, edits: Sequence[Edit]) -> None:
        """A document has changed, at one place or several."""
        if edits:
            place = document.place_at(edits[0].start + len(edits[0].text)) if len(edits) == 1 else None
            self._perform(self.suggestions.edited(document.uri, place, self._clock()))

    def closed(self, uri: str) -> None:
        """A document was closed, or is withheld from now on."""
        self._perform(self.suggestions.closed(uri))
        self._report(self.outcomes.closed(uri, self._clock()))

    def shown(self, suggestion_id: str) -> None:
        """A suggestion is on the screen."""
        self._report(self.outcomes.shown(suggestion_id))

    def accepted(self, suggestion_id: str) -> None:
        """The editor says that a suggestion was accepted."""
        self._report(self.outcomes.accepted(suggestion_id))
        self._set_timer()

    def partly_accepted(self, suggestion_id: str, num_chars: int) -> None:
        """The editor says that the first ``num_chars`` of a suggestion's text were accepted."""
        self._report(self.outcomes.partly_accepted(suggestion_id, num_chars))

    def close(self) -> None:
        """Stop keeping time."""
        for timer in (self._timer, self._show_timer):
            if timer is not None:
                timer.cancel()

    # --- The backend -----------------------------------------------------------------------------------------

    def said(self, request_id: int, text: str) -> None:
        """A running completion's text so far."""
        ask_id = self._ask_of_request.get(request_id)
        if ask_id is not None:
            self._perform(self.suggestions.said(ask_id, text, self._clock()))

    def backend_lost(self) -> None:
        """The connection is gone: whatever waits is answered."""
        self._request_of_ask.clear()
        self._ask_of_request.clear()
        self._status.num_running = 0
        self._perform(self.suggestions.backend_lost(self._clock()))

    # --- Inside ----------------------------------------------------------------------------------------------

    def _selected(self, document: Document, selected: tuple[EditorRange, str] | None) -> Selected | None:
        if selected is None:
            return None
        where, text = selected
        start = document.lines.offset_at(where.start_line, where.start_character, self.encoding)
        end = document.lines.offset_at(where.end_line, where.end_character, self.encoding)
        return Selected(start, end, normalize_newlines(text))

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Ask):
                self._ask(action)
            elif isinstance(action, Withdraw):
                request_id = self._request_of_ask.pop(action.ask_id, None)
                if request_id is not None:
                    self._client.cancel(request_id)
            elif isinstance(action, Answer):
                self._answer(action)
            elif isinstance(action, Discard):
                future = self._answers.pop(action.token, None)
                if future is not None:
                    future.cancel()
        self._set_timer()

    def _answer(self, answer: Answer) -> None:
        future = self._answers.pop(answer.token, None)
        if future is None or future.done():
            return
        place = answer.query.place
        latency_ms = answer.waited_s * 1000
        if answer.items and answer.source is not Source.HIT:
            self._status.last_latency_ms = latency_ms
        self._report(self.outcomes.answered(place.uri, place.offset, answer.items, latency_ms, self._clock()))
        if answer.items and not self.editor_says_shown:
            self.shown(answer.items[0].suggestion_id)
        future.set_result(self._placed(answer))
        self._show_soon()

    def _placed(self, answer: Answer) -> tuple[PlacedItem, ...]:
        """The items in the editor's units; a document that changed has discarded its request before this."""
        if not answer.items:
            return ()
        lines, encoding = self._documents[answer.query.place.uri].lines, self.encoding
        return tuple(
            PlacedItem(
                item.suggestion_id,
                lines.position_at(item.start, encoding),
                lines.position_at(item.end, encoding),
                item.text,
            )
            for item in answer.items
        )

    def _ask(self, ask: Ask) -> None:
        query = ask.query
        selected = query.selected
        params = messages.CompletionParams(
            uri=query.place.uri,
            version=query.version,
            offset=query.place.offset,
            trigger="invoked" if query.invoked else "automatic",
            num_suggestions=query.num_wanted,
            max_new_tokens=self.options.max_new_tokens,
            deadline_ms=None if query.invoked else self.options.deadline_ms,
            multi_line=self.options.multi_line,
            selected=messages.SelectedCompletion(selected.start, selected.end, selected.text) if selected else None,
            partial=True,
        )
        request_id, future = self._client.request(messages.COMPLETION, params)
        self._request_of_ask[ask.ask_id] = request_id
        self._ask_of_request[request_id] = ask.ask_id
        self._status.num_running += 1
        self._show_soon()
        future.add_done_callback(partial(self._asked, ask, request_id))
        if self.suggestions.pace.num_asks % ASKS_BETWEEN_POOL_STATS == 1:
            self._ask_pool_stats(self._documents[query.place.uri].workspace)

    def _asked(self, ask: Ask, request_id: int, done: asyncio.Future[messages.CompletionResult]) -> None:
        self._request_of_ask.pop(ask.ask_id, None)
        if self._ask_of_request.pop(request_id, None) is not None:
            self._status.num_running = max(0, self._status.num_running - 1)
        if not done.cancelled():
            error = done.exception()
            if error is None:
                result = done.result()
                if result.stats.num_steps:
                    self._status.tokens_per_step = result.stats.tokens_per_step
                found = continuations_of(ask.query, result.suggestions)
                is_cut = result.finish_reason in CUT_REASONS
                self._perform(
                    self.suggestions.answered(ask.ask_id, found, result.unused_tail, self._clock(), is_cut=is_cut)
                )
            else:
                logger.info("no suggestion: %s", error)
                self._perform(self.suggestions.failed(ask.ask_id, self._clock()))
        self._show_soon()

    def _ask_pool_stats(self, workspace: str) -> None:
        _, future = self._client.request(messages.POOL_STATS, messages.WorkspaceParams(workspace))

        def take(done: asyncio.Future[messages.PoolStatsResult]) -> None:
            if not done.cancelled() and done.exception() is None:
                num_tokens = done.result().pool.get("num_tokens")
                self._status.pool_tokens = num_tokens if isinstance(num_tokens, int) else None
                self._show_soon()

        future.add_done_callback(take)

    def _report(self, outcomes: Sequence[Outcome]) -> None:
        """Pass counts on; of text only what was accepted, which the pool learns from."""
        for outcome in outcomes:
            document = self._documents.get(outcome.uri)
            if document is not None and document.sent:
                params = messages.CompletionEventParams(
                    document.workspace,
                    document.language_id,
                    outcome.kind,
                    outcome.num_chars,
                    outcome.latency_ms,
                    outcome.text,
                )
                self._client.notify(messages.COMPLETION_EVENT, params)
        if outcomes:
            self._status.accept_rate = self.outcomes.statistics.accept_rate
            self._show_soon()

    def _show_soon(self) -> None:
        """Show the status in a moment: an answer goes first, and one that comes at once does not make it flicker."""
        if self._show_timer is None:
            self._show_timer = asyncio.get_running_loop().call_later(SHOW_AFTER_S, self._show_now)

    def _show_now(self) -> None:
        self._show_timer = None
        self._show_status()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = [at for at in (self.suggestions.next_wake_s(), self.outcomes.next_wake_s()) if at is not None]
        if times:
            delay_s = max(0.0, min(times) - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now_s = self._clock()
        texts = {uri: document.text for uri, document in self._documents.items()}
        self._report(self.outcomes.tick(texts, now_s))
        self._perform(self.suggestions.tick(now_s))


def continuations_of(query: Query, suggestions: Sequence[messages.Suggestion]) -> list[Continuation]:
    """The backend's suggestions as what follows the cursor.

    One whose range does not hold the cursor, leaves its line, or whose text would change what stands before the cursor
    is left out: it would delete text the user typed.
    """
    text, offset = query.place.text, query.place.offset
    found: list[Continuation] = []
    for suggestion in suggestions:
        before = text[suggestion.start : offset]
        replaced = text[offset : suggestion.end]
        if not (query.place.anchor <= suggestion.start <= offset <= suggestion.end <= len(text)):
            continue
        if not suggestion.text.startswith(before) or "\n" in replaced or "\r" in replaced:
            continue
        continuation = Continuation(normalize_newlines(suggestion.text[len(before) :]), suggestion.end - offset)
        if continuation.text and continuation not in found:
            found.append(continuation)
    return found
