"""The decoding benchmark's arithmetic: ratios, clean prompts, time limit, and the fit of the draft priors."""

from __future__ import annotations

from types import SimpleNamespace

import fit_draft_priors
import pytest
from bench import decoding
from bench.methods import Run


def run(num_tokens, total_s, first_s, steps=1, tokens=None):
    return Run(tuple(range(num_tokens)) if tokens is None else tokens, total_s, first_s, steps)


def test_ratios_pair_prompts_and_keep_decoding_apart_from_prefill():
    result = decoding.Comparison("d", "m", "cpu", "float32")
    result.prompts = [None, None, None]
    result.runs = {
        "autoregressive": [run(11, 3.0, 1.0, 11), run(11, 5.0, 1.0, 11), run(11, 9.0, 1.0, 11)],
        "forelook": [run(11, 2.0, 1.0, 4), run(11, 2.0, 1.0, 4), run(11, 3.0, 1.0, 4)],
    }
    ratios = decoding.summarize(result, range(3))["ratios"]["forelook/autoregressive"]
    assert ratios["decode"]["median"] == pytest.approx(4.0)
    assert ratios["end_to_end"]["median"] == pytest.approx(2.5)
    assert ratios["decode"]["low"] <= 4.0 <= ratios["decode"]["high"]


def test_the_report_has_the_promised_fields_and_the_clean_prompts_apart():
    looping = (1, 2, 3, 4, 5, 6, 7, 8) * 3
    result = decoding.Comparison("d", "m", "cpu", "float32")
    result.prompts = [None, None]
    result.runs = {"autoregressive": [run(0, 1.0, 0.5, 24, looping), run(24, 1.0, 0.5, 24)]}
    content = decoding.report(result)
    assert content["num_prompts"] == 2
    assert content["clean"]["num_prompts"] == 1
    promised = "tokens_per_s ms_per_token_p50 ms_per_token_p95 tokens_per_step ms_per_step identical_share"
    for part in (content, content["clean"]):
        assert set(promised.split()) <= part["methods"]["autoregressive"].keys()
    assert {"dataset", "model", "device", "dtype", "num_prompts", "methods", "clean"} <= content.keys()


def test_percentiles_are_those_of_the_product():
    result = decoding.Comparison("d", "m", "cpu", "float32")
    result.runs = {"autoregressive": [run(10, total_s, 0.01) for total_s in (0.1, 0.2, 0.4)]}
    figures = decoding.summarize(result, range(3))["methods"]["autoregressive"]
    assert (figures["ms_per_token_p50"], figures["ms_per_token_p95"]) == (20.0, 40.0), (
        "measured values, not between two"
    )


def test_a_time_limit_leaves_out_prompts_from_all_over_the_data_set(monkeypatch):
    prompts = list(range(100))
    seen = []
    monkeypatch.setattr(decoding, "time", SimpleNamespace(monotonic=lambda: 0.002 * len(seen)))

    def method(prompt):
        seen.append(prompt)
        return run(2, 1.0, 0.5)

    model = SimpleNamespace(name="m", device="cpu", dtype="torch.float32")
    result = decoding.compare("d", model, prompts, {"autoregressive": method}, decoding.Effort(seconds=0.05))
    assert 2 <= len(result.prompts) < 60
    assert len(result.runs["autoregressive"]) == len(result.prompts)
    assert max(result.prompts) > 50 > min(result.prompts)
    assert result.prompts == seen[1:]  # the first run is warm-up


def test_fitted_rates_never_fall_and_keep_the_overall_rate():
    tries = [(10, 1), (10, 5), (10, 3), (0, 0), (10, 9)]
    rates = fit_draft_priors.monotonous(tries, (0.0, 1.0))
    assert rates == sorted(rates)
    assert rates[1] == rates[2] == pytest.approx((8 + 2 * 2 * 18 / 40) / 24, abs=0.02)
    assert sum(rates) / 5 == pytest.approx(18 / 40, abs=0.1)
