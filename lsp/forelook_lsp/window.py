"""One editor window: its documents, its suggestions, its backend. Knows no LSP type and no socket."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from forelook import __version__
from forelook.endpoint import Endpoint
from forelook.errors import ConfigError, ForelookError, PositionError
from forelook.server import protocol

from forelook_lsp.backend_client import BackendClient, ClientName
from forelook_lsp.documents import Document, EditorChange, EditorRange
from forelook_lsp.options import Options, needs_restart, parse_options
from forelook_lsp.positions import Lines, PositionEncoding, normalise_newlines
from forelook_lsp.status import Snapshot, WindowStatus
from forelook_lsp.suggestion_cache import Continuation
from forelook_lsp.suggestions import (
    Action,
    Answer,
    Ask,
    Discard,
    Query,
    Selected,
    Suggestions,
    Timing,
    Withdraw,
)

logger = logging.getLogger(__name__)

DEFAULT_DEADLINE_S = 0.5
PATIENCE_S = 3.0
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

    def log(self, message: str, *, is_error: bool) -> None:
        """A line for the editor's log of this server."""


class EditorWindow:
    """One editor window, driven by the handlers of ``server.py``."""

    def __init__(
        self,
        editor: Editor,
        find_backend: FindBackend,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing runs before ``start``.

        Args:
            editor: where status and log lines go.
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
        self._client = BackendClient(self._find, ClientName("forelook-lsp", __version__), self)
        self._folders: list[str] = []
        self._answers: dict[int, asyncio.Future[tuple[PlacedItem, ...]]] = {}
        self._next_token = 1
        self._request_of_ask: dict[int, int] = {}
        self._ask_of_request: dict[int, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._shown_status: Snapshot | None = None

    # --- Life ------------------------------------------------------------------------------------------------

    def configure(self, settings: object) -> None:
        """Take the editor's settings; whatever is not allowed is named in its log, once."""
        options, problems = parse_options(settings)
        for problem in problems:
            self._editor.log(_describe_problem(problem), is_error=True)
        old, self.options = self.options, options
        deadline_s = options.deadline_ms / 1000 if options.deadline_ms is not None else DEFAULT_DEADLINE_S
        self._suggestions.timing = Timing(
            delay_s=options.delay_ms / 1000 if isinstance(options.delay_ms, int) else None,
            patience_s=deadline_s + PATIENCE_S,
        )
        self.status.paused = not options.enable
        if (options.max_new_tokens, options.multi_line) != (old.max_new_tokens, old.multi_line):
            self._suggestions.forget_answers()
        if needs_restart(old, options):
            self._suggestions.forget_answers()
            self._client.reconnect(self._find)
        self._show_status()

    def set_folders(self, uris: Sequence[str]) -> None:
        """The window's folders."""
        self._folders = sorted(uris, key=len, reverse=True)

    def start(self) -> None:
        """Look for the backend."""
        self._show_status()
        self._client.start()

    async def close(self) -> None:
        """Let go of the backend."""
        if self._timer is not None:
            self._timer.cancel()
        await self._client.close()

    # --- Documents -------------------------------------------------------------------------------------------

    def open_document(self, uri: str, language_id: str, version: int, text: str) -> None:
        """A document was opened; one that is open already is replaced."""
        if uri in self.documents:
            self.close_document(uri)
        document = Document(uri, language_id, version, Lines(text), self._workspace_of(uri))
        self.documents[uri] = document
        self._send_document(document)

    def change_document(self, uri: str, version: int, changes: Sequence[EditorChange]) -> None:
        """A document was changed."""
        document = self.documents.get(uri)
        if document is None:
            logger.warning("a document that is not open was changed")
            return
        edits = document.apply(changes, self.encoding)
        document.version = version
        if document.sent:
            wire = tuple(protocol.TextChange(edit.start, edit.end, edit.text) for edit in edits)
            self._client.notify(protocol.DOCUMENT_CHANGE, protocol.DocumentChangeParams(uri, version, wire))
        end = edits[-1].start + len(edits[-1].text) if len(edits) == 1 else None
        place = document.place_at(end) if end is not None else None
        self._perform(self._suggestions.edited(uri, place, self._clock()))

    def close_document(self, uri: str) -> None:
        """A document was closed."""
        document = self.documents.pop(uri, None)
        if document is None:
            return
        self._perform(self._suggestions.closed(uri))
        if document.sent:
            self._client.notify(protocol.DOCUMENT_CLOSE, protocol.DocumentCloseParams(uri))

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
        if not self._may_suggest(document):
            return ()
        if line >= document.lines.num_lines:
            raise PositionError(
                f"position.line = {line} is not in the document: it has {document.lines.num_lines} lines"
            )
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

    # --- BackendEvents ---------------------------------------------------------------------------------------

    def backend_connected(self, hello: protocol.HelloResult) -> None:
        """Give the backend all that is open."""
        self.status.connected = True
        self.status.failure = ""
        self.status.backend = hello.status
        for document in self.documents.values():
            self._send_document(document)
        self._show_status()

    def backend_lost(self, error: ForelookError) -> None:
        """Answer whatever waits; the client tries again by itself."""
        self.status.connected = False
        self.status.failure = str(error)
        self.status.num_running = 0
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
        self._show_status()

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

    # --- Inside ----------------------------------------------------------------------------------------------

    def _find(self) -> Endpoint:
        return self._find_backend(self.options)

    def _workspace_of(self, uri: str) -> str:
        for folder in self._folders:
            if uri == folder or uri.startswith(folder.rstrip("/") + "/"):
                return folder
        return self._folders[-1] if len(self._folders) == 1 and not uri.startswith("file:") else NO_WORKSPACE

    def _send_document(self, document: Document) -> None:
        if document.withheld:
            return
        params = protocol.DocumentOpenParams(
            document.workspace, document.uri, document.language_id, document.version, document.text
        )
        document.sent = self._client.notify(protocol.DOCUMENT_OPEN, params)

    def _may_suggest(self, document: Document) -> bool:
        self.status.withheld = document.withheld
        return self.options.enabled_for(document.language_id) and self.status.ready and document.sent

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
        if answer.items:
            self.status.last_latency_ms = answer.waited_s * 1000
        future.set_result(self._placed(answer))
        self._show_status()

    def _placed(self, answer: Answer) -> tuple[PlacedItem, ...]:
        """The items in the editor's units; a document that changed has discarded its request before this."""
        if not answer.items:
            return ()
        lines = self.documents[answer.query.place.uri].lines
        return tuple(
            PlacedItem(
                item.suggestion_id,
                lines.position_at(item.start, self.encoding),
                lines.position_at(item.end, self.encoding),
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
        future.add_done_callback(lambda done: self._asked(ask, request_id, done))

    def _asked(self, ask: Ask, request_id: int, done: asyncio.Future[protocol.CompletionResult]) -> None:
        self._request_of_ask.pop(ask.ask_id, None)
        if self._ask_of_request.pop(request_id, None) is not None:
            self.status.num_running = max(0, self.status.num_running - 1)
        if done.cancelled():
            self._show_status()
            return
        error = done.exception()
        if error is not None:
            if not isinstance(error, ForelookError):
                raise error
            logger.info("no suggestion: %s", error)
            self._perform(self._suggestions.failed(ask.ask_id, self._clock()))
        else:
            result = done.result()
            if result.stats.num_steps:
                self.status.tokens_per_step = result.stats.tokens_per_step
            continuations = continuations_of(ask.query, result.suggestions)
            self._perform(self._suggestions.answered(ask.ask_id, continuations, result.unused_tail, self._clock()))
        self._show_status()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake_s = self._suggestions.next_wake_s()
        if wake_s is not None:
            delay_s = max(0.0, wake_s - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._perform(self._suggestions.tick(self._clock()))

    def _show_status(self) -> None:
        snapshot = self.status.snapshot()
        if snapshot != self._shown_status:
            self._shown_status = snapshot
            self._editor.show_status(snapshot)


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


def _describe_problem(problem: ConfigError) -> str:
    return f"{problem}; the default is used"
