"""Git's ignore patterns, as in gitignore(5).

Paths and patterns are bytes, as in git: ``?`` matches one byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from forelook.errors import PrivacyError

MAX_IGNORE_BYTES = 1 << 17
"""Limit of an ignore file. Compiling this many bytes of patterns takes seconds; chosen, not measured."""

_MAX_PATTERN_BYTES = 4096  # the length of a path; only repeated wildcards make a longer pattern match

_POSIX_CLASSES = {
    b"alnum": b"0-9A-Za-z", b"alpha": b"A-Za-z", b"blank": b" \\t", b"cntrl": b"\\x00-\\x1f\\x7f", b"digit": b"0-9",
    b"graph": b"!-~", b"lower": b"a-z", b"print": b" -~", b"punct": b"!-/:-@\\[-`{-~", b"space": b" \\t\\n\\v\\f\\r",
    b"upper": b"A-Z", b"xdigit": b"0-9A-Fa-f",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One line of an ignore file."""

    expression: bytes
    flags: int
    negated: bool
    directories_only: bool
    basename_only: bool
    compiled: list[re.Pattern[bytes]] = field(default_factory=list)

    def matches(self, path: bytes) -> bool:
        """Whether the path matches; compiled when first needed, since most patterns never are."""
        if not self.compiled:
            self.compiled.append(re.compile(self.expression, self.flags))
        return self.compiled[0].fullmatch(path) is not None


class IgnoreRules:
    """The patterns of one ignore file, for paths below its folder."""

    def __init__(self, text: bytes, *, ignore_case: bool = False, strict: bool = False, source: str = "") -> None:
        """Parse an ignore file.

        Args:
            text: its bytes.
            ignore_case: match case-insensitively, as git does on case-insensitive file systems.
            strict: refuse lines that can never match, instead of skipping them.
            source: the name of the file in errors.

        Raises:
            PrivacyError: it is too long or a pattern is; or ``strict``, and a line is malformed.
        """
        if len(text) > MAX_IGNORE_BYTES:
            raise PrivacyError(_too_long(source, f"has {len(text)} bytes, over the limit of {MAX_IGNORE_BYTES}"))
        self._patterns: list[_Pattern] = []
        self._flags = flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
        self._any_name: Callable[[bytes], object] | None = None
        self._any_path: Callable[[bytes], object] | None = None
        for number, line in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
            if len(line) > _MAX_PATTERN_BYTES and not line.startswith(b"#"):
                what = f"has a pattern of {len(line)} bytes in line {number}, over the limit of {_MAX_PATTERN_BYTES}"
                raise PrivacyError(_too_long(source, what))
            try:
                pattern = _parse_line(line.removesuffix(b"\r"), flags, strict, b"p%d_" % number)
            except _BadPatternError as error:
                if strict:
                    raise PrivacyError(
                        f"{source or 'ignore file'}, line {number}: {error}; fix this line; until then "
                        "everything in its folder is excluded"
                    ) from None
                continue
            if pattern is not None:
                self._patterns.append(pattern)

    def __len__(self) -> int:
        return len(self._patterns)

    def verdict(self, path: bytes, *, is_directory: bool) -> bool | None:
        """Whether the last matching pattern ignores the path; ``None`` if no pattern matches.

        Args:
            path: relative to the ignore file's folder, with ``/`` between its parts.
            is_directory: whether it is a folder.
        """
        name = path.rpartition(b"/")[2]
        if self._any_name is None or self._any_path is None:
            self._any_name = self._any(basename_only=True)
            self._any_path = self._any(basename_only=False)
        if not self._any_name(name) and not self._any_path(path):
            return None  # the usual case: two matches instead of one per pattern
        for pattern in reversed(self._patterns):
            if pattern.directories_only and not is_directory:
                continue
            if pattern.matches(name if pattern.basename_only else path):
                return not pattern.negated
        return None

    def _any(self, *, basename_only: bool) -> Callable[[bytes], object]:
        """One expression that matches where any pattern of this kind does."""
        parts = [pattern.expression for pattern in self._patterns if pattern.basename_only is basename_only]
        return re.compile(b"|".join(b"(?:" + part + b")" for part in parts) or b"(?!)", self._flags).fullmatch


def _too_long(source: str, what: str) -> str:
    return f"{source or 'ignore file'} {what}; shorten it; until then everything in its folder is excluded"


class _BadPatternError(Exception):
    """A pattern that git would never match."""


def _parse_line(line: bytes, flags: int, strict: bool, group_prefix: bytes) -> _Pattern | None:
    if line.startswith(b"#"):
        return None
    line = _without_trailing_spaces(line)
    if not line:
        return None
    if strict:
        if b"\0" in line:
            raise _BadPatternError("a NUL byte")
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            raise _BadPatternError("not UTF-8") from None
    negated = line.startswith(b"!")
    body = line[1:] if negated else line
    directories_only = body.endswith(b"/")
    body = body[:-1] if directories_only else body
    basename_only = b"/" not in body
    body = body[1:] if body.startswith(b"/") else body
    if not body:
        raise _BadPatternError("a pattern without a name")
    expression = _translate(body, strict, group_prefix)
    return _Pattern(expression, flags, negated, directories_only, basename_only)


def _without_trailing_spaces(line: bytes) -> bytes:
    """The line without unescaped trailing spaces."""
    end = 0
    i = 0
    while i < len(line):
        if line[i : i + 1] == b"\\" and i + 1 < len(line):
            i += 2
            end = i
        else:
            i += 1
            if line[i - 1 : i] != b" ":
                end = i
    return line[:end]


def _translate(glob: bytes, strict: bool, group_prefix: bytes) -> bytes:
    """A regular expression for one gitignore glob; the prefix keeps its group names unique."""
    writer = _RegexWriter(group_prefix)
    i = 0
    while i < len(glob):
        char = glob[i : i + 1]
        if char == b"*":
            end = i
            while glob[end : end + 1] == b"*":
                end += 1
            starts_part = i == 0 or glob[i - 1 : i] == b"/"
            ends_part = end == len(glob) or glob[end : end + 1] == b"/" or glob[end : end + 2] == b"\\/"
            if end - i < 2 or not (starts_part and ends_part):
                writer.star()
            elif glob[end : end + 1] == b"/":
                writer.double_star(b"(?:.*?/)??")
                end += 1
            else:
                writer.double_star(b".*?")
            i = end
        elif char == b"?":
            writer.item(b"[^/]")
            i += 1
        elif char == b"[":
            expression, i = _translate_set(glob, i + 1, strict)
            writer.item(expression)
        elif char == b"\\":
            if i + 1 == len(glob):
                raise _BadPatternError("a trailing backslash")
            writer.item(re.escape(glob[i + 1 : i + 2]))
            i += 2
        else:
            writer.item(re.escape(char))
            i += 1
    return writer.expression()


class _RegexWriter:
    """Builds a regular expression that does not backtrack into an earlier star, so matching takes polynomial time.

    The text between two stars has a fixed length, so its first match is as good as any other; likewise between two
    ``**``. Every such stretch except the last is matched atomically.
    """

    def __init__(self, group_prefix: bytes) -> None:
        self._group_prefix = group_prefix
        self._done = b""
        self._skip = b""
        self._stretch = b""
        self._run = b""
        self._has_star = False
        self._num_groups = 0

    def item(self, expression: bytes) -> None:
        """One byte of the path."""
        self._run += expression

    def star(self) -> None:
        """Any bytes within a part of the path."""
        self._end_run()
        self._has_star = True

    def double_star(self, skip: bytes) -> None:
        """Any parts of the path."""
        self._end_stretch()
        self._skip = skip

    def expression(self) -> bytes:
        """The whole expression."""
        self._done += self._skip + self._stretch + self._last_run()
        return self._done

    def _end_run(self) -> None:
        self._stretch += self._atomic(b"[^/]*?" + self._run) if self._has_star else self._run
        self._run = b""

    def _last_run(self) -> bytes:
        return b"[^/]*?" + self._run if self._has_star else self._run

    def _end_stretch(self) -> None:
        stretch = self._stretch + self._last_run()
        self._done += self._atomic(self._skip + stretch) if self._skip else stretch
        self._skip, self._stretch, self._run, self._has_star = b"", b"", b"", False

    def _atomic(self, expression: bytes) -> bytes:
        self._num_groups += 1
        name = self._group_prefix + b"%d" % self._num_groups
        return b"(?=(?P<" + name + b">" + expression + b"))(?P=" + name + b")"


def _translate_set(glob: bytes, i: int, strict: bool) -> tuple[bytes, int]:
    """A bracket expression, read from after its ``[``; also returns the index after its ``]``."""
    negated = glob[i : i + 1] in (b"!", b"^") and bool(glob[i : i + 1])
    i += negated
    items: list[bytes] = []
    previous: int | None = None
    first = True
    while True:
        if i >= len(glob):
            raise _BadPatternError("an unclosed bracket")
        char = glob[i]
        if char == ord("]") and not first:
            break
        first = False
        if char == ord("\\"):
            i += 1
            if i >= len(glob):
                raise _BadPatternError("an unclosed bracket")
            items.append(_byte(glob[i]))
            previous = glob[i]
        elif char == ord("-") and previous is not None and i + 1 < len(glob) and glob[i + 1] != ord("]"):
            i += 1
            if glob[i] == ord("\\"):
                i += 1
                if i >= len(glob):
                    raise _BadPatternError("an unclosed bracket")
            if previous <= glob[i]:
                items[-1] = _byte(previous) + b"-" + _byte(glob[i])
            elif strict:
                raise _BadPatternError("a reversed range")
            previous = None
        elif char == ord("[") and glob[i + 1 : i + 2] == b":":
            close = glob.find(b"]", i + 2)
            if close < 0:
                raise _BadPatternError("an unclosed bracket")
            if close > i + 2 and glob[close - 1 : close] == b":":
                name = glob[i + 2 : close - 1]
                if name not in _POSIX_CLASSES:
                    raise _BadPatternError("an unknown character class")
                items.append(_POSIX_CLASSES[name])
                i = close
                previous = None
            else:
                items.append(_byte(char))
                previous = char
        else:
            items.append(_byte(char))
            previous = char
        i += 1
    inner = b"".join(items)
    expression = b"(?!/)[" + (b"^" if negated else b"") + inner + b"]"
    return expression, i + 1


def _byte(value: int) -> bytes:
    return b"\\x%02x" % value
