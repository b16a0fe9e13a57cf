"""A model's thresholds: read from the file next to its weights, and only if they were measured with these weights."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from forelook.confidence import Confidence
from forelook.languages import ROWS
from forelook.model.confidence import (
    ALL,
    UNMEASURED,
    ConfidenceTable,
    confidence_path,
    read_confidence,
    write_confidence,
)
from forelook.model.loading import STARTER_MODEL_PATH

LEAST = {Confidence.DEFAULT: {ALL: 0.2, "python": 0.3}, Confidence.STRICT: {ALL: 0.5}}


@pytest.fixture(params=["folder", "gguf"])
def weights(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What ``read_confidence`` takes; its only weights are ``weights_file``'s."""
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder if request.param == "folder" else folder / "tiny.Q4_0.gguf"
    weights_file(path).write_bytes(bytes(range(256)) * 1000)
    return path


def weights_file(path: Path) -> Path:
    return path / "model.safetensors" if path.is_dir() else path


def test_a_table_is_read_back_for_the_same_weights(weights: Path) -> None:
    write_confidence(weights, LEAST, {"command": "x"})
    table = read_confidence(weights)
    assert table == ConfidenceTable(LEAST, is_measured=True)
    assert table.least_log_prob(Confidence.DEFAULT, "python") == pytest.approx(math.log(0.3))
    assert table.least_log_prob(Confidence.DEFAULT, "go") == pytest.approx(math.log(0.2))
    assert table.least_log_prob(Confidence.STRICT, "python") == pytest.approx(math.log(0.5))
    assert table.least_log_prob(0.9, "python") == pytest.approx(math.log(0.9))
    assert table.least_log_prob(0.0, "python") == -math.inf


def test_a_model_without_a_file_has_the_unmeasured_table(weights: Path) -> None:
    assert read_confidence(weights) == ConfidenceTable(UNMEASURED, is_measured=False)


@pytest.mark.parametrize("change", [b"x", b"longer"])
def test_a_table_of_other_weights_is_ignored(weights: Path, change: bytes, caplog: pytest.LogCaptureFixture) -> None:
    write_confidence(weights, LEAST, {})
    data = weights_file(weights).read_bytes()
    weights_file(weights).write_bytes(change + data[1:])
    with caplog.at_level(logging.WARNING):
        assert not read_confidence(weights).is_measured
    assert "measured with other weights" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        {"format": 2},
        {"least": []},
        {"least": {"default": {"*": 0.1}}},
        {"least": {"default": {"python": 0.1}, "strict": {"*": 0.2}}},
        {"least": {"default": {"*": 1.5}, "strict": {"*": 0.2}}},
        {"least": {"default": {"*": True}, "strict": {"*": 0.2}}},
        {"least": {"default": {"*": "0.1"}, "strict": {"*": 0.2}}},
    ],
)
def test_a_damaged_table_is_ignored_and_named(
    weights: Path, damage: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    write_confidence(weights, LEAST, {})
    file = confidence_path(weights)
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with caplog.at_level(logging.WARNING):
        assert read_confidence(weights) == ConfidenceTable()
    assert str(file) in caplog.text
    file.write_bytes(b"\xff{")
    assert read_confidence(weights) == ConfidenceTable()


def test_the_starter_model_has_a_table_of_its_own_with_names_of_the_language_table() -> None:
    table = read_confidence(STARTER_MODEL_PATH)
    assert table.is_measured
    names = {language.name for language in ROWS}
    for level, values in table.least.items():
        assert values.keys() <= names | {ALL}, level
    for name, value in table.least[Confidence.DEFAULT].items():
        assert value <= table.least[Confidence.STRICT].get(name, 1.0)
