"""Stops are checked at every step, and the statistics are right whenever the stream ends."""

from __future__ import annotations

import time

import pytest
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.drafting.backoff import DraftBackoff
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.costs import StepCosts
from forelook.decoding.drafting.draft import Draft, DraftOrigin
from forelook.decoding.drafting.sources.successors import SuccessorSeeds, SuccessorTable, ending_of
from forelook.decoding.limits import Limits
from forelook.decoding.lookahead.published import PublishedSettings
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.errors import ContextOverflowError, DecodingError
from forelook.finish_reason import FinishReason

from tests.decoding import streams
from tests.fakes import ScriptedModel

PROMPT = [1, 2, 3]
SCRIPT = list(range(10, 40))
END = 99
FREE = StepBudget(StepCosts((1, 64), (1e-3, 1.001e-3), (0.0, 0.0)), max_draft_tokens=16)


class Oracle:
    """Drafts the script itself."""

    def __init__(self, script):
        self.rest = list(script)

    def propose(self, context, *, max_candidates, max_length):
        ids = tuple(self.rest[:max_length])
        return [Draft(ids, (1.0,) * len(ids), 16, DraftOrigin.PREVIOUS_SUGGESTION)] if ids else []

    def extend(self, token_ids):
        del self.rest[: len(token_ids)]


def plain(model, limits, stats):
    return autoregressive(DecodeRequest(PROMPT, limits), model, stats)


def drafted(model, limits, stats):
    oracle = Oracle([*SCRIPT, END, 5, 5])
    return streams.drafted(DecodeRequest(PROMPT, limits), model, stats, sources=[oracle], budget=FREE)


def published(model, limits, stats):
    return streams.published(DecodeRequest(PROMPT, limits), model, PublishedSettings(3, 3, 3, True), stats)


loops = pytest.mark.parametrize("loop", [plain, drafted, published])


@loops
def test_a_stop_token_ends_the_output_and_is_no_part_of_it(loop):
    model = ScriptedModel.saying(3, SCRIPT, then=END)
    stats = DecodingStats()
    steps = list(loop(model, Limits(100, frozenset({END, 98})), stats))
    assert [token for tokens in steps for token in tokens] == SCRIPT
    assert stats.finish_reason is FinishReason.STOP_TOKEN
    assert stats.num_generated_tokens == len(SCRIPT)


def test_a_stop_token_inside_an_accepted_draft_stops_right_there():
    model = ScriptedModel.saying(3, SCRIPT[:4], then=END)
    stats = DecodingStats()
    script = [*SCRIPT[:4], END, END, END]
    request = DecodeRequest(PROMPT, Limits(100, frozenset({END})))
    steps = list(streams.drafted(request, model, stats, sources=[Oracle(script)], budget=FREE))
    assert steps == [SCRIPT[:4]]
    assert stats.num_steps == 1
    assert stats.num_accepted_tokens == 4
    assert list(model.cached_ids) == [*PROMPT, *SCRIPT[:4]]


def test_drafts_ride_on_the_prefill():
    model = ScriptedModel.saying(3, SCRIPT, then=END)
    stats = DecodingStats()
    first = next(drafted(model, Limits(100), stats))
    assert len(first) == 17
    assert len(model.layouts) == 1
    assert stats.num_forwards == stats.num_steps == 1


def test_a_long_uncached_prompt_runs_without_drafts_and_a_keystroke_with_them():
    request = DecodeRequest(list(range(40, 240)), Limits(100))
    model = ScriptedModel.saying(len(request.prompt_ids), SCRIPT, then=END)
    oracle = Oracle([*SCRIPT, END])
    assert next(streams.drafted(request, model, sources=[oracle], budget=FREE)) == SCRIPT[:1]
    assert [len(layout) for layout in model.layouts] == [200]
    assert model.layouts[0].visibility is None
    again = streams.drafted(request, model, sources=[Oracle([*SCRIPT, END])], budget=FREE)
    assert len(next(again)) > 1
    assert len(model.layouts) == 2


@loops
def test_the_last_allowed_token_is_the_last(loop):
    for most in (1, 2, 7):
        model = ScriptedModel.saying(3, SCRIPT, then=END)
        stats = DecodingStats()
        output = [token for tokens in loop(model, Limits(most), stats) for token in tokens]
        assert output == SCRIPT[:most]
        assert stats.finish_reason is FinishReason.MAX_TOKENS


@loops
def test_no_tokens_asked_for_means_no_forward(loop):
    model = ScriptedModel.saying(3, SCRIPT, then=END)
    stats = DecodingStats()
    assert list(loop(model, Limits(0), stats)) == []
    assert model.layouts == []
    assert stats.finish_reason is FinishReason.MAX_TOKENS


@loops
def test_cancel_stops_before_the_next_step(loop):
    cancelled = []
    model = ScriptedModel.saying(3, SCRIPT, then=END, on_forward=lambda layout: cancelled.append(1))
    stats = DecodingStats()
    steps = list(loop(model, Limits(100, is_cancelled=lambda: len(cancelled) >= 1), stats))
    assert len(steps) == 1, "the step under way is still delivered"
    assert len(model.layouts) == 1
    assert stats.finish_reason is FinishReason.CANCELLED
    assert stats.num_generated_tokens == len(steps[0])


@loops
def test_a_passed_deadline_starts_no_forward(loop):
    model = ScriptedModel.saying(3, SCRIPT, then=END)
    stats = DecodingStats()
    assert list(loop(model, Limits(100, deadline_s=time.monotonic() - 1.0), stats)) == []
    assert model.layouts == []
    assert stats.finish_reason is FinishReason.DEADLINE


@pytest.mark.parametrize("decode", [autoregressive, streams.drafted])
def test_cancel_stops_between_prefill_chunks(decode):
    forwards = []
    model = ScriptedModel.saying(50, SCRIPT, then=END, on_forward=forwards.append)
    stats = DecodingStats()
    limits = Limits(100, is_cancelled=lambda: len(forwards) >= 2)
    assert list(decode(DecodeRequest(list(range(50)), limits, prefill_chunk=10), model, stats)) == []
    assert [len(layout) for layout in forwards] == [10, 10]
    assert list(model.cached_ids) == list(range(20)), "what was prefilled stays for the next request"
    assert stats.finish_reason is FinishReason.CANCELLED


@loops
def test_statistics_are_right_when_the_consumer_closes_early(loop):
    model = ScriptedModel.saying(3, SCRIPT, then=END)
    stats = DecodingStats()
    stream = loop(model, Limits(100), stats)
    first = next(stream)
    stream.close()
    assert stats.num_generated_tokens == len(first)
    assert stats.num_steps == stats.num_forwards == 1
    assert stats.finish_reason is FinishReason.CLOSED
    assert stats.prefill_s > 0
    assert stats.decode_s == 0
    assert list(model.cached_ids) == [*PROMPT, *first][: len(model.cached_ids)]


def test_a_second_request_reuses_the_common_prefix():
    model = ScriptedModel.saying(3, SCRIPT, then=END)
    list(drafted(model, Limits(5), DecodingStats()))
    stats = DecodingStats()
    prompt = [*PROMPT, *SCRIPT[:2], 77]
    list(autoregressive(DecodeRequest(prompt, Limits(1)), model, stats))
    assert stats.num_reused_tokens == 5
    assert stats.num_prompt_tokens == 6
    assert len(model.layouts[-1]) == 1


@pytest.mark.parametrize("decode", [autoregressive, streams.drafted])
def test_an_empty_or_too_long_prompt_is_an_error(decode):
    model = ScriptedModel.saying(3, SCRIPT, then=END, max_positions=10)
    with pytest.raises(DecodingError, match="prompt_ids is empty"):
        list(decode(DecodeRequest([], Limits(5)), model))
    with pytest.raises(ContextOverflowError, match="has 11 tokens, over the limit of 10"):
        list(decode(DecodeRequest([1] * 11, Limits(5)), model))


@loops
def test_a_full_context_ends_generation(loop):
    model = ScriptedModel.saying(3, SCRIPT, then=END, max_positions=10)
    stats = DecodingStats()
    output = [token for tokens in loop(model, Limits(100), stats) for token in tokens]
    assert output == SCRIPT[:8]  # seven fill the positions behind the prompt, the eighth needs none
    assert stats.finish_reason is FinishReason.CONTEXT_FULL


def test_without_drafts_every_step_is_one_token_wide():
    model = ScriptedModel(lambda seen: (seen[-1] * 7 + len(seen)) % 251)
    budget = StepBudget(max_draft_tokens=0)
    list(streams.drafted(DecodeRequest(PROMPT, Limits(30)), model, budget=budget))
    assert [len(layout) for layout in model.layouts] == [3] + [1] * 29
    assert all(layout.visibility is None for layout in model.layouts)


def test_successors_are_forgotten_oldest_first():
    table = SuccessorTable(max_keys=8)
    for token in range(40):
        table.learn(ending_of([token]), [token + 1], [1.0])
    assert [token for token, _ in table.successors(ending_of([39]))] == [40]
    assert not table.successors(ending_of([0]))
    assert len(table) <= 3 * 9


def test_successors_of_a_longer_context_come_first_and_seeds_last():
    import numpy as np

    seeds = SuccessorSeeds(10, num_kept=2)
    seeds.add(range(10), np.tile([9, 0], (10, 1)), np.tile([0.5, 0.01], (10, 1)))
    table = SuccessorTable(seeds)
    table.learn(ending_of([1, 2, 3]), [4], [1.0])
    table.learn(ending_of([7, 7, 3]), [5], [1.0])
    assert [token for token, _ in table.successors(ending_of([1, 2, 3]))] == [4, 5, 9]
    assert [token for token, _ in table.successors(ending_of([8, 8, 3]))] == [5, 4, 9]
    assert [token for token, _ in table.successors(ending_of([6]))] == [9]


class WrongSource:
    """Drafts with confidence what never comes; counts how often it is asked."""

    def __init__(self):
        self.num_asked = 0

    def propose(self, context, *, max_candidates, max_length):
        self.num_asked += 1
        return [Draft((253, 252, 251), (1.0, 1.0, 1.0), 9, DraftOrigin.WORKSPACE)]

    def extend(self, token_ids):
        pass


def test_steps_become_plain_while_drafts_never_come_true_and_good_ones_end_that():
    model = ScriptedModel(lambda seen: (seen[-1] * 7 + len(seen) * len(seen)) % 251)
    source = WrongSource()
    costs = StepCosts((1, 64), (1e-3, 2e-3), (0.0, 0.0))
    list(streams.drafted(DecodeRequest(PROMPT, Limits(200)), model, sources=[source], budget=StepBudget(costs)))
    assert 5 < source.num_asked < 80
    backoff = DraftBackoff()
    for _ in range(30):
        backoff.observe(0, 0.5)
    assert sum(backoff.is_plain() for _ in range(40)) == 15
    for _ in range(10):
        backoff.observe(3, 0.5)
    assert not backoff.is_plain()
