"""Suggestions that the model is not sure of: not shown unasked, and never lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from forelook.completion.confidence import GeneratedBytes
from forelook.confidence import Confidence
from forelook.decoding.layout import StepLayout
from forelook.finish_reason import FinishReason
from forelook.model.confidence import ConfidenceTable
from forelook.protocol.messages import MultiLine, TextChange, TriggerKind

from tests.completion.engine_rig import PLAIN, WORKSPACE, A, Rig
from tests.completion.fake_model import FakeModel, ScriptedSequence

DOUBTED = ord("c")
"""The model gives this byte half of the probability, every other one nearly all."""


class DoubtfulSequence(ScriptedSequence):
    def forward(self, layout: StepLayout) -> torch.Tensor:
        logits = super().forward(layout)
        doubted = logits[:, DOUBTED] > 0
        logits[doubted, ord("~")] = logits[doubted, DOUBTED] - 0.001
        return logits


class DoubtfulModel(FakeModel):
    def new_sequence(self, max_positions: int | None = None) -> ScriptedSequence:
        sequence = DoubtfulSequence(
            self._next_token, max_positions=max_positions or self.max_positions, on_forward=self._forward
        )
        self.sequences.append(sequence)
        return sequence


@pytest.fixture
def rig(rigs: Callable[..., Rig]) -> Callable[[str], Rig]:
    def make(target: str, **config: object) -> Rig:
        return rigs(DoubtfulModel(target), replace(PLAIN, **config))

    return make


def test_a_line_less_likely_than_asked_for_is_not_sent(rig: Callable[[str], Rig]) -> None:
    one = rig("x = ab(c, d)\ny = 2\n")
    one.open("x = \n")
    reply = one.ask(4, confidence=0.6)
    assert reply.texts == []
    assert reply.result.finish_reason is FinishReason.UNSURE
    assert one.ask(4, confidence=0.4).texts == ["ab(c, d)"]
    assert one.ask(4).texts == ["ab(c, d)"], "a client that says nothing gets everything"


def test_the_probabilities_of_a_line_multiply(rig: Callable[[str], Rig]) -> None:
    one = rig("x = ab(c, c)\ny = 2\n")
    one.open("x = \n")
    assert one.ask(4, confidence=0.3).texts == []
    assert one.ask(4, confidence=0.2).texts == ["ab(c, c)"]


def test_what_becomes_sure_while_its_beginning_is_typed_is_shown(rig: Callable[[str], Rig]) -> None:
    one = rig("x = ab(c, d)\ny = 2\n")
    one.open("x = \n")
    assert one.ask(4, confidence=0.6).texts == []
    one.engine.change_document(A, 2, [TextChange(4, 4, "ab(c")])
    assert one.ask(8, version=2, confidence=0.6).texts == [", d)"]


def test_a_request_by_command_is_answered_however_unsure(rig: Callable[[str], Rig]) -> None:
    one = rig("x = ab(c, d)\n")
    one.open("x = \n")
    assert one.ask(4, confidence=1.0, trigger=TriggerKind.INVOKED).texts == ["ab(c, d)"]


def test_an_unlikely_line_is_not_generated_to_its_end(rig: Callable[[str], Rig]) -> None:
    one = rig("x = c" + "d" * 30 + "\n")
    one.open("x = \n")
    assert one.ask(4, confidence=0.9).texts == []
    assert len(one.model.forwards) == 1


def test_later_lines_do_not_count(rig: Callable[[str], Rig]) -> None:
    one = rig("def f(x):\n    a = x\n    return ccc\n")
    one.open("def f(x):\n    \n")
    assert one.ask(14, confidence=0.6).texts == ["    a = x\n    return ccc"]


@pytest.mark.parametrize(("second", "next_line"), [("b = 2", "\nb = 2"), ("b = c", "")])
@pytest.mark.parametrize("trigger", list(TriggerKind))
def test_the_line_to_show_next_must_be_sure_too(
    rigs: Callable[..., Rig], second: str, next_line: str, trigger: TriggerKind
) -> None:
    # The text above is drafted, so that one step generates beyond the line.
    text = f"a = 1\n{second}\nz = 3\nprint(a)\n"
    for confidence, expected in ((Confidence.OFF, f"\n{second}"), (0.6, next_line)):
        one = rigs(DoubtfulModel(text * 2), replace(PLAIN, autoregressive=False))  # its first request drafts the same
        one.open(f"{text}a = \n")
        reply = one.ask(len(text) + 4, confidence=confidence, trigger=trigger, multi_line=MultiLine.NEVER)
        assert reply.texts == ["1"]
        assert reply.result.next_line == expected


def test_a_withheld_text_still_drafts_the_next_answer(rigs: Callable[..., Rig]) -> None:
    one = rigs(DoubtfulModel("x = compute(abcd)\ny = 2\n"), replace(PLAIN, autoregressive=False))
    one.open("x = \n")
    assert one.ask(4, confidence=0.9).texts == []
    one.engine.change_document(A, 2, [TextChange(4, 4, "c")])
    one.model.forwards.clear()
    assert one.ask(5, version=2, confidence=0.1).texts == ["ompute(abcd)"]


def test_the_model_says_what_a_level_means_in_a_language(rigs: Callable[..., Rig]) -> None:
    model = DoubtfulModel("x = ab(c, d)\n")
    levels = {Confidence.DEFAULT: {"*": 0.4, "python": 0.6}, Confidence.STRICT: {"*": 0.7}}
    model.confidence = ConfidenceTable(levels, is_measured=True)
    one = rigs(model)
    for language, level, texts in (
        ("python", Confidence.DEFAULT, []),
        ("go", Confidence.DEFAULT, ["ab(c, d)"]),
        ("go", Confidence.STRICT, []),
        ("go", Confidence.OFF, ["ab(c, d)"]),
    ):
        one.engine.open_document(WORKSPACE, A, language, 1, "x = \n")
        assert one.ask(4, confidence=level).texts == texts, (language, level)


# --- which tokens belong to a line


def generated(*pieces: str, skipped: int = 0) -> GeneratedBytes:
    data = GeneratedBytes(skipped)
    data.push(piece.encode() for piece in pieces)
    return data


SCORES = [-1.0, -2.0, -4.0, -8.0, -16.0]


@pytest.mark.parametrize(
    ("pieces", "total"),
    [
        (["a", "b"], -3.0),
        (["a", "b", "\n", "c", "d"], -7.0),
        (["a", "b\n  ", "c"], -3.0),
        (["\n  ", "a", "b", "\n", "c"], -15.0),
        (["\n", "\n", "a"], -7.0),
        (["é", "\n", "a"], -3.0),
        ([" "], -1.0),
    ],
)
def test_a_line_ends_with_the_token_that_ends_it(pieces: list[str], total: float) -> None:
    assert generated(*pieces).line_score(SCORES[: len(pieces)]).total == total


def test_a_stop_token_ends_a_line_like_a_break() -> None:
    assert generated("a", "b").line_score(SCORES[:3]).total == -7.0
    assert generated("a", "\n", "b").line_score(SCORES[:4]).total == -3.0, "not one that comes later"


def test_tokens_that_repeat_the_prompt_count_among_those_that_do() -> None:
    data = generated("  ", "re", "turn", skipped=4)
    assert data.line_score(SCORES[:3]).ends == (-2, 0, 4)
    assert data.line_score(SCORES[:3]).total == -7.0


def test_a_later_line_starts_with_its_break() -> None:
    data = generated("a", "\n", "b", "c", "\n")
    assert data.line_score(SCORES, 1).log_probs == (-2.0, -4.0, -8.0, -16.0)
    assert generated("a\n", "b", "\n").line_score(SCORES[:3], 1).log_probs == (-1.0, -2.0, -4.0)


def test_a_score_has_its_first_lowest_and_mean() -> None:
    score = generated("a", "b").line_score([-1.0, -3.0])
    assert (score.first, score.lowest, score.mean) == (-1.0, -3.0, -2.0)
    assert math.isclose(score.total, -4.0)
