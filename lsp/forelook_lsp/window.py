"""One editor window: owns its documents, suggestions, status and backend. Knows no LSP type and no socket."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from forelook import __version__
from forelook.budgets import ByteBudget
from forelook.config import EditorConfig
from forelook.errors import ForelookError, PositionError
from forelook.protocol import messages
from forelook.settings.rows import Effect, as_json
from forelook.uris import local_path

from forelook_lsp.backend_connection import BackendConnection, ClientName, run_in_thread
from forelook_lsp.document_sync import DocumentSync
from forelook_lsp.file_events import FileEvents
from forelook_lsp.indexing import Indexing
from forelook_lsp.limits import DOCUMENT_BYTES, WINDOW_DOCUMENT_BYTES
from forelook_lsp.mirror import EditorRange, Mirror
from forelook_lsp.model_offer import FindOffer, wants_offer
from forelook_lsp.settings import effect_of_change, parse_settings
from forelook_lsp.status import Editor, StatusPresenter
from forelook_lsp.suggestions.requests import EditorSuggestion, SuggestionRequests
from forelook_lsp.switches import Switches

if TYPE_CHECKING:
    from forelook.local.endpoint import Endpoint

logger = logging.getLogger(__name__)

LOOK_AGAIN_S = 30.0  # chosen, not measured
SHUTDOWN_TIMEOUT_S = 5.0  # chosen, not measured
OFFER_AFTER_S = 20.0  # rating the models takes both cores for seconds; chosen, not measured
MAX_LINE_CHARS = 20_000  # longer lines get no suggestions; VS Code's limit for highlighting


def document_budget() -> ByteBudget:
    """Memory for the documents of one process."""
    fix = "close others, then close and open this one again"
    return ByteBudget("open documents", fix, WINDOW_DOCUMENT_BYTES, DOCUMENT_BYTES)


FindBackend = Callable[[EditorConfig], "Endpoint"]


class EditorWindow:
    """One editor window, driven by the handlers of ``server.py``."""

    def __init__(
        self,
        editor: Editor,
        find_backend: FindBackend,
        *,
        find_offer: FindOffer | None = None,
        budget: ByteBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a window that ``start`` connects.

        Args:
            editor: where status, progress and log lines go.
            find_backend: finds or starts the backend for some settings; blocks.
            find_offer: finds a larger model to offer; blocks.
            budget: memory for documents, which all windows of the process share; ``None`` for the only window.
            clock: a monotonic clock in seconds.
        """
        self.config = EditorConfig()
        self.mirror = Mirror()
        self.presenter = StatusPresenter(editor)
        self._find_backend = find_backend
        self.backend = BackendConnection(
            self._find, ClientName("forelook-lsp", __version__), self, lambda: next(iter(self._folders), "")
        )
        self.indexing = Indexing(self.backend, self.presenter, lambda: self.documents.paths)
        self.suggestions = SuggestionRequests(self.mirror, self.backend, self.presenter, clock)
        self.documents = DocumentSync(
            self.mirror, self.backend, self.indexing, self.suggestions, budget or document_budget()
        )
        self._editor = editor
        self._find_offer = find_offer
        self._offering: asyncio.Task[None] | None = None
        self._folders: dict[str, Path] = {}
        self._switches = Switches()
        self._restarting: asyncio.Task[None] | None = None
        self._backend_settings: Mapping[str, object] = {}
        self._started = False
        self._indexed = False
        self.reports_file_events = False
        self._file_events = FileEvents(self._apply_file_events)
        self._clock = clock
        self._look_again_at_s = clock() + LOOK_AGAIN_S
        self._looking: asyncio.Task[None] | None = None

    # --- Life cycle and settings -----------------------------------------------------------------------------

    def configure(self, settings: object) -> None:
        """Apply the editor's settings; each invalid one is logged once, and its default is used."""
        config, problems = parse_settings(settings)
        for problem in problems:
            self.presenter.log_once(f"{problem}; the default is used")
        old, self.config = self.config, config
        self.suggestions.configure(config)
        self.presenter.sends_notifications = config.status_notifications
        self._switches.configure(config)
        if config.ignore != old.ignore:
            self._exclusion_changed()
        if not self._started:
            return
        effect = effect_of_change(old, config)
        if effect is Effect.OTHER_BACKEND:
            self._connect_anew()
        elif effect in (Effect.RELOAD, Effect.RESTART):
            if self._restarting is not None:
                self._restarting.cancel()
            self._restarting = asyncio.get_running_loop().create_task(self._restart_own_backend())
        elif (config.index_workspace, config.index_dependencies) != (old.index_workspace, old.index_dependencies):
            self._index()
            if old.index_dependencies and not config.index_dependencies:
                self.indexing.forget_dependencies()
        self._show_status()

    def set_folders(self, uris: Sequence[str]) -> None:
        """Set the window's folders."""
        self._folders = {uri: path for uri in uris if (path := local_path(uri)) is not None}
        self._exclusion_changed()

    def change_folders(self, added: Sequence[str], removed: Sequence[str]) -> None:
        """Folders were added to the window or removed from it."""
        self.set_folders([*(uri for uri in self._folders if uri not in removed), *added])

    def start(self) -> None:
        """Connect to the backend."""
        self._started = True
        self.presenter.start()
        self.backend.start()

    async def close(self) -> None:
        """Close the connection and stop all timers."""
        self.suggestions.close()
        self.presenter.close()
        self.indexing.stop()
        self._file_events.close()
        for task in (self._restarting, self._offering, self._looking):
            if task is not None:
                task.cancel()
        self.documents.close_all()
        await self.backend.close()

    async def _restart_own_backend(self) -> None:
        """Restart the backend with this window's settings, unless other windows share it and its model works."""
        status = self.presenter.status.backend
        has_failed = status is not None and status.state is messages.EngineState.ERROR
        if self.backend.connected and not has_failed:
            try:
                with anyio.fail_after(SHUTDOWN_TIMEOUT_S):  # asyncio.wait_for can lose a cancellation, see `_greet`
                    stats = await self.backend.request(messages.STATS, messages.Empty())
            except TimeoutError:
                self._compare_settings(changed=True, reason="the backend is too busy to answer; restart it later")
                return
            except ForelookError:
                return  # it is not connected any more; the next one gets this window's settings
            if stats.server.get("num_connections") != 1:
                self._compare_settings(changed=True)
                return
        await self.restart_backend()

    def _compare_settings(
        self,
        *,
        changed: bool = False,
        reason: str = "other windows share this backend, restart it when that suits them all",
    ) -> None:
        """Say in the status which settings the backend was not started with.

        Args:
            changed: whether defaults count too; at first, a window that asks for nothing is content with any backend.
            reason: why it was not restarted with them, and what to do.
        """
        wanted, actual = as_json(self.config.engine, (Effect.RESTART,)), self._backend_settings
        names = sorted(
            name for name in ({**wanted, **actual} if changed else wanted) if wanted.get(name) != actual.get(name)
        )
        message = ""
        if names:
            message = f"not in effect: {', '.join(f'forelook.{name}' for name in names)}; {reason}"
            self.presenter.log_once(message)
        self.presenter.status.not_in_effect = message
        self._show_status()

    async def restart_backend(self) -> None:
        """Stop the backend, for all its windows, and start another."""
        if self.backend.connected:
            try:
                with anyio.fail_after(SHUTDOWN_TIMEOUT_S):
                    await self.backend.request(messages.SHUTDOWN, messages.Empty())
            except (ForelookError, TimeoutError) as error:
                logger.info("the backend did not shut down cleanly: %s", str(error) or "timeout")
        self._connect_anew()

    def _connect_anew(self) -> None:
        self.suggestions.forget_answers()
        self.presenter.status.backend = None
        self.backend.reconnect()

    def _find(self) -> Endpoint:
        """Find or start a backend. A model that failed would fail again: until a restart none is started for it."""
        config, has_failed = self.config, bool(self.presenter.status.model_failure)
        return self._find_backend(replace(config, backend_start=False) if has_failed else config)

    # --- Files -----------------------------------------------------------------------------------------------

    def close_document(self, uri: str) -> None:
        """A document was closed; its file is indexed like any other."""
        path = local_path(uri)
        if self.documents.close(uri) and path is not None:
            self._index_files([path])

    def close_notebook(self, uri: str) -> None:
        """A notebook was closed; its file is indexed like any other."""
        path = local_path(uri)
        if self.documents.close_notebook(uri) and path is not None:
            self._index_files([path])

    def files_changed(self, changed: Sequence[str], deleted: Sequence[str]) -> None:
        """Files or folders were created, changed or deleted on disk; a renamed one was deleted and created."""
        self._file_events.add(_local_paths(changed), _local_paths(deleted))

    def used(self) -> None:
        """A document was opened or saved: if the editor reports no file events, look for changes, but not often."""
        if not self.reports_file_events and self._clock() >= self._look_again_at_s:
            self._look_again_at_s = self._clock() + LOOK_AGAIN_S
            self._looking = asyncio.get_running_loop().create_task(self._look_again())
        if self.config.index_workspace and self.config.index_dependencies and self.presenter.status.ready:
            self.indexing.send_dependencies(self.documents.open_files)

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
    ) -> tuple[EditorSuggestion, ...]:
        """Return suggestions at a position; may be empty.

        Raises:
            asyncio.CancelledError: superseded by a later request or edit.
            PositionError: the line is not in the document.
        """
        asked = self.mirror.part(uri)
        if version is None and asked is not None:
            version = asked.editor_version
        number = 0
        if asked is not None:
            number = asked.document.num_asked = asked.document.num_asked + 1
        await self.documents.judged(uri)
        if asked is not None and asked.document.num_asked != number:
            raise asyncio.CancelledError  # a later request did not have to wait as long
        part = self.mirror.part(uri)
        if part is None:
            self.presenter.status.withheld = self.documents.unmirrored(uri)
            self._show_status()
            logger.info("no suggestions: the document is not open")
            return ()
        if version != part.editor_version:
            raise asyncio.CancelledError
        num_lines = part.lines.num_lines
        if line >= num_lines:
            lines = "one line" if num_lines == 1 else f"{num_lines} lines"
            raise PositionError(f"position.line = {line} is not in the document, which has {lines}")
        status, document = self.presenter.status, part.document
        status.withheld = document.withheld or document.refused
        self._show_status()
        if not (self._switches.is_on(document.language_id) and status.ready and document.sent):
            return ()
        if part.line_length(line) > MAX_LINE_CHARS:
            return ()  # data or minified code: editors do not even highlight such a line
        return await self.suggestions.suggest(
            part,
            self.mirror.offset_at(part, line, character),
            invoked=invoked,
            num_wanted=self.config.num_suggestions if invoked else 1,
            selected=selected,
        )

    def move_cursor(self, uri: str, line: int, character: int) -> None:
        """The cursor rests at a position: the backend prepares for a request there, unless the user asks first."""
        part = self.mirror.part(uri)
        if part is None or line >= part.lines.num_lines or part.line_length(line) > MAX_LINE_CHARS:
            return
        document = part.document
        if not (self._switches.is_on(document.language_id) and self.presenter.status.ready and document.sent):
            return
        offset = self.mirror.offset_at(part, line, character)
        self.backend.notify(
            messages.DOCUMENT_CURSOR, messages.DocumentCursorParams(document.uri, document.version, offset)
        )

    def toggle(self, language_id: str | None) -> bool:
        """Switch suggestions on or off in this window or in one of its languages; return whether they are on now."""
        is_on = self._switches.toggle(language_id)
        self._show_status()
        return is_on

    # --- BackendEvents ---------------------------------------------------------------------------------------

    def backend_connected(self, hello: messages.HelloResult) -> None:
        """Send all open documents."""
        status = self.presenter.status
        status.connected, status.failure, status.backend = True, "", hello.status
        self._backend_settings = hello.settings
        self._compare_settings()
        self._indexed = False
        self.documents.send_all()
        self._model_changed_state()

    def backend_moved(self, hello: messages.HelloResult) -> None:
        """Send all open documents to the replica that takes over; requests wait on their connection."""
        self.documents.backend_lost()
        self.backend_connected(hello)

    def backend_lost(self, error: ForelookError | None) -> None:
        """Answer all queries; the connection retries by itself."""
        status = self.presenter.status
        status.connected, status.failure = False, str(error) if error is not None else ""
        self.indexing.stop()
        self.documents.backend_lost()
        self.suggestions.backend_lost()
        self._show_status()

    def backend_status(self, status: messages.Status) -> None:
        """Show the model's state."""
        self.presenter.status.backend = status
        self._model_changed_state()

    def backend_progressed(self, request_id: int, text: str) -> None:
        """Check whether a running completion still fits."""
        self.suggestions.progressed(request_id, text)

    def backend_refused(self, error: messages.NotificationErrorParams) -> None:
        """Withdraw or resend the document."""
        self.documents.refused(error)

    # --- Inside ----------------------------------------------------------------------------------------------

    def _exclusion_changed(self) -> None:
        """Read the ignore files again and apply them to documents and files.

        Cached answers may contain text that is excluded now.
        """
        self.suggestions.forget_answers()
        self.indexing.set_folders(self._folders, self.config.ignore)
        self.documents.recheck()
        self._index()

    async def _apply_file_events(self, changed: Sequence[Path], deleted: Sequence[Path]) -> None:
        if await run_in_thread(partial(self.indexing.is_stale, [*changed, *deleted])):
            self._exclusion_changed()  # sends all files
            changed = ()
        await self.indexing.forget_deleted(deleted)
        open_paths = self.documents.paths
        self._index_files(path for path in changed if path not in open_paths)

    async def _look_again(self) -> None:
        if await run_in_thread(self.indexing.is_stale):
            self._exclusion_changed()
        elif self.config.index_workspace and self.presenter.status.ready:
            self.indexing.look_again()

    def _index_files(self, paths: Iterable[Path]) -> None:
        if self.config.index_workspace and self.presenter.status.ready:
            self.indexing.send_later(paths)

    def _index(self) -> None:
        self.indexing.stop()
        if self.config.index_workspace and self.presenter.status.ready:
            self.indexing.start(self.documents.open_files(), with_dependencies=self.config.index_dependencies)

    def _model_changed_state(self) -> None:
        if self.presenter.status.ready and not self._indexed:
            self._indexed = True
            self._index()
            if self._find_offer is not None and self._offering is None and wants_offer(self.config):
                self._offering = asyncio.get_running_loop().create_task(self._offer_model(self._find_offer))
        self._show_status()

    async def _offer_model(self, find_offer: FindOffer) -> None:
        await asyncio.sleep(OFFER_AFTER_S)
        try:
            message = await run_in_thread(find_offer)
        except ForelookError as error:
            logger.warning("no model is offered: %s", error)
            return
        if message:
            self._editor.tell(message)

    def _show_status(self) -> None:
        self.presenter.status.paused = not self._switches.is_on()
        self.presenter.show()


def _local_paths(uris: Sequence[str]) -> list[Path]:
    return [path for uri in uris if (path := local_path(uri)) is not None]
