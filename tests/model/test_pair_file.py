"""What a model says after frequent pairs: as it was written, ignored with one line where it is damaged."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from forelook.completion.engine.learning import SuccessorLearning
from forelook.decoding.drafting.draft import pair_of
from forelook.decoding.drafting.sources.successors import PairTable
from forelook.errors import ConfigError
from forelook.model.pair_file import FILE_NAME, pairs_path, read_pairs, write_pairs

from tests.completion.fake_model import FakeModel
from tests.fakes import ByteTokenizer

PAIRS = np.array([pair_of(5, 1), pair_of(3, 7), pair_of(0, 2)])
SUCCESSORS = np.array([[4, 9, 2], [7, 8, 1], [6, 5, 3]])
PROBABILITIES = np.array([[0.9, 0.04, 0.001], [0.5, 0.25, 0.04], [0.01, 0.005, 0.001]])


def write(path: Path) -> None:
    write_pairs(path, PAIRS, SUCCESSORS, PROBABILITIES, 0.02)


def test_pairs_are_read_as_they_were_written_but_for_improbable_successors(tmp_path: Path) -> None:
    write(tmp_path / "p.npz")
    table = read_pairs(tmp_path / "p.npz", 10)
    assert table is not None
    assert len(table) == 3
    assert [token for token, _ in table.of(pair_of(5, 1))] == [4, 9]
    assert [token for token, _ in table.of(pair_of(3, 7))] == [7, 8, 1]
    assert [token for token, _ in table.of(pair_of(0, 2))] == [6], "the likeliest one stays"
    assert [probability for _, probability in table.of(pair_of(3, 7))] == pytest.approx([0.5, 0.25, 0.04], abs=0.004)
    for unknown in (pair_of(0, 0), pair_of(3, 8), pair_of(9, 9)):
        assert table.of(unknown) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": np.array([pair_of(3, 7), 0])},
        {"steps": np.array([pair_of(3, 7), -1])},
        {"steps": np.array([pair_of(3, 7), pair_of(9, 0)])},
        {"steps": np.array([pair_of(3, 7), 5])},
        {"counts": np.array([1, 2])},
        {"token_ids": np.array([4, 10])},
        {"token_ids": np.array([4])},
        {"roots": np.array([9])},
        {"roots": np.array([object()])},
    ],
)
def test_a_damaged_file_is_ignored_with_one_line(
    changes: dict[str, np.ndarray], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "p.npz"
    arrays = {
        "steps": np.array([pair_of(3, 7), 1]),
        "counts": np.array([1, 1]),
        "token_ids": np.array([4, 5]),
        "roots": np.array([200, 100], dtype=np.uint8),
    }
    np.savez(path, **arrays)  # type: ignore[arg-type]
    assert read_pairs(path, 10) is not None
    np.savez(path, **(arrays | changes))  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        assert read_pairs(path, 10) is None
    assert len(caplog.records) == 1
    assert "scripts/ask_pairs.py" in caplog.text
    assert path.exists(), "it is the model's, not ours to remove"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"\x93NUMPY"])
def test_a_file_that_is_no_archive_is_ignored(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.npz").write_bytes(content)
    assert read_pairs(tmp_path / "p.npz", 10) is None


def test_a_file_belongs_to_a_folder_or_to_a_gguf_file(tmp_path: Path) -> None:
    assert pairs_path(tmp_path) is None
    (tmp_path / FILE_NAME).touch()
    assert pairs_path(tmp_path) == tmp_path / FILE_NAME
    gguf = tmp_path / "m.gguf"
    gguf.touch()
    assert pairs_path(gguf) is None
    (tmp_path / f"m.{FILE_NAME}").touch()
    assert pairs_path(gguf) == tmp_path / f"m.{FILE_NAME}"


def test_a_model_drafts_from_its_pairs_from_the_first_request_on(tmp_path: Path) -> None:
    write(tmp_path / FILE_NAME)
    model = FakeModel(pairs_path=tmp_path / FILE_NAME)
    model.config = SimpleNamespace(bos_token_id=ByteTokenizer.START, vocab_size=ByteTokenizer().vocab_size)  # type: ignore[attr-defined]
    for cache_dir in (None, tmp_path / "cache"):
        learning = SuccessorLearning.of(model, cache_dir)  # type: ignore[arg-type]
        assert [token for token, _ in learning.seeds.of_pair(pair_of(3, 7))] == [7, 8, 1]
        learning.seeds.add_pairs([pair_of(3, 7)], np.full((1, 8), 2), np.full((1, 8), 0.1))
        assert learning.seeds.of_pair(pair_of(3, 7))[0][0] == 2, "what was asked here counts more"


def test_a_table_is_sorted_and_whole() -> None:
    one = np.ones(2)
    with pytest.raises(ConfigError, match="ascending"):
        PairTable(np.array([4, 4]), one.astype(int), one.astype(int), one)
    with pytest.raises(ConfigError, match="counts"):
        PairTable(np.array([4, 5]), one.astype(int), one.astype(int)[:1], one)
