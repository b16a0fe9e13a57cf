"""Step budgets: interpolation of costs, supported tail sizes, slopes."""

from __future__ import annotations

import pytest
from forelook.decoding.drafting.budget import CostCurve, StepBudget
from forelook.decoding.drafting.costs import COMMON_COSTS, StepCosts
from forelook.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st

COSTS = StepCosts((1, 4, 16), (1.0, 0.9, 2.0), (0.0, 0.0, 0.01))


def test_cost_never_falls_and_meets_the_measured_points():
    curve = COSTS.curve(0, 40)
    assert curve == sorted(curve)
    assert curve[0] == curve[1] == 1.0
    assert curve[4] == 1.0  # measured faster than one token: noise, or a kernel's whim
    assert curve[16] == pytest.approx(2.0)
    assert curve[10] == pytest.approx(1.5)
    assert curve[28] == pytest.approx(3.0)  # beyond the last point it goes on as before


def test_cached_tokens_add_their_cost():
    assert COSTS.curve(100, 16)[16] == pytest.approx(3.0)
    assert COSTS.curve(100, 16)[4] == pytest.approx(1.0)


def test_a_tail_costs_what_the_next_supported_size_does():
    curve = COSTS.curve(0, 16, tail_sizes=(1, 8, 16))
    assert curve[2] == curve[8] == pytest.approx(COSTS.curve(0, 8)[8])
    assert curve[9] == curve[16] == pytest.approx(2.0)


@given(seconds=st.lists(st.floats(0.1, 10), min_size=1, max_size=20).map(sorted))
def test_slope_is_the_cheapest_way_on(seconds):
    curve = CostCurve.of(seconds)
    for size, slope in enumerate(curve.slopes):
        for later in range(size + 1, len(seconds)):
            assert slope <= (seconds[later] - seconds[size]) / (later - size) + 1e-12


def test_budget_counts_pending_tokens_into_the_step():
    budget = StepBudget(COSTS, max_draft_tokens=8, seconds_per_draft=0.0)
    assert budget.curve(0, 8).seconds[0] == pytest.approx(COSTS.curve(0, 8)[8])
    assert budget.curve(0, 8).seconds[8] == pytest.approx(2.0)
    assert len(budget.curve(0, 1).seconds) == 9


def test_common_costs_make_one_token_the_unit():
    assert COMMON_COSTS.curve(0, 1)[1] == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("sizes", "seconds", "slopes"),
    [((2, 4), (1.0, 1.0), (0.0, 0.0)), ((1, 4), (1.0,), (0.0,)), ((1, 4), (1.0, 0.0), (0.0, 0.0)), ((), (), ())],
)
def test_impossible_costs_are_refused(sizes, seconds, slopes):
    with pytest.raises(ConfigError):
        StepCosts(sizes, seconds, slopes)
