"""Notebooks: the cells of one language are one text, as if the notebook were a file of that language.

The backend gets one document per notebook and language, so the cells before and after the cursor's are prefix and
suffix of its prompt, and positions are converted here. A line break separates cells: no line, and so no suggestion's
range, spans two of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from forelook.languages import CELL_MAGICS, KEEPING_MAGICS, UNKNOWN_LANGUAGE

from forelook_lsp.mirror import Cell, Document

SEPARATOR = "\n"

_CELL_MAGIC = re.compile(r"%%([\w!]+)")


def language_of_cell(language_id: str, text: str) -> str:
    """The language id of a cell's text: the editor's, unless a cell magic such as ``%%bash`` names another."""
    match = _CELL_MAGIC.match(text)
    if match is None or match.group(1) in KEEPING_MAGICS:
        return language_id
    return CELL_MAGICS.get(match.group(1), UNKNOWN_LANGUAGE)


@dataclass(slots=True, eq=False)
class Notebook:
    """One open notebook.

    Attributes:
        uri: as the editor sent it.
        cells: in the notebook's order.
        documents: its text per language.
    """

    uri: str
    cells: list[Cell] = field(default_factory=list)
    documents: dict[str, Document] = field(default_factory=dict)

    def document_uri(self, language: str) -> str:
        """The URI under which the backend knows the text in one language."""
        return f"{self.uri}#{language}"

    def texts(self) -> dict[str, str]:
        """The text per language."""
        texts: dict[str, list[str]] = {}
        for cell in self.cells:
            texts.setdefault(_language(cell), []).append(cell.lines.text)
        return {language: SEPARATOR.join(parts) for language, parts in texts.items()}

    def place_cells(self) -> None:
        """Compute where each cell starts in the text of its language."""
        ends: dict[str, int] = {}
        for cell in self.cells:
            language = _language(cell)
            cell.document, cell.start = self.documents[language], ends.get(language, 0)
            ends[language] = cell.start + len(cell.lines.text) + len(SEPARATOR)


def _language(cell: Cell) -> str:
    return language_of_cell(cell.language_id, cell.lines.text)
