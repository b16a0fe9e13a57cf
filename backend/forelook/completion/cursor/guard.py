"""Judges whether an insertion at the cursor adds a syntax error to the document.

Parsed is a window around the cursor, once without the cursor's line, so that a whole line is typed into the same tree;
the line and each insertion are parsed into it incrementally, and only up to the first error where that decides. Work is
bounded: where the budget is spent, an insertion passes if it is balanced.
"""

from __future__ import annotations

from dataclasses import dataclass

import tree_sitter

from forelook.completion.cursor.brackets import Bracket, closes, scan_brackets
from forelook.completion.cursor.parsing import ParseBudget, Reparser, errors_of, parser_for, reparser, to_bytes
from forelook.completion.cursor.stopping import Closer, CursorContext
from forelook.completion.cursor.window import Window, completed, window_of

# measured: docs/decisions.md, "A suggestion never adds a syntax error"
_BASE_REPORTS, _INSERTION_REPORTS = 250, 150
_MAX_WINDOW_CHARS = 32_000  # more only with lines of thousands of characters; chosen, not measured
_NEAR = 2  # lines between an error and a cursor that is at the error; chosen, not measured


class SyntaxGuard:
    """The judge for one cursor."""

    def __init__(self, cursor: CursorContext) -> None:
        self._cursor = cursor
        self._base: _Base | None = None
        self._has_base = False
        self._budget = ParseBudget(_INSERTION_REPORTS)

    def allows(self, text: str, num_covered: int) -> bool:
        """Whether the document with ``text`` at the cursor has no more syntax errors than without.

        Around an error, such as a line that is being typed, the number of errors says little: there it is enough that
        the text is balanced. Where the parser gives up, or the window says little of the document, it must be.
        """
        if parser_for(self._cursor.language) is None:
            return True
        if not self._has_base:
            self._base, self._has_base = _base_of(self._cursor), True
        base = self._base
        if base is None:
            return is_balanced(self._cursor, text, num_covered)
        if not base.is_sound or base.is_broken_here:
            balanced = is_balanced(self._cursor, text, num_covered)
            if balanced == base.is_sound:
                return balanced
        if self._budget.is_spent:
            return False
        if base.num_errors is None:
            base.num_errors = _num_errors(base.parse(self._cursor, "", 0, self._budget))
            if base.num_errors is None:
                return False
        self._budget.stops_at_error = base.num_errors == 0
        tree = base.parse(self._cursor, text, num_covered, self._budget)
        self._budget.stops_at_error = False
        if tree is None or len(errors := _error_rows(tree)) > base.num_errors:
            return False
        # Errors may merge: where there was none, there must be none.
        row = base.row + text.count("\n")
        return base.is_broken_here or all(last < base.row or first > row for first, last in errors)


@dataclass(slots=True)
class _Base:
    """The parsed text around the cursor.

    Attributes:
        parses: has parsed it.
        row: of the cursor.
        start, end: the cursor's line in it, in bytes; both at the line's start where it was parsed without the line.
        is_broken_here: whether the text has a syntax error at the cursor or around it.
        is_sound: whether its errors are the document's own.
        num_errors: the text's syntax errors, the cursor's line included; ``None`` while that is not known.
    """

    parses: Reparser
    row: int
    start: int
    end: int
    is_broken_here: bool
    is_sound: bool
    num_errors: int | None

    def parse(self, cursor: CursorContext, text: str, num_covered: int, budget: ParseBudget) -> tree_sitter.Tree | None:
        """The tree with ``text`` at the cursor in place of ``num_covered`` characters after it."""
        line = to_bytes(cursor.line + text + cursor.rest[num_covered:])
        return self.parses.parse_variant(self.start, self.end, line, budget)


def _base_of(cursor: CursorContext) -> _Base | None:
    """The parsed window around a cursor; ``None`` where parsing is too much."""
    without, whole = (reparser(cursor.language, use) for use in ("guard: without the line", "guard: whole"))
    assert without is not None
    assert whole is not None
    window = window_of(cursor.language, cursor.before, cursor.after, cursor.inside)
    if len(window.before) + len(window.after) > _MAX_WINDOW_CHARS:
        return None
    if window.is_cut:
        own_closed = bool(cursor.open_brackets) and cursor.open_brackets[0][1] is not Closer.MISSING
        window = completed(cursor.language, window, own_closed=own_closed)
    above = window.before[: len(window.before) - len(cursor.line)]
    row, start, end = above.count("\n"), len(to_bytes(above)), len(to_bytes(window.before + cursor.rest))
    budget = ParseBudget(_BASE_REPORTS, stops_at_error=True)
    if _num_errors(without.parse_within(above + window.after[len(cursor.rest) :], budget)) == 0:
        base = _Base(without, row, start, start, is_broken_here=False, is_sound=True, num_errors=0)
        if _num_errors(base.parse(cursor, "", 0, budget)) != 0:
            base.is_broken_here, base.num_errors = True, None
        return base
    budget.stops_at_error = False
    tree = whole.parse_within(window.before + window.after, budget)
    if tree is None:
        return None
    errors = _error_rows(tree)
    is_broken_here = any(first - _NEAR <= row <= last + _NEAR for first, last in errors)
    return _Base(whole, row, start, end, is_broken_here, _is_sound(window, errors), len(errors))


def _is_sound(window: Window, errors: list[tuple[int, int]]) -> bool:
    """Whether the errors of a window are the document's: each is at the cursor, or well within the lines near it."""
    row = window.before.count("\n")
    return not window.is_cut or all(
        min(abs(row - first), abs(row - last)) <= _NEAR
        or window.first_row + _NEAR < first <= last < window.last_row - _NEAR
        for first, last in errors
    )


def _num_errors(tree: tree_sitter.Tree | None) -> int | None:
    return None if tree is None else len(errors_of(tree))


def _error_rows(tree: tree_sitter.Tree) -> list[tuple[int, int]]:
    return [(error.start_point.row, error.end_point.row) for error in errors_of(tree)]


def is_balanced(cursor: CursorContext, text: str, num_covered: int) -> bool:
    """Whether the text and the rest of the line leave no bracket or string open that the rest alone does not.

    The text may close what is open before the cursor and closed nowhere.
    """
    own = scan_brackets(cursor.language, cursor.rest, cursor.inside)
    both = scan_brackets(cursor.language, text + cursor.rest[num_covered:], cursor.inside)
    if both.inside not in (None, own.inside) or _characters(both.open) != _characters(own.open):
        return False
    closed, kept = _characters(both.unmatched), _characters(own.unmatched)
    if cursor.language.case_parentheses:
        return closed[len(closed) - len(kept) :] == kept
    missing = [opener for opener, fate in cursor.open_brackets if fate is Closer.MISSING]
    added = closed[: len(closed) - len(kept)]
    if added + kept != closed or len(added) > len(missing):
        return False
    return all(closes(opener, closer) for opener, closer in zip(missing, added, strict=False))


def opens_nothing(cursor: CursorContext, text: str) -> bool:
    """Whether the text leaves open no bracket and no string of its own."""
    scan = scan_brackets(cursor.language, text, cursor.inside)
    if scan.open:
        return False
    return scan.inside is None or (scan.inside == cursor.inside and scan.string_closed_at is None)


def _characters(brackets: tuple[Bracket, ...]) -> list[str]:
    return [bracket.character for bracket in brackets]
