"""Prompts of requests without a document: what fits, and that windows stay while a client's window slides."""

from __future__ import annotations

import itertools
import random

import pytest
from forelook.completion.prompt.prompt import PromptBudget, PromptBuilder
from forelook.completion.prompt.stateless import StatelessPrompts
from forelook.protocol.generation import InfillPrompt, PromptFile, RawPrompt

from tests.completion.fake_model import FakeModel

LINES = [f"    value_{number} = compute({number * 7919 % 1000})\n" for number in range(400)]


def prompts(num_tokens: int = 1_000) -> StatelessPrompts:
    model = FakeModel()
    builder = PromptBuilder(model.tokenizer, PromptBudget(num_tokens, 0.4, 0.1), model.infill)  # type: ignore[arg-type]
    return StatelessPrompts(model.tokenizer, builder, model.infill_formats)  # type: ignore[arg-type]


def test_what_fits_is_used_whole() -> None:
    made = prompts().build(InfillPrompt("ab\n", "\ncd", "x"))
    assert bytes(made.prefix_ids) == b"ab\n"
    assert bytes(made.suffix_ids) == b"\ncd"
    assert bytes(made.middle_ids) == b"x"
    assert not made.is_truncated
    assert made.ids[-1] == ord("x"), "the text at the cursor comes last"


def test_a_long_prompt_has_the_lines_next_to_the_cursor_and_fills_its_windows() -> None:
    made = prompts().build(InfillPrompt("".join(LINES[:200]), "".join(LINES[200:])))
    prefix, suffix = bytes(made.prefix_ids).decode(), bytes(made.suffix_ids).decode()
    assert "".join(LINES[:200]).endswith(prefix)
    assert "".join(LINES[200:]).startswith(suffix)
    assert made.is_truncated
    assert 500 <= len(made.ids) <= 1_010


def test_equal_requests_have_equal_prompts_whatever_came_before() -> None:
    request = InfillPrompt("".join(LINES[:200]), "".join(LINES[200:]))
    used = prompts()
    for end in range(100, 300, 7):
        used.build(InfillPrompt("".join(LINES[:end]), "".join(LINES[end:])))
    assert used.build(request) == prompts().build(request)


def test_a_window_that_slides_over_a_file_mostly_keeps_its_start() -> None:
    """A client sends 60 lines before the cursor, which moves down line by line."""
    made = prompts()
    starts = [
        bytes(made.build(InfillPrompt("".join(LINES[end - 60 : end]), "")).prefix_ids).decode().split("\n")[0]
        for end in range(60, 360)
    ]
    assert len(set(starts)) > 10, "the windows do slide"
    assert set(starts) <= {line.strip("\n") for line in LINES}, "they begin at lines"
    moves = sum(left != right for left, right in itertools.pairwise(starts))
    assert moves < 100, "a start that moved with every line would make every prompt a cold one"


@pytest.mark.parametrize("seed", range(20))
def test_no_prompt_is_larger_than_its_budget(seed: int) -> None:
    draw = random.Random(seed)

    def text() -> str:
        kind = draw.randrange(4)
        if kind == 0:
            return ""
        if kind == 1:
            return "x" * draw.randrange(20_000)
        return "".join(draw.choice([*LINES, "\n", "\r\n", "é漢\n", "  \n"]) for _ in range(draw.randrange(300)))

    budget = draw.choice([64, 300, 1_000])
    for _ in range(20):
        files = tuple(PromptFile(f"{number}.py", text()) for number in range(draw.randrange(4)))
        made = prompts(budget).build(InfillPrompt(text(), text(), text()[:500], files))
        assert len(made.ids) <= budget + 80  # sentinels and the names of files


def test_the_last_file_is_the_most_useful_and_the_first_to_be_used() -> None:
    files = tuple(PromptFile(f"{name}.py", f"text of {name}\n" * 20) for name in "abcdef")
    made = prompts(600).build(InfillPrompt("x\n", "", files=files))
    text = bytes(token for token in made.context_ids if token < 256).decode()
    assert "text of f" in text
    assert "text of a" not in text


def test_ids_of_a_client_begin_where_the_client_says() -> None:
    made = prompts()
    bos = FakeModel().infill.bos_token_id
    assert made.build(RawPrompt((5, 6))).ids == [5, 6]
    assert made.build(RawPrompt(("a",))).ids == [bos, ord("a")]
    assert made.build(RawPrompt((5, "a", 6))).ids == [5, ord("a"), 6]
    assert made.build(RawPrompt(())).ids == []
