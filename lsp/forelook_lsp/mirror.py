"""The open documents of a window, as the editor has them."""

from __future__ import annotations

from dataclasses import dataclass

from forelook.text import common_prefix, common_suffix

from forelook_lsp.positions import Lines, PositionEncoding
from forelook_lsp.suggestions.cache import Place


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

    def edit_of(self, change: EditorChange, encoding: PositionEncoding) -> Edit:
        """A change of the editor in code points of the text as it is now."""
        if change.range is None:
            return smallest_edit(self.text, change.text)
        where = change.range
        start = self.lines.offset_at(where.start_line, where.start_character, encoding)
        end = self.lines.offset_at(where.end_line, where.end_character, encoding)
        return Edit(min(start, end), max(start, end), change.text)

    def apply(self, edit: Edit) -> None:
        """Change the text."""
        self.lines.replace(edit.start, edit.end, edit.text)

    def place_at(self, offset: int) -> Place:
        """The cursor at ``offset``, as suggestions are matched with it."""
        return Place.of(self.uri, self.text, self.lines.line_start(self.lines.line_at(offset)), offset)


def smallest_edit(old: str, new: str) -> Edit:
    """The one edit that turns ``old`` into ``new`` and leaves their common beginning and end alone."""
    start = common_prefix(old, new)
    tail = common_suffix(old[start:], new[start:])
    return Edit(start, len(old) - tail, new[start : len(new) - tail])
