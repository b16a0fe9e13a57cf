"""From generated text to an edit that duplicates nothing, deletes nothing and follows the file's indentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from forelook.completion.cursor.brackets import BracketScan, scan_brackets
from forelook.completion.cursor.guard import SyntaxGuard, is_balanced, opens_nothing
from forelook.completion.cursor.stopping import Closer, CursorContext, find_end, look_around
from forelook.completion.cursor.syntax import Place, indentation_of
from forelook.languages import Language, ScopeRule
from forelook.protocol.messages import Suggestion

_HALF_WORD = re.compile(r"(?<!\w)\d[\w.]*$|\w+$")
_NEXT_LINE = re.compile(r"(?P<break>\n+[ \t]*)(?P<line>[^\n]*\S[^\n]*)\n")
_MIN_OVERLAP = 3  # chosen, not measured
_ONLY_OPENS = re.compile(r"""[\[({]+|\"\"\"|\'\'\'|["'`]""")
_PUNCTUATION = re.compile(r"\s*[:;,{]\s*")
_WORD = re.compile(r"\w+")
_QUOTES = ("'", '"', "`")
# Where a text may be cut within a line: after a word, a closer, a quote or a statement.
_CUT = re.compile(r"""\w+|\"{3}|'{3}|[)\]}>"'`;]""")
_MAX_LINE_CUTS, _MAX_WORD_CUTS, _MAX_JUDGED = 12, 16, 10  # chosen, not measured


@dataclass(frozen=True, slots=True)
class CleanText:
    """A cleaned suggestion.

    Attributes:
        text: the text to insert at the cursor.
        num_covered: how many characters of the rest of the line it replaces; ``text`` contains them, in order.
        raw_tail: generated text beyond ``text``, not cleaned.
    """

    text: str
    num_covered: int
    raw_tail: str


def clean(
    cursor: CursorContext,
    raw: str,
    *,
    multi_line: bool,
    interrupted: bool = False,
    ended: bool = False,
    invoked: bool = False,
) -> CleanText | None:
    """Clean up generated text; ``None`` if nothing worth inserting is left.

    The document with the result has no more syntax errors than without, and its line is as balanced as it was: where
    the text would break either, it is cut to its longest beginning that does not.

    Args:
        cursor: the cursor's context.
        raw: generated text, from the cursor on.
        multi_line: whether it may span lines.
        interrupted: whether generation was truncated, so that its last line, string or word may be incomplete.
        ended: whether a model that has seen the text after the cursor ended it by itself, so that both fit together.
        invoked: whether the user asked, so that the rest of the word at the cursor may be replaced.
    """
    if cursor.splits_delimiter:
        return None
    end = find_end(cursor, raw, multi_line=multi_line, final=True)
    if interrupted and (end is None or end == len(raw)):
        end = _last_whole(cursor, raw)
    kept = raw if end is None else raw[:end]
    tail = raw[len(kept) :]
    word = _WORD.match(cursor.rest)
    if word is not None:
        fits = ended and kept == raw
        return _first_sound(cursor, _before_word(cursor, kept, word.group(), fits=fits, invoked=invoked))
    found = _first_sound(cursor, _candidates(cursor, kept))
    if found is None:
        return None
    whole = not found.num_covered and kept.startswith(found.text) and not kept[len(found.text) :].strip()
    return CleanText(found.text, found.num_covered, tail if whole else "")


def _first_sound(cursor: CursorContext, candidates: Iterator[tuple[str, int]]) -> CleanText | None:
    """The first candidate, a text and how much it covers, that neither unbalances nor breaks the document."""
    guard, seen, num_judged = SyntaxGuard(cursor), set[tuple[str, int]](), 0
    for text, covered in candidates:
        if (text, covered) in seen or not text.strip() or (not covered and _only_restates(cursor, text)):
            continue
        seen.add((text, covered))
        if cursor.rest.strip() and not is_balanced(cursor, text, covered):
            continue
        if guard.allows(text, covered):
            return CleanText(text, covered, "")
        num_judged += 1
        if num_judged == _MAX_JUDGED:
            break
    return None


def _candidates(cursor: CursorContext, kept: str) -> Iterator[tuple[str, int]]:
    """What could be inserted, the longest first: the text, its whole lines, the words of its first line."""
    yield from _fits(cursor, kept)
    breaks = [match.start() for match in re.finditer("\n", kept)]
    first_line = kept.split("\n", 1)[0]
    words = [match.end() for match in _CUT.finditer(first_line)]
    for end in breaks[: -_MAX_LINE_CUTS - 1 : -1] + words[: -_MAX_WORD_CUTS - 1 : -1]:
        cut = kept[:end]
        if _WORD.search(cut) and (cursor.rest.strip() or opens_nothing(cursor, cut)):
            yield from _fits(cursor, cut)


def _fits(cursor: CursorContext, kept: str) -> Iterator[tuple[str, int]]:
    """The ways in which a text may meet the rest of the line."""
    text = _without_trailing_comma(cursor, _indented(cursor, kept))
    fitted, covered = _fit_rest(cursor, text)
    yield _trim(cursor, fitted, covered), covered
    # What closes a bracket that the rest closes and opens another one is another place's text.
    if (fitted != text or covered) and (cursor.open_string is not None or _first_closing(cursor, text) is None):
        whole = _trim(cursor, text, 0)
        if whole[-1:] not in _QUOTES or opens_nothing(cursor, whole):
            yield whole, 0


def _before_word(
    cursor: CursorContext, kept: str, word: str, *, fits: bool, invoked: bool
) -> Iterator[tuple[str, int]]:
    """What may be inserted where a word follows the cursor. No part of the text: its words belong to another line.

    A text that ends with the word; one that the model ended there itself (``fits``); on request, another word in place
    of the rest of this one.
    """
    size = max(_overlap(kept, cursor.rest), len(word) if kept.endswith(word) else 0)
    if size >= len(word):
        yield kept[:-size], 0
    elif fits:
        yield kept, 0
    replacement = _WORD.match(kept)
    if not invoked or replacement is None or replacement.group() == word:
        return
    if _subsequence_length(word, replacement.group()) == len(word):
        yield replacement.group(), len(word)


def next_line(language: Language, before: str, after: str, tail: str) -> str:
    """The line to suggest right after a suggestion is accepted, from the text generated beyond it; may be empty.

    Only a complete line qualifies, because generation usually ends within a line. It is cleaned like any suggestion:
    it may already exist, which is often why the suggestion ended before it.

    Args:
        language: of the document.
        before: text before the cursor once the suggestion is accepted.
        after: text after the cursor.
        tail: text generated beyond the suggestion.
    """
    match = _NEXT_LINE.match(tail)
    if match is None or after.split("\n", 1)[0].strip():
        return ""
    cursor = look_around(language, before + match.group("break"), after)
    cleaned = clean(cursor, match.group("line"), multi_line=False)
    return match.group("break") + cleaned.text if cleaned is not None and not cleaned.num_covered else ""


def to_suggestion(cursor: CursorContext, cleaned: CleanText, offset: int) -> Suggestion:
    """The edit at cursor ``offset``; on a blank line it starts at the line's start and includes the indentation."""
    end = offset + cleaned.num_covered
    if cursor.line and cursor.line_is_blank:
        return Suggestion(cursor.line + cleaned.text, offset - len(cursor.line), end)
    return Suggestion(cleaned.text, offset, end)


def _last_whole(cursor: CursorContext, raw: str) -> int:
    """End of the complete part of truncated text: before its last line, or before an incomplete string or word."""
    newline = raw.rfind("\n")
    if newline >= 0 and raw[:newline].strip():
        return newline
    end = _half_string(cursor, raw)
    word = _HALF_WORD.search(raw, 0, end)
    end = end if word is None else word.start()
    return end if raw[:end].strip() else 0


def _half_string(cursor: CursorContext, raw: str) -> int:
    """Start of a single-line string that the text leaves open; the end of the text if there is none."""

    def scan(end: int) -> BracketScan:
        return scan_brackets(cursor.language, raw[:end], cursor.inside)

    end = len(raw)
    last = scan(end)
    if last.inside is None or last.in_comment or len(last.inside) > 1:
        return end  # triple-quoted text is prose; its words are useful
    if cursor.inside is not None and last.string_closed_at is None:
        return end  # the user's own string
    return next((start for start in range(end - 1, -1, -1) if scan(start).inside is None), end)


def _indented(cursor: CursorContext, text: str) -> str:
    """Indent as the file does; on a blank line, the first line is at the cursor's level or one deeper."""
    if cursor.line_is_blank and cursor.syntax.place is Place.CODE:
        blank = re.match(r"(?:[ \t]*\n)+", text)
        if blank is not None:
            text = text[blank.end() :]
            # The text has indentation of its own after the break; the cursor's line already has some.
            own = text[: len(text) - len(text.lstrip(" \t"))]
            if own.startswith(cursor.line):
                text = text[len(cursor.line) :]
        text = _without_excess(cursor, text)
    if cursor.uses_tabs is None or "\n" not in text:
        return text
    first, *others = text.split("\n")
    spaces = [len(line) - len(line.lstrip(" ")) for line in others if line.startswith(" ") and line.strip()]
    if cursor.uses_tabs and spaces:
        unit = 2 if any(count % 4 for count in spaces) else 4
        others = [_respaced(line, unit, "\t") for line in others]
    elif not cursor.uses_tabs and any(line.startswith("\t") for line in others):
        others = [_untabbed(line) for line in others]
    return "\n".join([first, *others])


def _without_trailing_comma(cursor: CursorContext, text: str) -> str:
    """Drop a comma before a closing bracket in a language that forbids it; models add one in order to continue."""
    stripped = text.rstrip()
    if cursor.language.trailing_comma or not stripped.endswith(",") or cursor.rest.strip(" \t\"'"):
        return text
    return stripped[:-1] if cursor.next_line.strip().startswith(("}", "]")) else text


def _without_excess(cursor: CursorContext, text: str) -> str:
    """Drop indentation that the cursor's line already has."""
    own = text[: len(text) - len(text.lstrip(" \t"))]
    if not own or not text.strip():
        return text
    opened = re.search(cursor.language.opener, cursor.previous_line) is not None
    above = indentation_of(cursor.previous_line)
    have = cursor.indentation
    unopened = cursor.language.scope is ScopeRule.INDENTATION and not opened and not cursor.open_brackets
    if not (opened and have > above) and not (unopened and have > 0):
        return text
    excess = indentation_of(cursor.line + text) - have
    if excess <= 0:
        return text
    first, *others = text.split("\n")
    return "\n".join([first.lstrip(" \t"), *(_dedented(line, excess, have) for line in others)])


def _dedented(line: str, columns: int, least: int) -> str:
    """The line with up to ``columns`` less indentation, but at least ``least``."""
    own = len(line) - len(line.lstrip(" "))
    return line[max(0, min(own - least, columns)) :]


def _respaced(line: str, unit: int, indent: str) -> str:
    stripped = line.lstrip(" ")
    count = len(line) - len(stripped)
    return indent * (count // unit) + " " * (count % unit) + stripped


def _untabbed(line: str) -> str:
    stripped = line.lstrip("\t")
    return "    " * (len(line) - len(stripped)) + stripped


def _fit_rest(cursor: CursorContext, text: str) -> tuple[str, int]:
    """Reconcile the text with the rest of the cursor's line.

    Returns:
        The text, and how many characters of the rest it replaces.
    """
    rest = cursor.rest
    if not rest.strip():
        return text, 0
    if not cursor.rest_closes:
        return _without_overlap(text, rest), 0
    start = _first_closing(cursor, text)
    if start is None:
        angle = _unopened_angle(text) if rest.lstrip().startswith(">") else None
        if angle is not None:
            return text[:angle], 0
        return (_without_overlap(text, rest) if _PUNCTUATION.fullmatch(rest) else text), 0
    closing = text[start:]
    if "".join(closing.split()) == "".join(rest.split()) or "".join(rest.split()).startswith("".join(closing.split())):
        return text[:start], 0
    # The text replaces exactly the closers that it contains itself, except those of brackets it opened.
    covered, last = _closers_covered(cursor, text)
    if _subsequence_length(rest[:covered], closing) < covered:
        return text[:start], 0
    punctuation = _PUNCTUATION.match(rest, covered)
    if punctuation is not None and punctuation.end() == len(rest):
        covered += _subsequence_length(rest[covered:], text[last:])
    return text, covered


def _closers_covered(cursor: CursorContext, text: str) -> tuple[int, int]:
    """How far the rest of the line duplicates closers of the text, and the offset after the last one in the text."""
    position = last = 0
    scan = scan_brackets(cursor.language, text, cursor.inside)
    if cursor.open_string is not None and cursor.open_string[1] is Closer.IN_REST:
        position = cursor.rest.find(cursor.open_string[0]) + len(cursor.open_string[0])
        last = scan.string_closed_at or 0
    for bracket, (_, fate) in zip(scan.unmatched, cursor.open_brackets, strict=False):
        if fate is Closer.IN_REST:
            position = cursor.rest.find(bracket.character, position) + 1
            last = bracket.position + 1
    return position, last


def _first_closing(cursor: CursorContext, text: str) -> int | None:
    """Offset of the first closer in the text that the rest of the line also has."""
    scan = scan_brackets(cursor.language, text, cursor.inside)
    if cursor.open_string is not None and cursor.open_string[1] is Closer.IN_REST:
        return None if scan.string_closed_at is None else scan.string_closed_at - len(cursor.open_string[0])
    for bracket, (_, fate) in zip(scan.unmatched, cursor.open_brackets, strict=False):
        if fate is Closer.IN_REST:
            return bracket.position
    return None


def _unopened_angle(text: str) -> int | None:
    """Offset of an angle bracket that the text closes but did not open, outside other brackets; skips arrows."""
    depth = angles = 0
    for position, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "<" and depth == 0:
            angles += 1
        elif character == ">" and depth == 0 and text[max(0, position - 1) : position] not in ("-", "="):
            angles -= 1
            if angles < 0:
                return position
    return None


def _subsequence_length(rest: str, closing: str) -> int:
    """How many leading characters of ``rest`` are a subsequence of ``closing``."""
    position = 0
    for count, character in enumerate(rest):
        position = closing.find(character, position) + 1
        if position == 0:
            return count
    return len(rest)


def _without_overlap(text: str, rest: str) -> str:
    """Drop the end of the text that the rest of the line repeats."""
    return text[: len(text) - _overlap(text, rest)]


def _overlap(text: str, rest: str) -> int:
    """Length of the end of the text that the rest of the line repeats."""
    for following in (rest.rstrip(), rest.strip()):
        for size in range(min(len(text), len(following)), 0, -1):
            if text.endswith(following[:size]) and (size == len(following) or size >= _MIN_OVERLAP):
                return size
    return 0


def _trim(cursor: CursorContext, text: str, covered: int) -> str:
    """Drop trailing space and blank lines; within a line a trailing space may separate words."""
    if cursor.rest.strip() and not covered and "\n" not in text:
        if cursor.rest[0] in " \t":
            return text.rstrip(" \t")  # the line already has the separator
        return text if not cursor.rest_closes else text.rstrip(" \t") if not text.isspace() else text
    lines = text.split("\n")
    if cursor.syntax.place is Place.CODE:
        lines = [line if line.strip() else "" for line in lines[:-1]] + lines[-1:]
    trimmed = "\n".join(lines)
    if covered or (cursor.rest.strip() and not lines[-1].strip()):
        return trimmed  # the rest of the line continues from here
    return trimmed.rstrip(" \t\n")


def _only_restates(cursor: CursorContext, text: str) -> bool:
    """Whether the text only opens a bracket or string, or repeats what follows the cursor."""
    if cursor.open_string is None and _ONLY_OPENS.fullmatch(text.strip()):
        return True
    following = cursor.rest.strip()
    return bool(following) and following.startswith(text.strip()) and not re.search(r"\w", text)
