"""Decides when a suggestion is complete: its line has ended, its scope has closed, or it repeats existing text.

``CursorContext`` is what is known about the cursor before the first token.
``find_end`` returns where generated text must end, as soon as that can be known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from forelook.completion.cursor.brackets import (
    OPENERS,
    PARTNER,
    BracketScan,
    closes,
    join_scans,
    rest_is_closers,
    scan_brackets,
    scan_cached,
)
from forelook.completion.cursor.syntax import (
    CursorSyntax,
    Place,
    first_text_line,
    indentation_of,
    inspect_cursor,
    window_before,
)
from forelook.languages import Language, ScopeRule

# All of these are chosen, not measured.
_SCAN_CHARS = 64_000  # scanned for brackets before and after the cursor
_MAX_LINE_CHARS = 2_000  # of the cursor's line on each side of it; the lines beyond a longer one are not read
_LINE_STEP = 256  # the part of a long line that is read starts at a multiple, so that a keystroke reparses little
_NEAR_CHARS = 4000  # searched for the nearest lines with text, and for tabs
# The same text four times in a row. During generation only the end of the text is searched.
_REPETITION = re.compile(r"(.{4,40}?)\1{3}", re.DOTALL)
_REPETITION_CHARS = 160
_MIN_ECHO_CHARS = 8
_MAX_CYCLE_LINES = 6
_MIN_CYCLE_CHARS = 24


class Closer(Enum):
    """Where the partner of a bracket or quote is that is open at the cursor."""

    MISSING = "missing"  # nowhere: the suggestion may close it
    IN_REST = "in_rest"  # on the cursor's line, which contains only closers after the cursor
    IN_REST_CODE = "in_rest_code"  # on the cursor's line, after other text
    BELOW = "below"  # on a later line


@dataclass(frozen=True, slots=True)
class CursorContext:
    """The text around a cursor, analyzed.

    Attributes:
        language: of the document.
        before, after: all text around the cursor that may be looked at.
        line: the line's text before the cursor.
        rest: the line's text after the cursor.
        rest_closes: whether ``rest`` is blank or closers only.
        syntax: the syntax at the cursor.
        open_brackets: brackets that are open at the cursor, innermost first, each with where it is closed.
        open_string: the delimiter that would end the string at the cursor, and where it is.
        inside: the delimiter that would end the string or comment at the cursor.
        previous_line: the nearest line with text above.
        next_line: the nearest line with text below.
        uses_tabs: whether the file is indented with tabs; ``None`` if unclear.
    """

    language: Language
    before: str
    after: str
    line: str
    rest: str
    rest_closes: bool
    syntax: CursorSyntax
    open_brackets: tuple[tuple[str, Closer], ...]
    open_string: tuple[str, Closer] | None
    inside: str | None
    previous_line: str
    next_line: str
    uses_tabs: bool | None

    @property
    def line_is_blank(self) -> bool:
        """Whether the line has only indentation before the cursor."""
        return not self.line.strip()

    @property
    def in_substitution(self) -> bool:
        """Whether the cursor is within braces inside a string."""
        if self.open_string is None:
            return False
        string = self.line[max(self.line.rfind(self.open_string[0]), 0) :]
        return string.count("{") > string.count("}")

    @property
    def string_has_braces(self) -> bool:
        """Whether the string around the cursor contains braces, like a format string."""
        return self.open_string is not None and ("{" in self.rest or self.in_substitution)

    @property
    def splits_delimiter(self) -> bool:
        """Whether the cursor is inside a string delimiter of several characters."""
        end = self.inside or ""
        return any(self.line.endswith(end[:cut]) and self.rest.startswith(end[cut:]) for cut in range(1, len(end)))

    @property
    def indentation(self) -> int:
        """Columns of indentation of the cursor's line."""
        return indentation_of(self.line)


def look_around(language: Language, before: str, after: str) -> CursorContext:
    """Analyze the text around the cursor between ``before`` and ``after`` (lines end in ``\\n``)."""
    window = window_before(before, _SCAN_CHARS)
    line_start = window.rfind("\n") + 1
    if len(window) - line_start > _MAX_LINE_CHARS:
        first = line_start + (len(window) - line_start - _MAX_LINE_CHARS) // _LINE_STEP * _LINE_STEP
        window, line_start = window[first:], 0
    above, line = window[:line_start], window[line_start:]
    above_scan = scan_cached(language, above)
    scan = join_scans(above_scan, scan_brackets(language, line, above_scan.inside), line_start)
    rest, _, _ = after.partition("\n")
    complete = len(after) <= _SCAN_CHARS
    if len(rest) > _MAX_LINE_CHARS:
        rest, complete = rest[:_MAX_LINE_CHARS], False
        after = rest
    below = after[len(rest) : _SCAN_CHARS]
    rest_scan = scan_brackets(language, rest, scan.inside)
    after_scan = join_scans(rest_scan, scan_cached(language, below, rest_scan.inside), len(rest))
    rest_closes = rest_is_closers(rest)
    syntax = inspect_cursor(language, window, after, scan)
    return CursorContext(
        language=language,
        before=before,
        after=after,
        line=line,
        rest=rest,
        rest_closes=rest_closes,
        syntax=syntax,
        open_brackets=_match_closers(window, after, scan, after_scan, len(rest), rest_closes, complete),
        open_string=_match_string(language, scan, rest_scan, below, rest_closes),
        inside=scan.inside,
        previous_line=first_text_line(reversed(above[-_NEAR_CHARS:].split("\n"))),
        next_line=first_text_line(below[:_NEAR_CHARS].split("\n")),
        uses_tabs=_uses_tabs(window[-_NEAR_CHARS:], after[: _NEAR_CHARS // 2]),
    )


def _match_closers(
    before: str,
    after: str,
    scan: BracketScan,
    after_scan: BracketScan,
    rest_length: int,
    rest_closes: bool,
    complete: bool,
) -> tuple[tuple[str, Closer], ...]:
    """Pair the brackets open at the cursor with the closers after it, innermost first."""
    openers = scan.open[::-1]
    line_start = before.rfind("\n") + 1
    # A bracket opened above and not closed in the scanned text is assumed to be closed beyond it.
    unread = [complete or opener.position >= line_start for opener in openers]
    fates = [Closer.MISSING if known else Closer.BELOW for known in unread]
    level = 0
    for closer in after_scan.unmatched:
        in_rest = closer.position < rest_length
        indentation = None if in_rest else _closing_indentation(after, closer.position)
        fitting = [
            index
            for index in range(level, len(openers))
            if closes(openers[index].character, closer.character)
            and (indentation is None or indentation_at(before, openers[index].position) <= indentation)
        ]
        if not fitting:
            fitting = [
                index for index in range(level, len(openers)) if closes(openers[index].character, closer.character)
            ]
        if not fitting:
            continue
        level = fitting[0]
        fates[level] = (Closer.IN_REST if rest_closes else Closer.IN_REST_CODE) if in_rest else Closer.BELOW
        level += 1
    return tuple((opener.character, fate) for opener, fate in zip(openers, fates, strict=True))


def _match_string(
    language: Language, scan: BracketScan, rest_scan: BracketScan, below: str, rest_closes: bool
) -> tuple[str, Closer] | None:
    if scan.inside is None or scan.in_comment:
        return None
    if rest_scan.string_closed_at is not None:
        return scan.inside, Closer.IN_REST if rest_closes else Closer.IN_REST_CODE
    form = next((form for form in language.strings if form.closer == scan.inside), None)
    if form is None or not form.multi_line:
        return scan.inside, Closer.MISSING
    closed_below = scan_cached(language, below, scan.inside).string_closed_at is not None
    # Any later quote could be the partner; only a delimiter of several characters is evidence.
    return scan.inside, Closer.BELOW if closed_below and len(scan.inside) > 1 else Closer.MISSING


def find_end(cursor: CursorContext, raw: str, *, multi_line: bool, final: bool = False) -> int | None:
    """Where generated text must end.

    Args:
        cursor: the cursor's context.
        raw: the text generated so far, from the cursor on.
        multi_line: whether the suggestion may span lines.
        final: whether generation has ended, so that the last line counts as complete.

    Returns:
        The length of the text to keep, or ``None`` if generation may continue.
    """
    return _EndFinder(cursor, multi_line).find(raw, final)


class _EndFinder:
    """One pass over generated text, line by line."""

    def __init__(self, cursor: CursorContext, multi_line: bool) -> None:
        self._cursor = cursor
        self._multi_line = multi_line
        self._opened: list[str] = []  # brackets that the generated text opened
        self._num_closed = 0  # brackets open at the cursor that it has closed
        self._inside = cursor.inside
        self._base = cursor.indentation if cursor.line else None
        self._lines: list[str] = []
        self._starts: list[int] = []
        self._scope_closed = False
        self._string_closed = False

    def find(self, raw: str, final: bool) -> int | None:
        position = 0
        lines = raw.split("\n")
        for number, line in enumerate(lines):
            complete = final or number < len(lines) - 1
            end = self._line(number, line, position, complete)
            if end is not None:
                return _end_before(raw, end)
            position += len(line) + 1
        start = 0 if final else max(0, len(raw) - _REPETITION_CHARS - 40)
        repeated = _REPETITION.search(raw, start)
        if repeated is not None and re.search(r"\w", repeated.group(1)):
            return _end_before(raw, repeated.end(1))
        return None

    def _line(self, number: int, line: str, start: int, complete: bool) -> int | None:
        """Process one line; returns the offset at which the text must end, if it is in this line."""
        if number > 0:
            end = self._line_start(line, start, complete)
            if end is not None:
                return end
        whole = (self._cursor.line if number == 0 else "") + line
        if number == 0 and self._cursor.line_is_blank and whole.strip():
            # Models sometimes indent deeper than the cursor; the following lines are relative to that.
            self._base = indentation_of(whole)
        if complete and self._is_echo(number, whole):
            return max(start - 1, 0)
        # Include the line break: a quote without a partner on its line does not start a string.
        cut = self._scan_line(line + "\n" if complete else line)
        if cut is not None:
            # If the closer that already exists is alone on its line, drop the whole line.
            return start + cut if line[:cut].strip() or number == 0 else start - 1
        if complete:
            self._lines.append(whole)
            self._starts.append(start)
            if len(self._lines) >= 3 and whole.strip() and len(set(self._lines[-3:])) == 1:
                return self._starts[-2] - 1
            if whole.strip() and (size := self._cycle()):
                return self._starts[-size] - 1
        return None

    def _cycle(self) -> int:
        """Length in lines of the block just repeated, or 0. Small models loop."""
        lines = self._lines
        for size in range(2, min(_MAX_CYCLE_LINES, len(lines) // 2) + 1):
            block = lines[-size:]
            if block == lines[-2 * size : -size] and sum(len(line.strip()) for line in block) >= _MIN_CYCLE_CHARS:
                return size
        return 0

    def _line_start(self, line: str, start: int, complete: bool) -> int | None:
        """Decide, at the line break before ``line``, whether the text must end there."""
        cursor = self._cursor
        nothing_yet = (
            not any(text.strip() for text in self._lines[1:]) and not self._lines[0][len(cursor.line) :].strip()
        )
        if self._scope_closed:
            return start - 1
        if not self._multi_line:
            # At a blank line the model may start with blank lines; otherwise only the cursor's line is wanted.
            return None if nothing_yet and cursor.line_is_blank else start - 1
        if not self._opened and self._num_closed == 0 and not cursor.syntax.after_opener and self._waits_for_rest():
            return start - 1
        if self._inside is not None or self._opened or not line.strip():
            return None
        indentation = indentation_of(line)
        if nothing_yet and not cursor.line_is_blank:
            opens = cursor.syntax.after_opener
            if opens and cursor.language.scope is not ScopeRule.BRACKETS and indentation <= cursor.indentation:
                return start - 1
            self._base = indentation if opens else cursor.indentation
        elif self._base is None:
            self._base = indentation
        if cursor.language.scope is ScopeRule.BRACKETS:
            return self._paragraph_end(start, indentation)
        if self._base is not None and indentation < self._base:
            return self._dedent(line, start, complete)
        return self._paragraph_end(start, indentation)

    def _dedent(self, line: str, start: int, complete: bool) -> int | None:
        cursor = self._cursor
        closing = cursor.language.closing_line
        if closing is None:
            return start - 1
        if not complete:
            return None
        following = cursor.next_line
        is_closed = re.fullmatch(closing, following.strip()) and indentation_of(following) == indentation_of(line)
        # The text after the cursor may already close the scope that `line` would close.
        if re.fullmatch(closing, line.strip()) is None or (following and is_closed):
            return start - 1
        self._scope_closed = True
        return None

    def _paragraph_end(self, start: int, indentation: int) -> int | None:
        """A blank line ends text that no block encloses."""
        cursor = self._cursor
        bounded = cursor.syntax.empty_block or cursor.syntax.after_opener
        if bounded and not (self._base == 0 and cursor.language.scope is not ScopeRule.BRACKETS):
            return None
        blank = len(self._lines) > 1 and not self._lines[-1].strip()
        has_text = any(line.strip() for line in self._lines[1:]) or self._lines[0].strip()
        top = self._base is not None and indentation <= self._base
        return start - 1 if blank and has_text and top else None

    def _waits_for_rest(self) -> bool:
        return any(fate in (Closer.IN_REST, Closer.IN_REST_CODE) for _, fate in self._cursor.open_brackets) or (
            self._cursor.open_string is not None and self._cursor.open_string[1] is not Closer.MISSING
        )

    def _is_echo(self, number: int, whole: str) -> bool:
        """Whether a complete line repeats the file's next line, or the line above."""
        cursor, text = self._cursor, whole.strip()
        if not re.search(r"\w", text) or self._inside is not None:
            return False
        grew = number > 0 or text != cursor.line.strip()
        following = cursor.next_line
        if grew and text == following.strip() and (number > 0 or cursor.line_is_blank):
            same = indentation_of(whole) == indentation_of(following) or (cursor.line_is_blank and number == 0)
            if same:
                return True
        above = cursor.previous_line.strip()
        first = not any(line.strip() for line in self._lines)
        return grew and first and text == above and len(text) >= _MIN_ECHO_CHARS

    def _scan_line(self, line: str) -> int | None:
        """Track brackets and strings in a line; returns the offset of a closer whose partner is closed elsewhere."""
        cursor = self._cursor
        position = 0
        if self._inside is not None:
            scan = scan_brackets(cursor.language, line, self._inside)
            if cursor.string_has_braces and not self._string_closed:
                cut = self._substitution_end(line[: scan.string_closed_at])
                if cut is not None:
                    return cut
            if scan.string_closed_at is None:
                self._inside = self._spanning(self._inside)
                return None
            if self._inside == cursor.inside and cursor.open_string is not None and not self._string_closed:
                self._string_closed = True
                delimiter, fate = cursor.open_string
                if fate in (Closer.BELOW, Closer.IN_REST_CODE):
                    return scan.string_closed_at - len(delimiter)
            position = scan.string_closed_at
        else:
            scan = scan_brackets(cursor.language, line)
        for bracket in scan.unmatched:
            place, character = bracket.position, bracket.character
            if place < position:
                continue
            if self._opened:
                if not closes(self._opened[-1], character):
                    return place
                self._opened.pop()
                continue
            end = self._close(place, character)
            if end is not None:
                return end
        self._opened += [bracket.character for bracket in scan.open]
        self._inside = self._spanning(scan.inside)
        return None

    def _substitution_end(self, line: str) -> int | None:
        """Offset at which the text closes a substitution that the rest of the string already closes."""
        depth = 0
        for place, character in enumerate(line):
            if character in OPENERS:
                depth += 1
            elif character in PARTNER:
                depth -= 1
            if depth < 0 and self._cursor.in_substitution:
                return place if PARTNER[character] != "{" or "}" in self._cursor.rest else None
            if depth < 0 and character == "}":
                return place
        return None

    def _close(self, place: int, character: str) -> int | None:
        """Match a closer with a bracket opened before the cursor; returns ``place`` if the closer is not allowed."""
        cursor = self._cursor
        if cursor.language.case_parentheses and character == ")":
            return None
        if self._num_closed >= len(cursor.open_brackets):
            return place
        opener, fate = cursor.open_brackets[self._num_closed]
        if not closes(opener, character) or fate in (Closer.BELOW, Closer.IN_REST_CODE):
            return place
        self._num_closed += 1
        if self._multi_line and fate is Closer.MISSING and cursor.language.scope is ScopeRule.BRACKETS:
            self._scope_closed = character in cursor.language.scope_closers
        return None

    def _spanning(self, inside: str | None) -> str | None:
        """The string or comment that continues on the next line, as its end delimiter."""
        if inside is None or inside == "\n":
            return None
        form = next((form for form in self._cursor.language.strings if form.closer == inside), None)
        return inside if form is None or form.multi_line else None


def indentation_at(text: str, position: int) -> int:
    """Indentation of the line that contains ``position``."""
    start = text.rfind("\n", 0, position) + 1
    return indentation_of(text[start : position + 1])


def wants_block(cursor: CursorContext, *, invoked: bool) -> bool:
    """Whether a suggestion should span lines: in an empty block, below a comment, or on request."""
    syntax = cursor.syntax
    if syntax.place is not Place.CODE or not cursor.rest_closes:
        return False
    if cursor.rest.strip() and not syntax.after_opener and not cursor.line_is_blank:
        return False
    return invoked or syntax.empty_block or syntax.after_opener or syntax.after_comment


def _closing_indentation(after: str, position: int) -> int | None:
    """Indentation of a closer that starts its line; ``None`` for any other closer."""
    start = after.rfind("\n", 0, position) + 1
    head = after[start:position]
    return None if start == 0 or head.strip() else indentation_of(head + "x")


def _end_before(raw: str, end: int) -> int:
    """``end`` without the line breaks before it."""
    end = max(end, 0)
    while end > 0 and raw[end - 1] == "\n":
        end -= 1
    return end


def _uses_tabs(before: str, after: str) -> bool | None:
    tabs = before.count("\n\t") + after.count("\n\t")
    spaces = before.count("\n  ") + after.count("\n  ")
    return None if tabs == spaces else tabs > spaces
