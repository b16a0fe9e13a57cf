"""Choosing the target's token: exact distributions, filters, constraints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.draft import Draft, DraftOrigin
from forelook.decoding.limits import Limits, SamplingParams
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.decoding.verification import TargetChooser
from forelook.errors import DecodingError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decoding.streams import drafted
from tests.fakes import RandomTransformer

# chi-square's 99.9% point by degrees of freedom (standard tables)
CHI_SQUARE_999 = {3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46, 7: 24.32}


def exact_distribution(logits: np.ndarray, sampling: SamplingParams) -> np.ndarray:
    """Temperature, then top-k, then top-p, spelled out one token at a time."""
    scaled = logits.astype(np.float64) / sampling.temperature
    weights = np.exp(scaled - scaled.max())
    order = sorted(range(len(weights)), key=lambda token: (-weights[token], token))
    if sampling.top_k is not None:
        order = order[: sampling.top_k]
    total = sum(weights[token] for token in order)
    kept, mass = [], 0.0
    for token in order:
        if sampling.top_p is not None and mass >= sampling.top_p:
            break
        kept.append(token)
        mass += weights[token] / total
    distribution = np.zeros(len(weights))
    distribution[kept] = weights[kept]
    return distribution / distribution.sum()


def chi_square(counts: np.ndarray, expected: np.ndarray) -> tuple[float, int]:
    possible = expected > 0
    assert counts[~possible].sum() == 0, "a token outside the filters was chosen"
    statistic = ((counts[possible] - expected[possible]) ** 2 / expected[possible]).sum()
    return float(statistic), int(possible.sum()) - 1


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(1.0),
        SamplingParams(0.6),
        SamplingParams(1.5, top_k=5),
        SamplingParams(1.0, top_p=0.9),
        SamplingParams(1.3, top_k=6, top_p=0.95),
    ],
    ids=str,
)
def test_chosen_tokens_follow_the_exact_distribution(sampling):
    logits = np.array([1.0, 0.2, -0.4, 0.9, -2.0, 0.1, 0.7, -0.2], dtype=np.float32)
    expected = exact_distribution(logits, sampling)
    num_samples = 30_000
    counts = np.zeros(8)
    for seed in range(num_samples // 50):
        chooser = TargetChooser(SamplingParams(sampling.temperature, sampling.top_k, sampling.top_p, seed))
        chooser.observe(torch.from_numpy(logits)[None])
        for position in range(50):
            counts[chooser.choose(0, [0] * position)] += 1
    statistic, freedom = chi_square(counts, num_samples * expected)
    assert statistic < CHI_SQUARE_999[freedom]


class CertainGuess:
    """Always drafts the same continuation, right or not."""

    def __init__(self, ids):
        self.ids = ids

    def propose(self, context, *, max_candidates, max_length):
        ids = tuple(self.ids[:max_length])
        return [Draft(ids, (1.0,) * len(ids), 9, DraftOrigin.WORKSPACE)] if ids else []

    def extend(self, token_ids):
        self.ids = self.ids[len(token_ids) :]


def test_speculative_samples_follow_the_exact_joint_distribution():
    """Two tokens of a six-token vocabulary, drafts always present: each pair as often as the model says.

    Six thousand streams: the single-token tests before see smaller errors, this one those of following a draft.
    """
    model = RandomTransformer(5, vocab_size=6, sharpness=1.0)
    sampling = SamplingParams(1.0)
    prompt = [1, 2]
    expected = np.zeros((6, 6))

    def distribution(ids):
        from forelook.decoding.layout import causal_layout

        model.truncate(0)
        return exact_distribution(model.forward(causal_layout(ids, 0))[0].numpy(), sampling)

    first = distribution(prompt)
    for token in range(6):
        expected[token] = first[token] * distribution([*prompt, token])
    num_samples, accepted = 6_000, 0
    counts = np.zeros((6, 6))
    budget = StepBudget(max_draft_tokens=8)
    for seed in range(num_samples):
        stats = DecodingStats()
        output = [
            token
            for tokens in drafted(
                DecodeRequest(prompt, Limits(2), SamplingParams(1.0, seed=seed)),
                model,
                stats,
                sources=[CertainGuess([int(first.argmax()), 0])],
                budget=budget,
            )
            for token in tokens
        ]
        counts[output[0], output[1]] += 1
        accepted += stats.num_accepted_tokens
    assert accepted > num_samples * 0.2, "the drafts must matter for this test to mean anything"
    statistic = ((counts - num_samples * expected) ** 2 / (num_samples * expected)).sum()
    assert statistic < 66.62  # 35 degrees of freedom, 99.9%


@settings(max_examples=200, deadline=None)
@given(
    logits=st.lists(st.integers(-3, 3), min_size=2, max_size=12),
    top_k=st.one_of(st.none(), st.integers(1, 14)),
    top_p=st.one_of(st.none(), st.sampled_from([0.05, 0.3, 0.77, 0.99, 1.0])),
    temperature=st.sampled_from([0.2, 1.0, 3.0]),
)
def test_filters_never_let_a_token_through_that_the_definition_excludes(logits, top_k, top_p, temperature):
    values = np.array(logits, dtype=np.float32) + np.arange(len(logits), dtype=np.float32) * 1e-3
    sampling = SamplingParams(temperature, top_k, top_p)
    allowed = set(np.flatnonzero(exact_distribution(values, sampling)).tolist())
    chosen = set()
    for seed in range(30):
        chooser = TargetChooser(SamplingParams(temperature, top_k, top_p, seed))
        chooser.observe(torch.from_numpy(values)[None])
        chosen.add(chooser.choose(0, []))
    assert chosen <= allowed


class Allowed:
    def __init__(self, *sets):
        self.sets = sets
        self.asked = 0

    def allowed_ids(self, generated):
        self.asked += 1
        if len(generated) >= len(self.sets):
            return None
        return np.array(sorted(self.sets[len(generated)]), dtype=np.int64)


def test_constraint_picks_the_best_allowed_token_and_is_dropped_once_it_lifts():
    constraint = Allowed({1, 3})
    chooser = TargetChooser(SamplingParams(), constraint)
    chooser.observe(torch.tensor([[9.0, 1.0, 8.0, 2.0], [9.0, 1.0, 8.0, 2.0]]))
    assert chooser.choose(0, []) == 3
    assert chooser.choose(1, [3]) == 0
    assert chooser.constraint is None
    asked = constraint.asked
    assert chooser.choose(1, [3, 0]) == 0
    assert constraint.asked == asked


def test_constraint_renormalises_before_the_filters():
    sampling = SamplingParams(1.0, top_k=1, seed=3)
    chooser = TargetChooser(sampling, Allowed({1, 3}))
    chooser.observe(torch.tensor([[9.0, 1.0, 8.0, 2.0]]))
    assert chooser.choose(0, []) == 3


def test_constraint_that_allows_nothing_is_an_error():
    chooser = TargetChooser(SamplingParams(), Allowed(set()))
    chooser.observe(torch.zeros((1, 4)))
    with pytest.raises(DecodingError, match="allows no token after 0"):
        chooser.choose(0, [])


def test_noise_depends_on_seed_and_position_alone():
    logits = torch.zeros((1, 64))
    streams = []
    for seed in (1, 1, 2):
        chooser = TargetChooser(SamplingParams(1.0, seed=seed))
        chooser.observe(logits)
        streams.append([chooser.choose(0, [0] * position) for position in range(40)])
    assert streams[0] == streams[1] != streams[2]
    assert len(set(streams[0])) > 20
