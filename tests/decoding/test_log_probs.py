"""Log-probabilities of the output: the same however it was decoded, and none unless they are wanted."""

from __future__ import annotations

import pytest
import torch
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.layout import causal_layout
from forelook.decoding.limits import GREEDY, Limits, SamplingParams
from forelook.decoding.lookahead.published import PublishedSettings
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.decoding.verification import TargetChooser
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decoding.streams import drafted, published
from tests.decoding.test_lossless import FREE, AllowedAtFirst
from tests.fakes import RandomTransformer

ALLOWED = frozenset({1, 5, 9, 30})


def expected_log_probs(prompt: list[int], output: list[int], allowed_at_first: int) -> list[float]:
    """Those of one forward over the whole text, by torch's own softmax."""
    model = RandomTransformer(3)
    logits = model.forward(causal_layout([*prompt, *output[:-1]], 0, last_logits_only=False))[len(prompt) - 1 :]
    for row in range(min(allowed_at_first, len(output))):
        excluded = [token for token in range(32) if token not in ALLOWED]
        logits[row, excluded] = -torch.inf
    return logits.log_softmax(-1)[range(len(output)), output].tolist()


@settings(deadline=None, max_examples=60)
@given(
    prompt=st.lists(st.integers(0, 31), min_size=1, max_size=40),
    max_new_tokens=st.integers(1, 30),
    stops=st.frozensets(st.integers(0, 31), max_size=3),
    constrained=st.booleans(),
    sampling=st.sampled_from([GREEDY, SamplingParams(1.0, seed=2)]),
)
def test_every_loop_reports_what_one_forward_over_the_text_gives(prompt, max_new_tokens, stops, constrained, sampling):
    constraint = AllowedAtFirst(2, ALLOWED) if constrained else None
    request = DecodeRequest(prompt, Limits(max_new_tokens, stops), sampling, constraint, is_scored=True)
    runs = {
        "autoregressive": lambda stats: autoregressive(request, RandomTransformer(3), stats),
        "drafted": lambda stats: drafted(request, RandomTransformer(3), stats, budget=StepBudget(FREE)),
        "published": lambda stats: published(request, RandomTransformer(3), PublishedSettings(5, 4, 3), stats),
    }
    for name, run in runs.items():
        stats = DecodingStats()
        output = [token for ids in run(stats) for token in ids]
        num_scored = len(stats.log_probs)
        assert num_scored - len(output) in (0, 1), name
        if num_scored > len(output):
            assert stats.finish_reason is not None
        expected = expected_log_probs(prompt, output, 2 if constrained else 0) if output else []
        assert stats.log_probs[: len(output)] == pytest.approx(expected, abs=1e-6), name


def test_the_stop_token_is_scored_last():
    prompt = [3, 7, 11]
    (stop,) = next(autoregressive(DecodeRequest(prompt, Limits(1)), RandomTransformer(3)))
    stats = DecodingStats()
    request = DecodeRequest(prompt, Limits(5, frozenset({stop})), is_scored=True)
    assert list(autoregressive(request, RandomTransformer(3), stats)) == []
    assert stats.log_probs == pytest.approx(expected_log_probs(prompt, [stop], 0))


def test_nothing_is_computed_for_a_request_that_is_not_scored():
    stats = DecodingStats()
    assert list(drafted(DecodeRequest([1, 2], Limits(9)), RandomTransformer(3), stats))
    assert stats.log_probs == []


def test_rows_far_apart_and_infinite_are_scored_without_overflow():
    chooser = TargetChooser(GREEDY, is_scored=True)
    chooser.observe(torch.tensor([[1e30, -torch.inf, 0.0], [0.0, 0.0, 0.0]]))
    assert [chooser.choose(0, []), chooser.choose(1, [0])] == [0, 0]
    assert chooser.log_probs() == pytest.approx([0.0, -1.0986123])
