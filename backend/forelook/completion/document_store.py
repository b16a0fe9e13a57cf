"""The mirror of the editor's documents: immutable snapshots with a version.

Offsets count code points. Lines end as LSP says: ``\\n``, ``\\r\\n`` or ``\\r``, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from forelook.errors import DocumentTextError, PositionError, StaleDocumentError, UnknownDocumentError
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.protocol.messages import TextChange

_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
_LINE_BREAKS = re.compile("\r\n|\r")
_REPLACEMENT = "�"


def model_text(text: str) -> str:
    """``text`` as models saw text: lines end in ``\\n``, and what UTF-8 cannot carry is U+FFFD."""
    if "\r" in text:
        text = _LINE_BREAKS.sub("\n", text)
    return well_formed(text)


def well_formed(text: str) -> str:
    """``text`` with each lone surrogate replaced by U+FFFD; as long as before."""
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

    def check_offset(self, offset: int) -> None:
        """Raise PositionError unless a cursor can stand at ``offset``."""
        if not 0 <= offset <= len(self.text):
            raise PositionError(f"offset = {offset} is outside the document, which has {len(self.text)} characters")

    def line_start(self, offset: int) -> int:
        """Offset of the first character of the line ``offset`` stands in."""
        newline = self.text.rfind("\n", 0, offset)
        # Searching no further back than the newline keeps a file without \r from being scanned whole.
        carriage = self.text.rfind("\r", newline + 1, offset)
        if carriage >= 0 and self.text[carriage : carriage + 2] == "\r\n" and carriage + 1 == offset:
            # Between \r and \n: the line is the one the pair ends.
            return self.line_start(carriage)
        return max(newline, carriage) + 1

    def line_end(self, offset: int) -> int:
        """Offset of the line break that ends the line of ``offset``, or of the document's end."""
        newline = self.text.find("\n", offset)
        end = len(self.text) if newline < 0 else newline
        carriage = self.text.find("\r", offset, end)
        return end if carriage < 0 else carriage


@dataclass(frozen=True, slots=True)
class AppliedChange:
    """What a change did: ``[start, old_end)`` of the old text became ``[start, new_end)`` of the new."""

    start: int
    old_end: int
    new_end: int


def apply_changes(text: str, changes: Sequence[TextChange]) -> tuple[str, list[AppliedChange]]:
    """Apply changes one after the other, each to the result of those before it.

    Raises:
        PositionError: a range is outside the text it applies to.
    """
    applied: list[AppliedChange] = []
    for number, change in enumerate(changes):
        if not 0 <= change.start <= change.end <= len(text):
            raise PositionError(
                f"changes[{number}] = [{change.start}, {change.end}) is outside the document, which has {len(text)} "
                "characters; close and reopen it"
            )
        text = text[: change.start] + change.text + text[change.end :]
        applied.append(AppliedChange(change.start, change.end, change.start + len(change.text)))
    return text, applied


class DocumentStore:
    """The open documents by key. Used from one thread; the snapshots may go anywhere."""

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._documents: dict[DocumentKey, Document] = {}

    def __len__(self) -> int:
        return len(self._documents)

    def __iter__(self) -> Iterator[Document]:
        return iter(self._documents.values())

    def get(self, key: DocumentKey) -> Document:
        """The current snapshot of an open document.

        Raises:
            UnknownDocumentError: it is not open.
        """
        document = self._documents.get(key)
        if document is None:
            raise UnknownDocumentError("the document is not open here; send document/open first")
        return document

    def open(self, workspace: WorkspaceKey, key: DocumentKey, language_id: str, version: int, text: str) -> Document:
        """Add a document, or replace it by its new content (an editor that reconnects opens again).

        Raises:
            DocumentTextError: it is larger than the limit.
        """
        self._check_size(text)
        document = Document(workspace, key, language_id, version, text)
        self._documents[key] = document
        return document

    def change(
        self, key: DocumentKey, version: int, changes: Sequence[TextChange]
    ) -> tuple[Document, Document, list[AppliedChange]]:
        """Apply an edit; returns the old snapshot, the new one, and what changed.

        Raises:
            UnknownDocumentError: it is not open.
            StaleDocumentError: ``version`` is not newer than the mirror's.
            PositionError: a range lies outside; nothing was applied.
            DocumentTextError: the result is larger than the limit; nothing was applied.
        """
        old = self.get(key)
        if version <= old.version:
            raise StaleDocumentError(
                f"version = {version} does not follow version {old.version}, which is held here; "
                "close and reopen the document"
            )
        text, applied = apply_changes(old.text, changes)
        self._check_size(text)
        document = Document(old.workspace, key, old.language_id, version, text)
        self._documents[key] = document
        return old, document, applied

    def close(self, key: DocumentKey) -> Document:
        """Forget a document and return its last snapshot.

        Raises:
            UnknownDocumentError: it is not open.
        """
        document = self.get(key)
        del self._documents[key]
        return document

    def _check_size(self, text: str) -> None:
        if len(text) > self._max_chars:
            raise DocumentTextError(
                f"the document has {len(text)} characters; the limit is {self._max_chars}, so it gets no suggestions"
            )
