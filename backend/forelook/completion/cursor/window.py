"""The part of a document that a parser needs in order to judge an insertion at the cursor.

Kept are the lines near the cursor and, of the others, those that open or close a block around these, found by
indentation: in a class of 2,000 lines some methods, between the first line of the class and its closing bracket.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from forelook.completion.cursor.brackets import PARTNER, scan_brackets, scan_cached
from forelook.completion.cursor.syntax import indentation_of
from forelook.languages import Language, ScopeRule

# measured: docs/decisions.md, "A suggestion never adds a syntax error"
_CHARS_BEFORE, _CHARS_AFTER = 4_000, 2_000
_SLACK = 2_000  # searched for the line where a cut separates least; chosen, not measured
_STEP = 1_024  # the window's start moves in such steps, so that it stays while the user types; chosen, not measured
_MAX_SIGNATURE_LINES = 64  # chosen, not measured
# The start of a line that closes a block, or continues what a line above with the same indentation began.
_CLOSES = re.compile(r"\s*(?:[})\]>]|/>|</|(?:end|fi|done|esac|until)\b)")
_CONTINUES = re.compile(
    r"\s*(?:\*|[})\]>]|\{\s*$|/>|</|(?:public|private|protected):|(?:end|fi|done|esac|until|do|then|else|elif|elsif|when"
    r"|rescue|ensure|catch|except|finally|case|default)\b)"
)
_COMMENT = re.compile(r"\s*(?:$|#|//|/?\*)")
# A line that the next one continues, and a line that ends a signature of several lines.
_UNFINISHED = re.compile(r"(?:[,=(\[+*|&?<\\]|=>)\s*$|^\s*(?:@|#\[|template\b)")
_ENDS_SIGNATURE = re.compile(r"\s*[)\]>]|\s*/>")
_TAG = re.compile(r"<(/?)([A-Za-z][\w:-]*)[^<>]*?(/?)>")
_VOID_ELEMENTS = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")
)
_OPENS = re.compile(r"[\[({:]\s*$")


@dataclass(frozen=True, slots=True)
class Window:
    """The text to parse.

    Attributes:
        before, after: around the cursor.
        first_row, last_row: of the lines near the cursor, counted from 0.
        is_cut: whether anything is left out.
    """

    before: str
    after: str
    first_row: int
    last_row: int
    is_cut: bool


def window_of(language: Language, before: str, after: str, inside: str | None = None) -> Window:
    """The window around the cursor between ``before`` and ``after``; ``inside`` ends the string or comment there."""
    start, end = _start(language, before), _end(language, after)
    start += _rest_of_string(language, before[start:], inside) if start else 0
    end += _end_of_string(language, after[:end], after[end:], inside)
    near, rest = before[start:], after[:end]
    first = (near + rest).lstrip("\n").split("\n", 1)[0]
    head = _opening_lines(language, before[:start], first) if start else ""
    tail = _closing_lines(after[end:]) if end < len(after) else ""
    if tail and not language.trailing_comma and rest.rstrip().endswith(","):
        rest = rest.rstrip()[:-1] + "\n"
    first_row = head.count("\n")
    last_row = first_row + near.count("\n") + rest.count("\n") - bool(tail)
    return Window(head + near, rest + tail, first_row, last_row, start > 0 or end < len(after))


def completed(language: Language, window: Window, *, own_closed: bool) -> Window:
    """The window with blocks opened and closed that its cut left open.

    These are blocks around unindented lines, as of C++ namespaces, and elements of HTML.

    Args:
        language: of the document.
        window: cut.
        own_closed: whether the document closes the bracket that the cursor's line leaves open; else that stays open.
    """
    if language.delimiter_nodes:
        return _with_elements(window)
    return _with_unindented_blocks(language, window, own_closed) if language.unindented_blocks else window


def _with_unindented_blocks(language: Language, window: Window, own_closed: bool) -> Window:
    text, cursor = window.before + window.after, len(window.before)
    scan = scan_brackets(language, text)
    strays = [each.position for each in scan.unmatched if text[each.position - 1 : each.position] in ("", "\n")]
    starts = [(text.rfind("\n", 0, each.position) + 1, each.character) for each in scan.open]
    own = -1 if own_closed else text.rfind("\n", 0, cursor) + 1
    missing = [
        PARTNER[each] for start, each in starts if each in PARTNER and start != own and not text[start].isspace()
    ]
    if not strays and not missing:
        return window
    for position in strays:
        text = text[:position] + " " + text[position + 1 :]
    return replace(window, before=text[:cursor], after=text[cursor:] + "\n" + "\n".join(reversed(missing)) + "\n")


def _with_elements(window: Window) -> Window:
    text = window.before + window.after
    own = text.rfind("\n", 0, len(window.before)) + 1
    own_end = text.find("\n", len(window.before))
    strays: list[str] = []
    opened: list[tuple[str, bool]] = []
    for tag in _TAG.finditer(text):
        end, name, alone = tag.groups()
        names = [other for other, _ in opened]
        if alone or name.lower() in _VOID_ELEMENTS:
            continue
        if not end:
            opened.append((name, own <= tag.start() and (tag.start() < own_end or own_end < 0)))
        elif name in names:
            del opened[len(names) - 1 - names[::-1].index(name) :]
        else:
            strays.append(name)
    head = "".join(f"<{name}>" for name in reversed(strays)) + "\n"
    tail = "\n" + "".join(f"</{name}>" for name, is_own in reversed(opened) if not is_own) + "\n"
    first_row, last_row = window.first_row + 1, window.last_row + 1
    return Window(head + window.before, window.after + tail, first_row, last_row, window.is_cut)


def _start(language: Language, before: str) -> int:
    """Where the lines near the cursor start: at the line with the least indentation in some that come into question."""
    least = len(before) - _CHARS_BEFORE
    least -= least % _STEP
    if least <= 0:
        return 0
    found = _least_indented(language, before[: before.rfind("\n") + 1], least)
    return 0 if found is None else found


def _end(language: Language, after: str) -> int:
    """Where the lines near the cursor end, by the same rule."""
    found = _least_indented(language, after, _CHARS_AFTER)
    return len(after) if found is None else found


def _rest_of_string(language: Language, near: str, inside: str | None) -> int:
    """Length of the end of a string of several lines that ``near`` starts in, with the rest of its line."""
    line = near.rfind("\n") + 1

    def ends_as_it_should(start: str | None) -> bool:
        above = scan_cached(language, near[:line], start)
        return scan_brackets(language, near[line:], above.inside).inside == inside

    if ends_as_it_should(None):
        return 0
    for form in language.strings:
        if form.multi_line and ends_as_it_should(form.closer):
            closed = scan_cached(language, near[:line], form.closer).string_closed_at
            return 0 if closed is None else near.find("\n", closed - 1) + 1
    return 0


def _end_of_string(language: Language, rest: str, below: str, inside: str | None) -> int:
    """Length of the end of a string of several lines that ``rest`` ends in, with the rest of its line."""
    open_string = scan_cached(language, rest, inside).inside if below else None
    if open_string is None or open_string == "\n":
        return 0
    closed = below.find(open_string)
    return 0 if closed < 0 else below.find("\n", closed) + 1 or len(below)


def _least_indented(language: Language, text: str, start: int) -> int | None:
    """The start of the least indented line from ``start`` on, in the slack, that continues none above."""
    best: tuple[int, int] | None = None
    position = text.find("\n", start) + 1
    above = text[text.rfind("\n", 0, max(position - 1, 0)) + 1 : position - 1]
    while 0 < position < len(text) and (best is None or position < start + _SLACK):
        end = text.find("\n", position)
        line = text[position : len(text) if end < 0 else end]
        own = indentation_of(line) if line[:1] in " \t" else 0
        continues = language.trailing_comma and _UNFINISHED.search(above) is not None
        if line.strip() and (best is None or own < best[0]) and not continues and not _CONTINUES.match(line):
            best = own, position
            if own == 0:
                break
        above, position = line, end + 1
    return None if best is None else best[1]


@lru_cache(maxsize=8)  # both texts stay while a line is typed
def _opening_lines(language: Language, above: str, first: str) -> str:
    """The lines of ``above`` that open the blocks which its end, followed by the line ``first``, is in."""
    lines = above.split("\n")[:-1]
    indentation, continues = indentation_of(first), _CONTINUES.match(first) is not None
    deeper = _deeper(first)
    kept: list[str] = []
    limit = len(lines)
    for number in range(len(lines) - 1, -1, -1):
        if indentation == 0 and not continues:
            break
        line = lines[number]
        if line.startswith(deeper) or _COMMENT.match(line):
            continue
        own = indentation_of(line)
        same = continues and own == indentation
        if not same and own >= indentation:
            continue
        continues = _CONTINUES.match(line) is not None
        if same and continues:
            continue
        indentation, deeper = own, _deeper(line)
        kept[:0] = _signature(language, lines, number, limit)
        limit = number
    if language.island is not None and above.rfind(language.island[0]) > above.rfind(language.island[1]):
        kept.insert(0, language.island[2])
    return "".join(line + "\n" for line in kept)


def _signature(language: Language, lines: list[str], first: int, limit: int) -> list[str]:
    """The line ``first``, which opens a block, and those after it up to the bracket that does so, before ``limit``."""
    if limit - first <= _MAX_SIGNATURE_LINES and limit < len(lines) and _ENDS_SIGNATURE.match(lines[limit]):
        return lines[first:limit]
    if _CONTINUES.match(lines[first]):
        return [lines[first]]
    last, limit = first, min(limit, first + _MAX_SIGNATURE_LINES)
    depth = lines[first].count("(") - lines[first].count(")")
    while depth > 0 and last + 1 < limit:
        last += 1
        depth += lines[last].count("(") - lines[last].count(")")
    if depth > 0:
        return [lines[first]]  # what follows is within the brackets
    if language.scope is ScopeRule.BRACKETS:
        opener = next((number for number in range(last, limit) if _OPENS.search(lines[number])), last)
        return lines[first : opener + 1]
    return lines[first : last + 1]


@lru_cache(maxsize=8)
def _closing_lines(below: str) -> str:
    """The lines of ``below`` that close the blocks which its start is in."""
    kept: list[str] = []
    indentation, opened = -1, False
    deeper: tuple[str, ...] = ("\0",)
    position = 0
    while position < len(below) and (indentation != 0 or opened):
        end = below.find("\n", position) + 1 or len(below)
        start, position = position, end
        if below.startswith(deeper, start):
            continue
        line = below[start:end].rstrip("\n")
        if _COMMENT.match(line):
            continue
        own = indentation_of(line)
        if indentation < 0:
            indentation = own + (_CONTINUES.match(line) is not None)
        if own > indentation or (own == indentation and not opened):
            continue
        indentation, deeper, opened = own, _deeper(line), False
        if _CONTINUES.match(line):
            kept.append(line)
            opened = not _CLOSES.match(line) or _OPENS.search(line) is not None
    return "".join(line + "\n" for line in kept)


def _deeper(line: str) -> tuple[str, ...]:
    """How lines begin that are surely indented more than ``line``."""
    own = line[: len(line) - len(line.lstrip())]
    return own + " ", own + "\t"
