"""One editor window: its documents, its suggestions, its backend. Knows no LSP type and no socket."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from forelook import __version__
from forelook.endpoint import Endpoint
from forelook.errors import ForelookError, PositionError
from forelook.server import protocol

from forelook_lsp.backend_client import BackendClient, ClientName
from forelook_lsp.documents import Document, EditorChange, EditorRange
from forelook_lsp.indexing import Indexing, Progress
from forelook_lsp.options import Options, needs_restart, parse_options
from forelook_lsp.outcomes import Outcome, Outcomes
from forelook_lsp.positions import Lines, PositionEncoding, normalise_newlines
from forelook_lsp.status import Snapshot, WindowStatus
from forelook_lsp.suggestion_cache import Continuation
from forelook_lsp.suggestions import Action, Answer, Ask, Discard, Query, Selected, Suggestions, Timing, Withdraw
from forelook_lsp.workspace_files import OpenFile, is_ignore_file, local_path

logger = logging.getLogger(__name__)

DEFAULT_DEADLINE_S = 0.5
PATIENCE_S = 3.0
STATS_TIMEOUT_S = 5.0
ASKS_BETWEEN_POOL_STATS = 20
NO_WORKSPACE = "no folder"

FindBackend = Callable[[Options], Endpoint]


@dataclass(frozen=True, slots=True)
class PlacedItem:
    """A suggestion in the editor's units: put ``text`` in place of the range from ``start`` to ``end``."""

    suggestion_id: str
    start: tuple[int, int]
    end: tuple[int, int]
    text: str


class Editor(Protocol):
    """What a window needs of its editor. Called on the event loop; must not block."""

    def show_status(self, snapshot: Snapshot) -> None:
        """The status has changed."""

    def show_progress(self, title: str) -> Progress:
        """A progress bar, where the editor has such a thing."""

    def log(self, message: str, *, is_error: bool) -> None:
        """A line for the editor's log of this server."""


class EditorWindow:
    """One editor window, driven by the handlers of ``server.py``."""

    def __init__(
        self, editor: Editor, find_backend: FindBackend, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare; nothing runs before ``start``.

        Args:
            editor: where status, progress and log lines go.
            find_backend: finds or starts the backend for some options; blocks.
            clock: seconds that only go forward.
        """
        self.options = Options()
        self.encoding = PositionEncoding.UTF16
        self.documents: dict[str, Document] = {}
        self.status = WindowStatus()
        self._editor = editor
        self._find_backend = find_backend
        self._clock = clock
        self._suggestions = Suggestions()
        self._outcomes = Outcomes()
        self._client = BackendClient(self._find, ClientName("forelook-lsp", __version__), self)
        self._indexing = Indexing(self._client, editor.show_progress, self._log_once)
        self._folders: dict[str, Path] = {}
        self._started = False
        self._switched: dict[str, bool] = {}
        self._answers: dict[int, asyncio.Future[tuple[PlacedItem, ...]]] = {}
        self._next_token = 1
        self._request_of_ask: dict[int, int] = {}
        self._ask_of_request: dict[int, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._logged: set[str] = set()
        self._shown_status: Snapshot | None = None
        self._loading: Progress | None = None
        self._indexed = False

    # --- Life ------------------------------------------------------------------------------------------------

    def configure(self, settings: object) -> None:
        """Take the editor's settings; whatever is not allowed is named in its log, once."""
        options, problems = parse_options(settings)
        for problem in problems:
            self._log_once(f"{problem}; the default is used")
        old, self.options = self.options, options
        deadline_s = options.deadline_ms / 1000 if options.deadline_ms is not None else DEFAULT_DEADLINE_S
        self._suggestions.timing = Timing(
            delay_s=options.delay_ms / 1000 if isinstance(options.delay_ms, int) else None,
            patience_s=deadline_s + PATIENCE_S,
        )
        if (options.max_new_tokens, options.multi_line) != (old.max_new_tokens, old.multi_line):
            self._suggestions.forget_answers()
        if not self._started:
            return
        if options.ignore != old.ignore:
            self._apply_privacy()
        if needs_restart(old, options):
            self._suggestions.forget_answers()
            self._client.reconnect(self._find)
        elif options.index_workspace != old.index_workspace:
            self._index()
        self._show_status()

    def set_folders(self, uris: Sequence[str]) -> None:
        """The window's folders."""
        self._folders = {uri: path for uri in uris if (path := local_path(uri)) is not None}
        if self._started:
            self._apply_privacy()
            self._index()

    def change_folders(self, added: Sequence[str], removed: Sequence[str]) -> None:
        """Folders were added to the window or taken out of it."""
        self.set_folders([*(uri for uri in self._folders if uri not in removed), *added])

    def start(self) -> None:
        """Look for the backend."""
        self._started = True
        self._indexing.set_folders(self._folders, self.options.ignore)
        self._show_status()
        self._client.start()

    async def close(self) -> None:
        """Let go of the backend."""
        if self._timer is not None:
            self._timer.cancel()
        self._indexing.stop()
        for task in self._tasks:
            task.cancel()
        await self._client.close()

    # --- Documents -------------------------------------------------------------------------------------------

    def open_document(self, uri: str, language_id: str, version: int, text: str) -> None:
        """A document was opened; one that is open already is replaced."""
        if uri in self.documents:
            self.close_document(uri)
        path = local_path(uri)
        document = Document(uri, language_id, version, Lines(text), self._workspace_of(path))
        document.withheld = (self._indexing.withheld(path) if path is not None else None) or ""
        self.documents[uri] = document
        self._send_document(document)

    def change_document(self, uri: str, version: int, changes: Sequence[EditorChange]) -> None:
        """A document was changed."""
        document = self.documents.get(uri)
        if document is None:
            logger.warning("a document that is not open was changed")
            return
        now_s = self._clock()
        edits = []
        for change in changes:
            edit = document.edit_of(change, self.encoding)
            self._report(self._outcomes.edited(uri, document.text, edit, now_s))
            document.apply(edit)
            edits.append(edit)
        document.version = version
        if document.sent:
            wire = tuple(protocol.TextChange(edit.start, edit.end, edit.text) for edit in edits)
            self._client.notify(protocol.DOCUMENT_CHANGE, protocol.DocumentChangeParams(uri, version, wire))
        if edits:
            place = document.place_at(edits[0].start + len(edits[0].text)) if len(edits) == 1 else None
            self._perform(self._suggestions.edited(uri, place, now_s))

    def close_document(self, uri: str) -> None:
        """A document was closed."""
        document = self.documents.pop(uri, None)
        if document is None:
            return
        self._perform(self._suggestions.closed(uri))
        self._report(self._outcomes.closed(uri, self._clock()))
        if document.sent:
            self._client.notify(protocol.DOCUMENT_CLOSE, protocol.DocumentCloseParams(uri))
            self._send_file(local_path(uri))

    def files_changed(self, changed: Sequence[str], deleted: Sequence[str]) -> None:
        """Files changed on disk, whoever did it."""
        gone = [path for uri in deleted if (path := local_path(uri)) is not None]
        there = [path for uri in changed if (path := local_path(uri)) is not None]
        if any(is_ignore_file(path) for path in (*gone, *there)):
            self._apply_privacy()
            self._indexing.forget_withheld()
        self._indexing.forget(gone)
        open_paths = {local_path(uri) for uri in self.documents}
        for path in there:
            if path not in open_paths:
                self._send_file(path)

    # --- Suggestions -----------------------------------------------------------------------------------------

    async def suggest(
        self,
        uri: str,
        line: int,
        character: int,
        *,
        invoked: bool,
        version: int | None = None,
        selected: tuple[EditorRange, str] | None = None,
    ) -> tuple[PlacedItem, ...]:
        """Suggestions at a position; none where there cannot be any.

        Raises:
            asyncio.CancelledError: a later request or edit made this one out of date.
            PositionError: the line is not in the document.
        """
        document = self.documents.get(uri)
        if document is None:
            logger.info("suggestions were asked for in a document that is not open")
            return ()
        if version is not None and version != document.version:
            raise asyncio.CancelledError
        if line >= document.lines.num_lines:
            num_lines = document.lines.num_lines
            raise PositionError(f"position.line = {line} is not in the document, which has {num_lines} lines")
        if not self._may_suggest(document):
            return ()
        place = document.place_at(document.lines.offset_at(line, character, self.encoding))
        query = Query(
            place,
            document.version,
            invoked=invoked,
            num_wanted=self.options.num_suggestions if invoked else 1,
            selected=self._selected(document, selected),
        )
        token = self._next_token
        self._next_token += 1
        answer: asyncio.Future[tuple[PlacedItem, ...]] = asyncio.get_running_loop().create_future()
        self._answers[token] = answer
        self._perform(self._suggestions.request(token, query, self._clock()))
        try:
            return await answer
        finally:
            if self._answers.pop(token, None) is not None:
                self._perform(self._suggestions.cancelled(token, self._clock()))

    def accepted(self, suggestion_id: str) -> None:
        """The editor says that a suggestion was accepted."""
        self._report(self._outcomes.accepted(suggestion_id))
        self._show_status()

    def partly_accepted(self, suggestion_id: str, num_chars: int) -> None:
        """The editor says that the first ``num_chars`` of a suggestion's text were accepted."""
        self._report(self._outcomes.partly_accepted(suggestion_id, num_chars))
        self._show_status()

    # --- Commands --------------------------------------------------------------------------------------------

    def toggle(self, language_id: str | None) -> bool:
        """Switch suggestions off or on again in this window, everywhere or in one language; returns what holds now."""
        name = language_id if language_id is not None else "*"
        enabled = not (self._enabled_for(language_id) if language_id is not None else self._enabled())
        self._switched[name] = enabled
        self._show_status()
        return enabled

    async def statistics(self) -> dict[str, object]:
        """Counts of this window and of the backend; never text."""
        pace = self._suggestions.pace
        window = {
            "outcomes": dict(self._outcomes.statistics.counts),
            "accept_rate": self._outcomes.statistics.accept_rate,
            "num_chars_accepted": self._outcomes.statistics.num_chars_accepted,
            "num_keystrokes_saved": self._outcomes.statistics.num_keystrokes_saved,
            "answers": {source.value: count for source, count in pace.num_answers.items()},
            "num_asks": pace.num_asks,
            "num_withdrawn": pace.num_withdrawn,
            "mean_latency_ms": pace.latency_s * 1000 if pace.latency_s is not None else None,
        }
        try:
            _, future = self._client.request(protocol.STATS, protocol.Empty())
            backend: dict[str, object] = asdict(await asyncio.wait_for(future, STATS_TIMEOUT_S))
        except asyncio.TimeoutError:
            backend = {"error": f"no answer within {STATS_TIMEOUT_S:g} s"}
        except ForelookError as error:
            backend = {"error": str(error)}
        return {"window": window, "backend": backend}

    async def clear_pool(self) -> list[str]:
        """Empty the pools of this window's workspaces, on disk too; returns which."""
        self._indexing.stop()
        names = sorted({*self._folders, *(document.workspace for document in self.documents.values())})
        for name in names:
            _, future = self._client.request(protocol.POOL_CLEAR, protocol.WorkspaceParams(name))
            await asyncio.wait_for(future, STATS_TIMEOUT_S)
        self.status.pool_tokens = 0
        self._show_status()
        return names

    async def restart_backend(self) -> None:
        """End the backend, for all its windows, and start another."""
        if self._client.connected:
            _, future = self._client.request(protocol.SHUTDOWN, protocol.Empty())
            try:
                await asyncio.wait_for(future, STATS_TIMEOUT_S)
            except (ForelookError, asyncio.TimeoutError) as error:
                logger.info("the backend did not say goodbye: %s", error)
        self._suggestions.forget_answers()
        self._client.reconnect()

    # --- BackendEvents ---------------------------------------------------------------------------------------

    def backend_connected(self, hello: protocol.HelloResult) -> None:
        """Give the backend all that is open."""
        self.status.connected = True
        self.status.failure = ""
        self.status.backend = hello.status
        for document in self.documents.values():
            self._send_document(document)
        self._indexed = False
        self._model_changed_state()

    def backend_lost(self, error: ForelookError) -> None:
        """Answer whatever waits; the client tries again by itself."""
        self.status.connected = False
        self.status.failure = str(error)
        self.status.num_running = 0
        self._indexing.stop()
        for document in self.documents.values():
            document.sent = False
        self._request_of_ask.clear()
        self._ask_of_request.clear()
        self._perform(self._suggestions.backend_lost(self._clock()))
        self._show_status()

    def backend_status(self, status: protocol.Status) -> None:
        """Show where the model stands."""
        former = self.status.backend
        self.status.backend = status
        if former is not None and former.model and status.model and former.model != status.model:
            self._suggestions.forget_answers()
        self._model_changed_state()

    def backend_said(self, request_id: int, text: str) -> None:
        """See whether a running completion still fits."""
        ask_id = self._ask_of_request.get(request_id)
        if ask_id is not None:
            self._perform(self._suggestions.said(ask_id, text, self._clock()))

    def backend_refused(self, error: protocol.NotificationErrorParams) -> None:
        """A document the backend does not take gets no suggestions; its next opening tries again."""
        document = self.documents.get(error.uri) if error.uri is not None else None
        if document is not None:
            document.sent = False
            document.withheld = error.message
            self._perform(self._suggestions.closed(document.uri))

    # --- Inside: files ---------------------------------------------------------------------------------------

    def _find(self) -> Endpoint:
        return self._find_backend(self.options)

    def _workspace_of(self, path: Path | None) -> str:
        if path is not None:
            return self._indexing.workspace_of(path) or NO_WORKSPACE
        return next(iter(self._folders)) if len(self._folders) == 1 else NO_WORKSPACE

    def _send_document(self, document: Document) -> None:
        if document.withheld:
            return
        params = protocol.DocumentOpenParams(
            document.workspace, document.uri, document.language_id, document.version, document.text
        )
        document.sent = self._client.notify(protocol.DOCUMENT_OPEN, params)

    def _send_file(self, path: Path | None) -> None:
        if path is not None and self.options.index_workspace and self.status.ready:
            task = asyncio.get_running_loop().create_task(self._indexing.send_file(path))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _apply_privacy(self) -> None:
        """Read the ignore files again, and take back or hand over the open documents they are about."""
        self._indexing.set_folders(self._folders, self.options.ignore)
        for document in self.documents.values():
            path = local_path(document.uri)
            if path is None:
                continue
            withheld = self._indexing.withheld(path) or ""
            workspace = self._workspace_of(path)
            if (withheld, workspace) == (document.withheld, document.workspace):
                continue
            document.withheld, document.workspace = withheld, workspace
            if document.sent:
                document.sent = False
                self._client.notify(protocol.DOCUMENT_CLOSE, protocol.DocumentCloseParams(document.uri))
                self._perform(self._suggestions.closed(document.uri))
            if withheld:
                self._indexing.forget([path])
            self._send_document(document)

    def _index(self) -> None:
        self._indexing.stop()
        if self.options.index_workspace and self.status.ready:
            open_files = [
                OpenFile(path, document.text)
                for document in self.documents.values()
                if (path := local_path(document.uri)) is not None and not document.withheld
            ]
            self._indexing.start(open_files)

    # --- Inside: suggestions ---------------------------------------------------------------------------------

    def _enabled(self) -> bool:
        return self._switched.get("*", self.options.enable)

    def _enabled_for(self, language_id: str) -> bool:
        if not self._enabled():
            return False
        return self._switched.get(language_id, self.options.wants_language(language_id))

    def _may_suggest(self, document: Document) -> bool:
        self.status.withheld = document.withheld
        return self._enabled_for(document.language_id) and self.status.ready and document.sent

    def _selected(self, document: Document, selected: tuple[EditorRange, str] | None) -> Selected | None:
        if selected is None:
            return None
        where, text = selected
        start = document.lines.offset_at(where.start_line, where.start_character, self.encoding)
        end = document.lines.offset_at(where.end_line, where.end_character, self.encoding)
        return Selected(start, end, normalise_newlines(text))

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
        if answer.items:
            self.status.last_latency_ms = latency_ms
        self._report(self._outcomes.shown(place.uri, place.offset, answer.items, latency_ms, self._clock()))
        future.set_result(self._placed(answer))
        self._show_status()

    def _placed(self, answer: Answer) -> tuple[PlacedItem, ...]:
        """The items in the editor's units; a document that changed has discarded its request before this."""
        if not answer.items:
            return ()
        lines, encoding = self.documents[answer.query.place.uri].lines, self.encoding
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
        params = protocol.CompletionParams(
            uri=query.place.uri,
            version=query.version,
            offset=query.place.offset,
            trigger="invoked" if query.invoked else "automatic",
            num_suggestions=query.num_wanted,
            max_new_tokens=self.options.max_new_tokens,
            deadline_ms=self.options.deadline_ms,
            multi_line=self.options.multi_line,
            selected=protocol.SelectedCompletion(selected.start, selected.end, selected.text) if selected else None,
            partial=True,
        )
        request_id, future = self._client.request(protocol.COMPLETION, params)
        self._request_of_ask[ask.ask_id] = request_id
        self._ask_of_request[request_id] = ask.ask_id
        self.status.num_running += 1
        self._show_status()
        future.add_done_callback(partial(self._asked, ask, request_id))
        if self._suggestions.pace.num_asks % ASKS_BETWEEN_POOL_STATS == 1:
            self._ask_pool_stats(self.documents[query.place.uri].workspace)

    def _asked(self, ask: Ask, request_id: int, done: asyncio.Future[protocol.CompletionResult]) -> None:
        self._request_of_ask.pop(ask.ask_id, None)
        if self._ask_of_request.pop(request_id, None) is not None:
            self.status.num_running = max(0, self.status.num_running - 1)
        if not done.cancelled():
            error = done.exception()
            if error is None:
                result = done.result()
                if result.stats.num_steps:
                    self.status.tokens_per_step = result.stats.tokens_per_step
                found = continuations_of(ask.query, result.suggestions)
                now_s = self._clock()
                self._perform(self._suggestions.answered(ask.ask_id, found, result.unused_tail, now_s))
            else:
                logger.info("no suggestion: %s", error)
                self._perform(self._suggestions.failed(ask.ask_id, self._clock()))
        self._show_status()

    def _ask_pool_stats(self, workspace: str) -> None:
        _, future = self._client.request(protocol.POOL_STATS, protocol.WorkspaceParams(workspace))

        def take(done: asyncio.Future[protocol.PoolStatsResult]) -> None:
            if not done.cancelled() and done.exception() is None:
                num_tokens = done.result().pool.get("num_tokens")
                self.status.pool_tokens = num_tokens if isinstance(num_tokens, int) else None
                self._show_status()

        future.add_done_callback(take)

    def _report(self, outcomes: Sequence[Outcome]) -> None:
        """Pass counts on; of text only what was accepted, which the pool learns from."""
        for outcome in outcomes:
            document = self.documents.get(outcome.uri)
            if document is not None and document.sent:
                params = protocol.CompletionEventParams(
                    document.workspace,
                    document.language_id,
                    outcome.kind,
                    outcome.num_chars,
                    outcome.latency_ms,
                    outcome.text,
                )
                self._client.notify(protocol.COMPLETION_EVENT, params)
        if outcomes:
            self.status.accept_rate = self._outcomes.statistics.accept_rate

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = [
            wake_s for wake_s in (self._suggestions.next_wake_s(), self._outcomes.next_wake_s()) if wake_s is not None
        ]
        if times:
            delay_s = max(0.0, min(times) - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now_s = self._clock()
        texts = {uri: document.text for uri, document in self.documents.items()}
        self._report(self._outcomes.tick(texts, now_s))
        self._perform(self._suggestions.tick(now_s))
        self._show_status()

    # --- Inside: what the user sees --------------------------------------------------------------------------

    def _model_changed_state(self) -> None:
        if self.status.ready and not self._indexed:
            self._indexed = True
            self._index()
        self._show_status()

    def _show_status(self) -> None:
        self.status.paused = not self._enabled()
        snapshot = self.status.snapshot()
        if not self._started or snapshot == self._shown_status:
            return
        self._shown_status = snapshot
        if self.options.status_notifications:
            self._editor.show_status(snapshot)
        loading = snapshot.state in ("starting", "loading")
        if loading and self._loading is None:
            self._loading = self._editor.show_progress("Forelook: loading the model")
        if self._loading is not None:
            if loading:
                self._loading.report(snapshot.progress, snapshot.message)
            else:
                self._loading.end(snapshot.message or snapshot.state)
                self._loading = None

    def _log_once(self, message: str) -> None:
        if message not in self._logged:
            self._logged.add(message)
            self._editor.log(message, is_error=True)


def continuations_of(query: Query, suggestions: Sequence[protocol.Suggestion]) -> list[Continuation]:
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
        continuation = Continuation(normalise_newlines(suggestion.text[len(before) :]), suggestion.end - offset)
        if continuation.text and continuation not in found:
            found.append(continuation)
    return found
