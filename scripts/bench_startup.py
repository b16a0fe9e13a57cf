"""Time until Forelook answers after a start: the language server to ``initialize``, and a model for the first time.

The language server: from starting the process to its answer to ``initialize``. The first start writes bytecode and is
not counted. Every start is a new process over stdio, as an editor starts it, and ends before it would look for a
backend.

A model: from making the engine to its first answer, with empty folders, less loading the model and prefilling the
prompt, which other processes do alone. ``starter`` is the bundled model, ``qwen-0.5b`` random weights of the shape of
Qwen2.5-Coder-0.5B; anything else is a folder, a GGUF file or a hub id. Starts with and without an engine take turns,
and the median of the difference counts. On a busy machine the difference in processor time says more.

The last line is one JSON object.

Usage: python scripts/bench_startup.py [--runs N] [--models starter qwen-0.5b model.gguf …]
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.arguments import benchmark_parser
from bench.lsp_client import stdio_server
from bench.processes import private_environment
from bench.results import REPOSITORY, print_result, public_name
from bench.tables import startup

BAR_MS = 500.0
FIRST_BAR_S = 1.0
INITIALIZE = {
    "processId": None,
    "rootUri": None,
    "capabilities": {
        "general": {"positionEncodings": ["utf-16"]},
        "workspace": {"configuration": True, "workspaceFolders": True},
        "textDocument": {"inlineCompletion": {}, "synchronization": {"didSave": True}},
        "window": {"workDoneProgress": True},
    },
}


async def start_once(environment: dict[str, str]) -> float:
    """Return the milliseconds from starting the process to the whole answer."""
    started_s = time.perf_counter()
    async with stdio_server(environment) as server:
        answer = await server.client.request("initialize", INITIALIZE)
        elapsed_ms = (time.perf_counter() - started_s) * 1000
        if "inlineCompletionProvider" not in answer["capabilities"]:
            raise SystemExit("the answer to initialize does not offer inline completion")
        await server.client.request("shutdown")
        await server.client.notify("exit")
        if (code := await server.wait()) != 0:
            raise SystemExit(f"the language server exited with code {code}")
    return elapsed_ms


def first_suggestion(name: str, dtype: str, runs: int, scratch: Path) -> dict[str, Any]:
    """Return medians, in seconds, of a model's first answer and of its parts."""
    source = "" if name == "starter" else name
    if name == "qwen-0.5b":
        from bench.random_llama import save_shape

        source = str(scratch / name)
        save_shape(Path(source), "qwen-0.5b")

    def run(what: str) -> dict[str, float]:
        command = [sys.executable, "-m", "bench.first_suggestion", what, source, dtype]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts")}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return figures

    run("parts")  # fills the page cache
    turns = [{**run("parts"), **run("engine")} for _ in range(runs)]
    beyond_s = [turn["answered_s"] - turn["load_s"] - turn["prefill_s"] for turn in turns]
    medians = {key: round(statistics.median(turn[key] for turn in turns), 3) for key in turns[0]}
    beyond_cpu_s = statistics.median(turn["cpu_s"] - turn["parts_cpu_s"] for turn in turns)
    found = {"beyond_s": round(statistics.median(beyond_s), 3), "beyond_max_s": round(max(beyond_s), 3)}
    found["beyond_cpu_s"] = round(beyond_cpu_s, 3)
    return {"model": public_name(name), "dtype": dtype, **found, "bar_s": FIRST_BAR_S, **medians}


def main() -> int:
    parser = benchmark_parser(__doc__, "dtype")
    parser.add_argument("--runs", type=int, default=9, help="starts of the language server (default: %(default)s)")
    parser.add_argument("--models", nargs="*", default=["starter"], help="models to start for the first time")
    parser.add_argument("--model-runs", type=int, default=3, help="starts of each model (default: %(default)s)")
    options = parser.parse_args()
    with private_environment() as environment:
        environment["HOME"] = environment["XDG_CONFIG_HOME"]
        cold_ms, *times_ms = [asyncio.run(start_once(environment)) for _ in range(1 + options.runs)]
    median_ms = statistics.median(times_ms)
    figures = {"median_ms": median_ms, "min_ms": min(times_ms), "max_ms": max(times_ms), "bar_ms": BAR_MS}
    print(f"first start (not counted) {cold_ms:.1f} ms")
    with tempfile.TemporaryDirectory(prefix="fl-") as scratch:
        models = [first_suggestion(name, options.dtype, options.model_runs, Path(scratch)) for name in options.models]
    result = {
        "runs": options.runs,
        **{name: round(value, 1) for name, value in figures.items()},
        "model_runs": options.model_runs,
        "first_suggestions": models,
    }
    print(*startup(result), sep="\n")
    print_result("startup", result, options.json)
    return 0 if median_ms < BAR_MS and all(model["beyond_s"] <= FIRST_BAR_S for model in models) else 1


if __name__ == "__main__":
    sys.exit(main())
