"""Step costs: an estimate that every step corrects."""

from __future__ import annotations

import random

import pytest
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.costs import StepCostEstimate, StepCosts
from forelook.decoding.limits import Limits
from forelook.decoding.request import DecodeRequest

from tests.decoding import streams
from tests.fakes import RandomTransformer

SIZES = (1, 2, 4, 8, 16, 32, 64)


def linear(fixed: float, row: float) -> StepCosts:
    return StepCosts(SIZES, tuple(fixed + size * row for size in SIZES), (0.0,) * len(SIZES))


def warmed(costs: StepCosts, **options: bool) -> StepCostEstimate:
    estimate = StepCostEstimate(costs, **options)
    for size in range(1, SIZES[-1] + 1):
        estimate.observe(size, 0, 99.0)  # the first of a size is not counted
    return estimate


def test_the_first_step_sets_the_scale_of_all_sizes() -> None:
    estimate = warmed(linear(1e-3, 1e-4))
    estimate.observe(4, 0, 10 * 1.4e-3)
    assert estimate.costs.seconds == pytest.approx(linear(1e-2, 1e-3).seconds)


def test_the_first_step_of_a_size_warms_up_and_counts_for_nothing() -> None:
    estimate = StepCostEstimate(linear(1e-3, 1e-4))
    estimate.observe(4, 0, 1.0)
    assert estimate.costs == linear(1e-3, 1e-4)
    assert estimate.drift == 0.0


@pytest.mark.parametrize(
    "true",
    [
        linear(20e-3, 1.3e-3),
        StepCosts(SIZES, (8e-3, 8e-3, 8e-3, 17e-3, 30e-3, 55e-3, 0.11), (0.0,) * len(SIZES)),  # steps of four tokens
        StepCosts(SIZES, (4e-3, 4e-3, 4e-3, 4e-3, 4.1e-3, 4.2e-3, 4.5e-3), (0.0,) * len(SIZES)),  # a GPU
    ],
)
def test_costs_converge_under_the_load_of_other_programs(true: StepCosts) -> None:
    dice = random.Random(0)
    estimate = warmed(linear(1e-3, 1e-4))
    curve = true.curve(0, 64)
    for _ in range(400):
        size = dice.choice((1, 1, 1, 2, 3, 4, 5, 8, 12, 13, 16))
        noise = dice.choice((1.0, 1.0, 1.02, 1.05, 1.2, 3.0))
        estimate.observe(size, 200, curve[size] * noise)
    found = estimate.costs.curve(200, 64)
    for size in (1, 2, 4, 8, 12, 16):
        assert found[size] == pytest.approx(curve[size], rel=0.15), size


def test_sizes_that_are_not_tried_follow_the_speed_of_the_device() -> None:
    estimate = warmed(linear(1e-3, 1e-4), is_measured=True)
    for _ in range(200):
        estimate.observe(1, 0, 5e-3)  # before: 1.1 ms
    assert estimate.costs.seconds[0] == pytest.approx(5e-3, rel=0.05)
    assert estimate.costs.seconds[-1] > 1.4 * linear(1e-3, 1e-4).seconds[-1]


def test_measured_costs_are_not_overthrown_by_one_step() -> None:
    estimate = warmed(linear(1e-3, 1e-4), is_measured=True)
    estimate.observe(1, 0, 1.1)
    assert estimate.costs.seconds[0] < 3e-3


def test_a_budget_of_an_estimate_follows_it_and_one_of_fixed_costs_does_not() -> None:
    followed, fixed = StepBudget(StepCostEstimate(linear(1e-3, 1e-4))), StepBudget(linear(1e-3, 1e-4))
    for budget in (followed, fixed):
        before = budget.curve(0, 1).seconds[0]
        for _ in range(2):
            budget.observe(3, 0, 8e-2, tail_sizes=(1, 8, 64))
        after = budget.curve(0, 1).seconds[0]
        assert (after == before) is (budget is fixed)
    assert followed.costs.seconds[SIZES.index(8)] == pytest.approx(8e-2), "a padded step costs what its size does"


def test_decoding_corrects_the_costs() -> None:
    budget = StepBudget(StepCostEstimate(linear(1.0, 0.1)))
    request = DecodeRequest([1, 2, 3], Limits(100))
    list(streams.drafted(request, RandomTransformer(0), budget=budget))
    assert budget.costs.seconds[0] < 0.1, "a step of the tiny model takes less than a millisecond"
