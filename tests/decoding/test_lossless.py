"""Whatever is drafted, the output is what autoregressive decoding gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.costs import COMMON_COSTS, StepCosts
from forelook.decoding.drafting.draft import Draft, DraftOrigin
from forelook.decoding.drafting.sources.pool import PoolSource
from forelook.decoding.drafting.tree_drafter import DraftMemory
from forelook.decoding.limits import GREEDY, Limits, SamplingParams
from forelook.decoding.lookahead.published import PublishedSettings
from forelook.decoding.ngrams.pool import NgramPool
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decoding.streams import drafted, published
from tests.fakes import RandomTransformer

# on such a device every draft pays, and the lookahead window too
FREE = StepCosts((1, 64), (1e-3, 1.0001e-3), (0.0, 0.0))

samplings = st.one_of(
    st.just(GREEDY),
    st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.3, 1.0, 2.0]),
        top_k=st.sampled_from([None, 1, 3]),
        top_p=st.sampled_from([None, 0.5, 0.9]),
        seed=st.integers(0, 3),
    ),
)


class AllowedAtFirst:
    """Only some ids for the first tokens of the output, as token healing asks for."""

    def __init__(self, num_tokens: int, ids: frozenset[int]) -> None:
        self.num_tokens = num_tokens
        self.ids = np.array(sorted(ids), dtype=np.int64)

    def allowed_ids(self, generated):
        return self.ids if len(generated) < self.num_tokens else None


@settings(deadline=None, max_examples=150)
@given(
    weights=st.integers(0, 20),
    prompt=st.lists(st.integers(0, 31), min_size=1, max_size=40),
    window_size=st.integers(1, 7),
    ngram_size=st.integers(2, 6),
    max_candidates=st.integers(0, 7),
    prompt_as_reference=st.booleans(),
    max_new_tokens=st.integers(0, 40),
    max_positions=st.sampled_from([45, 60, 512]),
    stops=st.frozensets(st.integers(0, 31), max_size=2),
    boundaries=st.frozensets(st.integers(0, 31), max_size=2),
    constrained=st.booleans(),
    sampling=samplings,
)
def test_published_lookahead_gives_the_autoregressive_stream(
    weights,
    prompt,
    window_size,
    ngram_size,
    max_candidates,
    prompt_as_reference,
    max_new_tokens,
    max_positions,
    stops,
    boundaries,
    constrained,
    sampling,
):
    model = RandomTransformer(weights, max_positions=max_positions)
    limits = Limits(max_new_tokens, stops)
    constraint = AllowedAtFirst(2, frozenset({1, 5, 9, 30})) if constrained else None
    request = DecodeRequest(prompt, limits, sampling, constraint, boundary_ids=boundaries)
    expected_stats, stats = DecodingStats(), DecodingStats()
    expected = [token for tokens in autoregressive(request, model, expected_stats) for token in tokens]
    chosen = PublishedSettings(window_size, ngram_size, max_candidates, prompt_as_reference)
    model.truncate(0)
    steps = list(published(request, model, chosen, stats))
    assert [token for tokens in steps for token in tokens] == expected
    assert all(steps)
    assert stats.finish_reason is expected_stats.finish_reason
    assert stats.num_generated_tokens == len(expected)
    assert stats.num_steps <= max(1, expected_stats.num_steps)
    cached = list(model.cached_ids)
    assert cached == [*prompt, *expected][: len(cached)]


def test_published_lookahead_accepts_several_tokens_of_a_repeating_text():
    model = RandomTransformer(3)
    stats = DecodingStats()
    list(published(DecodeRequest([1, 2, 3], Limits(200)), model, PublishedSettings(5, 4, 5, True), stats))
    assert stats.num_generated_tokens == 200
    assert stats.tokens_per_step > 1.5
    assert stats.num_generated_tokens == stats.num_accepted_tokens + stats.num_steps


class ScrambledSource:
    """Drafts that are right, nearly right, foreign or absurdly long, as a seeded mix."""

    def __init__(self, truth: list[int], seed: int) -> None:
        self.truth = truth
        self.random = np.random.default_rng(seed)
        self.seen: list[int] = []

    def propose(self, context, *, max_candidates, max_length):
        drafts = []
        for _ in range(int(self.random.integers(0, 4))):
            start = len(self.seen)
            ids = list(self.truth[start : start + max_length])
            if ids and self.random.random() < 0.6:
                ids[int(self.random.integers(len(ids)))] = int(self.random.integers(32))
            ids = ids or [int(self.random.integers(32))]
            origin = list(DraftOrigin)[int(self.random.integers(len(DraftOrigin)))]
            share = float(self.random.uniform(0.1, 1.0))
            drafts.append(Draft(tuple(ids), (share,) * len(ids), int(self.random.integers(20)), origin))
        return drafts[:max_candidates]

    def extend(self, token_ids):
        self.seen += token_ids


@settings(deadline=None, max_examples=200)
@given(
    weights=st.integers(0, 20),
    prompt=st.lists(st.integers(0, 31), min_size=1, max_size=40),
    max_draft_tokens=st.sampled_from([0, 1, 2, 7, 24, 64]),
    prefill_chunk=st.sampled_from([1, 2, 7, 512]),
    num_cached=st.integers(0, 40),
    max_new_tokens=st.integers(0, 40),
    max_positions=st.sampled_from([45, 60, 512]),
    tail_sizes=st.sampled_from([None, (1, 4, 8, 16, 64)]),
    costs=st.sampled_from([COMMON_COSTS, FREE]),
    stops=st.frozensets(st.integers(0, 31), max_size=2),
    boundaries=st.frozensets(st.integers(0, 31), max_size=2),
    constrained=st.booleans(),
    warm=st.booleans(),
    draft_seed=st.integers(0, 5),
    sampling=samplings,
)
def test_lookahead_gives_the_autoregressive_stream(
    weights,
    prompt,
    max_draft_tokens,
    prefill_chunk,
    num_cached,
    max_new_tokens,
    max_positions,
    tail_sizes,
    costs,
    stops,
    boundaries,
    constrained,
    warm,
    draft_seed,
    sampling,
):
    model = RandomTransformer(weights, max_positions=max_positions, tail_sizes=tail_sizes)
    limits = Limits(max_new_tokens, stops)
    constraint = AllowedAtFirst(2, frozenset({1, 5, 9, 30})) if constrained else None
    request = DecodeRequest(prompt, limits, sampling, constraint, boundary_ids=boundaries, prefill_chunk=prefill_chunk)
    expected_stats = DecodingStats()
    whole = replace(request, prefill_chunk=512)
    expected = [token for tokens in autoregressive(whole, model, expected_stats) for token in tokens]
    memory = DraftMemory()
    for _ in range(2 if warm else 1):
        model.truncate(min(num_cached, len(model.cached_ids)))
        stats = DecodingStats()
        steps = list(
            drafted(
                request,
                model,
                stats,
                sources=[ScrambledSource(expected, draft_seed)],
                budget=StepBudget(costs, max_draft_tokens=max_draft_tokens, seconds_per_draft=0.0),
                memory=memory,
            )
        )
        assert [token for tokens in steps for token in tokens] == expected
        assert all(steps)
        assert stats.finish_reason is expected_stats.finish_reason
        assert stats.num_generated_tokens == len(expected)
        assert stats.num_accepted_tokens == sum(stats.accepted_by_origin.values())
        assert stats.num_steps <= max(1, expected_stats.num_steps)
        cached = list(model.cached_ids)
        assert cached == [*prompt, *expected][: len(cached)]
        if max_draft_tokens == 0:
            assert stats.num_drafted_tokens == 0


def test_the_window_fills_the_budget_where_tokens_are_cheap_and_only_there():
    model = RandomTransformer(3)
    used = {}
    for name, costs in (("cheap", FREE), ("dear", StepCosts((1, 64), (1e-3, 64e-3), (0.0, 0.0)))):
        model.layouts.clear()
        model.truncate(0)
        stats = DecodingStats()
        budget = StepBudget(costs, max_draft_tokens=40)
        list(drafted(DecodeRequest([1, 2, 3], Limits(60)), model, stats, budget=budget))
        used[name] = [len(layout) for layout in model.layouts]
        # a window stands beside the drafts and is not counted among them
        window_tokens = sum(used[name]) - 3 - (stats.num_steps - 1) - stats.num_drafted_tokens
        assert (window_tokens > 0) == (name == "cheap")
    assert max(used["dear"][1:]) < max(used["cheap"][1:])


@settings(deadline=None, max_examples=40)
@given(
    weights=st.integers(0, 20),
    prompt=st.lists(st.integers(0, 31), min_size=1, max_size=20),
    documents=st.lists(st.lists(st.integers(0, 31), max_size=60), max_size=3),
    knows_output=st.booleans(),
    sampling=samplings,
)
def test_documents_of_a_workspace_and_of_libraries_give_the_autoregressive_stream(
    weights, prompt, documents, knows_output, sampling
):
    model = RandomTransformer(weights)
    request = DecodeRequest(prompt, Limits(24), sampling)
    expected = [token for tokens in autoregressive(request, model) for token in tokens]
    workspace, libraries = NgramPool(), NgramPool()
    for number, ids in enumerate(documents):
        (workspace, libraries)[number % 2].set_document(number, ids)
    if knows_output:
        libraries.set_document("output", [*prompt, *expected])
    stats = DecodingStats()
    model.truncate(0)
    sources = [PoolSource(workspace), PoolSource(libraries, origin=DraftOrigin.DEPENDENCY)]
    budget = StepBudget(FREE, max_draft_tokens=12, seconds_per_draft=0.0)
    steps = drafted(request, model, stats, sources=sources, budget=budget)
    assert [token for tokens in steps for token in tokens] == expected
    if knows_output:
        assert stats.num_steps < 12
