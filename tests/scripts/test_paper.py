"""The paper's experiments: what is counted, what a result says of its command, and that no part costs the others."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bench_gpu
import bench_paper
import pytest
import torch
from bench import cost_tables, decoding, goals, paper_tables, results
from bench.datasets import load_prompts, prefix_tokens
from bench.gpu_model import make_plan
from bench.methods import Run
from bench.models import DEFAULT_ADAPTER_PATH, STARTER, default_base_path, load_named
from bench.session import SessionPlan, Tally
from bench.sweep import Setting, sweep
from bench.transformers_model import transformers_model
from forelook.decoding.layout import causal_layout
from forelook.model.loading import load_model


def run(num_tokens: int, num_steps: int) -> Run:
    return Run(tuple(range(num_tokens)), 1.0, 0.5, num_steps)


def test_counts_have_no_time_in_them() -> None:
    found = decoding.Comparison("humaneval", "m", "cpu", "float32")
    found.prompts = [None, None]  # type: ignore[list-item]
    found.runs = {"autoregressive": [run(8, 8), run(0, 1)], "forelook": [run(8, 4), run(0, 1)]}
    content = bench_paper.counted(found)
    assert content["methods"]["forelook"]["tokens_per_step"] == pytest.approx(8 / 5)
    assert content["methods"]["forelook"]["per_prompt"]["median"] == 2.0, "an empty answer has no steps to count"
    assert bench_paper.num_answered(found) == 1
    text = json.dumps(content)
    assert not [word for word in ('tokens_per_s"', "_ms", "ratios") if word in text]
    table = paper_tables.steps(
        {
            "published": [15, 5, 15],
            "max_new_tokens": 8,
            "max_drafts": 15,
            "runs": [{**content, "temperature": 0.0, "num_answered": 1}],
        }
    )
    assert "| humaneval | m | 2 (2), 1 answered | 1.6 | 1.6 | 100% |" in table


def test_an_infilling_prompt_ends_where_an_editors_cursor_is() -> None:
    tokenizer = load_named(STARTER, device="cpu", dtype="float32").tokenizer
    for prefix, target, before in (
        ("def f(x):\n", "    return x + 1\n", "def f(x):\n    "),
        ("def f(x):", "\n        return x", "def f(x):\n        "),
        ("total = count", " + offset", "total = count"),
        ("x = 1\n", "\n\n", None),
        ("", "import os", ""),
    ):
        ids = prefix_tokens(tokenizer, prefix, target)
        text = tokenizer.decode(ids).removeprefix(" ")
        whole = tokenizer.encode_prefix(prefix + target)
        assert ids == whole[: len(ids)], "tokens as the model learned them"
        if before is None:
            assert text == prefix + target
        else:
            assert before.startswith(text)
            assert before.rstrip() == text.rstrip()
            assert len(tokenizer.decode(whole[: len(ids) + 1]).removeprefix(" ")) > len(before)


def test_a_chat_model_gets_its_own_format(tmp_path: Path) -> None:
    questions = tmp_path / "mtbench"
    questions.mkdir()
    (questions / "question.jsonl").write_text(json.dumps({"question_id": 1, "turns": ["Why?", "And?"]}))
    names = {"<|im_start|>": 1, "<|im_end|>": 2}

    def prompt(token_ids: dict[str, int]) -> list[int]:
        tokenizer = SimpleNamespace(
            token_id=token_ids.get, encode=lambda text: [100 + len(text)], encode_prefix=lambda text: [len(text)]
        )
        model: Any = SimpleNamespace(
            tokenizer=tokenizer, max_positions=64, config=SimpleNamespace(bos_token_id=None), infill=None
        )
        (found,) = load_prompts("mtbench", model, data_dir=tmp_path, limit=None, max_new_tokens=8)
        return found.prompt_ids

    assert prompt(names) == [1, 100 + len("user\nWhy?"), 2, 101, 1, 100 + len("assistant\n")]
    assert prompt({}) == [len("User: Why?\nAssistant:")]


def test_a_result_names_its_command_without_folders_of_the_machine() -> None:
    arguments = [
        "/a/b/bench_paper.py",
        "--json",
        "/c/d.json",
        "--model",
        "/e/base.gguf",
        "--data",
        "/f",
        "--limit",
        "3",
    ]
    assert results.public_command(arguments) == "python scripts/bench_paper.py --model base.gguf --limit 3"


def test_an_interrupted_benchmark_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    results.write_result("b", {"runs": [1]}, path)
    results.write_result("b", {"runs": [1, 2]}, path)
    assert json.loads(path.read_text())["runs"] == [1, 2]
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]


def test_a_failing_gpu_measurement_costs_no_other_and_each_is_written(tmp_path: Path) -> None:
    plan = make_plan("tiny", device_name="cpu", dtype=None, repeats=1, smoke=True)
    path, report = tmp_path / "gpu.json", {"device": "d", "shape": "7b", "dtype": "bfloat16"}
    part = bench_gpu.Run(report, plan, path, seconds=math.inf)
    part.measure("broken", lambda: 1 / 0)
    part.measure("grid, prefix 64", lambda: [
        {"prefix": 64, "tail": 1, "captured": 2.0, "over_floor": 1.2},
        {"prefix": 64, "tail": 20, "captured": 2.2, "over_floor": 1.3},
    ], into="grid")  # fmt: skip
    written = json.loads(path.read_text())
    assert "ZeroDivisionError" in written["left_out"]["broken"]
    assert [row["value"] for row in written["must_reach"]][:3] == [1.2, 1.1, None]
    late = bench_gpu.Run(report, plan, path, seconds=-1)
    late.measure("generation", lambda: pytest.fail("no time was left"))
    late.write()
    table = cost_tables.gpu(json.loads(path.read_text()))
    assert sum("| open |" in line for line in table) == 3
    assert any("generation (no time was left)" in line for line in table)


def test_the_sweep_counts_without_times() -> None:
    model = load_model(None, device="cpu", dtype="float32")
    ids = model.tokenizer.encode("def f(a):\n    return a\n\n\ndef g(a):\n    return")
    prompts: Any = [SimpleNamespace(name=str(number), prompt_ids=ids) for number in range(2)]
    settings = [Setting(3, 3, 3, False, False), Setting(1, 3, 3, True, False)]
    assert list(sweep(model, prompts, settings, 6, is_timed=False)) == [0, 0]
    assert settings[0].result()["speedup"] is None
    assert settings[0].compression >= 1.0
    assert not list(sweep(model, prompts, settings, 6, is_timed=False, seconds=-1))


def test_places_of_a_run_of_suggestions() -> None:
    plan = SessionPlan(Path(), {1: 0, 10: 1, 100: 3}, 12, 2, 4, 24, 320, 15)
    assert [plan.length(number) for number in (0, 1, 2, 11)] == [103, 103, 11, 11]
    assert [plan.place_of(number) for number in (1, 2, 9, 11, 12, 97, 104)] == [1, None, 10, 10, None, 100, None]
    tally = Tally()
    for name, steps in {"cold": 4, "pool": 2, "session": 1}.items():
        tally.runs[name] += [run(4, steps), run(0, 1)]
    figures = tally.figures()
    assert figures["num_suggestions"] == 1
    assert figures["num_empty"] == 1
    assert figures["ratios"]["session/cold"]["median"] == 4.0


def test_goals_are_judged_by_their_bar() -> None:
    low, high = goals.Goal("a", "≤", 2, goals.at("x")), goals.Goal("b", "≥", 2, goals.at("x"))
    assert low.judged({"x": 2}) == (2, True)
    assert high.judged({"x": 1.9}) == (1.9, False)
    assert high.judged({}) == (None, None)
    assert high.judged({"x": None}) == (None, None)


def test_every_goal_finds_its_value_in_a_result(repository: Path) -> None:
    folder = repository / "docs" / "benchmarks" / "results"
    for name in goals.GOALS:
        path = folder / f"{name}.json"
        if path.exists():
            judged = list(goals.judged_goals(name, json.loads(path.read_text("utf-8"))))
            assert any(reached is not None for _, _, reached in judged), name


@pytest.mark.slow
def test_transformers_gets_the_sum_of_an_adapter() -> None:
    base, adapter = default_base_path(), DEFAULT_ADAPTER_PATH
    if base is None:
        pytest.skip("needs the base of the default model in your model folder; `make model` downloads it (93 MB)")
    ours = load_model(str(base), adapter=adapter, device="cpu", dtype="float32")
    theirs = transformers_model(str(base), torch.float32, torch.device("cpu"), adapter)
    ids = [0, 2, 3, 500, 600, 4, 700, 800]
    sequence = ours.new_sequence(64)
    with torch.inference_mode():
        expected = theirs(torch.tensor([ids])).logits[0, -1]
        found = sequence.forward(causal_layout(ids, 0))[-1]
    assert torch.allclose(found.float(), expected, atol=1e-3)
