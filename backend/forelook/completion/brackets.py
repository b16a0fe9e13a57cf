"""Which brackets of a text are open and which close something before it, strings and comments left out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from forelook.completion.languages import Language, StringForm

OPENERS = "([{"
CLOSERS = ")]}"
PARTNER = {")": "(", "]": "[", "}": "{", "(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Bracket:
    """One bracket and where it stands."""

    position: int
    character: str


@dataclass(frozen=True, slots=True)
class BracketScan:
    """What a stretch of text leaves open.

    Attributes:
        unmatched: closers without an opener in the text, in order.
        open: openers without a closer in the text, outermost first.
        inside: the delimiter that would end the string or comment the text ends in; ``None`` in code.
        string_closed_at: where the string or comment that the text began in ended; ``None`` if it did not.
        in_comment: whether ``inside`` belongs to a comment.
    """

    unmatched: tuple[Bracket, ...]
    open: tuple[Bracket, ...]
    inside: str | None
    string_closed_at: int | None = None
    in_comment: bool = False


def scan_brackets(language: Language, text: str, inside: str | None = None) -> BracketScan:
    """Scan ``text``.

    Args:
        language: whose strings and comments to skip.
        text: code, beginning at any place outside strings and comments unless ``inside`` says otherwise.
        inside: the delimiter that ends the string or comment ``text`` begins in (``"\\n"`` for a line comment).
    """
    position, closed_at = 0, None
    if inside is not None:
        end = _end_of(language, text, 0, inside)
        if end is None:
            return BracketScan((), (), inside, None, _is_comment_end(language, inside))
        position = closed_at = end
    unmatched: list[Bracket] = []
    stack: list[Bracket] = []
    scanner = _scanner(language)
    while True:
        match = scanner.search(text, position)
        if match is None:
            break
        found, position = match.group(), match.end()
        if found in PARTNER:
            _count(Bracket(match.start(), found), stack, unmatched)
            continue
        kind = match.lastgroup
        if kind == "whole":
            continue
        if kind == "line":
            newline = text.find("\n", position)
            if newline < 0:
                return BracketScan(tuple(unmatched), tuple(stack), "\n", closed_at, in_comment=True)
            position = newline
            continue
        ender = _ender(language, found)
        end = _end_of(language, text, position, ender)
        if end is None:
            form = _form(language, ender)
            if form is not None and not form.multi_line and "\n" in text[position:]:
                continue  # a lone quote, such as an apostrophe in text or a lifetime
            return BracketScan(tuple(unmatched), tuple(stack), ender, closed_at, form is None)
        position = end
    return BracketScan(tuple(unmatched), tuple(stack), None, closed_at)


@lru_cache(maxsize=64)
def scan_cached(language: Language, text: str, inside: str | None = None) -> BracketScan:
    """``scan_brackets`` of a text that comes again at the next keystroke."""
    return scan_brackets(language, text, inside)


def join_scans(first: BracketScan, second: BracketScan, offset: int) -> BracketScan:
    """The scan of two stretches, of which ``second`` began in the state that ``first`` ended in, at ``offset``."""
    stack, unmatched = list(first.open), list(first.unmatched)
    for bracket in second.unmatched:
        _count(Bracket(bracket.position + offset, bracket.character), stack, unmatched)
    stack.extend(Bracket(bracket.position + offset, bracket.character) for bracket in second.open)
    return BracketScan(tuple(unmatched), tuple(stack), second.inside, first.string_closed_at, second.in_comment)


def _count(bracket: Bracket, stack: list[Bracket], unmatched: list[Bracket]) -> None:
    if bracket.character in OPENERS:
        stack.append(bracket)
        return
    partner = PARTNER[bracket.character]
    for depth in range(len(stack) - 1, -1, -1):
        if stack[depth].character == partner:
            del stack[depth:]
            return
    unmatched.append(bracket)


def _end_of(language: Language, text: str, position: int, ender: str) -> int | None:
    """Offset after the delimiter ``ender``, looking from ``position``; ``None`` when it does not come."""
    if ender == "\n":
        newline = text.find("\n", position)
        return None if newline < 0 else newline
    form = _form(language, ender)
    if form is None or not form.escapes:
        end = text.find(ender, position)
        if form is not None and not form.multi_line and 0 <= text.find("\n", position) < end:
            return None
        return None if end < 0 else end + len(ender)
    match = _string_rest(form.closer, form.multi_line).match(text, position)
    return None if match is None else match.end()


@lru_cache(maxsize=64)
def _string_rest(closer: str, multi_line: bool) -> re.Pattern[str]:
    head = re.escape(closer[0])
    if len(closer) == 1:
        plain = rf"[^\\{head}]" if multi_line else rf"[^\\{head}\n]"
        return re.compile(rf"{plain}*(?:\\.{plain}*)*{head}", re.DOTALL)
    return re.compile(rf"(?:[^\\{head}]|\\.|{head}(?!{re.escape(closer[1:])}))*{re.escape(closer)}", re.DOTALL)


def _form(language: Language, closer: str) -> StringForm | None:
    return next((form for form in language.strings if form.closer == closer), None)


def _ender(language: Language, opener: str) -> str:
    for form in language.strings:
        if form.opener == opener:
            return form.closer
    return next(end for start, end in language.block_comments if start == opener)


def _is_comment_end(language: Language, ender: str) -> bool:
    return ender == "\n" or any(end == ender for _, end in language.block_comments)


@lru_cache(maxsize=64)
def _scanner(language: Language) -> re.Pattern[str]:
    starts = [start for start, _ in language.block_comments] + [form.opener for form in language.strings]
    starts.sort(key=len, reverse=True)
    parts: list[str] = []
    whole: list[str] = []
    if language.name == "rust":
        whole.append(r"'(?:\\[^\n]{1,8}?|[^'\\\n])'")
    if language.name == "bash":
        whole.append(r"\\.|\$\#|\$\{\#")
    if language.regex_literals:
        whole.append(r"(?<=[(,=:\[!&|?{};])[ \t]*/(?![/*\s])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/")
    if whole:
        parts.append("(?P<whole>" + "|".join(whole) + ")")
    if starts:
        parts.append("(?P<start>" + "|".join(map(re.escape, starts)) + ")")
    if language.line_comments:
        marks = "|".join(map(re.escape, language.line_comments))
        # A hash inside a word is none in shells, nor is an attribute's in PHP.
        guard = r"(?<![^\s;(])" if language.name in ("bash", "yaml") else ""
        after = r"(?!\[)" if language.name == "php" else ""
        parts.append(f"(?P<line>{guard}(?:{marks}){after})")
    parts.append(r"[()\[\]{}]")
    return re.compile("|".join(parts))
