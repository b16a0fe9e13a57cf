"""What drafting learned of a model is there at the next start, and a start measures nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from forelook.completion.engine.drafting import Drafting, restore_drafting
from forelook.decoding.layout import IntArray, StepLayout
from forelook.decoding.prefill import count_prefill
from forelook.decoding.stats import DecodingStats
from forelook.model.forward.llama import LlamaSequence
from forelook.model.loading import LoadedModel, load_model


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(None, device="cpu", dtype="float32")


def no_uses(vocab_size: int) -> IntArray:
    return np.zeros(vocab_size, dtype=np.int64)


def learn_something(model: LoadedModel, drafting: Drafting) -> None:
    assert drafting.budget is not None
    assert drafting.learning is not None
    for _ in range(2):
        drafting.budget.observe(1, 0, 0.5)
    assert drafting.learning.run_slice(model, no_uses)
    assert drafting.prefill is not None
    stats = DecodingStats()
    count_prefill(stats, 100, 0.5)
    drafting.prefill.observe(stats)


def test_a_start_runs_no_forward_and_what_was_learned_is_read(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = restore_drafting(model, tmp_path)
    assert not first.has_unsaved
    learn_something(model, first)
    assert first.has_unsaved
    first.save()
    assert not first.has_unsaved

    def no_forward(self: LlamaSequence, layout: StepLayout) -> None:
        raise AssertionError("a start must not measure")

    monkeypatch.setattr(LlamaSequence, "forward", no_forward)
    again = restore_drafting(model, tmp_path)
    assert again.budget is not None
    assert first.budget is not None
    assert again.budget.costs.seconds == pytest.approx(first.budget.costs.seconds)
    assert again.prefill is not None
    assert again.prefill.tokens_per_s == pytest.approx(200.0)
    assert again.seeds is not None
    assert again.seeds.is_known.sum() == 1
    assert not again.has_unsaved


def test_a_folder_that_cannot_be_written_is_given_up_with_one_line(
    model: LoadedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    drafting = restore_drafting(model, blocked / "folder")
    learn_something(model, drafting)
    with caplog.at_level(logging.WARNING):
        drafting.save()
        learn_something(model, drafting)
        drafting.save()
    assert len(caplog.records) == 1
    assert not drafting.has_unsaved


def test_without_a_folder_nothing_is_kept(model: LoadedModel) -> None:
    drafting = restore_drafting(model, None)
    learn_something(model, drafting)
    assert not drafting.has_unsaved
