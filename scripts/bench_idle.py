#!/usr/bin/env python3
"""Memory and processor time of an idle backend and language server, minute by minute.

    python scripts/bench_idle.py --minutes 4 --model smollm2-135m

One document is open and has had one suggestion. The first minutes therefore include what the model is asked in idle
time. Each minute is measured; nothing is extrapolated to a longer time. Processor time is that of the processes alone,
so other programs hardly change it. ``--minute-seconds`` shortens a minute for tests. The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from bench.arguments import benchmark_parser
from bench.processes import backend, editor, position, private_environment, until_ready
from bench.results import REPOSITORY, print_result, public_name
from bench.tables import print_rows
from forelook.model.catalogue import DEFAULT_MODEL

SOURCE = REPOSITORY / "backend" / "forelook" / "text_edits.py"
MIB = 2**20


class Watched:
    """A process whose processor time and wake-ups, of all its threads, are taken from one moment to the next."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._last = self._read()

    def _read(self) -> tuple[float, int]:
        times = self._process.cpu_times()
        return float(times.user + times.system), sum(map(_num_wakeups, self._process.threads()))

    def take(self, seconds: float) -> dict[str, float]:
        """Return what the process used since the last call, ``seconds`` ago."""
        cpu_s, switches = self._last
        self._last = self._read()
        return {
            "cpu_s_per_minute": round((self._last[0] - cpu_s) * 60 / seconds, 3),
            "wakeups_per_minute": round((self._last[1] - switches) * 60 / seconds, 1),
            "resident_mib": round(self._process.memory_info().rss / MIB, 1),
        }


def _num_wakeups(thread: Any) -> int:
    """Return how often a thread has waited; 0 for one that has ended, and where the system does not say."""
    try:
        lines = Path(f"/proc/{thread.id}/status").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches")), 0)


async def measure(model: str | None, minutes: int, minute_s: float) -> list[dict[str, Any]]:
    """Return a row per minute and process."""
    text = SOURCE.read_text("utf-8")
    offset = text.index("\n", len(text) // 2)
    rows: list[dict[str, Any]] = []
    settings: dict[str, Any] = {"indexWorkspace": False, "backend": {"start": False}}
    settings |= {"model": model} if model else {}
    command = [sys.executable, "-m", "forelook", "serve", *(["--model", model] if model else [])]
    async with contextlib.AsyncExitStack() as stack:
        environment = stack.enter_context(private_environment(sees_models=model is not None))
        process = await stack.enter_async_context(backend(environment, command))
        server = await stack.enter_async_context(editor(environment, settings))
        await until_ready(server.client)
        uri = (Path(tempfile.gettempdir()) / "bench" / "idle.py").as_uri()
        await server.client.open(uri, text, language_id="python")
        _, reply = await server.client.start_complete(uri, **position(text, offset))
        await asyncio.wait_for(reply, 120)
        watched = {"backend": Watched(process.pid), "language server": Watched(server.process.pid)}
        for minute in range(1, minutes + 1):
            started_s = time.monotonic()
            await asyncio.sleep(minute_s)
            seconds = time.monotonic() - started_s
            rows += [{"minute": minute, "process": name, **process.take(seconds)} for name, process in watched.items()]
    return rows


def main() -> None:
    parser = benchmark_parser(__doc__, "model", model=DEFAULT_MODEL)
    parser.add_argument("--minutes", type=int, default=4)
    parser.add_argument("--minute-seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    rows = asyncio.run(measure(arguments.model, arguments.minutes, arguments.minute_seconds))
    print_rows(rows)
    content = {
        "model": public_name(arguments.model),
        "measured_s": round(arguments.minutes * arguments.minute_seconds, 1),
        "minutes": rows,
    }
    print_result("idle", content, arguments.json)


if __name__ == "__main__":
    main()
