"""The language server: its handlers translate between LSP and the window's own types."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from forelook import __version__
from forelook.budgets import ByteBudget
from forelook.languages import ID_BY_SUFFIX
from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer

from forelook_lsp.commands import ACCEPTED, COMMANDS
from forelook_lsp.editor import LspEditor
from forelook_lsp.lsp_protocol import ForelookProtocol, VersionedInlineCompletionParams, make_converter, quiet_errors
from forelook_lsp.mirror import Cell, EditorChange, EditorRange
from forelook_lsp.model_offer import FindOffer
from forelook_lsp.positions import Lines, PositionEncoding
from forelook_lsp.suggestions.requests import EditorSuggestion
from forelook_lsp.window import EditorWindow, FindBackend

logger = logging.getLogger(__name__)

SERVER_NAME = "forelook-lsp"
CONFIGURATION_SECTION = "forelook"
DID_SHOW = "textDocument/didShowCompletion"
DID_MOVE_CURSOR = "forelook/didMoveCursor"
DID_PARTLY_ACCEPT = "textDocument/didPartiallyAcceptCompletion"
CONFIGURATION_TIMEOUT_S = 2.0  # chosen, not measured

NOTEBOOKS = types.NotebookDocumentSyncOptions(
    notebook_selector=[
        types.NotebookDocumentFilterWithCells(notebook="*", cells=[types.NotebookCellLanguage(language="*")])
    ]
)

# Eglot and lsp-mode make one watch of the system per folder of the project, whatever the patterns are.
WATCHING_EACH_FOLDER = frozenset({"eglot", "emacs"})
WATCHED = (
    types.FileSystemWatcher("**/*{" + ",".join(sorted(ID_BY_SUFFIX)) + "}"),
    types.FileSystemWatcher("**/.{git,forelook}ignore"),
    types.FileSystemWatcher("**/.git/{index,info/exclude}"),
    # A deleted folder is one event, of a name that no narrower pattern matches.
    types.FileSystemWatcher("**/*", types.WatchKind.Delete),
)
FILE_OPERATIONS = types.FileOperationRegistrationOptions(
    [types.FileOperationFilter(types.FileOperationPattern("**/*"), scheme="file")]
)


class ForelookServer(LanguageServer):
    """One connection with one editor window."""

    protocol: ForelookProtocol

    def __init__(
        self,
        find_backend: FindBackend,
        find_offer: FindOffer | None = None,
        *,
        budget: ByteBudget | None = None,
    ) -> None:
        """Register all features.

        Args:
            find_backend: finds or starts the backend for some settings; blocks.
            find_offer: finds a larger model to offer; blocks.
            budget: memory for documents, which all windows of the process share; ``None`` for the only window.
        """
        super().__init__(
            SERVER_NAME,
            __version__,
            protocol_cls=ForelookProtocol,
            converter_factory=make_converter,
            max_workers=1,
            notebook_document_sync=NOTEBOOKS,
        )
        self._editor = LspEditor(self.protocol)
        self.window = EditorWindow(self._editor, find_backend, find_offer=find_offer, budget=budget)
        self._initial_settings: dict[str, Any] = {}
        self._num_pulls = 0
        self._has_settings = asyncio.Event()  # cleared while the editor is asked for its settings
        self._has_settings.set()
        self._accepted_command = ACCEPTED.name
        self._watches_each_folder = False
        for method, handler in (
            (types.INITIALIZE, self._initialize),
            (types.INITIALIZED, self._initialized),
            (types.WORKSPACE_DID_CHANGE_CONFIGURATION, self._did_change_configuration),
            (types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS, self._did_change_folders),
            (types.WORKSPACE_DID_CHANGE_WATCHED_FILES, self._did_change_files),
            (types.TEXT_DOCUMENT_DID_OPEN, self._did_open),
            (types.TEXT_DOCUMENT_DID_CHANGE, self._did_change),
            (types.TEXT_DOCUMENT_DID_SAVE, self._did_save),
            (types.TEXT_DOCUMENT_DID_CLOSE, self._did_close),
            (types.NOTEBOOK_DOCUMENT_DID_OPEN, self._did_open_notebook),
            (types.NOTEBOOK_DOCUMENT_DID_CHANGE, self._did_change_notebook),
            (types.NOTEBOOK_DOCUMENT_DID_CLOSE, self._did_close_notebook),
            (DID_SHOW, self._did_show),
            (DID_PARTLY_ACCEPT, self._did_partly_accept),
            (DID_MOVE_CURSOR, self._did_move_cursor),
        ):
            self._add(method, handler)
        for method, handler in (
            (types.WORKSPACE_DID_CREATE_FILES, self._did_create_files),
            (types.WORKSPACE_DID_RENAME_FILES, self._did_rename_files),
            (types.WORKSPACE_DID_DELETE_FILES, self._did_delete_files),
        ):
            self._add(method, handler, FILE_OPERATIONS)
        self._add(types.TEXT_DOCUMENT_INLINE_COMPLETION, self._inline_completion, types.InlineCompletionOptions())

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Log the kind of failure; the details are in the answer, and the editor shows no pop-up."""
        logger.warning("%s: %s", getattr(source, "__name__", source), type(error).__name__)

    def _add(self, method: str, handler: Callable[..., Any], options: Any = None) -> None:
        self.feature(method, options)(quiet_errors(handler, method))

    # --- Life cycle and settings -----------------------------------------------------------------------------

    def _initialize(self, params: types.InitializeParams) -> None:
        window = params.capabilities.window
        self._editor.shows_progress = window is not None and bool(window.work_done_progress)
        client = params.client_info
        self._watches_each_folder = client is not None and client.name.lower() in WATCHING_EACH_FOLDER
        options = params.initialization_options
        self._initial_settings = options if isinstance(options, dict) else {}
        self._editor.speaks_copilot = "editorPluginInfo" in self._initial_settings
        if self._editor.speaks_copilot:
            self.window.suggestions.count_shown_on_notification = True
        self.window.mirror.encoding = PositionEncoding(self.protocol.workspace.position_encoding)
        folders = [folder.uri for folder in params.workspace_folders or []]
        if not folders and params.root_uri:
            folders = [params.root_uri]
        self.window.set_folders(folders)
        self.window.configure(options)
        self._add_commands(self.window.config.command_suffix)
        if self.window.config.completion_fallback:
            self._add(types.TEXT_DOCUMENT_COMPLETION, self._completion, types.CompletionOptions())

    def _add_commands(self, suffix: str) -> None:
        """Register the commands; some editors share command names between windows and so set a suffix."""
        self._accepted_command = ACCEPTED.name + suffix
        for command in COMMANDS:
            self.command(command.name + suffix)(quiet_errors(partial(command.handler, self.window), command.name))

    async def _initialized(self, _: types.InitializedParams) -> None:
        await self._pull_settings()
        self.window.start()
        await self._register()

    async def _did_change_configuration(self, params: types.DidChangeConfigurationParams) -> None:
        settings = params.settings
        if await self._pull_settings() or not isinstance(settings, dict):
            return
        section = settings.get(CONFIGURATION_SECTION, settings)
        if isinstance(section, dict):
            self.window.configure({**self._initial_settings, **section})

    async def _pull_settings(self) -> bool:
        """Request the editor's settings, if it supports that; they override those of ``initialize``."""
        workspace = self.client_capabilities.workspace
        if workspace is None or not workspace.configuration:
            return False
        params = types.ConfigurationParams([types.ConfigurationItem(section=CONFIGURATION_SECTION)])
        self._num_pulls += 1
        self._has_settings.clear()
        try:
            answer = await asyncio.wait_for(self.workspace_configuration_async(params), CONFIGURATION_TIMEOUT_S)
            section = answer[0] if answer else None
            if isinstance(section, dict):
                self.window.configure({**self._initial_settings, **section})
        except (asyncio.TimeoutError, JsonRpcException) as error:
            logger.warning("the editor did not send its settings: %s", type(error).__name__)
            return False
        finally:
            self._num_pulls -= 1
            if not self._num_pulls:
                self._has_settings.set()
        return True

    async def _register(self) -> None:
        """Register for configuration and file-watch notifications (possible only after ``initialized``)."""
        workspace = self.client_capabilities.workspace
        wanted: list[types.Registration] = []
        if workspace is not None and _is_dynamic(workspace.did_change_configuration):
            options = types.DidChangeConfigurationRegistrationOptions(section=CONFIGURATION_SECTION)
            wanted.append(_registration(types.WORKSPACE_DID_CHANGE_CONFIGURATION, options))
        if workspace is not None and _is_dynamic(workspace.did_change_watched_files) and not self._watches_each_folder:
            watchers = types.DidChangeWatchedFilesRegistrationOptions(WATCHED)
            wanted.append(_registration(types.WORKSPACE_DID_CHANGE_WATCHED_FILES, watchers))
            self.window.reports_file_events = True
        if wanted:
            try:
                await self.client_register_capability_async(types.RegistrationParams(wanted))
            except JsonRpcException as error:
                logger.warning("the editor refused to send notifications of changes: %s", type(error).__name__)

    def _did_change_folders(self, params: types.DidChangeWorkspaceFoldersParams) -> None:
        event = params.event
        self.window.change_folders([folder.uri for folder in event.added], [folder.uri for folder in event.removed])

    def _did_change_files(self, params: types.DidChangeWatchedFilesParams) -> None:
        deleted = [change.uri for change in params.changes if change.type == types.FileChangeType.Deleted]
        changed = [change.uri for change in params.changes if change.type != types.FileChangeType.Deleted]
        self.window.files_changed(changed, deleted)

    def _did_create_files(self, params: types.CreateFilesParams) -> None:
        self.window.files_changed([file.uri for file in params.files], [])

    def _did_rename_files(self, params: types.RenameFilesParams) -> None:
        self.window.files_changed([file.new_uri for file in params.files], [file.old_uri for file in params.files])

    def _did_delete_files(self, params: types.DeleteFilesParams) -> None:
        self.window.files_changed([], [file.uri for file in params.files])

    # --- Documents -------------------------------------------------------------------------------------------

    def _did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        document = params.text_document
        self.window.documents.open(document.uri, str(document.language_id), document.version, document.text)
        self.window.used()

    def _did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        document = params.text_document
        changes: Any = params.content_changes  # already ours: see lsp_protocol
        self.window.documents.change(document.uri, document.version, changes)

    def _did_save(self, params: types.DidSaveTextDocumentParams) -> None:
        self.window.files_changed([params.text_document.uri], [])
        self.window.used()

    def _did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        self.window.close_document(params.text_document.uri)

    def _did_open_notebook(self, params: types.DidOpenNotebookDocumentParams) -> None:
        notebook = params.notebook_document
        texts = {cell.uri: cell for cell in params.cell_text_documents}
        cells = [unpack_cell(texts[cell.document]) for cell in notebook.cells if cell.document in texts]
        self.window.documents.open_notebook(notebook.uri, cells)

    def _did_change_notebook(self, params: types.DidChangeNotebookDocumentParams) -> None:
        cells = params.change.cells
        if cells is None:
            return
        if cells.structure is not None:
            array = cells.structure.array
            self.window.documents.change_notebook(
                params.notebook_document.uri,
                array.start,
                array.delete_count,
                [cell.document for cell in array.cells or []],
                [unpack_cell(cell) for cell in cells.structure.did_open or []],
            )
        for content in cells.text_content or []:
            changes = [unpack_change(change) for change in content.changes]
            self.window.documents.change(content.document.uri, content.document.version, changes)

    def _did_close_notebook(self, params: types.DidCloseNotebookDocumentParams) -> None:
        self.window.close_notebook(params.notebook_document.uri)

    # --- Suggestions -----------------------------------------------------------------------------------------

    async def _inline_completion(self, params: VersionedInlineCompletionParams) -> types.InlineCompletionList:
        await self._has_settings.wait()  # a request after "off" is not answered as it was before
        selected = params.context.selected_completion_info
        items = await self.window.suggest(
            params.text_document.uri,
            params.position.line,
            params.position.character,
            invoked=params.context.trigger_kind == types.InlineCompletionTriggerKind.Invoked,
            version=params.version,
            selected=(unpack_range(selected.range), selected.text) if selected is not None else None,
        )
        return types.InlineCompletionList([pack_item(item, self._accepted_command) for item in items])

    async def _completion(self, params: types.CompletionParams) -> types.CompletionList:
        position = params.position
        items = await self.window.suggest(params.text_document.uri, position.line, position.character, invoked=False)
        packed = [pack_popup_item(item, self._accepted_command) for item in items]
        return types.CompletionList(is_incomplete=True, items=packed)

    def _did_show(self, params: Any) -> None:
        suggestion_id = _suggestion_id(params)
        if suggestion_id is not None:
            self.window.suggestions.shown(suggestion_id)

    def _did_partly_accept(self, params: Any) -> None:
        suggestion_id = _suggestion_id(params)
        text = getattr(getattr(params, "item", None), "insertText", None)
        length = getattr(params, "acceptedLength", None)
        if suggestion_id is not None and isinstance(length, int) and isinstance(text, str):
            accepted = text.encode("utf-16-le", "surrogatepass")[: 2 * length].decode("utf-16-le", "replace")
            self.window.suggestions.partly_accepted(suggestion_id, len(accepted))

    def _did_move_cursor(self, params: Any) -> None:
        position = getattr(params, "position", None)
        place = getattr(position, "line", None), getattr(position, "character", None)
        uri = getattr(getattr(params, "textDocument", None), "uri", None)
        line, character = (value if isinstance(value, int) and value >= 0 else None for value in place)
        if isinstance(uri, str) and line is not None and character is not None:
            self.window.move_cursor(uri, line, character)


def pack_item(item: EditorSuggestion, accepted_command: str) -> types.InlineCompletionItem:
    """Return a suggestion as LSP's item; its command reports that it was accepted."""
    return types.InlineCompletionItem(
        insert_text=item.text, range=pack_range(item.range), command=_report_of(item, accepted_command)
    )


def pack_popup_item(item: EditorSuggestion, accepted_command: str) -> types.CompletionItem:
    """Return a suggestion as an item of the completion popup, for an editor without ghost text."""
    first_line = item.text.strip().partition("\n")[0]
    return types.CompletionItem(
        label=first_line[:80] or item.text[:80],
        kind=types.CompletionItemKind.Text,
        detail="Forelook",
        filter_text=item.text,
        sort_text="\uffff",
        insert_text_format=types.InsertTextFormat.PlainText,
        insert_text_mode=types.InsertTextMode.AsIs,
        text_edit=types.TextEdit(pack_range(item.range), item.text),
        command=_report_of(item, accepted_command),
    )


def _report_of(item: EditorSuggestion, accepted_command: str) -> types.Command:
    return types.Command(ACCEPTED.title, accepted_command, arguments=[item.suggestion_id])


def _suggestion_id(params: Any) -> str | None:
    """The suggestion that a notification of a Copilot client concerns: the item's command contains its id."""
    arguments = getattr(getattr(getattr(params, "item", None), "command", None), "arguments", None)
    return arguments[0] if isinstance(arguments, Sequence) and arguments and isinstance(arguments[0], str) else None


def pack_range(value: EditorRange) -> types.Range:
    """Return a range as LSP's."""
    return types.Range(
        types.Position(value.start_line, value.start_character), types.Position(value.end_line, value.end_character)
    )


def unpack_range(value: types.Range) -> EditorRange:
    """Return a range of LSP as the window's."""
    return EditorRange(value.start.line, value.start.character, value.end.line, value.end.character)


def unpack_cell(cell: types.TextDocumentItem) -> Cell:
    """Return a cell of LSP as the window's."""
    return Cell(cell.uri, str(cell.language_id), cell.version, Lines(cell.text))


def unpack_change(change: types.TextDocumentContentChangeEvent) -> EditorChange:
    """Return a change of LSP as the window's."""
    if isinstance(change, types.TextDocumentContentChangePartial):
        return (*unpack_range(change.range), change.text)
    return change.text


def _is_dynamic(capability: Any) -> bool:
    return capability is not None and bool(capability.dynamic_registration)


def _registration(method: str, options: Any) -> types.Registration:
    return types.Registration(id=f"forelook-{uuid.uuid4()}", method=method, register_options=options)
