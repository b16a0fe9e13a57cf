"""Which brackets of a text are open and which close something before it, strings and comments left out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from forelook.completion.cursor.languages import Language, StringForm

OPENERS = "([{"
# Opens a substitution in a template string: ``${``.
TEMPLATE = "$"
_TEMPLATE_REST = re.compile(r"(?:[^`\\$]|\\.|\$(?!\{))*(`|\$\{)", re.DOTALL)
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
    return _Scanner(language, text).scan(inside)


class _Scanner:
    """One pass over one text."""

    def __init__(self, language: Language, text: str) -> None:
        self._language = language
        self._text = text
        self._unmatched: list[Bracket] = []
        self._stack: list[Bracket] = []
        self._closed_at: int | None = None

    def scan(self, inside: str | None) -> BracketScan:
        """Walk through the text from the state it begins in."""
        position = 0
        if inside is not None:
            end = self._skip(0, inside)
            if end is None:
                return self._result(inside)
            position = end
            # Where a template's substitution begins, the string goes on behind it.
            self._closed_at = None if self._stack else end
        pattern = _pattern(self._language)
        while True:
            match = pattern.search(self._text, position)
            if match is None:
                return self._result(None)
            found, position = match.group(), match.end()
            if match.lastgroup == "whole":
                continue
            if found in PARTNER:
                popped = _count(Bracket(match.start(), found), self._stack, self._unmatched)
                if popped != TEMPLATE:
                    continue
                ender = "`"
            else:
                ender = "\n" if match.lastgroup == "line" else _ender(self._language, found)
            end = self._skip(position, ender)
            if end is not None:
                if inside == ender == "`" and self._closed_at is None and not self._stack:
                    self._closed_at = end
                position = end
                continue
            form = _form(self._language, ender)
            if form is None or form.multi_line or "\n" not in self._text[position:]:
                return self._result(ender)
            # A lone quote, such as an apostrophe in text, is no string.

    def _skip(self, position: int, ender: str) -> int | None:
        """Offset after the end of a string or comment, or after a template's ``${``; ``None`` if it does not come."""
        if ender != "`" or not self._language.regex_literals:
            return _end_of(self._language, self._text, position, ender)
        match = _TEMPLATE_REST.match(self._text, position)
        if match is None:
            return None
        if match.group(1) == "${":
            self._stack.append(Bracket(match.end() - 1, TEMPLATE))
        return match.end()

    def _result(self, inside: str | None) -> BracketScan:
        is_comment = inside is not None and _is_comment_end(self._language, inside)
        return BracketScan(tuple(self._unmatched), tuple(self._stack), inside, self._closed_at, is_comment)


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


def closes(opener: str, closer: str) -> bool:
    """Whether a closing bracket ends what an opening one began."""
    return PARTNER[closer] == ("{" if opener == TEMPLATE else opener)


def _count(bracket: Bracket, stack: list[Bracket], unmatched: list[Bracket]) -> str | None:
    """Take one bracket into account; returns the opener it closed, if any."""
    if bracket.character in OPENERS:
        stack.append(bracket)
        return None
    for depth in range(len(stack) - 1, -1, -1):
        if closes(stack[depth].character, bracket.character):
            opener = stack[depth].character
            del stack[depth:]
            return opener
    unmatched.append(bracket)
    return None


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
def _pattern(language: Language) -> re.Pattern[str]:
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
