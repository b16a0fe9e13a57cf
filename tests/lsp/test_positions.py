"""Positions: every encoding, LSP's own line rule, and lines kept right under any edit."""

from __future__ import annotations

import pytest
from forelook_lsp.positions import Lines, PositionEncoding, normalize_newlines, offset_of_units, units_before
from hypothesis import given
from hypothesis import strategies as st

ALPHABET = "ab\t\r\n\f\v\u0085\u2028\u2029é\u0301🙂\ud800\x00"
TEXTS = st.text(alphabet=ALPHABET, max_size=40)
ENCODINGS = st.sampled_from(PositionEncoding)


def split_by_hand(text: str) -> list[str]:
    """Lines with their ends, one character at a time: slow, and plainly LSP's rule."""
    lines, current, index = [], "", 0
    while index < len(text):
        current += text[index]
        if text[index] == "\r" and text[index + 1 : index + 2] == "\n":
            current += "\n"
            index += 1
        if current[-1] in "\r\n":
            lines.append(current)
            current = ""
        index += 1
    return [*lines, current]


def assert_same_lines(lines: Lines, text: str) -> None:
    expected = split_by_hand(text)
    assert lines.text == text
    assert lines.num_lines == len(expected)
    at = 0
    for number, line in enumerate(expected):
        assert lines.line_start(number) == at
        assert lines.line_end(number) == at + len(line.rstrip("\r\n"))
        at += len(line)


@given(TEXTS)
def test_lines_end_only_where_lsp_says(text: str) -> None:
    assert_same_lines(Lines(text), text)


@given(TEXTS, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), TEXTS), max_size=8))
def test_lines_stay_right_under_any_edits(text: str, edits: list[tuple[int, int, str]]) -> None:
    lines = Lines(text)
    for a, b, new in edits:
        start, end = sorted((min(a, len(text)), min(b, len(text))))
        text = text[:start] + new + text[end:]
        lines.replace(start, end, new)
        assert_same_lines(lines, text)


@given(TEXTS, ENCODINGS, st.data())
def test_every_offset_outside_a_line_end_survives_the_way_to_the_editor_and_back(
    text: str, encoding: PositionEncoding, data: st.DataObject
) -> None:
    lines = Lines(text)
    offset = data.draw(st.integers(0, len(text)))
    back = lines.offset_at(*lines.position_at(offset, encoding), encoding)
    inside_crlf = text[max(offset - 1, 0) : offset + 1] == "\r\n"
    assert back == offset - inside_crlf


@pytest.mark.parametrize(
    ("encoding", "character"),
    [(PositionEncoding.UTF8, 8), (PositionEncoding.UTF16, 5), (PositionEncoding.UTF32, 4)],
)
def test_columns_after_an_emoji_are_those_real_editors_send(encoding: PositionEncoding, character: int) -> None:
    assert units_before("# 🙂é", 4, encoding) == character
    assert offset_of_units("# 🙂é", character, encoding) == 4


def test_a_position_inside_a_code_point_means_its_start() -> None:
    assert offset_of_units("🙂x", 1, PositionEncoding.UTF16) == 0
    assert offset_of_units("🙂x", 3, PositionEncoding.UTF8) == 0


def test_a_column_beyond_the_line_means_its_end_before_the_line_end() -> None:
    lines = Lines("ab\r\ncd")
    assert lines.offset_at(0, 99, PositionEncoding.UTF16) == 2
    assert lines.offset_at(7, 0, PositionEncoding.UTF16) == 6


def test_newlines_are_normalised_but_form_feeds_are_not() -> None:
    assert normalize_newlines("a\r\nb\rc\nd\fe\u2028") == "a\nb\nc\nd\fe\u2028"
