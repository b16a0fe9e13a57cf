"""Tokens of a document after any edits are the tokens of its text encoded as a whole."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from forelook.model.tokenizer import Encode, TextSplitter
from forelook.workspace.line_tokens import MAX_PART_CHARS, LineTokens
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.fakes import AWKWARD_TOKENIZERS


@pytest.fixture(scope="session")
def starter_encode(repository: Path) -> Encode:
    tokenizer = Tokenizer.from_file(str(repository / "backend/forelook/starter_model/tokenizer.json"))
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


@functools.cache
def splitter_of(encode: Encode) -> TextSplitter:
    return TextSplitter(encode)


LINES = [
    "",
    "x",
    "  x",
    "\ty = 1  ",
    "    ",
    "}",
    ");",
    "  );",
    "def f(a):",
    "# é 漢 🙂",
    "\r",
    "a\r",
    " ",
    "\t\t",
    "12 345",
]
LINE = st.sampled_from([*LINES, "' '", "\f", "a\u2028b"])
TEXT = st.lists(LINE, max_size=12).map("\n".join)


@given(TEXT, st.data())
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("name", ["starter", *AWKWARD_TOKENIZERS])
def test_edited_tokens_are_the_tokens_of_the_text(
    starter_encode: Encode, name: str, text: str, data: st.DataObject
) -> None:
    encode = starter_encode if name == "starter" else AWKWARD_TOKENIZERS[name][0]
    splitter = splitter_of(encode)
    lines = LineTokens(splitter)
    tokens: list[int] = []
    for _ in range(4):
        edit = lines.update(text)
        if edit is not None:
            tokens[edit.start : edit.end] = edit.ids
        assert tokens == encode(text)
        assert lines.num_tokens == len(tokens)
        assert lines.text == text
        assert lines.pieces == splitter.split(text)
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 9)))
        text = text[:start] + data.draw(TEXT.map(lambda t: t[:12])) + text[end:]


def test_an_edit_tokenizes_its_own_lines_only(starter_encode: Encode) -> None:
    seen: list[str] = []

    def encode(text: str) -> list[int]:
        seen.append(text)
        return starter_encode(text)

    text = "".join(f"    line_{number} = {number}\n" for number in range(500))
    lines = LineTokens(TextSplitter(encode))
    lines.update(text)
    seen.clear()
    assert lines.update(text) is None
    assert seen == []
    edit = lines.update(text.replace("line_250 = 250", "line_250 = f(250"))
    assert seen == ["\n    line_250 = f(250"]
    assert edit is not None
    assert edit.end - edit.start < 12
    lines.update(text.replace("line_250", "a = 1\n    b = 2\n    line_250"))
    assert len(seen) == 4


def test_a_large_text_is_tokenized_a_little_at_a_time(starter_encode: Encode) -> None:
    text = "    some_name = another_name(1, 2)\n" * 2000
    longest = max(len(piece) for piece in TextSplitter(starter_encode).split(text))
    seen = 0

    def encode(piece: str) -> list[int]:
        nonlocal seen
        seen += len(piece)
        return starter_encode(piece)

    lines = LineTokens(TextSplitter(encode))
    largest = seen = 0
    steps = lines.updating(text)
    for _ in steps:
        largest, seen = max(largest, seen), 0
    assert lines.num_tokens == len(starter_encode(text))
    assert largest <= 2048 + longest


@given(TEXT, st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_tokens_until_a_place_cover_the_pieces_that_begin_before_it(
    starter_encode: Encode, text: str, offset: int
) -> None:
    lines = LineTokens(splitter_of(starter_encode))
    lines.update(text)
    offset = min(offset, len(text))
    end = text.find("\n", offset)
    covered = text if end < 0 else text[:end]
    expected = 0 if offset == 0 else len(starter_encode(covered))
    assert lines.tokens_until(offset) == expected


def test_a_line_of_a_million_characters_has_no_tokens_and_its_neighbors_do(starter_encode: Encode) -> None:
    longest = 0

    def encode(text: str) -> list[int]:
        nonlocal longest
        longest = max(longest, len(text))
        return starter_encode(text)

    splitter = TextSplitter(encode)
    lines = LineTokens(splitter)
    head, tail, longest = "x = 1", "\ny = 2", 0
    for middle in ("\n" + "b, " * 350_000, "\n" + "b, " * 350_000 + "c"):
        lines.update(head + middle + tail)
        assert lines.num_tokens == len(starter_encode(head)) + len(starter_encode(tail))
        assert lines.text == head + middle + tail
    assert longest <= MAX_PART_CHARS
    lines.update(head + "\nb, " + tail)
    assert lines.num_tokens == len(starter_encode(head + "\nb, " + tail))
