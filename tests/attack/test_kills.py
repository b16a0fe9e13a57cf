"""`kill -9` at any moment: the next start works, and nothing on disk is damaged."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from pathlib import Path

import pytest
from forelook.commands.client import connected
from forelook.errors import BackendUnreachableError
from forelook.local.endpoint import discover

from tests.attack.victim import IDENTITY, PATIENCE_S, Victim, window

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.mark.timeout(7200)
def test_after_a_kill_at_any_moment_everything_works(tmp_path: Path, attack_seconds: float) -> None:
    draw = random.Random(14)
    backend = Victim(tmp_path)
    ends_s = time.monotonic() + attack_seconds / 5
    num_kills = 0
    while num_kills < 1 or time.monotonic() < ends_s:
        endpoint = backend.start()
        delay_s = draw.uniform(0.0, 2.0 if attack_seconds == 0 else 8.0)
        killer = threading.Timer(delay_s, backend.kill)
        killer.start()
        try:
            with window(endpoint) as editor:
                editor.open("a.py", "value = 1\n" * 50)
                for number in range(10_000):
                    editor.edit("a.py", 0, 0, f"name_{num_kills}_{number} = {number}\n")
                    editor.complete("a.py", 5)
        except (BackendUnreachableError, OSError):
            pass  # killed
        killer.join()
        num_kills += 1
        assert discover(IDENTITY, backend.paths) is None
        if backend.paths.statistics_path.exists():
            json.loads(backend.paths.statistics_path.read_text())
    with connected(backend.start()) as client:
        assert client.hello.pid > 0
        if attack_seconds:
            client.wait_until_ready(PATIENCE_S)
    backend.stop()
    assert "Traceback" not in backend.log()
