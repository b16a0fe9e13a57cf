"""Tokens of a document after any edits are the tokens of its text encoded as a whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from forelook.workspace.line_tokens import CutRule, LineTokens, find_cut_rule, split_text
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

Encode = Callable[[str], list[int]]


def by_regex(pattern: str) -> Encode:
    """A tokenizer whose tokens are the matches of a pattern, numbered by their text."""

    def encode(text: str) -> list[int]:
        return [hash(match) % (1 << 30) for match in re.findall(pattern, text)]

    return encode


TOKENIZERS: dict[str, tuple[Encode, CutRule]] = {
    "newline joins the indentation after it": (
        by_regex(r"\n[ \t]*|[ \t]+(?=\n)| ?\w+| ?[^\s\w]+|[ \t]+|\s"),
        CutRule.BEFORE_NEWLINE,
    ),
    "newline joins what stands before it": (by_regex(r"[^\n]*\n|[^\n]+"), CutRule.AFTER_NEWLINE),
    "newlines and blanks join": (by_regex(r" ?\w+|[^\s\w]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s"), CutRule.BEFORE_TEXT_LINE),
    "blanks join over lines": (by_regex(r"\w+|[^\s\w]+|\s+"), CutRule.BEFORE_UNINDENTED_LINE),
    "the text is one token": (by_regex(r"(?s).+"), CutRule.NOWHERE),
}


@pytest.fixture(scope="session")
def starter_encode(repository: Path) -> Encode:
    tokenizer = Tokenizer.from_file(str(repository / "backend/forelook/starter_model/tokenizer.json"))
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_finest_rule_that_keeps_the_tokens_is_found(name: str) -> None:
    encode, rule = TOKENIZERS[name]
    assert find_cut_rule(encode) is rule


def test_the_starter_tokenizer_can_be_cut_at_every_line(starter_encode: Encode) -> None:
    assert find_cut_rule(starter_encode) is CutRule.BEFORE_NEWLINE


def test_codellama_can_be_cut_at_every_line(shared_dir: Path) -> None:
    tokenizer = Tokenizer.from_file(str(shared_dir / "data" / "codellama-tokenizer" / "tokenizer.json"))
    lead = len(tokenizer.encode("\n", add_special_tokens=False).ids)

    def encode(text: str) -> list[int]:  # without the space that SentencePiece puts before a text
        return list(tokenizer.encode("\n" + text, add_special_tokens=False).ids[lead:])

    assert find_cut_rule(encode) in (CutRule.BEFORE_NEWLINE, CutRule.AFTER_NEWLINE)


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
@pytest.mark.parametrize("name", ["starter", *TOKENIZERS])
def test_edited_tokens_are_the_tokens_of_the_text(
    starter_encode: Encode, name: str, text: str, data: st.DataObject
) -> None:
    encode = starter_encode if name == "starter" else TOKENIZERS[name][0]
    rule = CutRule.BEFORE_NEWLINE if name == "starter" else TOKENIZERS[name][1]
    lines = LineTokens(encode, rule)
    tokens: list[int] = []
    for _ in range(4):
        edit = lines.update(text)
        if edit is not None:
            tokens[edit.start : edit.end] = edit.ids
        assert tokens == encode(text)
        assert lines.num_tokens == len(tokens)
        assert lines.text == text
        assert lines.pieces == split_text(text, rule)
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 9)))
        text = text[:start] + data.draw(TEXT.map(lambda t: t[:12])) + text[end:]


def test_an_edit_tokenises_its_own_lines_only(starter_encode: Encode) -> None:
    seen: list[str] = []

    def encode(text: str) -> list[int]:
        seen.append(text)
        return starter_encode(text)

    text = "".join(f"    line_{number} = {number}\n" for number in range(500))
    lines = LineTokens(encode, CutRule.BEFORE_NEWLINE)
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


def test_a_large_text_is_tokenised_a_little_at_a_time(starter_encode: Encode) -> None:
    text = "    some_name = another_name(1, 2)\n" * 2000
    longest = max(len(piece) for piece in split_text(text, CutRule.BEFORE_NEWLINE))
    seen = 0

    def encode(piece: str) -> list[int]:
        nonlocal seen
        seen += len(piece)
        return starter_encode(piece)

    lines = LineTokens(encode, CutRule.BEFORE_NEWLINE)
    largest = 0
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
    lines = LineTokens(starter_encode, CutRule.BEFORE_NEWLINE)
    lines.update(text)
    offset = min(offset, len(text))
    end = text.find("\n", offset)
    covered = text if end < 0 else text[:end]
    expected = 0 if offset == 0 else len(starter_encode(covered))
    assert lines.tokens_until(offset) == expected
