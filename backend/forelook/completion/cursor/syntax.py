"""The syntax around a cursor: by tree-sitter if the language has a grammar, else by indentation and brackets.

Only a window around the cursor is parsed, which takes about a millisecond.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import tree_sitter

from forelook.completion.cursor.brackets import BracketScan
from forelook.completion.cursor.parsing import reparser
from forelook.languages import Language, ScopeRule

# The parsed window. Chosen, not measured.
_CHARS_BEFORE = 16_000
_CHARS_AFTER = 4_000
_WORD = re.compile(r"\w")
_UNINDENTED = re.compile(r"\n(?=[^\s})\]#*])")


class Place(Enum):
    """What surrounds the cursor."""

    CODE = "code"
    COMMENT = "comment"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class CursorSyntax:
    """The syntax around a cursor.

    Attributes:
        place: code, comment or string.
        empty_block: the cursor is alone on its line, in a block that contains only comments or a docstring.
        after_opener: the cursor is at the end of a line that opens a still empty block.
        after_comment: the cursor is alone on its line, below a comment.
    """

    place: Place
    empty_block: bool = False
    after_opener: bool = False
    after_comment: bool = False


def inspect_cursor(language: Language, before: str, after: str, scan: BracketScan) -> CursorSyntax:
    """Determine the syntax at the cursor between ``before`` and ``after``.

    Args:
        language: of the document.
        before: text before the cursor.
        after: text after the cursor.
        scan: the brackets of ``before``; it also detects an unfinished string or comment.
    """
    before, after = window_before(before, _CHARS_BEFORE), after[:_CHARS_AFTER]
    return _by_grammar(language, before, after, scan) or _by_rules(language, before, after, scan)


def window_before(before: str, num_chars: int) -> str:
    """About the last ``num_chars`` of ``before``, starting at an unindented line if there is one."""
    if len(before) <= num_chars:
        return before
    start = len(before) - num_chars
    match = _UNINDENTED.search(before, start)
    if match is not None and match.end() < len(before) - num_chars // 4:
        return before[match.end() :]
    newline = before.find("\n", start)
    return before[newline + 1 :] if newline >= 0 else before[start:]


def _by_grammar(language: Language, before: str, after: str, scan: BracketScan) -> CursorSyntax | None:
    line = before[before.rfind("\n") + 1 :]
    rest = after.split("\n", 1)[0]
    line_is_blank = not line.strip() and not _WORD.search(rest)
    at_line_end = bool(line.strip()) and not _WORD.search(rest)
    placeholder = language.placeholder
    inserted = placeholder
    if at_line_end:
        # The line that Enter would open, indented by one more level.
        indentation = line[: len(line) - len(line.lstrip())]
        inserted = f"\n{indentation}{_unit(indentation)}{placeholder}"
        if rest.strip():
            inserted += "\n" + indentation
    place = _place(language, before, after, scan)
    if place is not Place.CODE:
        return None if place is None else CursorSyntax(place)
    if not line_is_blank and not at_line_end:
        return CursorSyntax(Place.CODE)
    parses = reparser(language, "with placeholder")
    if parses is None:
        return None
    tree = parses.parse(before + inserted + after)
    position = len((before + inserted[: len(inserted) - len(inserted.lstrip())]).encode("utf-8", "replace"))
    node = tree.root_node.descendant_for_byte_range(position, position + 4)
    body = _enclosing_body(language, node)
    start_row = before.count("\n")
    alone = body is not None and _holds_only(language, body, position, len(placeholder))
    opened_here = body is not None and _opened_row(language, body) == start_row
    opener = re.search(language.opener, line) is not None
    if language.scope is ScopeRule.KEYWORDS and (opener or not at_line_end) and not alone:
        # Conditions and bodies are siblings in these grammars; only the line ends distinguish them.
        return _by_rules(language, before, after, scan)
    if at_line_end:
        in_brackets = language.scope is ScopeRule.INDENTATION and bool(scan.open)
        opens = opener and not in_brackets and (body is None or (alone and opened_here))
        return CursorSyntax(Place.CODE, after_opener=opens)
    previous = _previous_line(before)
    return CursorSyntax(
        Place.CODE,
        empty_block=alone or (body is None and re.search(language.opener, previous) is not None),
        after_comment=_is_comment_line(language, previous),
    )


def _place(language: Language, before: str, after: str, scan: BracketScan) -> Place | None:
    """Comment, string or code at the cursor; ``None`` without a grammar."""
    parses = reparser(language, "as it is")
    if parses is None:
        return None
    tree = parses.parse(before + after)
    position = len(before.encode("utf-8", "replace"))
    node = tree.root_node.descendant_for_byte_range(max(position - 1, 0), position)
    while node is not None:
        inside = node.start_byte < position and (node.end_byte > position or scan.inside is not None)
        if inside and node.type in language.comment_nodes:
            return Place.COMMENT
        if inside and node.type in language.string_nodes:
            return Place.STRING
        node = node.parent
    if scan.inside is None:
        return Place.CODE
    # The grammar reports an unfinished string or comment as an error; the scanner has seen its start.
    return Place.COMMENT if scan.in_comment else Place.STRING


def _enclosing_body(language: Language, node: tree_sitter.Node | None) -> tree_sitter.Node | None:
    while node is not None and node.type not in language.body_nodes:
        node = node.parent
    return node


def _holds_only(language: Language, body: tree_sitter.Node, position: int, size: int) -> bool:
    """Whether a block contains only what is at ``position``, comments and a docstring."""
    for number, child in enumerate(body.named_children):
        if child.start_byte <= position < child.end_byte or position <= child.start_byte < position + size:
            if child.start_byte < position and child.type != "ERROR" and child.end_byte > position + size:
                return False
            continue
        if child.type in language.comment_nodes | language.delimiter_nodes or child.type == "ERROR" or child.is_missing:
            continue
        if number == 0 and _is_docstring(child):
            continue
        if (
            child.end_byte <= position
            and child.end_point.row < body.start_point.row + 1
            and body.start_byte >= child.end_byte
        ):
            continue
        return False
    return True


def _is_docstring(node: tree_sitter.Node) -> bool:
    return (
        node.type == "expression_statement" and node.named_child_count == 1 and node.named_children[0].type == "string"
    )


def _opened_row(language: Language, body: tree_sitter.Node) -> int:
    """The row of the bracket that opens a block, or of the construct that the block belongs to."""
    first = body.children[0] if body.child_count else None
    if first is not None and not first.is_named:
        return int(first.start_point.row)
    if first is not None and first.type in language.delimiter_nodes:
        return int(first.end_point.row)
    previous = body.prev_sibling
    return int(previous.end_point.row if previous is not None else body.start_point.row)


def _by_rules(language: Language, before: str, after: str, scan: BracketScan) -> CursorSyntax:
    if scan.inside is not None:
        return CursorSyntax(Place.COMMENT if scan.in_comment else Place.STRING)
    line = before[before.rfind("\n") + 1 :]
    rest, _, below = after.partition("\n")
    if _WORD.search(rest):
        return CursorSyntax(Place.CODE)
    opener = re.compile(language.opener)
    if line.strip():
        opens = opener.search(line) is not None and not _is_deeper(below, indentation_of(line))
        return CursorSyntax(Place.CODE, after_opener=opens)
    previous = _previous_line(before)
    empty = opener.search(previous) is not None and not _is_deeper(below, indentation_of(previous))
    return CursorSyntax(Place.CODE, empty_block=empty, after_comment=_is_comment_line(language, previous))


def _is_deeper(below: str, indentation: int) -> bool:
    """Whether the next line with text is indented more than ``indentation`` columns."""
    following = first_text_line(below.split("\n"))
    return bool(following) and indentation_of(following) > indentation


def _previous_line(before: str) -> str:
    """The last line with text above the cursor's own."""
    return first_text_line(reversed(before.split("\n")[:-1]))


def first_text_line(lines: Iterable[str]) -> str:
    """The first line that is not blank; empty if there is none."""
    return next((line for line in lines if line.strip()), "")


def _is_comment_line(language: Language, line: str) -> bool:
    stripped = line.strip()
    if language.line_comments and stripped.startswith(language.line_comments):
        return True
    return any(stripped.startswith(start) or stripped.endswith(end) for start, end in language.block_comments)


def indentation_of(line: str) -> int:
    """Columns before a line's first character; a tab advances to the next multiple of four."""
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip())


def _unit(indentation: str) -> str:
    return "\t" if indentation.startswith("\t") else "    "
