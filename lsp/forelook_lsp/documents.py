"""The open documents of a window, as the editor has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forelook_lsp.positions import Lines, PositionEncoding
from forelook_lsp.suggestion_cache import Place


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace ``[start, end)`` by ``text``, in code points of the text before this edit."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class EditorRange:
    """A range as the editor gives it: lines and characters in its own units."""

    start_line: int
    start_character: int
    end_line: int
    end_character: int


@dataclass(frozen=True, slots=True)
class EditorChange:
    """A change as the editor gives it; without a range it replaces everything."""

    range: EditorRange | None
    text: str


@dataclass(slots=True)
class Document:
    """One open document.

    Attributes:
        workspace: the folder it belongs to, by which pools are kept apart.
        withheld: why its text must not leave the editor's side, empty where it may.
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
        """The text, line ends as they are."""
        return self.lines.text

    def apply(self, changes: Sequence[EditorChange], encoding: PositionEncoding) -> list[Edit]:
        """Apply the editor's changes in order, and return them in code points."""
        edits = []
        for change in changes:
            if change.range is None:
                edit = Edit(0, len(self.text), change.text)
                self.lines = Lines(change.text)
            else:
                where = change.range
                start = self.lines.offset_at(where.start_line, where.start_character, encoding)
                end = self.lines.offset_at(where.end_line, where.end_character, encoding)
                edit = Edit(min(start, end), max(start, end), change.text)
                self.lines.replace(edit.start, edit.end, edit.text)
            edits.append(edit)
        return edits

    def place_at(self, offset: int) -> Place:
        """The cursor at ``offset``, as suggestions are matched with it."""
        return Place.of(self.uri, self.text, self.lines.line_start(self.lines.line_at(offset)), offset)
