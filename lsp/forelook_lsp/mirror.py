"""The open documents of a window as the editor has them, and its positions as code-point offsets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

from forelook.protocol.messages import TextChange
from forelook.text import common_prefix, common_suffix

from forelook_lsp.positions import Lines, PositionEdit, PositionEncoding
from forelook_lsp.suggestions.cache import Place


class EditorRange(NamedTuple):
    """A range in the editor's units: lines and characters."""

    start_line: int
    start_character: int
    end_line: int
    end_character: int


EditorChange = PositionEdit | str
"""A change in the editor's units; one without a position is the whole new text."""


@dataclass(slots=True)
class Document:
    """One document of the backend: an open document of the editor, or the cells of a notebook in one language.

    Attributes:
        uri, language_id: as the editor sent them; of a notebook's cells, see ``notebooks``.
        version: the backend's; it rises with every change, whatever the editor's does.
        lines: the text.
        workspace: the folder it belongs to; each workspace has its own pool.
        withheld: why its text must not be sent to the backend; empty if it may be.
        refused: why the backend cannot have it at present; empty if it can.
        refused_length: its length when the backend refused it for its text; it is not sent again until it is shorter.
        retry, retry_s: when it is sent again after the backend had no room for it, and how long that takes.
        sent: whether the backend has it.
        editor_version: as the editor sent it.
        judged: runs until it is known whether the document may be sent.
        num_asked: number of requests for suggestions so far.
    """

    uri: str
    language_id: str
    version: int
    lines: Lines
    workspace: str
    withheld: str = ""
    refused: str = ""
    refused_length: int | None = None
    retry: asyncio.TimerHandle | None = None
    retry_s: float = 0.0
    sent: bool = False
    editor_version: int = 0
    judged: asyncio.Task[None] | None = None
    num_asked: int = 0

    @property
    def text(self) -> str:
        """The text with its own line ends."""
        return self.lines.text

    def place_at(self, offset: int) -> Place:
        """Return the cursor at ``offset``, for matching suggestions."""
        return Place.of(self.uri, self.text, self.lines.line_start(self.lines.line_at(offset)), offset)


@dataclass(slots=True, eq=False)
class Cell:
    """One cell of a notebook.

    Attributes:
        uri, language_id, version: as the editor sent them.
        lines: its text.
        document: the text of all cells of its language; ``None`` until the notebook is arranged.
        start: where it starts in that text.
    """

    uri: str
    language_id: str
    version: int
    lines: Lines
    document: Document | None = None
    start: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """A document of the editor within one of the backend: all of it, or a notebook's cell. Offsets are the backend's.

    Attributes:
        document: the backend's.
        lines: the editor's text.
        start: where it starts in the document.
        editor_version: as the editor sent it.
    """

    document: Document
    lines: Lines
    start: int
    editor_version: int

    def apply(self, edit: TextChange) -> None:
        """Change the text, of the document too."""
        self.document.lines.replace(edit.start, edit.end, edit.text)
        if self.lines is not self.document.lines:
            self.lines.replace(edit.start - self.start, edit.end - self.start, edit.text)

    def line_length(self, line: int) -> int:
        """Number of code points of a line."""
        return self.lines.line_end(line) - self.lines.line_start(line)

    def place_at(self, offset: int) -> Place:
        """Return the cursor at ``offset``, for matching suggestions."""
        line_start = self.lines.line_start(self.lines.line_at(offset - self.start))
        return Place.of(self.document.uri, self.document.text, self.start + line_start, offset)


@dataclass(slots=True)
class Mirror:
    """The editor's open documents.

    Attributes:
        documents: by uri.
        cells: the notebooks' cells by uri.
        encoding: what the editor's columns count.
    """

    documents: dict[str, Document] = field(default_factory=dict)
    cells: dict[str, Cell] = field(default_factory=dict)
    encoding: PositionEncoding = PositionEncoding.UTF16

    def part(self, uri: str) -> Part | None:
        """Return the editor's document ``uri`` as a part of the backend's; ``None`` if it is not open."""
        cell = self.cells.get(uri)
        if cell is not None and cell.document is not None:
            return Part(cell.document, cell.lines, cell.start, cell.version)
        document = self.documents.get(uri)
        return None if document is None else Part(document, document.lines, 0, document.editor_version)

    def edit_of(self, part: Part, change: EditorChange) -> TextChange:
        """Return a change of the editor in code points of the document's current text."""
        if isinstance(change, str):
            edit = smallest_edit(part.lines.text, change)
            return TextChange(edit.start + part.start, edit.end + part.start, edit.text)
        *where, text = change
        start, end = self.offsets_of(part, EditorRange(*where))
        return TextChange(min(start, end), max(start, end), text)

    def offset_at(self, part: Part, line: int, character: int) -> int:
        """Return the code-point offset of a position of the editor."""
        return part.start + part.lines.offset_at(line, character, self.encoding)

    def offsets_of(self, part: Part, where: EditorRange) -> tuple[int, int]:
        """Return the code-point offsets of a range of the editor."""
        return (
            self.offset_at(part, where.start_line, where.start_character),
            self.offset_at(part, where.end_line, where.end_character),
        )

    def range_of(self, part: Part, start: int, end: int) -> EditorRange:
        """Return the code points ``[start, end)`` of the document as a range of the editor."""
        return EditorRange(
            *part.lines.position_at(start - part.start, self.encoding),
            *part.lines.position_at(end - part.start, self.encoding),
        )


def smallest_edit(old: str, new: str) -> TextChange:
    """Return the one edit that turns ``old`` into ``new`` without touching their common prefix and suffix."""
    start = common_prefix(old, new)
    tail = common_suffix(old[start:], new[start:])
    return TextChange(start, len(old) - tail, new[start : len(new) - tail])
