"""Chunks of a prompt: how long they are, and what they say about the speed of a device."""

from __future__ import annotations

import pytest
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.limits import Limits
from forelook.decoding.prefill import PrefillSpeed, count_prefill
from forelook.decoding.request import PREFILL_CHUNK, DecodeRequest
from forelook.decoding.stats import DecodingStats

from tests.decoding import streams
from tests.fakes import ScriptedModel


def prompt_of(num_tokens: int, seconds: float) -> DecodingStats:
    stats = DecodingStats()
    count_prefill(stats, num_tokens, seconds)
    return stats


def test_the_first_long_prompt_replaces_the_estimate_and_later_ones_correct_it() -> None:
    speed = PrefillSpeed(9000.0)
    speed.observe(prompt_of(200, 1.0))
    assert speed.tokens_per_s == pytest.approx(200.0)
    speed.observe(prompt_of(200, 0.5))
    assert speed.tokens_per_s == pytest.approx(200.0 * 2**0.5), "a device is as fast as its fastest prompts"
    faster = speed.tokens_per_s
    speed.observe(prompt_of(200, 100.0))
    assert 0.5 * faster < speed.tokens_per_s < faster, "other programs were busy: it counts for little"


def test_what_was_measured_before_is_not_replaced_by_one_prompt() -> None:
    speed = PrefillSpeed(1000.0, is_measured=True)
    speed.observe(prompt_of(200, 1.0))
    assert 800.0 < speed.tokens_per_s < 1000.0


def test_short_forwards_say_nothing() -> None:
    speed = PrefillSpeed(1000.0)
    speed.observe(prompt_of(63, 1.0))
    assert speed.tokens_per_s == 1000.0


@pytest.mark.parametrize(
    ("tokens_per_s", "chunk"), [(1.0, 64), (370.0, 64), (400.0, 128), (1300.0, 320), (1e6, PREFILL_CHUNK)]
)
def test_a_chunk_takes_about_a_quarter_of_a_second(tokens_per_s: float, chunk: int) -> None:
    assert PrefillSpeed(tokens_per_s).chunk_size == chunk


@pytest.mark.parametrize(("tokens_per_s", "chunk"), [(1.0, 64), (4000.0, 64), (4900.0, 128), (1e6, 512)])
def test_a_chunk_that_others_wait_for_is_shorter(tokens_per_s: float, chunk: int) -> None:
    assert PrefillSpeed(tokens_per_s).shared_chunk_size == chunk


@pytest.mark.parametrize("decode", [autoregressive, streams.drafted])
@pytest.mark.parametrize(("num_prompt", "timed"), [(200, 192), (64 + 63, 64), (63, 0)])
def test_each_long_forward_of_a_prompt_is_timed(decode, num_prompt, timed) -> None:  # type: ignore[no-untyped-def]
    model = ScriptedModel.saying(num_prompt, [7, 8, 9], then=99)
    stats = DecodingStats()
    request = DecodeRequest([5] * num_prompt, Limits(3, frozenset({99})), prefill_chunk=64)
    list(decode(request, model, stats))
    assert stats.timed_prefill_tokens == timed
    assert (stats.timed_prefill_s > 0.0) == (timed > 0)
    total = DecodingStats()
    total += stats
    assert total.timed_prefill_tokens == stats.timed_prefill_tokens
    assert total.timed_prefill_s == stats.timed_prefill_s
