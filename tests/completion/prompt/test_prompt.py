"""Prompt windows: within budget, at line borders, and where they stood a keystroke ago."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from forelook.completion.cursor.brackets import rest_is_closers
from forelook.completion.document_store import Document
from forelook.completion.prompt.files import FileContext
from forelook.completion.prompt.prompt import LineEncoder, PromptBudget, PromptBuilder, PromptText
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.model.infill import InfillFormat
from forelook.model.infill_templates import FileNaming, InfillOrder
from forelook.model.loading import STARTER_MODEL_PATH
from forelook.model.tokenizer import CodeTokenizer, Encode
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import AWKWARD_TOKENIZERS, ByteTokenizer

WORKSPACE, KEY = WorkspaceKey("", "w"), DocumentKey(1, "u")
BUDGET = PromptBudget(400, 0.3, 0.1)


@pytest.fixture(scope="module")
def starter() -> CodeTokenizer:
    return CodeTokenizer.from_file(STARTER_MODEL_PATH / "tokenizer.json")


class OneWayTokenizer:
    """A tokenizer that adds no leading space."""

    def __init__(self, encode: Encode) -> None:
        self.encode = self.encode_prefix = encode


@pytest.fixture(scope="module")
def source() -> str:
    return Path(argparse.__file__).read_text(encoding="utf-8")


def build(builder: PromptBuilder, text: str, offset: int, context: tuple[str, ...] = ()) -> PromptText:
    others = [FileContext(f"{number}.py", text, text) for number, text in enumerate(context)]
    return builder.build(Document(WORKSPACE, KEY, "python", 1, text), offset, others)


def size(prompt: PromptText) -> int:
    return len(prompt.prefix_ids) + len(prompt.suffix_ids) + len(prompt.context_ids)


def test_line_by_line_gives_the_tokens_of_the_whole(starter: CodeTokenizer, source: str) -> None:
    assert LineEncoder(starter).encode(source) == starter.encode(source)


def test_line_by_line_gives_the_tokens_of_the_whole_for_sentencepiece(shared_dir: Path, source: str) -> None:
    codellama = CodeTokenizer.from_file(shared_dir / "data" / "codellama-tokenizer" / "tokenizer.json")
    text = source[:20_000]
    assert LineEncoder(codellama).encode(text) == codellama.encode(text)
    assert LineEncoder(codellama).encode(text, starts_document=True) == codellama.encode_prefix(text)


@pytest.mark.parametrize("name", AWKWARD_TOKENIZERS)
def test_part_by_part_gives_the_tokens_of_the_whole_for_any_tokenizer(name: str, source: str) -> None:
    tokenizer = OneWayTokenizer(AWKWARD_TOKENIZERS[name][0])
    text = source[:5_000]
    assert LineEncoder(tokenizer).encode(text) == tokenizer.encode(text)
    assert LineEncoder(tokenizer).encode(text, starts_document=True) == tokenizer.encode(text)


@pytest.mark.parametrize("name", AWKWARD_TOKENIZERS)
def test_prompts_of_any_tokenizer_are_the_tokens_of_their_text(name: str, source: str) -> None:
    tokenizer = OneWayTokenizer(AWKWARD_TOKENIZERS[name][0])
    builder = PromptBuilder(tokenizer, BUDGET)
    offset = len(source) // 2
    for count in range(3):
        prompt = build(builder, source[:offset] + "x" * count + source[offset:], offset + count)
        assert prompt.prefix_ids == tokenizer.encode(prompt.prefix)[-len(prompt.prefix_ids) :]
        assert 0 < size(prompt) <= BUDGET.num_tokens


def test_a_keystroke_tokenizes_its_own_line_only(starter: CodeTokenizer, source: str) -> None:
    builder = PromptBuilder(starter, BUDGET)
    offset = source.index("\n", 40_000)
    build(builder, source, offset)
    before = builder.encoder.num_encoded_chars
    text = source[:offset] + "x" + source[offset:]
    build(builder, text, offset + 1)
    line = len(text[text.rfind("\n", 0, offset) : offset + 1])
    assert builder.encoder.num_encoded_chars - before <= line


def test_windows_stand_still_while_the_user_types(starter: CodeTokenizer, source: str) -> None:
    builder = PromptBuilder(starter, BUDGET)
    offset = source.index("\n", 40_000)
    typed = "\n    value = compute(alpha, beta)\n    if value is None:\n        return [value, alpha]\n" * 12
    moved = 0
    previous = build(builder, source, offset)
    for count in range(1, len(typed) + 1):
        text = source[:offset] + typed[:count] + source[offset:]
        prompt = build(builder, text, offset + count)
        assert size(prompt) <= BUDGET.num_tokens
        same_start = prompt.prefix.startswith(previous.prefix[:60])
        moved += not same_start or prompt.suffix_ids != previous.suffix_ids
        previous = prompt
    # some 900 keystrokes; the window may jump when it is full, and no more often than it fills up
    assert moved <= 8


def test_windows_stand_still_with_carriage_returns(starter: CodeTokenizer, source: str) -> None:
    builder = PromptBuilder(starter, BUDGET)
    text = source.replace("\n", "\r\n")
    offset = text.index("\r\n", 40_000)
    first = build(builder, text, offset)
    encoded = builder.encoder.num_encoded_chars
    for count in range(1, 40):
        prompt = build(builder, text[:offset] + "x" * count + text[offset:], offset + count)
        assert prompt.prefix.startswith(first.prefix)
        assert prompt.suffix_ids == first.suffix_ids
        assert "\r" not in prompt.prefix
    assert builder.encoder.num_encoded_chars - encoded < 40 * 200


def test_enter_leaves_the_suffix_as_it_is(starter: CodeTokenizer) -> None:
    builder = PromptBuilder(starter, BUDGET)
    text = "def f():\n    x = 1\n    return x\n"
    offset = text.index("1") + 1
    before = build(builder, text, offset)
    after = build(builder, text[:offset] + "\n    " + text[offset:], offset + 5)
    assert before.anchored_suffix
    assert before.suffix_ids == after.suffix_ids


def test_auto_closed_brackets_leave_the_suffix_as_it_is(starter: CodeTokenizer) -> None:
    builder = PromptBuilder(starter, BUDGET)
    text = "x = f\ny = 2\n"
    plain = build(builder, text, 5)
    closed = build(builder, "x = f()\ny = 2\n", 6)
    assert plain.suffix_ids == closed.suffix_ids


def test_text_behind_the_cursor_is_in_the_suffix(starter: CodeTokenizer) -> None:
    prompt = build(PromptBuilder(starter, BUDGET), "x = f(a, b)\n", 6)
    assert starter.decode(prompt.suffix_ids) == "a, b)\n"
    assert not prompt.anchored_suffix


@pytest.mark.parametrize("rest", ["", "  ", ")", "):", ' "]', "})", "'", "),", ") {", ");"])
def test_closers_are_recognised(rest: str) -> None:
    assert rest_is_closers(rest)


@pytest.mark.parametrize("rest", ["x", ") + 1", "= 2", ")) foo", "# note"])
def test_text_is_no_closer(rest: str) -> None:
    assert not rest_is_closers(rest)


def test_short_parts_leave_their_share_to_the_others() -> None:
    budget = PromptBudget(100, 0.3, 0.2)
    assert budget.split(20, 30, 10) == (20, 30, 10)
    assert sum(budget.split(1000, 5, 0)) == 85
    assert budget.split(1000, 5, 0)[1] == 5
    prefix, suffix, context = budget.split(10, 1000, 1000)
    assert prefix == 10
    assert prefix + suffix + context == 85


def test_context_that_does_not_fit_is_left_out_whole(starter: CodeTokenizer) -> None:
    builder = PromptBuilder(starter, PromptBudget(100, 0.3, 0.2))
    long, short = "word " * 300, "# note\n"
    prompt = build(builder, "x = 1\n" * 200, 600, (long, short))
    assert starter.decode(prompt.context_ids) == short


def test_the_most_useful_context_stands_nearest_to_the_cursor_behind_its_separator(starter: CodeTokenizer) -> None:
    parts = FileNaming(file=(7,), own_file=(7,))
    infill = InfillFormat("", InfillOrder.PREFIX_FIRST, ("{context}", 1, "{prefix}"), frozenset(), parts)
    builder = PromptBuilder(starter, PromptBudget(400, 0.3, 0.2), infill)
    prompt = build(builder, "x = 1\n", 4, ("# first\n", "# second\n"))
    second, first = starter.encode("# second\n"), starter.encode("# first\n")
    assert prompt.context_ids == [7, *second, 7, *first, 7]
    assert build(builder, "x = 1\n", 4).context_ids == []


def test_windows_stand_still_beside_more_context_than_fits(starter: CodeTokenizer, source: str) -> None:
    builder = PromptBuilder(starter, PromptBudget(400, 0.3, 0.2))
    context = ("# note one\n" * 8, "word " * 3000, "# note two\n" * 4)
    offset = len(source) // 2
    first = build(builder, source, offset, context)
    assert first.context_ids
    for count, character in enumerate("value = 1", start=1):
        typed = "value = 1"[:count]
        prompt = build(builder, source[:offset] + typed + source[offset:], offset + count, context)
        assert prompt.prefix == first.prefix + typed, character
        assert prompt.context_ids == first.context_ids


def test_context_that_comes_later_is_taken_up(starter: CodeTokenizer, source: str) -> None:
    builder = PromptBuilder(starter, PromptBudget(400, 0.3, 0.2))
    offset = len(source) // 2
    assert not build(builder, source, offset).context_ids
    assert build(builder, source, offset, ("# note\n",)).context_ids


@given(
    st.text(alphabet="ab (){}\n\t\r\f\0é漢🙂\u202e", max_size=1500),
    st.integers(0, 1500),
    st.integers(16, 120),
)
def test_no_prompt_exceeds_its_budget(text: str, offset: int, num_tokens: int) -> None:
    budget = PromptBudget(num_tokens, 0.3, 0.1)
    prompt = PromptBuilder(ByteTokenizer(), budget).build(
        Document(WORKSPACE, KEY, "python", 1, text), min(offset, len(text))
    )
    assert size(prompt) <= num_tokens
    shown = ByteTokenizer().decode(prompt.prefix_ids)
    before = text[: min(offset, len(text))].replace("\r\n", "\n").replace("\r", "\n")
    assert before.endswith(shown.lstrip("\ufffd"))


@given(st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["x", "\n", ")", "", "αβ"])), max_size=25))
def test_remembered_windows_never_show_another_text(edits: list[tuple[int, str]]) -> None:
    """Whatever was remembered, a prompt is made of the text as it is now."""
    text = "alpha = 1\nbeta = [2, 3]\n" * 12
    builder = PromptBuilder(ByteTokenizer(), PromptBudget(150, 0.3, 0.0))
    for position, inserted in edits:
        start = min(position, len(text))
        text = text[:start] + inserted + (text[start:] if inserted else text[start + 3 :])
        offset = min(start + len(inserted), len(text))
        prompt = builder.build(Document(WORKSPACE, KEY, "python", 1, text), offset)
        assert text[:offset].endswith(ByteTokenizer().decode(prompt.prefix_ids).lstrip("\ufffd"))
        suffix = ByteTokenizer().decode(prompt.suffix_ids).rstrip("\ufffd")
        line_end = text.find("\n", offset) if "\n" in text[offset:] else len(text)
        assert text[offset:].startswith(suffix) or text[line_end:].startswith(suffix)


def test_a_key_on_a_line_of_a_million_characters_tokenizes_little_and_keeps_the_prompts_start(
    starter: CodeTokenizer,
) -> None:
    text, offset = "x = 1\na = [" + "1, b, 'c', " * 90_000 + "\ny = 2\n", 500_000
    builder = PromptBuilder(starter, BUDGET)
    starts: list[list[int]] = []
    for _ in range(5):
        encoded = builder.encoder.num_encoded_chars
        prompt = build(builder, text, offset)
        assert builder.encoder.num_encoded_chars - encoded <= 4_000
        assert len(prompt.prefix_ids) >= 100
        assert len(prompt.suffix_ids) >= 50
        assert size(prompt) <= BUDGET.num_tokens
        assert text[:offset].endswith(prompt.prefix)
        starts.append(prompt.prefix_ids[:50])
        text, offset = text[:offset] + "q" + text[offset:], offset + 1
    assert len({tuple(start) for start in starts}) <= 2


@pytest.mark.parametrize("name", AWKWARD_TOKENIZERS)
def test_long_lines_fit_the_budget_whatever_the_tokenizer(name: str) -> None:
    builder = PromptBuilder(OneWayTokenizer(AWKWARD_TOKENIZERS[name][0]), BUDGET)
    for line in ("ab " * 30_000, "  " * 40_000, "x" * 50_000):
        text = f"first = 1\n{line}\nlast\n"
        for offset in (0, 9, 10, 40_000, len(text)):
            prompt = build(builder, text, offset)
            assert size(prompt) <= BUDGET.num_tokens
            assert text[:offset].endswith(prompt.prefix)
