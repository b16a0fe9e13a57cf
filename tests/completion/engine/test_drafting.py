"""What is measured of a model once is read the next time."""

from __future__ import annotations

from pathlib import Path

import pytest
from forelook.completion.engine import drafting
from forelook.completion.engine.drafting import measure_drafting
from forelook.decoding.layout import StepLayout
from forelook.model.forward.llama import LlamaSequence
from forelook.model.loading import load_model


def test_measurements_are_made_once_and_then_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafting, "_is_busy", lambda: False)
    model = load_model(None, device="cpu", dtype="float32")
    first = measure_drafting(model, tmp_path)
    assert first.budget is not None
    assert first.seeds is not None

    def no_forward(self: LlamaSequence, layout: StepLayout) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(LlamaSequence, "forward", no_forward)
    again = measure_drafting(model, tmp_path)
    assert again.budget is not None
    assert again.budget.costs == first.budget.costs
    assert again.seeds is not None
    assert (again.seeds.token_ids == first.seeds.token_ids).all()


def test_a_busy_machine_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafting, "_is_busy", lambda: True)
    measured = measure_drafting(load_model(None, device="cpu", dtype="float32"), tmp_path)
    assert measured.budget is None
    assert measured.seeds is not None
    assert not list(tmp_path.glob("step-costs-*"))


def test_a_cache_that_cannot_be_written_costs_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafting, "_is_busy", lambda: False)
    blocked = tmp_path / "file"
    blocked.write_text("")
    measured = measure_drafting(load_model(None, device="cpu", dtype="float32"), blocked / "folder")
    assert measured.budget is not None
    assert measured.seeds is not None
