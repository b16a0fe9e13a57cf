"""The comparison with the authors' own code: the same weights and tokens arrive there, and steps are counted alike."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_lade
import pytest
import torch
from bench import paper_tables
from bench.datasets import BenchPrompt
from bench.decoding import Comparison
from bench.lade import LadeError, lade_worker, save_for_lade, summarize, windows
from bench.methods import Run
from bench.models import BenchModel
from forelook.decoding.layout import causal_layout
from forelook.errors import UnsupportedArchitectureError
from forelook.model.loading import load_model

from tests.model.checkpoints import build_reference
from tests.model.gguf_files import write_model

FAKE = Path(__file__).with_name("fake_lade")
WORKER = """#!{python}
import os, runpy, sys
assert sys.argv[1] == "-I", "our modules must not stand before the packages of that interpreter"
sys.path[0] = {fake!r}
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter with a package named ``lade``."""
    path = tmp_path / "python"
    path.write_text(WORKER.format(python=sys.executable, fake=str(FAKE)))
    path.chmod(0o700)
    return path


def bench_model(name: str, folder: Path) -> BenchModel:
    path = folder / f"{name}.gguf"
    write_model(build_reference(name), path)
    return BenchModel(load_model(str(path), device="cpu", dtype="float32"), str(path))


@pytest.mark.parametrize("variant", ["grouped_queries", "tied_head"])
def test_the_worker_runs_the_same_weights_and_stops_at_the_same_tokens(
    variant: str, tmp_path: Path, python: Path
) -> None:
    found, folder = bench_model(variant, tmp_path), tmp_path / "folder"
    folder.mkdir()
    save_for_lade(found, folder)
    ids = [3, 9, 4, 11, 7]
    sequence = found.model.new_sequence()
    expected: list[int] = []
    while len(expected) < 6:
        sequence.truncate(0)
        expected.append(int(sequence.forward(causal_layout([*ids, *expected], 0))[0].argmax()))
    prompt = BenchPrompt("p", ids, ids)
    plain, prompted = windows([(5, 3, 4)])
    with lade_worker(python, folder, [], num_threads=1) as worker:
        assert {"lade", "torch", "transformers", "lade_sha256"} <= set(worker.versions)
        for window in (None, plain):
            run = worker.run(6, window, prompt)
            assert run.token_ids == tuple(expected)
            assert run.num_steps == 6
            assert 0 < run.first_s <= run.total_s
        assert worker.run(6, prompted, prompt).token_ids[-1] == 5, "the prompt is the reference, and W is 5"
    stop = expected[3]
    with lade_worker(python, folder, [stop], num_threads=1) as worker:
        place = expected.index(stop)
        run = worker.run(6, None, prompt)
        assert run.token_ids == tuple(expected[:place])
        assert run.num_steps == place + 1, "the step of the stop token is one"


def test_an_interpreter_without_lade_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    with (
        pytest.raises(LadeError, match="No module named 'lade'"),
        lade_worker(Path(sys.executable), tmp_path, [], num_threads=1),
    ):
        pass


def test_what_the_authors_code_cannot_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedArchitectureError, match="plain llama"):
        save_for_lade(bench_model("own_head_size", tmp_path), tmp_path)


def arguments_of(*options: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "argv", ["bench_lade.py", *options])
    return bench_lade.parse_arguments()


def test_the_interpreter_is_an_option_or_a_variable(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(bench_lade.VARIABLE, raising=False)
    with pytest.raises(SystemExit, match="--lade-python"):
        bench_lade.interpreter(arguments_of(monkeypatch=monkeypatch))
    assert bench_lade.interpreter(arguments_of("--without-lade", monkeypatch=monkeypatch)) is None
    monkeypatch.setenv(bench_lade.VARIABLE, str(python))
    assert bench_lade.interpreter(arguments_of(monkeypatch=monkeypatch)) == python


@pytest.mark.parametrize("mode", [[], ["--counts"]])
def test_all_take_part_in_one_run(
    mode: list[str], python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = bench_model("llama", tmp_path)
    monkeypatch.setattr(bench_lade, "load_with_source", lambda *_, **__: found)
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("ab", "ba ab")))
    options = ["--lade-python", str(python), "--datasets", str(questions), "--windows", "3,3,3", *mode]
    arguments = arguments_of(*options, "--max-new-tokens", "4", monkeypatch=monkeypatch)
    result = bench_lade.measure(arguments)
    data = result["datasets"]["questions.jsonl"]
    assert list(data["methods"]) == [
        *("autoregressive", "hf_greedy_4_36", "lade_3_3_3", "published_3_3_3", "lade_3_3_3_prompt"),
        *("published_3_3_3_prompt", "forelook"),
    ]
    for name, row in data["methods"].items():
        assert row["identical_share"] == (0.0 if name == "lade_3_3_3_prompt" else 1.0), name
        assert row["num_tokens"] == 8
        assert ("ms_per_step" in row) == (not mode)
    assert len(data["ratios"]) == 4
    table = "\n".join(paper_tables.lade(result))
    assert "| lade_3_3_3 | 8 | 1.0 |" in table
    assert ("tokens/s" in table) == (not mode)


def test_steps_are_compared_prompt_by_prompt() -> None:
    result = Comparison("d", "m", "cpu", "float32")
    result.prompts = [None, None]  # type: ignore[list-item]

    def runs(*steps: int) -> list[Run]:
        return [Run(tuple(range(8)), 3.0, 1.0, count) for count in steps]

    result.runs = {
        "autoregressive": runs(8, 8),
        "lade_5_3_5": [replace(runs(6)[0], token_ids=(9,) * 8), *runs(4)],
        "published_5_3_5": runs(3, 4),
        "forelook": runs(2, 2),
    }
    found = summarize(result, is_timed=True)
    assert found["methods"]["lade_5_3_5"]["identical_share"] == 0.5
    assert found["methods"]["lade_5_3_5"]["num_steps"] == 10
    assert found["methods"]["published_5_3_5"]["ms_per_step"]["median"] == pytest.approx((1000 + 2000 / 3) / 2, abs=0.1)
    assert found["ratios"]["published_5_3_5/lade_5_3_5"]["steps"]["median"] == 1.5
    assert found["ratios"]["forelook/lade_5_3_5"]["steps"]["median"] == 2.5
    assert found["ratios"]["forelook/lade_5_3_5"]["speed"]["median"] == 1.0
    assert found["clean"]["num_prompts"] == 2
    result.runs = {name: [replace(run, token_ids=(1,) * 20) for run in found] for name, found in result.runs.items()}
    assert summarize(result, is_timed=True)["clean"] == {"num_prompts": 0, "methods": {}, "ratios": {}}


def test_the_threads_are_those_of_the_caller(tmp_path: Path, python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = bench_model("llama", tmp_path)
    monkeypatch.setattr(bench_lade, "load_with_source", lambda *_, **__: found)
    asked: list[int] = []
    monkeypatch.setattr(bench_lade, "lade_worker", lambda *_, num_threads: asked.append(num_threads) or sys.exit())
    with pytest.raises(SystemExit):
        bench_lade.measure(arguments_of("--lade-python", str(python), monkeypatch=monkeypatch))
    assert asked == [torch.get_num_threads()]
