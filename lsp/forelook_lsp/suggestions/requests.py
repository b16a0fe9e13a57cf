"""Performs what ``machine`` and ``outcomes`` decide: asks the backend, answers the editor, keeps their timers."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from forelook.confidence import Confidence
from forelook.config import EditorConfig
from forelook.errors import QuotaError
from forelook.finish_reason import FinishReason
from forelook.protocol import messages

from forelook_lsp.backend_connection import BackendConnection
from forelook_lsp.mirror import Document, EditorRange, Mirror, Part
from forelook_lsp.positions import normalize_newlines
from forelook_lsp.status import StatusPresenter
from forelook_lsp.suggestions.cache import Continuation
from forelook_lsp.suggestions.condition import Condition, Selection
from forelook_lsp.suggestions.machine import (
    Action,
    Answer,
    Ask,
    Query,
    Source,
    SuggestionMachine,
    Withdraw,
)
from forelook_lsp.suggestions.outcomes import Outcome, Outcomes, Sliceable
from forelook_lsp.suggestions.pacing import Timing

logger = logging.getLogger(__name__)

PATIENCE_S = 3.0  # beyond the deadline; chosen, not measured
ASKS_BETWEEN_POOL_STATS = 20  # chosen, not measured


@dataclass(frozen=True, slots=True)
class EditorSuggestion:
    """A suggestion in the editor's units: replace ``range`` by ``text``."""

    suggestion_id: str
    range: EditorRange
    text: str


@dataclass(frozen=True, slots=True)
class _Pending:
    """A query that is not answered yet, and where its cursor is."""

    answer: asyncio.Future[tuple[EditorSuggestion, ...]]
    part: Part


class SuggestionRequests:
    """The suggestions of one window."""

    def __init__(
        self, mirror: Mirror, backend: BackendConnection, presenter: StatusPresenter, clock: Callable[[], float]
    ) -> None:
        """Create an idle instance.

        Args:
            mirror: the editor's documents.
            backend: the connection to the backend.
            presenter: shows latency, counts and rates.
            clock: a monotonic clock in seconds.
        """
        self.count_shown_on_notification = False
        """Count a suggestion as shown once the editor reports it, not once it is sent."""
        self._config = EditorConfig()
        self._machine = SuggestionMachine(request_ids=backend.request_ids)
        self._outcomes = Outcomes()
        self._mirror = mirror
        self._backend = backend
        self._presenter = presenter
        self._clock = clock
        self._answers: dict[int, _Pending] = {}
        self._query_ids = itertools.count(1)
        self._epoch = 0
        self._timer: asyncio.TimerHandle | None = None

    # --- The editor ------------------------------------------------------------------------------------------

    def configure(self, config: EditorConfig) -> None:
        """Apply new settings; those that change answers are part of their condition."""
        self._config = config
        self._machine.timing = Timing(
            delay_s=config.delay_ms / 1000 if config.delay_ms is not None else None,
            patience_s=PATIENCE_S + (config.engine.deadline_ms or 500) / 1000,
        )

    def forget_answers(self) -> None:
        """Drop cached answers, and those to come of running requests: the backend or the excluded files change."""
        self._epoch += 1
        self._machine.forget_answers()

    async def suggest(
        self,
        part: Part,
        offset: int,
        *,
        invoked: bool,
        num_wanted: int,
        selected: tuple[EditorRange, str] | None,
    ) -> tuple[EditorSuggestion, ...]:
        """Return suggestions at ``offset`` of the backend's document.

        Raises:
            asyncio.CancelledError: superseded by a later request or edit.
        """
        query = Query(
            next(self._query_ids),
            part.place_at(offset),
            part.document.version,
            self._condition(part, selected, invoked=invoked, num_wanted=num_wanted),
        )
        answer: asyncio.Future[tuple[EditorSuggestion, ...]] = asyncio.get_running_loop().create_future()
        self._answers[query.query_id] = _Pending(answer, part)
        self._perform(self._machine.queried(query, self._clock()))
        try:
            return await answer
        finally:
            if self._answers.pop(query.query_id, None) is not None:
                self._machine.cancelled(query.query_id, self._clock())
                self._set_timer()

    def follows(self, uri: str) -> bool:
        """Whether an edit of the document may concern a suggestion."""
        return self._outcomes.follows(uri)

    def will_edit(self, uri: str, before: Sliceable, edit: messages.TextChange) -> None:
        """A document is about to change; ``before`` is its text until then."""
        self._report(self._outcomes.edited(uri, before, edit, self._clock()))

    def edited(self, document: Document, edit: messages.TextChange | None) -> None:
        """A document has changed by ``edit``, or in several places."""
        place = document.place_at(edit.start + len(edit.text)) if edit is not None else None
        self._perform(self._machine.edited(document.uri, place, self._clock()))

    def closed(self, uri: str) -> None:
        """A document was closed, or must not be sent to the backend any more."""
        actions = self._machine.closed(uri)
        self._outcomes.closed(uri, self._clock())
        self._perform(actions)

    def shown(self, suggestion_id: str) -> None:
        """A suggestion is on the screen."""
        self._report(self._outcomes.shown(suggestion_id))

    def accepted(self, suggestion_id: str) -> None:
        """The editor reports that a suggestion was accepted."""
        self._report(self._outcomes.accepted(suggestion_id))
        self._set_timer()

    def partly_accepted(self, suggestion_id: str, num_chars: int) -> None:
        """The editor reports that the first ``num_chars`` of a suggestion were accepted."""
        self._report(self._outcomes.partly_accepted(suggestion_id, num_chars))

    def statistics(self) -> dict[str, object]:
        """Return counts of this window; never text."""
        pace, outcomes = self._machine.pace, self._outcomes.statistics
        return {
            "outcomes": dict(outcomes.counts),
            "accept_rate": outcomes.accept_rate,
            "num_chars_accepted": outcomes.num_chars_accepted,
            "num_keystrokes_saved": outcomes.num_keystrokes_saved,
            "answers": dict(pace.num_answers),
            "num_asks": pace.num_asks,
            "num_withdrawn": pace.num_withdrawn,
            "mean_latency_ms": pace.latency_s * 1000 if pace.latency_s is not None else None,
        }

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    # --- The backend -----------------------------------------------------------------------------------------

    def progressed(self, request_id: int, text: str) -> None:
        """The backend has generated ``text`` so far."""
        self._perform(self._machine.progressed(request_id, text, self._clock()))

    def backend_lost(self) -> None:
        """The connection was lost: answer all queries with nothing."""
        self._perform(self._machine.backend_lost(self._clock()))

    # --- Inside ----------------------------------------------------------------------------------------------

    def _condition(
        self, part: Part, selected: tuple[EditorRange, str] | None, *, invoked: bool, num_wanted: int
    ) -> Condition:
        selection: Selection | None = None
        if selected is not None:
            start, end = self._mirror.offsets_of(part, selected[0])
            selection = Selection(start, len(part.document.text) - end, normalize_newlines(selected[1]))
        backend, level = self._presenter.status.backend, self._config.confidence
        return Condition(
            language_id=part.document.language_id,
            invoked=invoked,
            num_wanted=num_wanted,
            selected=selection,
            multi_line=messages.MultiLine(self._config.multi_line),
            confidence=Confidence(level) if isinstance(level, str) else level,
            max_new_tokens=self._config.engine.max_new_tokens,
            deadline_ms=self._config.engine.deadline_ms,
            model=backend.model if backend is not None else "",
            epoch=self._epoch,
        )

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Ask):
                self._ask(action)
            elif isinstance(action, Withdraw):
                self._backend.cancel(action.request_id)
            elif isinstance(action, Answer):
                self._answer(action)
            elif (pending := self._answers.pop(action.query_id, None)) is not None:
                pending.answer.cancel()
        self._set_timer()

    def _answer(self, answer: Answer) -> None:
        pending = self._answers.pop(answer.query.query_id, None)
        if pending is None or pending.answer.done():
            return
        self._report(self._outcomes.answered(answer, self._clock()))
        self._presenter.status.is_unsure = answer.is_unsure
        if answer.continuations:
            if answer.source is not Source.HIT:
                self._presenter.status.last_latency_ms = answer.waited_s * 1000
            if not self.count_shown_on_notification:
                self.shown(answer.continuations[0].suggestion_id)
        pending.answer.set_result(self._in_editor_units(answer, pending.part))
        self._presenter.show_soon()

    def _in_editor_units(self, answer: Answer, part: Part) -> tuple[EditorSuggestion, ...]:
        query = answer.query  # the text is unchanged since: an edit would have discarded the query
        return tuple(
            EditorSuggestion(
                continuation.suggestion_id,
                self._mirror.range_of(part, query.start, query.place.offset + continuation.num_replaced),
                query.before + continuation.text,
            )
            for continuation in answer.continuations
        )

    def _ask(self, ask: Ask) -> None:
        query = ask.query
        future = self._backend.request(messages.COMPLETION, query.request(), request_id=ask.request_id)
        self._presenter.status.num_running += 1
        self._presenter.show_soon()
        future.add_done_callback(partial(self._settle, ask))
        if self._machine.pace.num_asks % ASKS_BETWEEN_POOL_STATS == 1:
            self._ask_pool_stats(self._mirror.documents[query.place.uri].workspace)

    def _settle(self, ask: Ask, done: asyncio.Future[messages.CompletionResult]) -> None:
        self._presenter.status.num_running -= 1
        self._presenter.show_soon()
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            logger.info("no suggestion: %s", error)
            self._presenter.status.over_quota = str(error) if isinstance(error, QuotaError) else ""
            self._perform(self._machine.failed(ask.request_id, self._clock()))
            return
        result = done.result()
        self._presenter.status.over_quota = ""
        if result.stats.num_steps:
            self._presenter.status.tokens_per_step = result.stats.tokens_per_step
        found = continuations_of(ask.query, result.suggestions)
        now_s = self._clock()
        is_unsure = result.finish_reason is FinishReason.UNSURE
        self._perform(
            self._machine.answered(
                ask.request_id, found, result.next_line, now_s, is_cut=result.is_cut, is_unsure=is_unsure
            )
        )

    def _ask_pool_stats(self, workspace: str) -> None:
        def show(done: asyncio.Future[messages.PoolStatsResult]) -> None:
            if not done.cancelled() and done.exception() is None:
                num_tokens = done.result().pool.get("num_tokens")
                self._presenter.status.pool_tokens = num_tokens if isinstance(num_tokens, int) else None
                self._presenter.show_soon()

        self._backend.request(messages.POOL_STATS, messages.WorkspaceParams(workspace)).add_done_callback(show)

    def _report(self, outcomes: Sequence[Outcome]) -> None:
        """Send outcomes to the backend; accepted text is the only text among them."""
        for outcome in outcomes:
            document = self._mirror.documents.get(outcome.uri)
            if document is not None and document.sent:
                params = messages.CompletionEventParams(
                    document.workspace,
                    document.language_id,
                    outcome.kind,
                    outcome.num_chars,
                    outcome.first_use,
                    outcome.text,
                )
                self._backend.notify(messages.COMPLETION_EVENT, params)
        if outcomes:
            self._presenter.status.accept_rate = self._outcomes.statistics.accept_rate
            self._presenter.show_soon()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = [at for at in (self._machine.next_wake_s(), self._outcomes.next_wake_s()) if at is not None]
        if times:
            delay_s = max(0.0, min(times) - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now_s = self._clock()
        texts = {uri: document.text for uri, document in self._mirror.documents.items()}
        self._report(self._outcomes.tick(texts, now_s))
        self._perform(self._machine.tick(now_s))


def continuations_of(query: Query, suggestions: Sequence[messages.Suggestion]) -> list[Continuation]:
    """Return the backend's suggestions as continuations of the cursor.

    A suggestion is left out if it would delete typed text: if its range does not contain the cursor or leaves its
    line, or if its text changes the text before the cursor.
    """
    text, offset = query.place.text, query.place.offset
    found: list[Continuation] = []
    for suggestion in suggestions:
        before = text[suggestion.start : offset]
        replaced = text[offset : suggestion.end]
        if not (query.place.line_start <= suggestion.start <= offset <= suggestion.end <= len(text)):
            continue
        if not suggestion.text.startswith(before) or "\n" in replaced or "\r" in replaced:
            continue
        continuation = Continuation(normalize_newlines(suggestion.text[len(before) :]), suggestion.end - offset)
        if continuation.text and continuation not in found:
            found.append(continuation)
    return found
