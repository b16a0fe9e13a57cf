"""What the benchmarks share: turns, intervals, provenance, and the tables of docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import write_benchmarks
from bench import results, suite, turns
from bench.summary import median_interval, medians_ms, wilson_interval


def test_turns_begin_one_place_later_every_round() -> None:
    order: list[str] = []
    names = ("a", "b", "c")
    taken = turns.take_turns({name: lambda name=name: [order.append(name) or name] for name in names}, 2)
    assert order == ["c", "a", "b", "a", "b", "c", "b", "c", "a"]
    assert taken == {"a": ["a"] * 2, "b": ["b"] * 2, "c": ["c"] * 2}, "the warm-up round does not count"


def test_steps_are_compared_as_often_as_asked() -> None:
    counts = {"a": 0, "b": 0}

    def step(name: str) -> None:
        counts[name] += 1

    times = turns.compare_steps({"a": lambda: step("a"), "b": lambda: step("b")}, repeats=20)
    assert [len(values) for values in times.values()] == [20, 20]
    assert counts == {"a": 30, "b": 30}


def test_intervals_contain_their_median_and_their_share() -> None:
    interval = median_interval([1.0, 2.0, 3.0, float("inf")])
    assert interval["median"] == 2.0
    assert interval["low"] <= 2.0 <= interval["high"]
    assert interval["num"] == 3
    low, high = wilson_interval(1, 4) or [0, 0]
    assert low < 0.25 < high
    assert wilson_interval(0, 0) is None
    assert medians_ms({"a": [0.001, 0.003, 0.002], "none": []}) == {"a": 2.0}


def test_results_say_machine_and_commit_but_no_host_and_no_path(
    capsys: pytest.CaptureFixture[str], repository: Path, tmp_path: Path
) -> None:
    results.print_result("b", {"figure": 1}, tmp_path / "r" / "b.json")
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == json.loads((tmp_path / "r" / "b.json").read_text())
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=False)
    if head.returncode == 0:
        assert head.stdout.startswith(last["provenance"]["commit"])
    assert {"cpu", "cores", "threads", "torch", "is_dirty", "date"} <= last["provenance"].keys()
    assert str(repository) not in json.dumps(last)
    assert results.public_name(str(tmp_path)) == tmp_path.name
    assert results.public_name("org/model") == "org/model"


def test_every_executable_ends_with_a_result_that_names_its_origin(repository: Path) -> None:
    writers = {"generate_http_fields.py", "generate_settings.py", "write_benchmarks.py", "write_sbom.py"}
    others = {"demo.py", "hf_greedy_backend.py", *writers}
    sources = {path.name: path.read_text("utf-8") for path in (repository / "scripts").glob("*.py")}
    assert others <= sources.keys()
    for name, source in sources.items():
        if name not in others:
            assert "print_result(" in source, name
            assert "json.dumps" not in source, f"{name} prints a result without its origin"


def test_a_failing_row_does_not_stop_the_next_ones(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fails.py").write_text("raise SystemExit('no such kernel')")
    (tmp_path / "works.py").write_text(f"print({json.dumps(json.dumps({'provenance': results.provenance()}))})")
    rows = [
        suite.Benchmark(
            name,
            os.path.relpath(tmp_path / f"{name}.py", repository / "scripts"),
            "",
            "",
            lambda _result: ["the table"],
        )
        for name in ("fails", "works")
    ]
    page, old = tmp_path / "page.md", "<!-- begin: fails -->\nold\n<!-- end: fails -->\n"
    page.write_text(f"{old}<!-- begin: works -->\n<!-- end: works -->\n")
    monkeypatch.setattr(write_benchmarks, "SUITE", rows)
    for flags in (["--run"], ["--quick"]):
        command = ["write_benchmarks.py", *flags, "--page", str(page), "--results", str(tmp_path / "results")]
        monkeypatch.setattr("sys.argv", command)
        assert write_benchmarks.main() == 1
        assert capsys.readouterr().out.splitlines()[-1].endswith("failed: fails")
    assert page.read_text().startswith(old)
    assert "the table" in page.read_text()


def test_timed_rows_run_alone_and_counts_one_per_core_on_one_thread(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    (tmp_path / "works.py").write_text(
        "import json, os, pathlib, sys, time\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "here.mkdir()\n"
        "with here.parent.joinpath('runs').open('a') as runs: print(here.name, file=runs)\n"
        "deadline = time.monotonic() + float(sys.argv[2])\n"
        "while len(list(here.parent.glob('row-*'))) < 2 and time.monotonic() < deadline: time.sleep(0.01)\n"
        "others = len(list(here.parent.glob('row-*'))) - 1\n"
        "time.sleep(0.2)\n"
        "here.rmdir()\n"
        "print(json.dumps({'others': others, 'threads': os.environ.get('OMP_NUM_THREADS')}))\n"
    )
    script = os.path.relpath(tmp_path / "works.py", repository / "scripts")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    rows = [
        suite.Benchmark(
            name,
            script,
            f"{tmp_path / f'row-{name}'} {wait_s}",
            "",
            lambda _result: [],
            is_timed=name.startswith("timed"),
        )
        for name, wait_s in (("counts-1", 20), ("timed-1", 0), ("counts-2", 20), ("timed-2", 0))
    ]
    assert write_benchmarks.run_all(rows, tmp_path / "results", is_quick=False) == rows

    def result(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((tmp_path / "results" / f"{name}.json").read_text())
        return found

    assert sorted((tmp_path / "runs").read_text().split()) == [
        "row-counts-1",
        "row-counts-2",
        "row-timed-1",
        "row-timed-2",
    ]
    assert [result(name)["others"] for name in ("timed-1", "timed-2", "counts-1", "counts-2")] == [0, 0, 1, 1]
    assert [result(name)["threads"] for name in ("timed-1", "counts-1")] == [None, "1"]


def test_a_run_of_everything_skips_what_this_machine_lacks_and_says_so(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "works.py").write_text(f"print({json.dumps(json.dumps({'provenance': results.provenance()}))})")
    script, found = os.path.relpath(tmp_path / "works.py", repository / "scripts"), [False]
    row = suite.Benchmark(
        "rare", script, "", "", lambda _result: ["the table"], suite.Need("a rare part", lambda: found[0])
    )
    page = tmp_path / "page.md"
    page.write_text("<!-- begin: rare -->\n| old |\n<!-- end: rare -->\n")
    monkeypatch.setattr(write_benchmarks, "SUITE", [row])

    def said(*flags: str) -> str:
        command = ["write_benchmarks.py", *flags, "--page", str(page), "--results", str(tmp_path / "results")]
        monkeypatch.setattr("sys.argv", command)
        assert write_benchmarks.main() == 0
        return capsys.readouterr().out

    assert "rare: skipped, its table stays as it is; it needs a rare part" in said("--run")
    assert "old" in page.read_text()
    assert "skipped" not in said("--run", "--only", "rare"), "asked for by name it runs"
    assert "the table" in page.read_text()
    found[0] = True
    assert "skipped" not in said("--run")
    assert "skipped" not in said("--quick")


def test_page_has_a_region_for_every_benchmark_and_results_replace_only_theirs(
    repository: Path, tmp_path: Path
) -> None:
    page = (repository / "docs" / "benchmarks.md").read_text("utf-8")
    for benchmark in suite.SUITE:
        assert page.count(f"<!-- begin: {benchmark.name} -->\n") == 1
        assert page.count(f"<!-- end: {benchmark.name} -->\n") == 1
        assert (repository / benchmark.command(is_quick=False)[0]).exists()
    assert suite.updated(page, suite.SUITE, tmp_path) == page, "without results nothing changes"
    startup = {"runs": 9, "median_ms": 400.0, "min_ms": 390.0, "max_ms": 410.0, "bar_ms": 500.0}
    (tmp_path / "startup.json").write_text(json.dumps({**startup, "provenance": results.provenance()}))
    new = suite.updated(page, suite.SUITE, tmp_path)
    start, end = page.index("<!-- begin: startup -->"), page.index("<!-- end: startup -->")
    assert new.startswith(page[:start])
    assert new.endswith(page[end:])
    assert "Median of 9 starts **400 ms** (390 to 410); goal 500." in new
    with pytest.raises(ValueError, match="no region 'startup'"):
        suite.updated("", suite.SUITE, tmp_path)
