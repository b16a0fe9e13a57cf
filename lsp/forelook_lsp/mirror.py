"""The open documents of a window as the editor has them, and its positions as code-point offsets."""

from __future__ import annotations

from dataclasses import dataclass, field

from forelook.protocol.messages import TextChange
from forelook.text import common_prefix, common_suffix

from forelook_lsp.positions import Lines, PositionEncoding
from forelook_lsp.suggestions.cache import Place


@dataclass(frozen=True, slots=True)
class EditorRange:
    """A range in the editor's units: lines and characters."""

    start_line: int
    start_character: int
    end_line: int
    end_character: int


@dataclass(frozen=True, slots=True)
class EditorChange:
    """A change in the editor's units; without a range it replaces the whole text."""

    range: EditorRange | None
    text: str


@dataclass(slots=True)
class Document:
    """One open document.

    Attributes:
        uri, language_id, version: as the editor sent them.
        lines: the text.
        workspace: the folder it belongs to; each workspace has its own pool.
        withheld: why its text must not be sent to the backend; empty if it may be.
        sent: whether the backend has it.
    """

    uri: str
    language_id: str
    version: int
    lines: Lines
    workspace: str
    withheld: str = ""
    sent: bool = False

    @property
    def text(self) -> str:
        """The text with its own line ends."""
        return self.lines.text

    def apply(self, edit: TextChange) -> None:
        """Change the text."""
        self.lines.replace(edit.start, edit.end, edit.text)

    def place_at(self, offset: int) -> Place:
        """Return the cursor at ``offset``, for matching suggestions."""
        return Place.of(self.uri, self.text, self.lines.line_start(self.lines.line_at(offset)), offset)


@dataclass(slots=True)
class Mirror:
    """The editor's open documents.

    Attributes:
        documents: by uri.
        encoding: what the editor's columns count.
    """

    documents: dict[str, Document] = field(default_factory=dict)
    encoding: PositionEncoding = PositionEncoding.UTF16

    def edit_of(self, document: Document, change: EditorChange) -> TextChange:
        """Return a change of the editor in code points of the document's current text."""
        if change.range is None:
            return smallest_edit(document.text, change.text)
        start, end = self.offsets_of(document, change.range)
        return TextChange(min(start, end), max(start, end), change.text)

    def offsets_of(self, document: Document, where: EditorRange) -> tuple[int, int]:
        """Return the code-point offsets of a range of the editor."""
        return (
            document.lines.offset_at(where.start_line, where.start_character, self.encoding),
            document.lines.offset_at(where.end_line, where.end_character, self.encoding),
        )

    def range_of(self, document: Document, start: int, end: int) -> EditorRange:
        """Return the code points ``[start, end)`` as a range of the editor."""
        return EditorRange(
            *document.lines.position_at(start, self.encoding), *document.lines.position_at(end, self.encoding)
        )


def smallest_edit(old: str, new: str) -> TextChange:
    """Return the one edit that turns ``old`` into ``new`` without touching their common prefix and suffix."""
    start = common_prefix(old, new)
    tail = common_suffix(old[start:], new[start:])
    return TextChange(start, len(old) - tail, new[start : len(new) - tail])
