"""One editor window: its documents, its suggestions, its backend. Knows no LSP type and no socket."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from forelook import __version__
from forelook.errors import BackendUnreachableError, ForelookError, PositionError
from forelook.protocol import messages
from forelook.text import utf8_size_above
from forelook.uris import local_path

from forelook_lsp.backend_connection import BackendConnection, ClientName
from forelook_lsp.mirror import Document, EditorChange, EditorRange
from forelook_lsp.positions import Lines, PositionEncoding
from forelook_lsp.progress import Progress
from forelook_lsp.settings import Options, needs_other_backend, needs_restart, parse_options
from forelook_lsp.status import Snapshot, WindowStatus
from forelook_lsp.suggestions.requests import PlacedItem, SuggestionRequests

if TYPE_CHECKING:
    from forelook.local.endpoint import Endpoint

    from forelook_lsp.indexing import Indexing

logger = logging.getLogger(__name__)

COMMAND_TIMEOUT_S = 5.0
MAX_CHANGE_CHARS = 1_000_000
NO_WORKSPACE = "no folder"

P = TypeVar("P")
R = TypeVar("R")

FindBackend = Callable[[Options], "Endpoint"]


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
        self.documents: dict[str, Document] = {}
        self.status = WindowStatus()
        self._editor = editor
        self._find_backend = find_backend
        self._client = BackendConnection(self._find, ClientName("forelook-lsp", __version__), self)
        self._made_indexing: Indexing | None = None
        self._suggestions = SuggestionRequests(self._client, self.documents, self.status, self._show_status, clock)
        self._folders: dict[str, Path] = {}
        self._started = False
        self._switched: dict[str, bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._logged: set[str] = set()
        self._shown_status: Snapshot | None = None
        self._loading: Progress | None = None
        self._indexed = False

    # --- Life ------------------------------------------------------------------------------------------------

    @property
    def encoding(self) -> PositionEncoding:
        """What the editor's columns count."""
        return self._suggestions.encoding

    @encoding.setter
    def encoding(self, encoding: PositionEncoding) -> None:
        self._suggestions.encoding = encoding

    def wait_for_word_of_showing(self) -> None:
        """Count a suggestion as shown once the editor says so, not once it is answered."""
        self._suggestions.editor_says_shown = True

    def configure(self, settings: object) -> None:
        """Take the editor's settings; whatever is not allowed is named in its log, once."""
        options, problems = parse_options(settings)
        for problem in problems:
            self._log_once(f"{problem}; the default is used")
        old, self.options = self.options, options
        self._suggestions.configure(options)
        if options.enable != old.enable:
            self._switched.pop("*", None)
        if options.languages != old.languages:
            self._switched = {name: on for name, on in self._switched.items() if name == "*"}
        if options.ignore != old.ignore:
            self._permissions_changed()
        if not self._started:
            return
        if needs_other_backend(old, options):
            self._suggestions.suggestions.forget_answers()
            self._client.reconnect(self._find)
        elif needs_restart(old, options):
            task = asyncio.get_running_loop().create_task(self.restart_backend())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif options.index_workspace != old.index_workspace:
            self._index()
        self._show_status()

    def set_folders(self, uris: Sequence[str]) -> None:
        """The window's folders."""
        self._folders = {uri: path for uri in uris if (path := local_path(uri)) is not None}
        self._permissions_changed()

    def change_folders(self, added: Sequence[str], removed: Sequence[str]) -> None:
        """Folders were added to the window or taken out of it."""
        self.set_folders([*(uri for uri in self._folders if uri not in removed), *added])

    def start(self) -> None:
        """Look for the backend."""
        self._started = True
        self._show_status()
        self._client.start()

    async def close(self) -> None:
        """Let go of the backend."""
        self._suggestions.close()
        if self._made_indexing is not None:
            self._made_indexing.stop()
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
        if not changes and version == document.version:
            return  # Neovim up to 0.7 repeats itself so; the backend refuses a version twice and forgets the document
        edits = []
        for change in changes:
            edit = document.edit_of(change, self.encoding)
            self._suggestions.will_edit(document, edit)
            document.apply(edit)
            edits.append(edit)
        document.version = version
        if document.sent:
            wire = tuple(messages.TextChange(edit.start, edit.end, edit.text) for edit in edits)
            if sum(len(edit.text) for edit in edits) > MAX_CHANGE_CHARS:
                self._withdraw_document(document)
                self._send_document(document)
            else:
                self._client.notify(messages.DOCUMENT_CHANGE, messages.DocumentChangeParams(uri, version, wire))
        self._suggestions.edited(document, edits)

    def close_document(self, uri: str) -> None:
        """A document was closed."""
        document = self.documents.pop(uri, None)
        if document is None:
            return
        self._suggestions.closed(uri)
        if document.sent:
            self._client.notify(messages.DOCUMENT_CLOSE, messages.DocumentCloseParams(uri))
            self._send_file(local_path(uri))

    def files_changed(self, changed: Sequence[str], deleted: Sequence[str]) -> None:
        """Files changed on disk, whoever did it."""
        gone = [path for uri in deleted if (path := local_path(uri)) is not None]
        there = [path for uri in changed if (path := local_path(uri)) is not None]
        if any(self._indexing.is_ignore_file(path) for path in (*gone, *there)):
            self._permissions_changed()
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
            lines = "one line" if num_lines == 1 else f"{num_lines} lines"
            raise PositionError(f"position.line = {line} is not in the document, which has {lines}")
        if not self._may_suggest(document):
            return ()
        offset = document.lines.offset_at(line, character, self.encoding)
        num_wanted = self.options.num_suggestions if invoked else 1
        return await self._suggestions.suggest(
            document, offset, invoked=invoked, num_wanted=num_wanted, selected=selected
        )

    def shown(self, suggestion_id: str) -> None:
        """The editor says that a suggestion is on the screen."""
        self._suggestions.shown(suggestion_id)

    def accepted(self, suggestion_id: str) -> None:
        """The editor says that a suggestion was accepted."""
        self._suggestions.accepted(suggestion_id)

    def partly_accepted(self, suggestion_id: str, num_chars: int) -> None:
        """The editor says that the first ``num_chars`` of a suggestion's text were accepted."""
        self._suggestions.partly_accepted(suggestion_id, num_chars)

    # --- Commands --------------------------------------------------------------------------------------------

    def toggle(self, language_id: str | None) -> bool:
        """Switch suggestions off or on again in this window, everywhere or in one language; returns what holds now."""
        name = language_id if language_id is not None else "*"
        enabled = not (self._enabled_for(language_id) if language_id is not None else self._enabled())
        self._switched[name] = enabled
        if enabled:
            self._switched["*"] = True
        self._show_status()
        return enabled

    async def statistics(self) -> dict[str, object]:
        """Counts of this window and of the backend; never text."""
        pace = self._suggestions.suggestions.pace
        outcomes = self._suggestions.outcomes.statistics
        window = {
            "outcomes": dict(outcomes.counts),
            "accept_rate": outcomes.accept_rate,
            "num_chars_accepted": outcomes.num_chars_accepted,
            "num_keystrokes_saved": outcomes.num_keystrokes_saved,
            "answers": {source.value: count for source, count in pace.num_answers.items()},
            "num_asks": pace.num_asks,
            "num_withdrawn": pace.num_withdrawn,
            "mean_latency_ms": pace.latency_s * 1000 if pace.latency_s is not None else None,
        }
        backend: dict[str, object]
        try:
            stats = await self._ask_backend(messages.STATS, messages.Empty())
            backend = {"server": stats.server, "engine": stats.engine}
        except ForelookError as error:
            backend = {"error": str(error)}
        return {"window": window, "backend": backend}

    async def pool_statistics(self) -> dict[str, dict[str, object]]:
        """Counts of the pools of this window's workspaces."""
        found: dict[str, dict[str, object]] = {}
        for name in self._workspaces():
            found[name] = (await self._ask_backend(messages.POOL_STATS, messages.WorkspaceParams(name))).pool
        return found

    async def clear_pool(self) -> list[str]:
        """Empty the pools of this window's workspaces, on disk too; returns which."""
        self._indexing.stop()
        names = self._workspaces()
        for name in names:
            await self._ask_backend(messages.POOL_CLEAR, messages.WorkspaceParams(name))
        self.status.pool_tokens = 0
        self._show_status()
        return names

    async def restart_backend(self) -> None:
        """End the backend, for all its windows, and start another."""
        if self._client.connected:
            try:
                await self._ask_backend(messages.SHUTDOWN, messages.Empty())
            except ForelookError as error:
                logger.info("the backend did not say goodbye: %s", error)
        self._suggestions.suggestions.forget_answers()
        self._client.reconnect()

    async def _ask_backend(self, method: messages.RequestMethod[P, R], params: P) -> R:
        """A command's request.

        Raises:
            ForelookError: no backend, no answer in time, or its own error.
        """
        _, future = self._client.request(method, params)
        try:
            return await asyncio.wait_for(future, COMMAND_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise BackendUnreachableError(
                f"the backend did not answer {method.name} within {COMMAND_TIMEOUT_S:g} s"
            ) from None

    # --- BackendEvents ---------------------------------------------------------------------------------------

    def backend_connected(self, hello: messages.HelloResult) -> None:
        """Give the backend all that is open."""
        self.status.connected = True
        self.status.failure = ""
        self.status.backend = hello.status
        for document in self.documents.values():
            self._send_document(document)
        self._indexed = False
        self._model_changed_state()

    def backend_lost(self, error: ForelookError | None) -> None:
        """Answer whatever waits; the client tries again by itself."""
        self.status.connected = False
        self.status.failure = str(error) if error is not None else ""
        self._indexing.stop()
        for document in self.documents.values():
            document.sent = False
        self._suggestions.backend_lost()
        self._show_status()

    def backend_status(self, status: messages.Status) -> None:
        """Show where the model stands."""
        former = self.status.backend
        self.status.backend = status
        if former is not None and former.model and status.model and former.model != status.model:
            self._suggestions.suggestions.forget_answers()
        self._model_changed_state()

    def backend_said(self, request_id: int, text: str) -> None:
        """See whether a running completion still fits."""
        self._suggestions.said(request_id, text)

    def backend_refused(self, error: messages.NotificationErrorParams) -> None:
        """A document the backend does not take gets no suggestions; its next opening tries again."""
        document = self.documents.get(error.uri) if error.uri is not None else None
        if document is None:
            return
        document.sent = False
        self._suggestions.closed(document.uri)
        if error.method == messages.DOCUMENT_CHANGE.name:
            self._send_document(document)  # the two texts differed: now they do not
        else:
            document.withheld = error.message

    # --- Inside: files ---------------------------------------------------------------------------------------

    @property
    def _indexing(self) -> Indexing:
        """Made when the first document or the backend needs it: its imports would hold up ``initialize``."""
        if self._made_indexing is None:
            from forelook_lsp.indexing import Indexing

            self._made_indexing = Indexing(self._client, self._editor.show_progress, self._log_once)
            self._made_indexing.set_folders(self._folders, self.options.ignore)
        return self._made_indexing

    def _find(self) -> Endpoint:
        return self._find_backend(self.options)

    def _workspace_of(self, path: Path | None) -> str:
        if path is not None:
            return self._indexing.workspace_of(path) or NO_WORKSPACE
        return next(iter(self._folders)) if len(self._folders) == 1 else NO_WORKSPACE

    def _workspaces(self) -> list[str]:
        return sorted({*self._folders, *(document.workspace for document in self.documents.values())})

    def _send_document(self, document: Document) -> None:
        if document.withheld:
            return
        limits = self._client.limits
        if limits is not None and utf8_size_above(document.text, limits.max_document_bytes):
            document.withheld = f"longer than {limits.max_document_bytes} bytes, the most that the backend takes"
            return
        params = messages.DocumentOpenParams(
            document.workspace, document.uri, document.language_id, document.version, document.text
        )
        document.sent = self._client.notify(messages.DOCUMENT_OPEN, params)

    def _withdraw_document(self, document: Document) -> None:
        if document.sent:
            document.sent = False
            self._client.notify(messages.DOCUMENT_CLOSE, messages.DocumentCloseParams(document.uri))
            self._suggestions.closed(document.uri)

    def _send_file(self, path: Path | None) -> None:
        if path is not None and self.options.index_workspace and self.status.ready:
            self._indexing.send_later(path)

    def _permissions_changed(self) -> None:
        """Read the ignore files again: take back what may not be read any more, and hand over what may be now."""
        if self._made_indexing is None:
            return
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
            self._withdraw_document(document)
            if withheld:
                self._indexing.forget([path])
            self._send_document(document)
        self._index()

    def _index(self) -> None:
        self._indexing.stop()
        if self.options.index_workspace and self.status.ready:
            open_files = {
                path: document.text
                for document in self.documents.values()
                if (path := local_path(document.uri)) is not None and not document.withheld
            }
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
        self._show_status()
        return self._enabled_for(document.language_id) and self.status.ready and document.sent

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
        if snapshot.state == "error":
            logger.warning("no suggestions: %s", snapshot.message)
            self._log_once(snapshot.message)  # the only word of it in an editor that does not show our status
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
