"""Step costs: interpolation, supported tail sizes, storage."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from forelook.decoding.drafting.budget import COMMON_COSTS, CostCurve, StepBudget, StepCosts
from forelook.decoding.drafting.sources.successors import measure_successor_seeds
from forelook.decoding.layout import causal_layout
from forelook.errors import ConfigError
from forelook.model.forward.static_step import TAIL_SIZES
from forelook.model.step_costs import measure_step_costs, step_costs, successor_seeds
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import RandomTransformer

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


def test_measured_costs_are_kept_per_device_model_and_dtype(tmp_path):
    model = RandomTransformer(0, max_positions=200)
    options = {"cache_dir": tmp_path, "device": torch.device("cpu"), "dtype": torch.float32}
    first = step_costs(model, fingerprint="a", **options)
    forwards = len(model.layouts)
    assert step_costs(model, fingerprint="a", **options) == first
    assert len(model.layouts) == forwards, "the second time nothing is measured"
    step_costs(model, fingerprint="b", **options)
    assert len(model.layouts) > forwards
    assert len(list(tmp_path.iterdir())) == 2
    assert list(model.cached_ids) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"sizes": [1], "seconds": [0], "seconds_per_cached": [0]}'])
def test_a_damaged_file_is_set_aside_and_measured_again(tmp_path, content):
    model = RandomTransformer(0, max_positions=100)
    options = {"cache_dir": tmp_path, "fingerprint": "a", "device": torch.device("cpu"), "dtype": torch.float32}
    step_costs(model, **options)
    (path,) = tmp_path.iterdir()
    path.write_text(content)
    assert step_costs(model, **options).sizes[0] == 1
    assert json.loads(path.read_text())["sizes"][0] == 1
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names == {path.name, f"{path.name}.damaged"}, "no temporary file is left"


def test_measurement_fits_a_small_model():
    costs = measure_step_costs(RandomTransformer(0, max_positions=40), repeats=2)
    assert costs.sizes[0] == 1
    assert costs.sizes[-1] <= 32


@pytest.mark.parametrize("start_ids", [[], [3]])
def test_successor_seeds_are_what_the_model_says_after_each_token(start_ids):
    model = RandomTransformer(2, max_positions=64)
    seeds = measure_successor_seeds(model, start_ids, batch_size=10)
    if start_ids:
        for token in range(32):
            logits = model.forward(causal_layout([*start_ids, token], 0))[0]
            top = torch.softmax(logits, dim=-1).topk(3)
            assert seeds.token_ids[token].tolist() == top.indices.tolist()
            np.testing.assert_allclose(seeds.probabilities[token], top.values.numpy(), rtol=1e-5)
    assert seeds.token_ids.shape == (32, 3)
    assert (np.diff(seeds.probabilities, axis=1) <= 0).all()


@pytest.mark.parametrize("start_ids", [[], [3]])
def test_successor_seeds_are_asked_for_in_steps_of_a_size_that_a_gpu_has_captured(start_ids):
    model = RandomTransformer(2, vocab_size=300)
    measure_successor_seeds(model, start_ids)
    assert [len(layout) for layout in model.layouts][:2] == [TAIL_SIZES[-1]] * 2
    assert len(model.layouts) == 3


def test_successor_seeds_are_kept_and_a_damaged_file_is_replaced(tmp_path):
    model = RandomTransformer(2, max_positions=64)
    first = successor_seeds(model, [3], cache_dir=tmp_path, fingerprint="a")
    forwards = len(model.layouts)
    again = successor_seeds(model, [3], cache_dir=tmp_path, fingerprint="a")
    assert (again.token_ids == first.token_ids).all()
    assert len(model.layouts) == forwards
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"PK not an archive")
    assert (successor_seeds(model, [3], cache_dir=tmp_path, fingerprint="a").token_ids == first.token_ids).all()
    assert len(model.layouts) > forwards
