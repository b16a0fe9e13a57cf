"""Judges whether an insertion at the cursor adds a syntax error to the document.

The text around the cursor is parsed once per cursor, and each insertion incrementally. Work is bounded: where the text
around the cursor cannot be parsed within the budget, or the language has no grammar, every insertion passes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from forelook.completion.cursor.brackets import Bracket, closes, scan_brackets
from forelook.completion.cursor.parsing import ParseBudget, Reparser, errors_of, reparser, to_bytes
from forelook.completion.cursor.stopping import Closer, CursorContext

# measured: docs/decisions.md, "A suggestion never adds a syntax error"
_CHARS_BEFORE, _CHARS_AFTER = 6_000, 3_000
_BASE_REPORTS, _VARIANT_REPORTS = 1_500, 400
_STEP = 2_048  # the window's start moves in such steps, so that it stays while the user types; chosen, not measured
_NEAR = 2  # lines between an error and a cursor that is at the error; chosen, not measured
# A line that starts a construct of its own, rather than continues or closes the one above.
_UNINDENTED = re.compile(
    r"\n(?=[^\s})\]#*])(?!(?:end|fi|done|esac|else|elif|elsif|when|rescue|ensure|except|finally|case|default)\b)"
)


class SyntaxGuard:
    """The judge for one cursor."""

    def __init__(self, cursor: CursorContext) -> None:
        self._cursor = cursor
        self._base: _Base | None = None
        self._has_base = False
        self._budget = ParseBudget(_VARIANT_REPORTS)

    def allows(self, text: str, num_covered: int) -> bool:
        """Whether the document with ``text`` at the cursor has no more syntax errors than without.

        Around an error, such as a line that is being typed, the number of errors says little: there it is enough that
        the text is balanced.
        """
        if not self._has_base:
            self._base, self._has_base = _base_of(self._cursor), True
        base = self._base
        if base is None:
            return True
        if self._budget.is_spent:
            return False
        end = base.position + len(to_bytes(self._cursor.after[:num_covered]))
        tree = base.parses.parse_variant(base.position, end, to_bytes(text), self._budget)
        if tree is not None and len(errors_of(tree)) <= base.num_errors:
            return True
        return base.is_broken_here and is_balanced(self._cursor, text, num_covered)


@dataclass(frozen=True, slots=True)
class _Base:
    """The parsed text around the cursor.

    Attributes:
        parses: has parsed it.
        position: the cursor in it, in bytes.
        num_errors: its syntax errors.
        is_broken_here: whether one of them is at the cursor or around it.
        breaks_off_here: whether all of them start or end at the cursor.
    """

    parses: Reparser
    position: int
    num_errors: int
    is_broken_here: bool
    breaks_off_here: bool


def _base_of(cursor: CursorContext) -> _Base | None:
    """A small window if that parses without an error or only with some at the cursor, else all text that is known.

    ``None`` where that is too much to parse. An error elsewhere in the window may come from where it was cut.
    """
    before, after = cursor.before, cursor.after
    budget = ParseBudget(_BASE_REPORTS)
    start, end = _start_of_window(before), _end_of_window(after)
    if (start, end) != (0, len(after)) and _is_whole(cursor, before[start:], after[:end]):
        base = _parsed(cursor, "guard: window", before[start:], after[:end], budget)
        if base is None or not base.num_errors or base.breaks_off_here:
            return base
    return _parsed(cursor, "guard: all", before, after, budget)


def _parsed(cursor: CursorContext, use: str, before: str, after: str, budget: ParseBudget) -> _Base | None:
    parses = reparser(cursor.language, use)
    tree = None if parses is None else parses.parse_within(before + after, budget)
    if parses is None or tree is None:
        return None
    errors, row = errors_of(tree), before.count("\n")
    rows = [(each.start_point.row, each.end_point.row) for each in errors]
    return _Base(
        parses,
        len(to_bytes(before)),
        len(errors),
        is_broken_here=any(first - _NEAR <= row <= last + _NEAR for first, last in rows),
        breaks_off_here=all(min(abs(row - first), abs(row - last)) <= _NEAR for first, last in rows),
    )


def _is_whole(cursor: CursorContext, before: str, after: str) -> bool:
    """Whether a window seems to cut no construct: no closer without opener, no opener without closer, no string."""
    if cursor.language.needs_head:
        return False
    above, below = (scan_brackets(cursor.language, *part) for part in ((before, None), (after, cursor.inside)))
    return not above.unmatched and above.inside == cursor.inside and not below.open and below.inside is None


def _start_of_window(before: str) -> int:
    least = len(before) - _CHARS_BEFORE
    if least <= 0:
        return 0
    match = _UNINDENTED.search(before, least - least % _STEP)
    return 0 if match is None else match.end()


def _end_of_window(after: str) -> int:
    match = _UNINDENTED.search(after, _CHARS_AFTER)
    return len(after) if match is None else match.end()


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
