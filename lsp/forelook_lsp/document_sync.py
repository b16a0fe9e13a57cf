"""Applies the editor's document changes to the mirror and sends them to the backend, except for excluded documents."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from forelook.protocol import messages
from forelook.text import utf8_size_above
from forelook.uris import local_path

from forelook_lsp.backend_connection import BackendConnection
from forelook_lsp.indexing import Indexing
from forelook_lsp.mirror import Document, EditorChange, Mirror
from forelook_lsp.positions import Lines
from forelook_lsp.suggestions.requests import SuggestionRequests

logger = logging.getLogger(__name__)

MAX_CHANGE_CHARS = 1_000_000  # a larger change is sent as a new document; chosen, not measured


class DocumentSync:
    """The open documents of one window."""

    def __init__(
        self, mirror: Mirror, backend: BackendConnection, indexing: Indexing, suggestions: SuggestionRequests
    ) -> None:
        """Create an instance.

        Args:
            mirror: the editor's documents, kept up to date here.
            backend: where the documents are sent.
            indexing: knows each document's workspace and whether it is excluded.
            suggestions: is told of every edit.
        """
        self._mirror = mirror
        self._backend = backend
        self._indexing = indexing
        self._suggestions = suggestions

    # --- The editor ------------------------------------------------------------------------------------------

    def open(self, uri: str, language_id: str, version: int, text: str) -> None:
        """A document was opened; an open one is replaced."""
        self.close(uri)
        path = local_path(uri)
        document = Document(uri, language_id, version, Lines(text), self._indexing.workspace_of(path))
        document.withheld = self._indexing.withheld(path)
        self._mirror.documents[uri] = document
        self._send(document)

    def change(self, uri: str, version: int, changes: Sequence[EditorChange]) -> None:
        """A document was changed."""
        document = self._mirror.documents.get(uri)
        if document is None:
            logger.warning("changed document is not open; change ignored")
            return
        if not changes and version == document.version:
            return  # Neovim up to 0.7 repeats a version so; the backend refuses a repeated version
        edits: list[messages.TextChange] = []
        for change in changes:
            edit = self._mirror.edit_of(document, change)
            self._suggestions.will_edit(document, edit)
            document.apply(edit)
            edits.append(edit)
        document.version = version
        if document.sent:
            if sum(len(edit.text) for edit in edits) > MAX_CHANGE_CHARS:
                self._withdraw(document)
                self._send(document)
            else:
                params = messages.DocumentChangeParams(uri, version, tuple(edits))
                self._backend.notify(messages.DOCUMENT_CHANGE, params)
        self._suggestions.edited(document, edits)

    def close(self, uri: str) -> bool:
        """A document was closed; return whether the backend had it."""
        document = self._mirror.documents.pop(uri, None)
        if document is None:
            return False
        self._suggestions.closed(uri)
        if document.sent:
            self._backend.notify(messages.DOCUMENT_CLOSE, messages.DocumentCloseParams(uri))
        return document.sent

    # --- The backend -----------------------------------------------------------------------------------------

    def send_all(self) -> None:
        """Send all documents to a new backend."""
        for document in self._mirror.documents.values():
            self._send(document)

    def backend_lost(self) -> None:
        """The backend has no documents any more."""
        for document in self._mirror.documents.values():
            document.sent = False

    def refused(self, error: messages.NotificationErrorParams) -> None:
        """The backend has refused a document, or a change, and closed it."""
        document = self._mirror.documents.get(error.uri) if error.uri is not None else None
        if document is None:
            return
        document.sent = False
        self._suggestions.closed(document.uri)
        if error.method == messages.DOCUMENT_CHANGE.name:
            self._send(document)  # the two copies differed
        else:
            document.withheld = error.message

    # --- Exclusion -------------------------------------------------------------------------------------------

    def recheck(self) -> None:
        """Apply changed folders or ignore rules: withdraw documents that are excluded now, send those that are not."""
        for document in self._mirror.documents.values():
            path = local_path(document.uri)
            if path is None:
                continue
            withheld, workspace = self._indexing.withheld(path), self._indexing.workspace_of(path)
            if (withheld, workspace) == (document.withheld, document.workspace):
                continue
            document.withheld, document.workspace = withheld, workspace
            self._withdraw(document)
            if withheld:
                self._indexing.forget([path])
            self._send(document)

    def open_files(self) -> dict[Path, str]:
        """Return the texts of the open files that are not excluded."""
        return {
            path: document.text
            for document in self._mirror.documents.values()
            if (path := local_path(document.uri)) is not None and not document.withheld
        }

    def workspaces(self) -> list[str]:
        """Return the workspaces of this window's folders and documents."""
        documents = self._mirror.documents.values()
        return sorted({*self._indexing.workspaces, *(document.workspace for document in documents)})

    # --- Inside ----------------------------------------------------------------------------------------------

    def _send(self, document: Document) -> None:
        if document.withheld:
            return
        limits = self._backend.limits
        if limits is not None and utf8_size_above(document.text, limits.max_document_bytes) is not None:
            document.withheld = f"longer than {limits.max_document_bytes} bytes, the backend's limit"
            return
        params = messages.DocumentOpenParams(
            document.workspace, document.uri, document.language_id, document.version, document.text
        )
        document.sent = self._backend.notify(messages.DOCUMENT_OPEN, params)

    def _withdraw(self, document: Document) -> None:
        if document.sent:
            document.sent = False
            self._backend.notify(messages.DOCUMENT_CLOSE, messages.DocumentCloseParams(document.uri))
            self._suggestions.closed(document.uri)
