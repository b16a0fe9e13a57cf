"""Files of step costs, prefill speeds and successors: kept, read again, of earlier versions, damaged."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from forelook.decoding.drafting.costs import StepCosts
from forelook.decoding.drafting.sources.successors import SuccessorSeeds
from forelook.model.loading import load_model
from forelook.model.prefill_speed import PREFILL_SPEED, estimated_prefill
from forelook.model.step_costs import STEP_COSTS, estimated_costs
from forelook.model.successor_file import read_successors, successors_path, write_successors

COSTS = StepCosts((1, 4, 16), (1.0, 0.9, 2.0), (0.0, 0.0, 0.01))


def test_costs_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = STEP_COSTS.path(tmp_path / "new", "a", torch.device("cpu"), torch.float32)
    assert STEP_COSTS.read(path) is None
    STEP_COSTS.write(path, COSTS)
    assert STEP_COSTS.read(path) == COSTS
    others = [("b", torch.float32), ("a", torch.bfloat16)]
    assert path not in [STEP_COSTS.path(path.parent, name, torch.device("cpu"), dtype) for name, dtype in others]


def test_costs_that_an_earlier_version_measured_are_read(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    content = {"format": 3, "device": "x86_64 x2", "dtype": "torch.float32", "sizes": [1, 2], "seconds": [0.1, 0.2]}
    path.write_text(json.dumps({**content, "seconds_per_cached": [0.0, 0.0]}))
    assert STEP_COSTS.read(path) == StepCosts((1, 2), (0.1, 0.2), (0.0, 0.0))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"sizes": [1], "seconds": [0], "seconds_per_cached": [0]}', '{"sizes": [1], "seconds": [NaN]}'],
)
def test_damaged_costs_are_set_aside_with_one_line(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert STEP_COSTS.read(path) is None
        assert STEP_COSTS.read(path) is None
    assert len(caplog.records) == 1
    assert path.with_name("c.json.damaged").read_text() == content


def test_estimated_costs_rise_with_every_row_and_cached_token() -> None:
    costs = estimated_costs(load_model(None, device="cpu", dtype="float32").weights)
    assert list(costs.seconds) == sorted(set(costs.seconds))
    assert min(costs.seconds_per_cached) > 0
    assert 1e-5 < costs.seconds[0] < 0.1


def test_a_prefill_speed_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = PREFILL_SPEED.path(tmp_path / "new", "a", torch.device("cpu"), torch.float32)
    assert PREFILL_SPEED.read(path) is None
    PREFILL_SPEED.write(path, 512.5)
    assert PREFILL_SPEED.read(path) == 512.5
    others = [("b", torch.float32), ("a", torch.bfloat16)]
    assert path not in [PREFILL_SPEED.path(path.parent, name, torch.device("cpu"), dtype) for name, dtype in others]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"tokens_per_s": 0}', '{"tokens_per_s": NaN}'])
def test_a_damaged_prefill_speed_is_set_aside(content: str, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(content)
    assert PREFILL_SPEED.read(path) is None
    assert not path.exists()


def test_the_estimated_prefill_speed_is_of_the_right_order() -> None:
    assert 500 < estimated_prefill(load_model(None, device="cpu", dtype="float32").weights) < 500_000


def some_seeds() -> SuccessorSeeds:
    seeds = SuccessorSeeds(50)
    rows = np.array([[7, 8, 9, 10, 11, 12, 13, 14], [0, 1, 49, 2, 3, 4, 5, 6]])
    seeds.add([3, 40], rows, np.array([[0.5, 0.25, 0.125, *[0.015625] * 5], [0.75, 0.125, *[0.0] * 6]]))
    return seeds


def test_successors_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = successors_path(tmp_path / "new", "a", [1])
    assert path != successors_path(tmp_path / "new", "a", [])
    assert read_successors(path, 50) is None
    write_successors(path, some_seeds())
    again = read_successors(path, 50)
    assert again is not None
    assert (again.token_ids == some_seeds().token_ids).all()
    assert (again.probabilities == some_seeds().probabilities).all()


def archive(path: Path, known: list[int], ids: list[list[int]]) -> None:
    np.savez(path, known=np.array(known), token_ids=np.array(ids), probabilities=np.zeros((len(ids), 3)))


@pytest.mark.parametrize("case", ["text", "other vocabulary", "negative", "shapes", "pickle"])
def test_damaged_successors_are_set_aside_with_one_line(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.npz"
    if case == "text":
        path.write_bytes(b"PK not an archive")
    elif case == "other vocabulary":
        archive(path, [3], [[7, 8, 50]])
    elif case == "negative":
        archive(path, [-1], [[7, 8, 9]])
    elif case == "shapes":
        archive(path, [3, 4], [[7, 8, 9]])
    else:
        np.savez(path, known=np.array([object()]), token_ids=np.array([object()]), probabilities=np.zeros(1))
    with caplog.at_level(logging.WARNING):
        assert read_successors(path, 50) is None
        assert read_successors(path, 50) is None
    assert len(caplog.records) == 1
    assert not path.exists()


def test_a_pipe_in_place_of_a_file_holds_nothing_up(tmp_path: Path) -> None:
    import os

    path = tmp_path / "s.npz"
    os.mkfifo(path)
    assert read_successors(path, 50) is None
