"""The benchmarks of docs/benchmarks.md: one row per table, with its command and its renderer."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench import arguments, cost_tables, paper_tables, tables
from bench.goals import goal_lines
from bench.results import REPOSITORY


@dataclass(frozen=True)
class Need:
    """What a benchmark needs that is no part of the project.

    Attributes:
        what: for people.
        is_there: whether this machine has it.
    """

    what: str
    is_there: Callable[[], bool]


@dataclass(frozen=True)
class Benchmark:
    """One table.

    Attributes:
        name: name of the region and of the result file.
        script: executable below ``scripts/``.
        full, quick: its options for the page, and for a test of the code.
        render: result → lines of Markdown.
        needs: what a run of everything leaves it out without; by name it runs anyway.
        make: what to call instead of the script, where that is another command.
        is_timed: whether other processes would change its figures. A row of counts runs on one thread next to another.
    """

    name: str
    script: str
    full: str
    quick: str
    render: Callable[[tables.Result], list[str]]
    needs: Need | None = None
    make: str = ""
    is_timed: bool = True

    def command(self, *, is_quick: bool) -> list[str]:
        return [f"scripts/{self.script}", *shlex.split(self.quick if is_quick else self.full)]


LLAMA_SERVER = Need(
    f"llama-server on PATH, or its path in {arguments.LLAMA_SERVER}",
    lambda: arguments.default_llama_server() is not None,
)
LADE = Need("an interpreter with lade, in LADE_PYTHON", lambda: bool(shutil.which(os.environ.get("LADE_PYTHON", ""))))
GPU = Need("a CUDA device; `make bench-gpu`", torch.cuda.is_available)

TINY = "--model starter-model --infill-model starter-model --limit 1 --max-new-tokens 4"
SUITE = (
    Benchmark("startup", "bench_startup.py", "--models starter qwen-0.5b --runs 7 --model-runs 2",
              "--runs 2 --models starter --model-runs 1", tables.startup),
    Benchmark("latency", "bench_latency.py", "--limit 3 --keys 80 --keys-per-second 40", "--limit 1 --keys 4",
              tables.latency),
    Benchmark("latency-human", "bench_latency.py", "--engine forelook --limit 1 --keys 150 --pace human",
              "--engine forelook --limit 1 --keys 4 --pace human", tables.latency),
    Benchmark("latency-editing", "bench_latency.py",
              "--engine forelook --trace editing --limit 220 --keys-per-second 40",
              "--engine forelook --trace editing --limit 4", tables.latency),
    Benchmark("latency-folder", "bench_latency.py",
              "--engine forelook --trace folder --path backend --limit 3 --keys 60 --keys-per-second 40",
              "--engine forelook --trace folder --path backend --limit 1 --keys 4", tables.latency),
    Benchmark("latency-default", "bench_latency.py",
              "--model smollm2-135m --engine autoregressive forelook --limit 3 --keys 80 --keys-per-second 40",
              "--model smollm2-135m --engine forelook --limit 1 --keys 4", tables.latency),
    Benchmark("latency-qwen", "bench_latency.py",
              "--model qwen-0.5b --dtype int4 --engine autoregressive forelook --limit 2 --keys 20",
              "--model tiny --engine forelook --limit 1 --keys 4", tables.latency),
    Benchmark("http", "bench_http.py", "--only overhead warming fairness --rounds 4",
              "--only overhead warming fairness --limit 3 --rounds 1 --seconds 2", tables.http),
    Benchmark("http-peers", "bench_http.py", "--only peers --limit 14",
              "--only peers --without-llama-server --limit 2", tables.http_peers, LLAMA_SERVER),
    Benchmark("load", "bench_load.py",
              "--typists 1 2 4 8 --seconds 15 --size 1 10 30 100 300 1000 --service-ms 5 20 50",
              "--typists 1 2 --seconds 2 --record 4 --size 1 10", tables.load),
    Benchmark("decoding", "bench_decoding.py", "--dataset all --limit 164 --seconds 25",
              "--dataset humaneval --limit 2 --max-new-tokens 8", tables.decoding),
    Benchmark("peers", "bench_peers.py",
              "--model smollm2-base --limit 5 --datasets humaneval workspace --no-learning --rounds 2 "
              "--max-new-tokens 48 --methods autoregressive_bf16 autoregressive_int8 forelook_bf16 forelook_int8 "
              "forelook_int4 llama_cpp_bf16 llama_cpp_q8_0 llama_cpp_q4_1 llama_cpp_q8_0_ngram_mod",
              "--smoke", tables.peers, LLAMA_SERVER),
    Benchmark("lade", "bench_lade.py", "--limit 1 --max-new-tokens 48 --seconds 150",
              "--without-lade --model starter-model --datasets backend --limit 1 --max-new-tokens 4 --windows 3,3,3",
              paper_tables.lade, LADE),
    Benchmark("paper", "bench_paper.py", "--seconds 20",
              f"{TINY} --dataset humaneval humaneval-infilling", paper_tables.paper),
    Benchmark("paper-int8", "bench_paper.py",
              "--dtype int8 --seconds 20 --methods hf_greedy autoregressive forelook forelook_warm",
              f"{TINY} --dtype int8 --dataset humaneval --methods autoregressive forelook", paper_tables.paper),
    Benchmark("paper-published", "bench_paper.py",
              "--dataset humaneval mtbench --methods autoregressive lookahead_published forelook --temperatures 0 1 "
              "--seconds 20",
              f"{TINY} --dataset humaneval --methods autoregressive lookahead_published forelook --published 3 3 3 "
              "--temperatures 0 1", paper_tables.paper),
    Benchmark("quality-default", "eval_infilling.py",
              "--limit 350 --no-tests --answers shown --keystrokes 8 --model smollm2-135m",
              "--limit 1 --no-tests --answers shown --keystrokes 1 --model smollm2-135m", tables.quality,
              is_timed=False),
    Benchmark("paper-steps", "bench_paper.py", "--counts --limit 2 --max-new-tokens 48",
              f"{TINY} --counts --dataset humaneval humaneval-infilling --published 3 3 3", paper_tables.steps,
              is_timed=False),
    Benchmark("sampling", "bench_paper.py",
              "--counts --limit 2 --max-new-tokens 48 --dataset humaneval mtbench --temperatures 0.7 1 "
              "--methods autoregressive lookahead_published forelook",
              f"{TINY} --counts --dataset humaneval --temperatures 1 --methods autoregressive lookahead_published "
              "forelook --published 3 3 3", paper_tables.steps,
              is_timed=False),
    Benchmark("ablation", "sweep_lookahead.py",
              "--counts --all-prompts --model smollm2-base --dtype float32 --dataset mtbench --limit 2 "
              "--max-new-tokens 48 --seconds 600 --only-equal --window-sizes 1 2 4 8 15 --candidates 1 2 4 8 15 "
              "--ngram-sizes 5 --also 1,5,30 30,5,1 1,5,15 15,5,1",
              "--counts --all-prompts --dataset mtbench --limit 1 --max-new-tokens 4 --only-equal --window-sizes 1 2 3 "
              "--candidates 1 2 3 --ngram-sizes 3 --also 1,3,4", paper_tables.ablation, is_timed=False),
    Benchmark("session", "bench_session.py", "--sessions 6 --long-sessions 1",
              "--model starter-model --sessions 1 --long-sessions 1 --at 1 3 --around 0 0 --max-new-tokens 4 "
              "--prompt-tokens 64 --folder scripts", cost_tables.session, is_timed=False),
    Benchmark("window", "bench_window.py", "--parts timed --limit 3",
              "--parts timed --model starter-model --limit 1 --max-new-tokens 6 --datasets humaneval",
              cost_tables.window),
    Benchmark("window-simulated", "bench_window.py", "--parts simulated --limit 2 --slopes 0 0.004 0.008 0.032",
              "--parts simulated --model starter-model --limit 1 --max-new-tokens 6 --datasets humaneval "
              "--slopes 0 0.01",
              cost_tables.window, is_timed=False),
    Benchmark("shapes", "bench_shapes.py", "--repeats 5", "--shapes tiny --tails 1 4 --prefix 16 --repeats 2",
              cost_tables.shapes),
    Benchmark("idle", "bench_idle.py", "--minutes 3",
              "--minutes 1 --minute-seconds 2 --model starter-model", cost_tables.idle, is_timed=False),
    Benchmark("gpu", "bench_gpu.py", "", "--smoke --without-transformers", cost_tables.gpu, GPU, make="make bench-gpu"),
    Benchmark("forward", "bench_forward.py", "--prefixes 256 900 --tails 1 8 16 64",
              "--prefixes 64 --tails 1 8 --repeats 10", tables.forward),
    Benchmark("parallel", "bench_parallel.py", "--rounds 2",
              "--rounds 2 --hidden-size 128 --layers 2 --window-size 3 --max-candidates 3 --ngram-size 3 --prefix 16 "
              "--dtype float32", tables.parallel),
    Benchmark("pool", "bench_pool.py", "", "--sizes 5000 --lookups 20 --rounds 1 --requests 2 --prompts 2",
              tables.pool),
    Benchmark("replay", "bench_replay.py", "--report forelook=. --commits 20 --vocabulary smollm2-135m",
              "--report forelook=. --commits 1 --edit-tokens 8 --prompt-tokens 256", tables.replay, is_timed=False),
    Benchmark("quality", "eval_infilling.py", "--limit 350 --no-tests --answers shown --keystrokes 8",
              "--limit 2 --no-tests --keystrokes 1", tables.quality,
              is_timed=False),
    Benchmark("quality-ends", "eval_infilling.py",
              "--limit 150 --no-tests --cut middle --answers raw truncated --model smollm2-135m",
              "--limit 1 --no-tests --cut middle --answers raw truncated --model smollm2-135m", tables.quality,
              is_timed=False),
)  # fmt: skip


def run(benchmark: Benchmark, results: Path, *, is_quick: bool, threads: int | None = None) -> None:
    """Run a benchmark and write its JSON object to the folder of results.

    Args:
        benchmark: a row of the suite.
        results: the folder.
        is_quick: with the sizes that test the code.
        threads: of its computations; torch's choice by default.

    Raises:
        subprocess.CalledProcessError: the benchmark failed, or printed no result.
    """
    command = [sys.executable, *benchmark.command(is_quick=is_quick)]
    environment = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    started_s = time.monotonic()
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    last_line = (done.stdout.splitlines() or [""])[-1]
    if not last_line.startswith("{"):
        raise subprocess.CalledProcessError(done.returncode or 1, command)
    results.mkdir(parents=True, exist_ok=True)
    content = {**json.loads(last_line), "took_s": round(time.monotonic() - started_s)}
    (results / f"{benchmark.name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def section(benchmark: Benchmark, result: dict[str, Any], *, is_quick: bool = False) -> list[str]:
    """Return the lines of a benchmark's region: command, provenance, table."""
    command = result.get("command") or " ".join(["python", *benchmark.command(is_quick=is_quick)])
    took = f" Took {result['took_s']} s." if "took_s" in result else ""
    lines = [f"`{command}`: {tables.measured(result)}{took}", "", *benchmark.render(result)]
    return [*lines, *goal_lines(benchmark.name, result)]


def not_run(benchmark: Benchmark) -> list[str]:
    """Return the lines of a region without a result."""
    only = f"python scripts/write_benchmarks.py --run --only {benchmark.name}"
    return [f"Not run: `{benchmark.make or only}`."]


def updated(page: str, benchmarks: Iterable[Benchmark], results: Path) -> str:
    """Return the page with the region of every benchmark replaced: by its result, or by the word that there is none.

    A table without its result stays as it is.

    Raises:
        ValueError: the page has no region of that name.
    """
    for benchmark in benchmarks:
        path = results / f"{benchmark.name}.json"
        if path.exists():
            lines = section(benchmark, json.loads(path.read_text("utf-8")))
        elif "|" not in region(page, benchmark.name):
            lines = not_run(benchmark)
        else:
            continue
        page = replaced(page, benchmark.name, lines)
    return page


def region(page: str, name: str) -> str:
    """Return what is between the marks of a region.

    Raises:
        ValueError: the page has no region of that name.
    """
    return _parts(page, name)[1]


def replaced(page: str, name: str, lines: Iterable[str]) -> str:
    """Return the page with other lines in a region.

    Raises:
        ValueError: the page has no region of that name.
    """
    before, _, after = _parts(page, name)
    return before + "\n".join(lines) + "\n" + after


def _parts(page: str, name: str) -> tuple[str, str, str]:
    start, end = (f"<!-- {word}: {name} -->\n" for word in ("begin", "end"))
    before, found, rest = page.partition(start)
    inside, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"the page has no region {name!r}; add {start.strip()} and {end.strip()}")
    return before + start, inside, end + after
