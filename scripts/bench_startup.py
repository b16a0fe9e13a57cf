"""Time an editor waits for the language server: from starting the process to its answer to ``initialize``.

The first start writes bytecode and is not counted. Every start is a new process over stdio, as an editor starts it, and
ends before it would look for a backend. The last line is one JSON object.

Usage: python scripts/bench_startup.py [--runs N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from typing import Any

from bench import lsp_frames
from bench.processes import private_environment
from bench.results import add_json_argument, print_result

BAR_MS = 500.0
INITIALIZE: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "processId": None,
        "rootUri": None,
        "capabilities": {
            "general": {"positionEncodings": ["utf-16"]},
            "workspace": {"configuration": True, "workspaceFolders": True},
            "textDocument": {"inlineCompletion": {}, "synchronization": {"didSave": True}},
            "window": {"workDoneProgress": True},
        },
    },
}


def start_once(environment: dict[str, str]) -> float:
    """Return the milliseconds from starting the process to the whole answer."""
    command = [sys.executable, "-m", "forelook_lsp"]
    started_s = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lsp_frames.encode(INITIALIZE))
        process.stdin.flush()
        answer = lsp_frames.read(process.stdout)
        elapsed_ms = (time.perf_counter() - started_s) * 1000
        if answer is None:
            raise SystemExit("the language server exited before it answered initialize")
        if "inlineCompletionProvider" not in answer["result"]["capabilities"]:
            raise SystemExit("the answer to initialize does not offer inline completion")
        process.stdin.write(lsp_frames.encode({"jsonrpc": "2.0", "id": 2, "method": "shutdown"}))
        process.stdin.write(lsp_frames.encode({"jsonrpc": "2.0", "method": "exit"}))
        process.stdin.close()
        if process.wait(timeout=10) != 0:
            raise SystemExit(f"the language server exited with code {process.returncode}")
    return elapsed_ms


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    add_json_argument(parser)
    options = parser.parse_args()
    with private_environment() as environment:
        environment["HOME"] = environment["XDG_CONFIG_HOME"]
        cold_ms = start_once(environment)
        times_ms = sorted(start_once(environment) for _ in range(options.runs))
    median_ms = statistics.median(times_ms)
    print(f"first start (not counted) {cold_ms:7.1f} ms")
    print(f"fastest                   {times_ms[0]:7.1f} ms")
    print(f"median of {options.runs:<3}             {median_ms:7.1f} ms   (goal: under {BAR_MS:.0f})")
    print(f"slowest                   {times_ms[-1]:7.1f} ms")
    figures = {"median_ms": median_ms, "min_ms": times_ms[0], "max_ms": times_ms[-1], "bar_ms": BAR_MS}
    rounded = {name: round(value, 1) for name, value in figures.items()}
    print_result("startup", {"runs": options.runs, **rounded}, options.json)
    return 0 if median_ms < BAR_MS else 1


if __name__ == "__main__":
    sys.exit(main())
