"""How long an editor waits for the language server: from starting the process to its answer to ``initialize``.

The first start writes bytecode and is not counted. Every start is a new process over stdio, as an editor starts it, and
ends before it would look for a backend. The last line is one JSON object.

Usage: python scripts/bench_startup.py [--runs N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BAR_MS = 500.0
INITIALIZE = {
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


def frame(message: dict[str, object]) -> bytes:
    body = json.dumps(message).encode()
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


def start_once(environment: dict[str, str]) -> float:
    """Milliseconds from starting the process to the whole answer."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "forelook_lsp"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(frame(INITIALIZE))
    process.stdin.flush()
    length = 0
    while (line := process.stdout.readline()) != b"\r\n":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        if not line:
            raise SystemExit("the language server ended before it answered")
    answer = json.loads(process.stdout.read(length))
    elapsed_ms = (time.perf_counter() - begun) * 1000
    if "inlineCompletionProvider" not in answer["result"]["capabilities"]:
        raise SystemExit("the answer to initialize does not offer inline completion")
    process.stdin.write(frame({"jsonrpc": "2.0", "id": 2, "method": "shutdown"}))
    process.stdin.write(frame({"jsonrpc": "2.0", "method": "exit"}))
    process.stdin.close()
    if process.wait(timeout=10) != 0:
        raise SystemExit(f"the language server ended with code {process.returncode}")
    return elapsed_ms


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HOME": home, "XDG_RUNTIME_DIR": str(Path(home) / "run")}
        cold_ms = start_once(environment)
        times_ms = sorted(start_once(environment) for _ in range(runs))
    median_ms = statistics.median(times_ms)
    print(f"first start (not counted) {cold_ms:7.1f} ms")
    print(f"fastest                   {times_ms[0]:7.1f} ms")
    print(f"median of {runs:<3}             {median_ms:7.1f} ms   (must be under {BAR_MS:.0f})")
    print(f"slowest                   {times_ms[-1]:7.1f} ms")
    print(json.dumps({"runs": runs, "median_ms": round(median_ms, 1), "min_ms": round(times_ms[0], 1),
                      "max_ms": round(times_ms[-1], 1), "bar_ms": BAR_MS}))  # fmt: skip
    return 0 if median_ms < BAR_MS else 1


if __name__ == "__main__":
    sys.exit(main())
