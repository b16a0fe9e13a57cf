"""Edits at once give what the same edits one by one give: the text, the lines, and every position on the way."""

from __future__ import annotations

import pytest
from forelook.protocol.messages import TextChange
from forelook.text_edits import EditableText
from forelook_lsp.batch_edits import BatchEdits, edit_in_order
from forelook_lsp.mirror import Document as MirrorDocument
from forelook_lsp.mirror import Mirror, Part
from forelook_lsp.positions import Lines, PositionEdit, PositionEncoding
from hypothesis import given
from hypothesis import strategies as st

LETTERS = st.sampled_from(["a", "b", "\n", "\r", "\r\n", "é", "€", "😀", "\ud800", "\udc00", "\f", "\u2028"])
TEXTS = st.lists(LETTERS, max_size=300).map("".join)
POSITIONS = st.tuples(st.integers(0, 40), st.integers(0, 12))
EDITS = st.lists(st.tuples(POSITIONS, POSITIONS, st.lists(LETTERS, max_size=4).map("".join)), max_size=40)


def flat(edits: list[tuple[tuple[int, int], tuple[int, int], str]]) -> list[PositionEdit]:
    return [(*start, *end, new) for start, end, new in edits]


def one_by_one(text: str, edits: list[PositionEdit], encoding: PositionEncoding) -> tuple[Lines, list[TextChange]]:
    mirror = Mirror(encoding=encoding)
    document = MirrorDocument("u", "python", 1, Lines(text), "w")
    applied = []
    for change in edits:
        part = Part(document, document.lines, 0, 1)
        edit = mirror.edit_of(part, change)
        part.apply(edit)
        applied.append(edit)
    return document.lines, applied


@pytest.mark.parametrize("encoding", list(PositionEncoding))
@given(text=TEXTS, edits=EDITS)
def test_a_batch_gives_what_single_edits_give(
    encoding: PositionEncoding, text: str, edits: list[tuple[tuple[int, int], tuple[int, int], str]]
) -> None:
    expected, applied = one_by_one(text, flat(edits), encoding)
    seen: list[TextChange] = []
    batch = BatchEdits(Lines(text), encoding)
    batch.apply(flat(edits), lambda _text, edit: seen.append(edit))
    result = batch.lines()
    assert result.text == expected.text
    assert result.starts == expected.starts == Lines(expected.text).starts
    assert seen == applied


@pytest.mark.parametrize("encoding", list(PositionEncoding))
@given(text=TEXTS, edits=EDITS)
def test_one_pass_gives_what_single_edits_give_or_nothing(
    encoding: PositionEncoding, text: str, edits: list[tuple[tuple[int, int], tuple[int, int], str]]
) -> None:
    ordered = sorted(flat(edits), key=lambda edit: edit[:4])
    for some in (flat(edits), ordered, ordered[::-1]):
        result = edit_in_order(Lines(text), some, encoding)
        if result is not None:
            expected, _ = one_by_one(text, some, encoding)
            assert (result.text, result.starts) == (expected.text, expected.starts)


PLAIN = ["a", "b", "\n", "\n", "é", "€", "😀", "\ud800", "\f"]


@pytest.mark.parametrize("encoding", list(PositionEncoding))
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("backwards", [False, True])
@given(
    letters=st.lists(st.sampled_from(PLAIN), max_size=200),
    where=st.lists(st.integers(0, 200), max_size=40),
    news=st.lists(st.lists(st.sampled_from(PLAIN), max_size=4).map("".join), min_size=20, max_size=20),
)
def test_edits_in_the_order_of_the_text_take_one_pass(
    encoding: PositionEncoding, newline: str, backwards: bool, letters: list[str], where: list[int], news: list[str]
) -> None:
    pieces = [newline if letter == "\n" else letter for letter in letters]
    text = "".join(pieces)
    offsets = sorted(len("".join(pieces[:number])) for number in where)
    places = list(zip(offsets[::2], offsets[1::2], news, strict=False))
    lines, edits, added = Lines(text), list[PositionEdit](), 0
    for start, end, new in places[::-1] if backwards else places:
        start, end = start + added, end + added
        edits.append((*lines.position_at(start, encoding), *lines.position_at(end, encoding), new))
        lines.replace(start, end, new)
        if not backwards:
            added += len(new) - (end - start)
    result = edit_in_order(Lines(text), edits, encoding)
    assert result is not None
    assert (result.text, result.starts) == (lines.text, lines.starts)


def test_other_edits_are_left_to_the_general_way() -> None:
    for edits in ([(0, 0, 9, 0, "")], [(0, 0, 0, 5, "")], [(0, 1, 0, 1, ""), (1, 0, 1, 0, ""), (0, 0, 0, 0, "")]):
        assert edit_in_order(Lines("a\nb"), edits, PositionEncoding.UTF16) is None
    assert edit_in_order(Lines("a\rb\n"), [(0, 0, 0, 0, "b")], PositionEncoding.UTF16) is None


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_long_text_with_edits_in_every_line(newline: str, backwards: bool) -> None:
    text = newline.join(f"    value_{i} = compute(é{i})" if i % 7 == 0 else f"    value_{i} = {i}" for i in range(700))
    numbers = range(699, -1, -1) if backwards else range(700)
    edits: list[PositionEdit] = []
    for line in numbers:
        edits += [(line, 4, line, 9, "result"), (line, 0, line, 0, "# "), (line, 99, line, 99, ";")]
        if line % 50 == 0:
            edits += [(line, 2, line, 2, newline), (line, 0, line + 1, 0, "")]
    expected, applied = one_by_one(text, edits, PositionEncoding.UTF16)
    befores: list[str] = []
    batch = BatchEdits(Lines(text), PositionEncoding.UTF16)

    def will_edit(before: EditableText, edit: TextChange) -> None:
        befores.append(before[edit.start : edit.end])

    batch.apply(edits, will_edit)
    assert batch.lines().text == expected.text
    assert batch.lines().starts == expected.starts
    assert len(befores) == len(applied)
