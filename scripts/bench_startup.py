"""Time an editor waits for the language server: from starting the process to its answer to ``initialize``.

The first start writes bytecode and is not counted. Every start is a new process over stdio, as an editor starts it, and
ends before it would look for a backend. The last line is one JSON object.

Usage: python scripts/bench_startup.py [--runs N]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from bench.arguments import benchmark_parser
from bench.lsp_client import stdio_server
from bench.processes import private_environment
from bench.results import print_result
from bench.tables import startup

BAR_MS = 500.0
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


def main() -> int:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    with private_environment() as environment:
        environment["HOME"] = environment["XDG_CONFIG_HOME"]
        cold_ms, *times_ms = [asyncio.run(start_once(environment)) for _ in range(1 + options.runs)]
    median_ms = statistics.median(times_ms)
    figures = {"median_ms": median_ms, "min_ms": min(times_ms), "max_ms": max(times_ms), "bar_ms": BAR_MS}
    result = {"runs": options.runs, **{name: round(value, 1) for name, value in figures.items()}}
    print(f"first start (not counted) {cold_ms:.1f} ms")
    print(*startup(result))
    print_result("startup", result, options.json)
    return 0 if median_ms < BAR_MS else 1


if __name__ == "__main__":
    sys.exit(main())
