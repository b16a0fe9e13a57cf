"""The script that asks a model about the frequent pairs of some text."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ask_pairs
import pytest
import torch
from bench.models import STARTER, load_named
from forelook.completion.engine.learning import SuccessorLearning
from forelook.decoding.drafting.draft import ID_BITS
from forelook.decoding.layout import causal_layout
from forelook.model.pair_file import read_pairs

CODE = "def total(values):\n    return sum(values)\n\n\n" * 3 + "x = total([1, 2])\n"


def test_the_file_has_what_the_model_says_after_the_most_frequent_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.py").write_text(CODE)
    (tmp_path / "b.txt").write_text("no code at all")
    out = tmp_path / "p.npz"
    options = ["--model", STARTER, "--pairs", "12", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["ask_pairs.py", str(tmp_path), *options])
    monkeypatch.setattr(ask_pairs, "ROWS", 5)
    ask_pairs.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["num_pairs"] == 12
    assert list(result["num_tokens"]) == [".py"]
    assert 0.5 < result["share_of_places"] < 1.0
    model = load_named(STARTER, device="cpu", dtype="float32")
    table = read_pairs(out, model.config.vocab_size)
    assert table is not None
    assert len(table) == 12
    sequence, start_ids = model.new_sequence(), SuccessorLearning.of(model, None).start_ids
    for pair in table.pairs.tolist():
        sequence.truncate(0)
        ids = [*start_ids, pair >> ID_BITS, pair & (1 << ID_BITS) - 1]
        probabilities = torch.softmax(sequence.forward(causal_layout(ids, 0))[0], dim=-1)
        best = probabilities.topk(8)
        expected = [token for token, value in zip(*map(torch.Tensor.tolist, best[::-1]), strict=True) if value >= 0.02]
        found = table.of(pair)
        assert [token for token, _ in found] == (expected or [int(best.indices[0])])
        assert [value for _, value in found] == pytest.approx(best.values[: len(found)].tolist(), abs=0.005)


def test_folders_without_such_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--model", STARTER, "--suffixes", ".zig", "--out", str(tmp_path / "p.npz")]
    monkeypatch.setattr(sys, "argv", ["ask_pairs.py", str(tmp_path), *options])
    with pytest.raises(SystemExit, match="suffixes"):
        ask_pairs.main()
