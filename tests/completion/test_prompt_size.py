"""A prompt is as long as the device can run in the time that a prompt may take."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from forelook.completion.completer import Completer
from forelook.completion.document_store import Document
from forelook.completion.requests import Completed, Hints, RequestControl
from forelook.config import EngineConfig
from forelook.decoding import loop, prefill
from forelook.decoding.prefill import PrefillSpeed, count_prefill
from forelook.decoding.stats import DecodingStats
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.protocol.messages import CompletionParams, TriggerKind

from tests.completion.fake_model import FakeModel, SteadySpeed

TEXT = "".join(f"value_{number} = {number}\n" for number in range(400))
DOCUMENT = Document(WorkspaceKey("", "w"), DocumentKey(1, "file:///a.py"), "python", 1, TEXT)
HALF_SECOND = EngineConfig(prefill_ms=500)
MIDDLE = TEXT.index("value_200")


def completer(speed: PrefillSpeed | None, device: str = "cpu", config: EngineConfig = HALF_SECOND) -> Completer:
    model = FakeModel(device=torch.device(device), max_positions=16_384)
    return Completer(model, config, prefill=speed)  # type: ignore[arg-type]


def size(completer: Completer) -> int:
    return completer.prompts.budget.num_tokens


@pytest.mark.parametrize(
    ("tokens_per_s", "device", "expected"),
    [
        (1200.0, "cpu", 600),
        (100.0, "cpu", 256),
        (1e6, "cpu", 1024),
        (1e6, "cuda", 8192),
        (4000.0, "cuda", 2000),
    ],
    ids=["slow", "slowest", "fast", "fast GPU", "slow GPU"],
)
def test_size_follows_the_speed_between_bounds(tokens_per_s: float, device: str, expected: int) -> None:
    assert size(completer(PrefillSpeed(tokens_per_s), device)) == expected


def test_without_a_speed_prompts_have_the_largest_size() -> None:
    assert size(completer(None)) == 1024


def test_other_files_need_a_large_prompt() -> None:
    assert completer(PrefillSpeed(1e6), "cuda").wants_context
    assert not completer(PrefillSpeed(1000.0), "cuda").wants_context
    assert not completer(PrefillSpeed(1e6), "cuda", EngineConfig(cross_file=False)).wants_context


def test_a_prompt_shrinks_once_the_device_is_known_to_be_slower_but_not_for_a_little() -> None:
    speed = PrefillSpeed(2000.0)
    slow = completer(speed)
    assert len(slow.prepare(DOCUMENT, MIDDLE).ids) > 700
    stats = DecodingStats()
    count_prefill(stats, 180, 0.1)
    speed.observe(stats)  # 1,800 tokens per second
    slow.prepare(DOCUMENT, MIDDLE)
    assert size(slow) == 1000
    speed.tokens_per_s = 700.0
    assert len(slow.prepare(DOCUMENT, MIDDLE).ids) <= 350 + 8
    assert size(slow) == 350


def test_the_place_of_a_window_survives_a_larger_budget() -> None:
    speed = PrefillSpeed(1000.0)
    faster = completer(speed)
    before = faster.prepare(DOCUMENT, MIDDLE).ids
    speed.tokens_per_s = 1400.0
    assert faster.prepare(DOCUMENT, MIDDLE).ids == before
    assert size(faster) == 700


def test_who_waits_at_a_new_place_gets_a_short_prompt_until_the_whole_one_was_run() -> None:
    device = completer(SteadySpeed(1000.0))
    soon = device.prepare_soon(DOCUMENT, MIDDLE)
    assert soon.is_short
    assert 100 < len(soon.ids) <= 150 + 8
    device.prefill(soon, lambda: False)

    typed = replace(DOCUMENT, version=2, text=TEXT[:MIDDLE] + "v" + TEXT[MIDDLE:])
    next_key = device.prepare_soon(typed, MIDDLE + 1)
    assert next_key.is_short, "the whole prompt is in no cache yet"
    assert device.num_uncached(next_key) <= 4

    whole = device.prepare(typed, MIDDLE + 1)
    assert len(whole.ids) > 400
    device.prefill(whole, lambda: False)
    typed = replace(typed, version=3, text=TEXT[:MIDDLE] + "va" + TEXT[MIDDLE:])
    next_key = device.prepare_soon(typed, MIDDLE + 2)
    assert not next_key.is_short
    assert next_key.ids == device.prepare(typed, MIDDLE + 2).ids
    assert device.num_uncached(next_key) <= 4


def test_where_one_cache_is_all_there_is_a_second_place_gets_the_whole_prompt() -> None:
    """Two prompts in one cache would take turns, and every key would run its prompt from the start."""
    device = completer(SteadySpeed(1000.0), config=replace(HALF_SECOND, kv_cache_bytes=0))
    device.prefill(device.prepare(DOCUMENT, 0), lambda: False)
    assert len(device.sequences) == 1
    assert not device.prepare_soon(DOCUMENT, MIDDLE).is_short


@pytest.mark.parametrize(
    ("trigger", "is_waited_for", "is_short"),
    [(TriggerKind.AUTOMATIC, True, True), (TriggerKind.INVOKED, True, False), (TriggerKind.AUTOMATIC, False, False)],
    ids=["while typing", "by command", "a follow-up"],
)
def test_which_requests_have_a_short_prompt(trigger: TriggerKind, is_waited_for: bool, is_short: bool) -> None:
    device = completer(SteadySpeed(1000.0))
    request = CompletionParams(DOCUMENT.key.uri, 1, MIDDLE, trigger=trigger)
    control = RequestControl(time.monotonic(), is_waited_for=is_waited_for)
    completed = device.complete(DOCUMENT, request, control, Hints())
    assert isinstance(completed, Completed)
    assert completed.had_short_prompt is is_short
    assert (completed.result.stats.num_prompt_tokens <= 150 + 8) is is_short


def test_a_short_prompt_follows_the_speed() -> None:
    speed = SteadySpeed(2000.0)
    device = completer(speed)
    assert len(device.prepare_soon(DOCUMENT, MIDDLE).ids) > 220
    speed.tokens_per_s = 1000.0
    assert len(device.prepare_soon(DOCUMENT, MIDDLE).ids) <= 150 + 8


@pytest.mark.parametrize(
    ("speed", "config"),
    [
        (None, HALF_SECOND),
        (SteadySpeed(1000.0), replace(HALF_SECOND, prewarm=False)),
        (SteadySpeed(1e6), HALF_SECOND),
    ],
    ids=["of unknown speed", "never run in the pauses", "soon run"],
)
def test_a_prompt_is_whole_at_once(speed: PrefillSpeed | None, config: EngineConfig) -> None:
    device = completer(speed, config=config)
    soon = device.prepare_soon(DOCUMENT, MIDDLE)
    assert not soon.is_short
    assert soon.ids == device.prepare(DOCUMENT, MIDDLE).ids


def test_a_closed_document_leaves_no_window_behind() -> None:
    device = completer(SteadySpeed(1000.0))
    device.prepare_soon(DOCUMENT, MIDDLE)
    device.forget(DOCUMENT.key)
    assert not device.prompts._anchors
    assert not device._first_prompts._anchors


def test_a_slow_device_runs_a_prompt_in_short_chunks() -> None:
    slow = completer(PrefillSpeed(300.0, is_measured=True), config=EngineConfig(prefill_ms=2000))
    slow.raw_middle(DOCUMENT, MIDDLE, 1)
    model = slow._model
    assert isinstance(model, FakeModel)
    assert {len(layout) for layout in model.forwards[:-1]} == {64}
    assert len(model.forwards) > 4


def test_a_prompt_corrects_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) * 1e-3)
    for module in (loop, prefill):
        monkeypatch.setattr(module, "time", clock)
    speed = PrefillSpeed(800.0)
    completed = completer(speed)
    prompt = completed.prepare(DOCUMENT, MIDDLE)
    completed.prefill(prompt, lambda: False)
    assert speed.tokens_per_s > 1000.0, "the fake model takes a millisecond per forward"
