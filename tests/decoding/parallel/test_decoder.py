"""Several ranks: the same output as one, the work partitioned, and every end of a request or a rank handled."""

from __future__ import annotations

import os
import signal
import time
import weakref
from collections.abc import Iterator

import pytest
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.costs import StepCosts
from forelook.decoding.drafting.tree_drafter import DraftMemory
from forelook.decoding.layout import causal_layout
from forelook.decoding.limits import Limits, SamplingParams
from forelook.decoding.lookahead.published import PublishedSettings
from forelook.decoding.parallel.decoder import ParallelDecoder, shared_costs
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.errors import DecodingError, InsufficientMemoryError, RankLostError
from forelook.finish_reason import FinishReason
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.decoding.parallel.ranks import ThreadedRanks, rank_processes
from tests.decoding.streams import drafted, published
from tests.decoding.test_lossless import FREE, AllowedAtFirst, ScrambledSource, samplings
from tests.fakes import RandomTransformer

# --- decoding


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, ThreadedRanks]]:
    folder = tmp_path_factory.mktemp("ranks")
    seeds = {"weights": 0}

    def make(rank: int, max_positions: int) -> RandomTransformer:
        return RandomTransformer(seeds["weights"], max_positions=max_positions)

    made = {size: ThreadedRanks(folder, size, make) for size in (1, 2, 3)}
    for ranks in made.values():
        ranks.seeds = seeds
    yield made
    for ranks in made.values():
        ranks.close()


def flat(steps) -> list[int]:
    tokens = []
    for ids in steps:
        assert ids
        tokens += ids
    return tokens


common = {
    "weights": st.integers(0, 20),
    "size": st.sampled_from([1, 2, 3]),
    "prompt": st.lists(st.integers(0, 31), min_size=1, max_size=150),
    "max_new_tokens": st.integers(0, 40),
    "max_positions": st.sampled_from([160, 512]),
    "stops": st.frozensets(st.integers(0, 31), max_size=2),
    "boundaries": st.frozensets(st.integers(0, 31), max_size=2),
    "constrained": st.booleans(),
    "sampling": samplings,
}
quick = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def expected_of(request, weights=3, max_positions=512):
    stats = DecodingStats()
    return flat(autoregressive(request, RandomTransformer(weights, max_positions=max_positions), stats)), stats


@quick
@given(**{**common, "max_new_tokens": st.integers(1, 40)})
def test_any_number_of_ranks_reports_the_log_probabilities_of_one(
    groups, weights, size, prompt, max_new_tokens, max_positions, stops, boundaries, constrained, sampling
):  # fmt: skip
    ranks = groups[size]
    ranks.seeds["weights"] = weights
    constraint = AllowedAtFirst(2, frozenset({1, 5, 9, 30})) if constrained else None
    limits = Limits(max_new_tokens, stops)
    request = DecodeRequest(prompt, limits, sampling, constraint, boundary_ids=boundaries, is_scored=True)
    expected, expected_stats = expected_of(request, weights, max_positions)
    stats = DecodingStats()
    settings_ = PublishedSettings(4, 3, 4)
    model = RandomTransformer(weights, max_positions=max_positions)
    assert flat(published(request, model, settings_, stats, loop=ranks.decoder.decode)) == expected
    assert stats.log_probs == pytest.approx(expected_stats.log_probs, abs=2e-6)


@quick
@given(window_size=st.integers(1, 7), ngram_size=st.integers(2, 6), max_candidates=st.integers(0, 7), **common)
def test_any_number_of_ranks_gives_the_autoregressive_stream_with_the_published_drafter(
    groups, weights, size, prompt, max_new_tokens, max_positions, stops, boundaries, constrained, sampling,
    window_size, ngram_size, max_candidates,
):  # fmt: skip
    ranks = groups[size]
    ranks.seeds["weights"] = weights
    limits = Limits(max_new_tokens, stops)
    constraint = AllowedAtFirst(2, frozenset({1, 5, 9, 30})) if constrained else None
    request = DecodeRequest(prompt, limits, sampling, constraint, boundary_ids=boundaries)
    expected, expected_stats = expected_of(request, weights, max_positions)
    alone, stats = DecodingStats(), DecodingStats()
    chosen = PublishedSettings(window_size, ngram_size, max_candidates, prompt_as_reference=True)
    one = RandomTransformer(weights, max_positions=max_positions)
    model = ranks.new_model(0, max_positions)
    assert flat(published(request, one, chosen, alone)) == expected
    assert flat(published(request, model, chosen, stats, loop=ranks.decoder.decode)) == expected
    assert stats.finish_reason is expected_stats.finish_reason
    # dealing a step out changes who runs what, and nothing of what is drafted, accepted and learned
    for name in ("num_steps", "num_forwards", "num_generated_tokens", "num_drafted_tokens", "num_accepted_tokens"):
        assert getattr(stats, name) == getattr(alone, name), name
    cached = list(model.cached_ids)
    assert cached == [*prompt, *expected][: len(cached)]


@quick
@given(warm=st.booleans(), draft_seed=st.integers(0, 5), **common)
def test_any_number_of_ranks_gives_the_autoregressive_stream_with_the_draft_tree(
    groups, weights, size, prompt, max_new_tokens, max_positions, stops, boundaries, constrained, sampling,
    warm, draft_seed,
):  # fmt: skip
    ranks = groups[size]
    ranks.seeds["weights"] = weights
    limits = Limits(max_new_tokens, stops)
    constraint = AllowedAtFirst(2, frozenset({1, 5, 9, 30})) if constrained else None
    request = DecodeRequest(prompt, limits, sampling, constraint, boundary_ids=boundaries)
    expected, expected_stats = expected_of(request, weights, max_positions)
    model = ranks.new_model(0, max_positions)
    memory = DraftMemory()
    for _ in range(2 if warm else 1):  # the second time on caches that hold the first one's text
        stats = DecodingStats()
        steps = drafted(
            request,
            model,
            stats,
            loop=ranks.decoder.decode,
            sources=[ScrambledSource(expected, draft_seed)],
            budget=StepBudget(shared_costs(FREE, size), seconds_per_draft=0.0),
            memory=memory,
        )
        assert flat(steps) == expected
        assert stats.finish_reason is expected_stats.finish_reason
        assert stats.num_accepted_tokens == sum(stats.accepted_by_origin.values())
        cached = list(model.cached_ids)
        assert cached == [*prompt, *expected][: len(cached)]


@pytest.mark.parametrize("num_reused", [0, 3])
@pytest.mark.parametrize("num_prompt", [64, 65, 150, 300, 577])
@pytest.mark.parametrize("is_published", [True, False])
def test_a_prompt_is_split_and_drafted_for_as_it_is_without_ranks(pair, is_published, num_prompt, num_reused):
    prompt = [index % 7 for index in range(num_prompt)]
    seen = {}
    for name, loop in (("alone", {}), ("ranks", {"loop": pair.decoder.decode})):
        # a rank's cache may hold a little less of a prompt than another's
        model = RandomTransformer(3, max_positions=1024) if name == "alone" else pair.new_model(0, 1024)
        if num_reused:
            model.forward(causal_layout(prompt[:num_reused], 0))
            model.commit(range(num_reused))
        stats = DecodingStats()
        request = DecodeRequest(prompt, Limits(12))
        if is_published:
            steps = published(request, model, PublishedSettings(5, 4, 5), stats, **loop)
        else:
            steps = drafted(request, model, stats, budget=StepBudget(FREE), **loop)
        tokens = flat(steps)
        seen[name] = (tokens, stats.num_forwards - stats.num_steps)
        if is_published:  # a draft tree learns second choices too, which ranks do not exchange
            seen[name] += (stats.num_steps, stats.num_drafted_tokens)
    assert seen["ranks"] == seen["alone"]


def test_ranks_share_the_work_of_real_steps(tmp_path):
    totals = {}
    for size in (1, 2, 3):
        ranks = ThreadedRanks(tmp_path, size, lambda _rank, most: RandomTransformer(3, max_positions=most))
        stats = DecodingStats()
        chosen = PublishedSettings(15, 5, 15, prompt_as_reference=True)
        request = DecodeRequest([1, 2, 3], Limits(100))
        tokens = flat(published(request, ranks.new_model(), chosen, stats, loop=ranks.decoder.decode))
        assert len(tokens) == 100
        assert stats.tokens_per_step > 1.3
        totals[size] = [
            sum(len(layout) for layout in ranks.models[rank][-1].layouts) / stats.num_steps for rank in range(size)
        ]
        ranks.close()
    shared = 15 + 1.5  # the current token, row 0, and accepted tokens that the rank must run again
    for size in (2, 3):
        assert max(totals[size]) <= totals[1][0] / size + shared, totals
        assert max(totals[size]) < 0.75 * totals[1][0], totals


def test_costs_are_stretched_by_the_number_of_ranks():
    shared = shared_costs(StepCosts((1, 9, 17), (1.0, 2.0, 4.0), (0.0, 0.0, 0.0)), 2)
    assert shared.sizes == (1, 17, 33)
    assert StepBudget(shared).curve(0, 1).seconds[16] == pytest.approx(2.0, rel=1e-3)


# --- ends


def decode_with(ranks, model, request, is_published, stats=None):
    loop = ranks.decoder.decode
    if is_published:
        return published(request, model, PublishedSettings(5, 4, 5), stats, loop=loop)
    return drafted(request, model, stats, loop=loop)


@pytest.mark.parametrize("is_published", [True, False])
def test_a_stream_closed_early_leaves_the_ranks_ready_for_the_next(pair, is_published):
    model = pair.new_model()
    request = DecodeRequest([1, 2, 3], Limits(30))
    expected, _ = expected_of(request)
    for num_steps in (1, 3, 2):
        stats = DecodingStats()
        steps = decode_with(pair, model, request, is_published, stats)
        got = [token for _ in range(num_steps) for token in next(steps)]
        steps.close()
        assert got == expected[: len(got)]
        assert stats.finish_reason is FinishReason.CLOSED
    assert flat(decode_with(pair, model, request, is_published)) == expected


@pytest.mark.parametrize("is_published", [True, False])
def test_a_stream_closed_when_the_context_is_full_leaves_the_ranks_ready_for_the_next(pair, is_published):
    model = pair.new_model(0, 12)
    request = DecodeRequest([1, 2, 3], Limits(30))
    steps = decode_with(pair, model, request, is_published)
    num_tokens = 0
    while num_tokens < 10:  # the last of them needs no position
        num_tokens += len(next(steps))
    steps.close()
    expected, _ = expected_of(request, max_positions=12)
    started_s = time.monotonic()
    assert flat(decode_with(pair, model, request, is_published)) == expected
    assert time.monotonic() - started_s < 10


@pytest.mark.parametrize("is_published", [True, False])
@pytest.mark.parametrize("num_looks", [0, 1, 4])
def test_a_cancel_stops_all_ranks_in_prefill_as_in_decoding(pair, is_published, num_looks):
    prompt = [index % 30 for index in range(400)]
    looks = []

    def is_cancelled() -> bool:
        looks.append(None)
        return len(looks) > num_looks

    stats = DecodingStats()
    model = pair.new_model(0, 1024)
    chunk = 512 if is_published else 100
    cancelled = DecodeRequest(prompt, Limits(30, is_cancelled=is_cancelled), prefill_chunk=chunk)
    flat(decode_with(pair, model, cancelled, is_published, stats))
    assert stats.finish_reason is FinishReason.CANCELLED
    assert len(looks) == num_looks + 1, "no forward after the cancel"
    request = DecodeRequest(prompt, Limits(12))
    expected, _ = expected_of(request, max_positions=1024)
    assert flat(decode_with(pair, model, request, is_published)) == expected


class FailsOnce(RandomTransformer):
    """Runs out of memory at its third forward."""

    def forward(self, layout):
        if len(self.layouts) == 2:
            self.layouts.append(layout)
            raise InsufficientMemoryError("out of memory: a step")
        return super().forward(layout)


@pytest.mark.parametrize("is_published", [True, False])
@pytest.mark.parametrize("failing", [0, 1])
def test_a_failed_forward_ends_that_request_alone(tmp_path, failing, is_published):
    def make(rank: int, most: int) -> RandomTransformer:
        return (FailsOnce if rank == failing else RandomTransformer)(3, max_positions=most)

    ranks = ThreadedRanks(tmp_path, 2, make)
    model = ranks.new_model()
    request = DecodeRequest([1, 2, 3], Limits(30))
    with pytest.raises(InsufficientMemoryError if failing == 0 else DecodingError) as caught:
        flat(decode_with(ranks, model, request, is_published))
    if failing == 1:
        assert f"rank 1 of 2 failed with error {InsufficientMemoryError.code}" in str(caught.value)
    expected, _ = expected_of(request)
    assert flat(decode_with(ranks, model, request, is_published)) == expected
    ranks.close()


def test_sampled_streams_of_one_seed_are_equal_and_of_two_are_not(pair):
    model = pair.new_model()
    requests = [DecodeRequest([1, 2, 3], Limits(40), SamplingParams(1.0, seed=seed)) for seed in (1, 1, 2)]
    streams = [flat(drafted(request, model, loop=pair.decoder.decode)) for request in requests]
    assert streams[0] == streams[1] != streams[2]


# --- death


@pytest.mark.parametrize(
    ("blow", "num_ranks", "timeout_s", "most_s"),
    [(signal.SIGKILL, 3, 30.0, 10.0), (signal.SIGSTOP, 2, 5.0, 15.0)],
    ids=["dies", "hangs"],
)
def test_a_rank_that_dies_or_hangs_ends_the_request_in_time(tmp_path, blow, num_ranks, timeout_s, most_s):
    with rank_processes(tmp_path, num_ranks, timeout_s=timeout_s) as (group, processes):
        decoder = ParallelDecoder(group)
        model = RandomTransformer(3, max_positions=4096)
        chosen = PublishedSettings(5, 4, 5)
        steps = published(DecodeRequest([1, 2, 3], Limits(4000)), model, chosen, loop=decoder.decode)
        got = [*next(steps), *next(steps)]
        os.kill(processes[0].pid, blow)
        struck_s = time.monotonic()
        with pytest.raises(RankLostError, match=f"rank 0 of {num_ranks} lost contact with another rank"):
            got.extend(token for ids in steps for token in ids)
        assert time.monotonic() - struck_s < most_s
        # what came before the blow is right, and rank 0 goes on alone from its cache
        request = DecodeRequest([1, 2, 3], Limits(len(got)))
        expected, _ = expected_of(request, max_positions=4096)
        assert got == expected
        assert flat(published(request, model, chosen)) == expected
        with pytest.raises(RankLostError, match="start the group again"):
            next(published(request, model, chosen, loop=decoder.decode))
        for process in processes[1:]:  # nobody lingers
            process.join(10)
            assert process.exitcode == 3


def test_followers_end_when_they_are_dismissed(pair):
    model = pair.new_model()
    flat(decode_with(pair, model, DecodeRequest([1, 2, 3], Limits(8)), is_published=True))
    pair.decoder.dismiss()
    for thread in pair.threads:
        thread.join(10)
        assert not thread.is_alive()


def test_followers_let_go_of_their_replicas_and_load_them_again(pair):
    request = DecodeRequest([1, 2, 3], Limits(20))
    expected, _ = expected_of(request)
    model = pair.new_model()
    assert flat(decode_with(pair, model, request, is_published=False)) == expected
    replica = weakref.ref(pair.models[1][0])
    pair.decoder.unload()
    pair.decoder.load()
    pair.decoder.wait_until_loaded("same", 20.0)
    assert pair.orders == [(1, "unload"), (1, "load")]
    assert replica() is None, "the follower still holds a sequence of the replica it let go of"
    for sequence in (model, pair.new_model()):
        assert flat(decode_with(pair, sequence, request, is_published=True)) == expected


def test_a_follower_that_loads_other_weights_leaves_the_group(pair):
    pair.decoder.unload()
    pair.decoder.load()
    with pytest.raises(RankLostError, match="other weights than rank 0 has were loaded by rank 1"):
        pair.decoder.wait_until_loaded("another", 20.0)


def test_a_follower_that_cannot_load_again_is_not_waited_for_longer_than_asked(tmp_path):
    with rank_processes(tmp_path, 2, timeout_s=20) as (group, processes):
        decoder = ParallelDecoder(group)
        decoder.unload()
        decoder.load()
        processes[0].kill()
        started_s = time.monotonic()

        def wait_twice() -> None:
            for _ in range(2):  # the first may have been answered before the blow
                decoder.wait_until_loaded("", 0.5)

        with pytest.raises(RankLostError, match="lost contact with another rank"):
            wait_twice()
        assert time.monotonic() - started_s < 15
