"""A prompt is as long as the device can run in the time that a prompt may take."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from forelook.completion.completer import Completer
from forelook.completion.document_store import Document
from forelook.config import EngineConfig
from forelook.decoding import loop, prefill
from forelook.decoding.prefill import PrefillSpeed, count_prefill
from forelook.decoding.stats import DecodingStats
from forelook.keys import DocumentKey, WorkspaceKey

from tests.completion.fake_model import FakeModel

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
