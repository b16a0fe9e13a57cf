"""Finds unmatched brackets in a text, outside strings and comments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from forelook.languages import Language, StringForm

OPENERS = "([{"
# The opener of a substitution, ``${``, in a string that allows it.
SUBSTITUTION = "$"
_CLOSERS_ONLY = re.compile(r"""[ \t]*[)>}\]"'`]*[ \t]*[:{;,]?[ \t]*""")
PARTNER = {")": "(", "]": "[", "}": "{", "(": ")", "[": "]", "{": "}"}


def rest_is_closers(rest: str) -> bool:
    """Whether the rest of a line is at most closing brackets, quotes and one ``:``, ``{``, ``;`` or ``,``."""
    return len(rest) <= 64 and _CLOSERS_ONLY.fullmatch(rest) is not None


@dataclass(frozen=True, slots=True)
class Bracket:
    """One bracket and its offset."""

    position: int
    character: str


@dataclass(frozen=True, slots=True)
class BracketScan:
    """The brackets of a text that have no partner in it, and the state at its end.

    Attributes:
        unmatched: closers without an opener in the text, in order.
        open: openers without a closer in the text, outermost first.
        inside: the delimiter that would end the string or comment at the end of the text; ``None`` in code.
        string_closed_at: offset after the string or comment that the text began in; ``None`` if it does not end.
        in_comment: whether ``inside`` belongs to a comment.
    """

    unmatched: tuple[Bracket, ...]
    open: tuple[Bracket, ...]
    inside: str | None
    string_closed_at: int | None = None
    in_comment: bool = False


def scan_brackets(language: Language, text: str, inside: str | None = None) -> BracketScan:
    """Scan ``text`` for brackets, in linear time.

    Args:
        language: defines strings and comments.
        text: code that starts outside strings and comments, unless ``inside`` is given.
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
        """Scan the text, starting in the state ``inside``."""
        position = 0
        if inside is not None:
            end = self._skip(0, inside)
            if end is None:
                return self._result(inside)
            position = end
            # At a substitution the string is interrupted, not closed.
            self._closed_at = None if self._stack else end
        pattern = _pattern(self._language)
        while True:
            match = pattern.search(self._text, position)
            if match is None:
                return self._result(None)
            found, position = match.group(), match.end()
            if match.lastgroup == "opaque":
                continue
            if found in PARTNER:
                popped = _count(Bracket(match.start(), found), self._stack, self._unmatched)
                if popped != SUBSTITUTION:
                    continue
                ender = next(form.closer for form in self._language.strings if form.substitutions)
            else:
                ender = "\n" if match.lastgroup == "line" else _ender(self._language, found)
            end = self._skip(position, ender)
            if end is not None:
                if (
                    inside == ender
                    and self._closed_at is None
                    and not self._stack
                    and _substitutes(self._language, ender)
                ):
                    self._closed_at = end
                position = end
                continue
            form = _form(self._language, ender)
            if form is None or form.multi_line or "\n" not in self._text[position:]:
                return self._result(ender)
            # A quote without a partner on its line, such as an apostrophe, does not start a string.

    def _skip(self, position: int, ender: str) -> int | None:
        """Offset after the end of a string or comment, or after a substitution's ``${``; ``None`` without either."""
        if not _substitutes(self._language, ender):
            return _end_of(self._language, self._text, position, ender)
        match = _rest_with_substitutions(ender).match(self._text, position)
        if match is None:
            return None
        if match.group(1) == "${":
            self._stack.append(Bracket(match.end() - 1, SUBSTITUTION))
        return match.end()

    def _result(self, inside: str | None) -> BracketScan:
        is_comment = inside is not None and _is_comment_end(self._language, inside)
        return BracketScan(tuple(self._unmatched), tuple(self._stack), inside, self._closed_at, is_comment)


@lru_cache(maxsize=64)
def scan_cached(language: Language, text: str, inside: str | None = None) -> BracketScan:
    """``scan_brackets``, cached: the text above and below the cursor's line recurs at the next keystroke."""
    return scan_brackets(language, text, inside)


def join_scans(first: BracketScan, second: BracketScan, offset: int) -> BracketScan:
    """The scan of two adjacent texts; ``second`` was scanned from the state at the end of ``first``, at ``offset``."""
    stack, unmatched = list(first.open), list(first.unmatched)
    for bracket in second.unmatched:
        _count(Bracket(bracket.position + offset, bracket.character), stack, unmatched)
    stack.extend(Bracket(bracket.position + offset, bracket.character) for bracket in second.open)
    return BracketScan(tuple(unmatched), tuple(stack), second.inside, first.string_closed_at, second.in_comment)


def closes(opener: str, closer: str) -> bool:
    """Whether two brackets are a pair."""
    return PARTNER[closer] == ("{" if opener == SUBSTITUTION else opener)


def _count(bracket: Bracket, stack: list[Bracket], unmatched: list[Bracket]) -> str | None:
    """Push or match one bracket; returns the opener it closed, if any."""
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
    """Offset after the first delimiter ``ender`` from ``position`` on; ``None`` if there is none."""
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


@lru_cache(maxsize=8)
def _rest_with_substitutions(closer: str) -> re.Pattern[str]:
    end = re.escape(closer)
    return re.compile(rf"(?:[^{end}\\$]|\\.|\$(?!\{{))*({end}|\$\{{)", re.DOTALL)


@lru_cache(maxsize=64)
def _string_rest(closer: str, multi_line: bool) -> re.Pattern[str]:
    head = re.escape(closer[0])
    if len(closer) == 1:
        plain = rf"[^\\{head}]" if multi_line else rf"[^\\{head}\n]"
        return re.compile(rf"{plain}*(?:\\.{plain}*)*{head}", re.DOTALL)
    return re.compile(rf"(?:[^\\{head}]|\\.|{head}(?!{re.escape(closer[1:])}))*{re.escape(closer)}", re.DOTALL)


def _form(language: Language, closer: str) -> StringForm | None:
    return next((form for form in language.strings if form.closer == closer), None)


def _substitutes(language: Language, closer: str) -> bool:
    form = _form(language, closer)
    return form is not None and form.substitutions


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
    if language.opaque:
        parts.append("(?P<opaque>" + "|".join(language.opaque) + ")")
    if starts:
        parts.append("(?P<start>" + "|".join(map(re.escape, starts)) + ")")
    if language.line_comments:
        marks = "|".join(map(re.escape, language.line_comments))
        behind = f"(?<!{language.not_after})" if language.not_after else ""
        ahead = f"(?!{language.not_before})" if language.not_before else ""
        parts.append(f"(?P<line>{behind}(?:{marks}){ahead})")
    parts.append(r"[()\[\]{}]")
    return re.compile("|".join(parts))
