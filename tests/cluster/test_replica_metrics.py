"""Any replica answers with the figures of all."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from forelook.cluster import replica_metrics
from forelook.cluster.replica_metrics import ReplicaMetrics, merged
from forelook.local.files import write_atomically

TEXT = """# HELP forelook_ready Whether requests are answered.
# TYPE forelook_ready gauge
forelook_ready {}
# HELP forelook_answers_total Answers, by interface and outcome.
# TYPE forelook_answers_total counter
forelook_answers_total{{interface="editor",outcome="a {{b}} c"}} {}
"""


def replica(folder: Path, name: str, value: int) -> ReplicaMetrics:
    async def own() -> str:
        return TEXT.format(value, value)

    return ReplicaMetrics(folder, name, own)


def test_samples_of_a_metric_are_together_and_name_their_replica() -> None:
    assert merged({"b": TEXT.format(2, 20), "a": TEXT.format(1, 10)}).splitlines() == [
        "# HELP forelook_ready Whether requests are answered.",
        "# TYPE forelook_ready gauge",
        'forelook_ready{replica="a"} 1',
        'forelook_ready{replica="b"} 2',
        "# HELP forelook_answers_total Answers, by interface and outcome.",
        "# TYPE forelook_answers_total counter",
        'forelook_answers_total{replica="a",interface="editor",outcome="a {b} c"} 10',
        'forelook_answers_total{replica="b",interface="editor",outcome="a {b} c"} 20',
    ]


async def test_a_replica_answers_for_its_neighbors_but_not_for_those_that_have_ended(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    first, second, third = (replica(folder, name, value) for name, value in (("a", 1), ("b", 2), ("c", 3)))
    for each in (first, second, third):
        await each.keep()
    old_s = time.time() - 60
    os.utime(folder / "c.prom", (old_s, old_s))
    lines = [line for line in (await first.all()).splitlines() if line.startswith("forelook_ready{")]
    assert lines == ['forelook_ready{replica="a"} 1', 'forelook_ready{replica="b"} 2']
    assert (folder / "a.prom").stat().st_mode & 0o777 == 0o600


async def test_without_the_folder_a_replica_answers_for_itself(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    only = replica(folder, "a", 1)
    await only.keep()
    shutil.rmtree(folder)
    assert 'forelook_ready{replica="a"} 1' in await only.all()


async def test_a_replica_that_ends_takes_its_figures_along(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    only = replica(folder, "a", 1)
    only.start()
    await only.keep()
    await only.stop()
    assert list(folder.glob("*.prom")) == []


async def test_figures_that_are_being_written_when_a_replica_ends_do_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def write_slowly(path: Path, content: str) -> None:
        begun.set()
        go_on.wait(30)
        write_atomically(path, content)
        done.set()

    monkeypatch.setattr(replica_metrics, "write_atomically", write_slowly)
    folder = tmp_path / "metrics"
    only = replica(folder, "a", 1)
    only.start()
    assert await asyncio.to_thread(begun.wait, 30)
    stopping = asyncio.create_task(only.stop())
    await asyncio.wait({stopping}, timeout=0.2)
    go_on.set()
    await stopping
    assert await asyncio.to_thread(done.wait, 30)
    assert list(folder.glob("*.prom")) == []
