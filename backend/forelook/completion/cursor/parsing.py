"""Parsers of tree-sitter grammars, incremental parsing of successive texts, and the number of errors of a tree.

Grammars load on first use. Nothing here is thread-safe: only the engine's thread parses.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from forelook.languages import Language
from forelook.text import common_prefix, common_suffix

if TYPE_CHECKING:
    import tree_sitter

logger = logging.getLogger(__name__)
_ERROR_WEIGHT = 32  # measured: up to 1 ms per report after an error (PHP, Python), 35 µs before one
_READ_BYTES = 16_384  # handed to the parser at a time; chosen, not measured


@dataclass(slots=True)
class ParseBudget:
    """How much parsing is left, in tree-sitter's progress reports: one per 100 operations of the parser.

    A count instead of a time, so that the same text always has the same answer. After an error the parser compares ways
    to recover, and its operations take 10 to 30 times as long.

    Attributes:
        num_reports: what is left.
        stops_at_error: whether a parse ends as soon as it meets a syntax error, which is where parsing becomes slow.
    """

    num_reports: int
    stops_at_error: bool = False

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self.num_reports <= 0

    def report(self, _offset: int, has_error: bool) -> bool:
        """Count one report of the parser; returns whether it must stop."""
        self.num_reports -= _ERROR_WEIGHT if has_error else 1
        return self.num_reports <= 0 or (has_error and self.stops_at_error)


@cache
def parser_for(language: Language) -> tree_sitter.Parser | None:
    """The parser of a language; ``None`` if it has no grammar or the grammar's package cannot be loaded."""
    if language.grammar is None:
        return None
    module_name, function_name = language.grammar
    try:
        # Training runs where there is torch and transformers and nothing else, tree-sitter included.
        import tree_sitter

        module = importlib.import_module(module_name)
        return tree_sitter.Parser(tree_sitter.Language(getattr(module, function_name)()))
    except (ImportError, AttributeError, ValueError, OSError) as error:
        # A missing grammar costs precision, not completion.
        logger.warning("no grammar for %s (%s); falling back to indentation and brackets", language.name, error)
        return None


def parse(language: Language, text: str) -> tree_sitter.Tree | None:
    """The syntax tree of ``text``; ``None`` without a grammar."""
    parser = parser_for(language)
    return None if parser is None else parser.parse(to_bytes(text))


class Reparser:
    """Parses successive versions of a text incrementally; a keystroke costs about a tenth of a full parse."""

    def __init__(self, parser: tree_sitter.Parser) -> None:
        self._parser = parser
        self._data = b""
        self._faulty: bytes | None = None  # the last text whose parse stopped at an error
        self._tree: tree_sitter.Tree | None = None

    def parse(self, text: str) -> tree_sitter.Tree:
        """The syntax tree of ``text``."""
        data = to_bytes(text)
        if self._tree is None or data != self._data:
            old = self._old_tree(data)
            self._tree = self._parser.parse(data) if old is None else self._parser.parse(data, old)
            self._data = data
        return self._tree

    def parse_within(self, text: str, budget: ParseBudget) -> tree_sitter.Tree | None:
        """The syntax tree of ``text``; ``None`` if the budget does not suffice."""
        data = to_bytes(text)
        if budget.stops_at_error and data == self._faulty:
            return None
        if self._tree is None or data != self._data:
            self._tree, self._data = parse_within(self._parser, data, self._old_tree(data), budget), data
            if self._tree is None and budget.stops_at_error:
                self._faulty = data
        return self._tree

    def parse_variant(self, start: int, end: int, inserted: bytes, budget: ParseBudget) -> tree_sitter.Tree | None:
        """The tree of the last text with its bytes from ``start`` to ``end`` replaced; the last text stays.

        Returns ``None`` if the last text has no tree or the budget does not suffice.
        """
        if self._tree is None:
            return None
        data = self._data[:start] + inserted + self._data[end:]
        old = _edited(self._tree.copy(), self._data, data, start, end, start + len(inserted))
        return parse_within(self._parser, data, old, budget)

    def _old_tree(self, data: bytes) -> tree_sitter.Tree | None:
        if self._tree is None:
            return None
        start = common_prefix(self._data, data)
        same = common_suffix(self._data[start:], data[start:])
        return _edited(self._tree, self._data, data, start, len(self._data) - same, len(data) - same)


def parse_within(
    parser: tree_sitter.Parser, data: bytes, old: tree_sitter.Tree | None, budget: ParseBudget
) -> tree_sitter.Tree | None:
    """Parse ``data``, reusing the edited tree ``old``; ``None`` if the budget does not suffice."""

    def read(position: int, _point: object) -> bytes:
        return data[position : position + _READ_BYTES]

    try:
        if old is None:
            return parser.parse(read, progress_callback=budget.report)
        return parser.parse(read, old, progress_callback=budget.report)
    except ValueError:  # stopped by the budget
        parser.reset()
        return None


@cache
def reparser(language: Language, use: str) -> Reparser | None:
    """One reparser per use, so that successive texts are similar; ``None`` without a grammar."""
    del use
    parser = parser_for(language)
    return None if parser is None else Reparser(parser)


def errors_of(tree: tree_sitter.Tree) -> list[tree_sitter.Node]:
    """The nodes that the parser could not place (ERROR) or had to invent (MISSING)."""
    found, stack = [], [tree.root_node]
    while stack:
        node = stack.pop()
        if node.has_error or node.is_missing:
            if node.is_error or node.is_missing:
                found.append(node)
            stack.extend(node.children)
    return found


def to_bytes(text: str) -> bytes:
    """UTF-8, with a question mark for a lone surrogate."""
    return text.encode("utf-8", "replace")


def _edited(tree: tree_sitter.Tree, old: bytes, new: bytes, start: int, old_end: int, new_end: int) -> tree_sitter.Tree:
    tree.edit(start, old_end, new_end, _point(new, start), _point(old, old_end), _point(new, new_end))
    return tree


def _point(data: bytes, position: int) -> tuple[int, int]:
    """Row and byte column."""
    return data.count(b"\n", 0, position), position - (data.rfind(b"\n", 0, position) + 1)
