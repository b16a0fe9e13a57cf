"""A mirror of the editor's documents: immutable snapshots with a version.

Offsets are in code points. Lines end as in LSP: only at ``\\n``, ``\\r\\n`` or ``\\r``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from forelook.budgets import ByteBudget, text_bytes
from forelook.errors import DocumentTextError, PositionError, StaleDocumentError, UnknownDocumentError
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.protocol.messages import TextChange
from forelook.text import utf8_size_above
from forelook.text_edits import EditableText
from forelook.uris import path_within, uri_path

_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
_LINE_BREAKS = re.compile("\r\n|\r")
_REPLACEMENT = "�"


def model_text(text: str) -> str:
    """``text`` as models are trained on it: lines end in ``\\n``, and lone surrogates are U+FFFD."""
    if "\r" in text:
        text = _LINE_BREAKS.sub("\n", text)
    return well_formed(text)


def well_formed(text: str) -> str:
    """``text`` with each lone surrogate replaced by U+FFFD; the length is unchanged."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return _LONE_SURROGATES.sub(_REPLACEMENT, text)
    return text


@dataclass(frozen=True, slots=True)
class Document:
    """One version of one document."""

    workspace: WorkspaceKey
    key: DocumentKey
    language_id: str
    version: int
    text: str

    @property
    def path(self) -> str:
        """Its path relative to the workspace, or its name if it is elsewhere."""
        return path_within(self.workspace.uri, self.key.uri) or uri_path(self.key.uri).rpartition("/")[2]

    @property
    def repository(self) -> str:
        """The name of the workspace's folder."""
        return uri_path(self.workspace.uri).rstrip("/").rpartition("/")[2]

    def check_offset(self, offset: int) -> None:
        """Raise PositionError unless ``offset`` is within the text."""
        if not 0 <= offset <= len(self.text):
            raise PositionError(f"offset = {offset} is outside the document, which has {len(self.text)} characters")

    def line_start(self, offset: int) -> int:
        """Offset of the first character of the line that contains ``offset``."""
        newline = self.text.rfind("\n", 0, offset)
        # Searching no further back than the newline keeps a file without \r from being scanned whole.
        carriage = self.text.rfind("\r", newline + 1, offset)
        if carriage >= 0 and self.text[carriage : carriage + 2] == "\r\n" and carriage + 1 == offset:
            # Between \r and \n: the line is the one the pair ends.
            return self.line_start(carriage)
        return max(newline, carriage) + 1

    def line_end(self, offset: int) -> int:
        """Offset of the line break that ends the line of ``offset``, or the document's length."""
        newline = self.text.find("\n", offset)
        end = len(self.text) if newline < 0 else newline
        carriage = self.text.find("\r", offset, end)
        return end if carriage < 0 else carriage


def apply_changes(text: str, changes: Sequence[TextChange]) -> str:
    """Apply changes in order, each to the result of those before it, in time linear in the text and the changes.

    Raises:
        PositionError: a range is outside its text.
    """
    edited = EditableText(text)
    for number, change in enumerate(changes):
        if not 0 <= change.start <= change.end <= len(edited):
            raise PositionError(
                f"changes[{number}] = [{change.start}, {change.end}) is outside the document, which has {len(edited)} "
                "characters; close and reopen it"
            )
        edited.replace(change.start, change.end, change.text)
    return str(edited)


class DocumentStore:
    """The open documents by key. Its snapshots are safe to share.

    Any thread may call it, but the calls about one document must not overlap, except for ``find`` and ``close``.

    Args:
        budget: memory for the texts.
    """

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._lock = threading.Lock()
        self._documents: dict[DocumentKey, Document] = {}

    def __len__(self) -> int:
        return len(self._documents)

    def count(self, principal: str) -> int:
        """Number of open documents of one user."""
        return sum(document.workspace.principal == principal for document in tuple(self._documents.values()))

    def find(self, key: DocumentKey) -> Document | None:
        """The current snapshot of a document; ``None`` if it is not open."""
        return self._documents.get(key)

    def get(self, key: DocumentKey) -> Document:
        """The current snapshot of an open document.

        Raises:
            UnknownDocumentError: it is not open.
        """
        document = self._documents.get(key)
        if document is None:
            raise UnknownDocumentError("the document is not open; send document/open first")
        return document

    def open(self, workspace: WorkspaceKey, key: DocumentKey, language_id: str, version: int, text: str) -> Document:
        """Add a document, or replace it: an editor that reconnects opens its documents again.

        Raises:
            LimitError: there is no memory for it; a former one is still open.
        """
        document = Document(workspace, key, language_id, version, text)
        with self._lock:
            former = self._documents.get(key)
            self._budget.resize(key.principal, text_bytes(former.text) if former else 0, text_bytes(text))
            self._documents[key] = document
        return document

    def change(
        self, key: DocumentKey, version: int, changes: Sequence[TextChange], *, max_bytes: int | None = None
    ) -> Document:
        """Apply an edit and return the new snapshot, which may have ``max_bytes`` as UTF-8.

        Raises:
            UnknownDocumentError: it is not open.
            StaleDocumentError: ``version`` is not newer than the mirror's.
            PositionError: a range is outside its text; nothing was applied.
            DocumentTextError: the result is larger than the limit; nothing was applied.
            LimitError: there is no memory for the result; nothing was applied.
        """
        old = self.get(key)
        if version <= old.version:
            raise StaleDocumentError(
                f"version = {version} is not newer than the mirror's version {old.version}; "
                "close and reopen the document"
            )
        text = apply_changes(old.text, changes)
        if max_bytes is not None and (num_bytes := utf8_size_above(text, max_bytes)) is not None:
            raise DocumentTextError(
                f"the document has {num_bytes} bytes, over the limit of {max_bytes}; "
                "completion is disabled for it until it is shorter"
            )
        document = Document(old.workspace, key, old.language_id, version, text)
        with self._lock:
            if self._documents.get(key) is not old:
                raise UnknownDocumentError("the document was closed while it changed")
            self._budget.resize(key.principal, text_bytes(old.text), text_bytes(text))
            self._documents[key] = document
        return document

    def close(self, key: DocumentKey) -> Document:
        """Forget a document and return its last snapshot.

        Raises:
            UnknownDocumentError: it is not open.
        """
        with self._lock:
            document = self.get(key)
            del self._documents[key]
            self._budget.resize(key.principal, text_bytes(document.text), 0)
        return document
