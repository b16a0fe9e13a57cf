"""What a key costs on a line of a million characters, through language server and backend."""

from __future__ import annotations

import json

import psutil
import pytest
from bench.lsp_client import stdio_server

from tests.e2e.user import forelook

pytestmark = pytest.mark.slow

NUM_KEYS = 20
LIMIT_S = 0.05  # CPU per key, which other work on the machine changes little


async def test_a_key_on_a_line_of_a_million_characters_costs_little_and_nothing_is_shown(home: dict[str, str]) -> None:
    async with stdio_server(home) as server:
        editor, uri = server.client, "file:///w/data.py"
        await editor.initialize()
        await editor.wait_for_status("ready")
        (status,) = json.loads(forelook(home, "status", "--json").stdout)
        both = [psutil.Process(pid) for pid in (server.process.pid, int(status["pid"]))]

        def cpu_s() -> float:
            return sum(times.user + times.system for times in (process.cpu_times() for process in both))

        await editor.open(uri, "import os\nx = '" + "b" * 1_000_000 + "'\n")
        assert await editor.complete(uri, 1, 1_000_005) == []
        for column in (5, 500_000, 1_000_000):
            before_s = cpu_s()
            for number in range(NUM_KEYS):
                await editor.type_text(uri, 2 + column + number, 1, column + number, "a")
                assert await editor.complete(uri, 1, column + number + 1) == []
            assert (cpu_s() - before_s) / NUM_KEYS < LIMIT_S
