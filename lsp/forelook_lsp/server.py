"""The language server: every handler unpacks LSP params, calls the window, and packs what comes back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from forelook import __version__
from lsprotocol import types
from pygls.lsp.server import LanguageServer

from forelook_lsp.documents import EditorChange, EditorRange
from forelook_lsp.lsp_protocol import (
    ForelookProtocol,
    VersionedInlineCompletionParams,
    make_converter,
    quiet_errors,
)
from forelook_lsp.positions import PositionEncoding
from forelook_lsp.status import Snapshot
from forelook_lsp.window import EditorWindow, FindBackend, PlacedItem

logger = logging.getLogger(__name__)

SERVER_NAME = "forelook-lsp"
STATUS_METHOD = "forelook/status"
COPILOT_STATUS_METHOD = "didChangeStatus"
CONFIGURATION_SECTION = "forelook"


class ForelookServer(LanguageServer):
    """One connection with one editor window."""

    protocol: ForelookProtocol

    def __init__(self, find_backend: FindBackend) -> None:
        """Register all features.

        Args:
            find_backend: finds or starts the backend for some options; blocks.
        """
        super().__init__(
            SERVER_NAME,
            __version__,
            protocol_cls=ForelookProtocol,
            converter_factory=make_converter,
            max_workers=1,
        )
        self.window = EditorWindow(_EditorOutput(self), find_backend)
        self._speaks_copilot = False
        self._settings: dict[str, Any] = {}
        self._add(types.INITIALIZE, self._initialize)
        self._add(types.INITIALIZED, self._initialized)
        self._add(types.TEXT_DOCUMENT_DID_OPEN, self._did_open)
        self._add(types.TEXT_DOCUMENT_DID_CHANGE, self._did_change)
        self._add(types.TEXT_DOCUMENT_DID_CLOSE, self._did_close)
        self._add(types.TEXT_DOCUMENT_INLINE_COMPLETION, self._inline_completion, types.InlineCompletionOptions())

    def _add(self, method: str, handler: Callable[..., Any], options: Any = None) -> None:
        self.feature(method, options)(quiet_errors(handler))

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Log the kind of failure; the answer, where there is one, says the rest, and nothing pops up."""
        logger.warning("%s: %s", getattr(source, "__name__", source), type(error).__name__)

    # --- Life cycle ------------------------------------------------------------------------------------------

    def _initialize(self, params: types.InitializeParams) -> None:
        self.window.encoding = PositionEncoding(self.protocol.workspace.position_encoding)
        folders = [folder.uri for folder in params.workspace_folders or []]
        if not folders and params.root_uri:
            folders = [params.root_uri]
        self.window.set_folders(folders)
        options = params.initialization_options
        self._speaks_copilot = isinstance(options, dict) and "editorPluginInfo" in options
        self.window.configure(options)

    def _initialized(self, _: types.InitializedParams) -> None:
        self.window.start()

    # --- Documents -------------------------------------------------------------------------------------------

    def _did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        document = params.text_document
        self.window.open_document(document.uri, str(document.language_id), document.version, document.text)

    def _did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        changes = [unpack_change(change) for change in params.content_changes]
        self.window.change_document(params.text_document.uri, params.text_document.version, changes)

    def _did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        self.window.close_document(params.text_document.uri)

    # --- Suggestions -----------------------------------------------------------------------------------------

    async def _inline_completion(self, params: VersionedInlineCompletionParams) -> types.InlineCompletionList:
        selected = params.context.selected_completion_info
        items = await self.window.suggest(
            params.text_document.uri,
            params.position.line,
            params.position.character,
            invoked=params.context.trigger_kind == types.InlineCompletionTriggerKind.Invoked,
            version=params.version,
            selected=(unpack_range(selected.range), selected.text) if selected is not None else None,
        )
        return types.InlineCompletionList([pack_item(item) for item in items])

    # --- To the editor ---------------------------------------------------------------------------------------

    def show_status(self, snapshot: Snapshot) -> None:
        """Send the status in the words the editor knows."""
        self.protocol.notify(STATUS_METHOD, snapshot.to_json())
        if self._speaks_copilot:
            self.protocol.notify(COPILOT_STATUS_METHOD, snapshot.to_copilot())


class _EditorOutput:
    """The window's way back to its editor."""

    def __init__(self, server: ForelookServer) -> None:
        self._server = server

    def show_status(self, snapshot: Snapshot) -> None:
        self._server.show_status(snapshot)

    def log(self, message: str, *, is_error: bool) -> None:
        kind = types.MessageType.Error if is_error else types.MessageType.Info
        self._server.window_log_message(types.LogMessageParams(kind, message))


def pack_item(item: PlacedItem) -> types.InlineCompletionItem:
    """A suggestion as LSP has it."""
    return types.InlineCompletionItem(
        insert_text=item.text, range=types.Range(types.Position(*item.start), types.Position(*item.end))
    )


def unpack_range(value: types.Range) -> EditorRange:
    """LSP's range as the window takes it."""
    return EditorRange(value.start.line, value.start.character, value.end.line, value.end.character)


def unpack_change(change: types.TextDocumentContentChangeEvent) -> EditorChange:
    """LSP's change as the window takes it."""
    if isinstance(change, types.TextDocumentContentChangePartial):
        return EditorChange(unpack_range(change.range), change.text)
    return EditorChange(None, change.text)
