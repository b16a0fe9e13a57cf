"""Every benchmark runs with tiny settings, ends with one JSON object, and its table can be rendered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench import suite
from forelook.commands.cli import command_context
from forelook.model.catalogue import DEFAULT_MODEL, find_model
from forelook.model.package_index import find_file

NEEDS_DATA = {
    "latency",
    "latency-editing",
    "latency-human",
    "decoding",
    "quality",
    "latency-default",
    "latency-qwen",
    "quality-default",
    "quality-ends",
    "paper",
    "paper-int8",
    "paper-published",
    "paper-steps",
    "sampling",
    "ablation",
    "window",
    "window-simulated",
}
NEEDS_BASE = {"latency-default", "quality-default", "quality-ends"}


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", suite.SUITE, ids=lambda benchmark: benchmark.name)
def test_benchmark_runs_and_its_table_is_rendered(
    benchmark: suite.Benchmark, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if benchmark.name in NEEDS_DATA:
        request.getfixturevalue("shared_dir")
    if benchmark.name in NEEDS_BASE:
        request.getfixturevalue("default_base")
    if benchmark.name == "replay":
        request.getfixturevalue("git_history")
    suite.run(benchmark, tmp_path, is_quick=True)
    begin, end = (f"<!-- {word}: {benchmark.name} -->\n" for word in ("begin", "end"))
    page = suite.updated(f"{begin}{end}", [benchmark], tmp_path)
    assert benchmark.script in page
    assert len(page.splitlines()) > 4


@pytest.fixture
def default_base() -> None:
    """Skip where the default model cannot run."""
    row = find_model(DEFAULT_MODEL)
    assert row is not None
    assert row.source is not None
    if find_file(command_context().paths.models_dir, row.source) is None:
        pytest.skip("needs the base of the default model in your model folder; `make model` downloads it (93 MB)")


@pytest.fixture
def git_history(repository: Path) -> None:
    """Skip where the replay has no history to read."""
    done = subprocess.run(["git", "rev-parse", "HEAD~3"], cwd=repository, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("needs the git history of this checkout")


@pytest.mark.slow
def test_sweep_runs(repository: Path, shared_dir: Path, tmp_path: Path) -> None:
    sizes = "--limit 1 --max-new-tokens 4 --only-equal --window-sizes 1 3 --candidates 1 3 --ngram-sizes 3"
    command = [sys.executable, "scripts/sweep_lookahead.py", *sizes.split(), "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert '"benchmark": "sweep"' in done.stdout.splitlines()[-1]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_constants_of_drafting_are_swept(repository: Path) -> None:
    def swept(change: str) -> subprocess.CompletedProcess[str]:
        options = ["--model", "starter-model", "--limit", "2", "--max-new-tokens", "6", "--costs", "flat"]
        command = [sys.executable, "scripts/sweep_drafting.py", "backend", *options, "--set", change]
        return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False, timeout=280)

    done = swept("tree_drafter._MAX_CANDIDATES=1")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    kinds = [(row["set"], row["prompts"]) for row in rows]
    names = ("as they are", "tree_drafter._MAX_CANDIDATES=1")
    assert kinds == [(name, kind) for name in names for kind in ("continuing", "infilling")]
    assert [row["n"] for row in rows] == [1] * 4, "one prompt of each kind"
    wrong = swept("tree_drafter._NO_SUCH=1")
    assert wrong.returncode != 0
    assert "has no such constant" in wrong.stderr


@pytest.mark.slow
def test_priors_are_fitted(repository: Path) -> None:
    options = ["--model", "starter-model", "--limit", "2", "--max-new-tokens", "4"]
    command = [sys.executable, "scripts/fit_draft_priors.py", "backend", *options]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert '"tables"' in done.stdout.splitlines()[-1]
