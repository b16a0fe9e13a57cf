"""The benchmark of the lookahead window: its variants differ in the window alone, and no output differs."""

from __future__ import annotations

import pytest
from bench import cost_tables
from bench.datasets import BenchPrompt
from bench.models import STARTER, load_named
from bench.window import VARIANTS, WindowContest, simulated_costs

TEXTS = (
    "def total(values):\n    result = 0\n    for value in",
    "class Point:\n    def __init__(self, x, y):\n        self",
)


@pytest.fixture(scope="module")
def contest() -> WindowContest:
    return WindowContest(load_named(STARTER, device="cpu", dtype="float32"), 12)


@pytest.fixture(scope="module")
def prompts(contest: WindowContest) -> list[BenchPrompt]:
    encoded = [contest.model.tokenizer.encode(text) for text in TEXTS]
    return [BenchPrompt(f"text/{number}", ids, ids) for number, ids in enumerate(encoded)]


def test_a_window_is_open_where_tokens_are_free_and_shut_where_they_are_dear(
    contest: WindowContest, prompts: list[BenchPrompt]
) -> None:
    found = contest.simulated("texts", prompts, (0.0, 0.5))
    for slope, figures in found.items():
        assert set(figures["variants"]) == set(VARIANTS)
        assert figures["num_prompts"] == len(TEXTS)
        assert not any(one["num_outputs_different"] for one in figures["variants"].values())
        assert figures["variants"]["shut"]["open_share"] == 0.0
        assert figures["variants"]["shut"]["drafts_with_window"] is None
        assert (figures["variants"]["auto"]["open_share"] > 0.0) == (slope == "0")
    dear = found["0.5"]["speed"]
    assert dear["auto"]["median"] == 1.0, "without a window the product is what it is with the window shut"
    assert found["0"]["variants"]["open"]["open_share"] > 0.5
    assert found["0"]["variants"]["open"]["window_tokens"] > 0


def test_an_open_window_costs_what_its_tokens_cost(contest: WindowContest, prompts: list[BenchPrompt]) -> None:
    cheap, dear = contest.simulated("texts", prompts, (0.001, 0.01)).values()
    assert dear["speed"]["open"]["median"] < cheap["speed"]["open"]["median"]


def test_costs_rise_by_the_slope() -> None:
    curve = simulated_costs(0.25).curve(0, 9)
    assert curve[9] / curve[1] == pytest.approx(3.0)
    assert curve[5] - curve[4] == pytest.approx(0.25 * curve[1])


def test_the_table_has_a_row_per_slope_and_one_of_this_machine(
    contest: WindowContest, prompts: list[BenchPrompt]
) -> None:
    content = {
        "model": STARTER,
        "max_new_tokens": 12,
        "simulated": {"texts": contest.simulated("texts", prompts[:1], (0.0,))},
        "timed": {"texts": contest.timed("texts", prompts[:1])},
    }
    lines = cost_tables.window(content)
    assert "differ from autoregressive ones in 0 cases" in lines[0]
    assert [line.split(" | ")[1] for line in lines[4:]] == ["0", "this machine"]
