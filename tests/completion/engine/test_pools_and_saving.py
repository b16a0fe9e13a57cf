"""Workspaces that are not used cost nothing, and edits that never pause lose only seconds of learning."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from forelook.completion.engine import engine as engine_module
from forelook.completion.engine import pools as pools_module
from forelook.completion.engine.pools import WorkspacePools
from forelook.keys import WorkspaceKey
from forelook.protocol.messages import TextChange
from forelook.workspace.cache import PoolCache
from forelook.workspace.cache_worker import new_cache_thread
from forelook.workspace.pool import WorkspacePool

from tests.completion.engine_rig import PLAIN, TIMEOUT_S, WORKSPACE, A, Rig
from tests.completion.fake_model import FakeModel


def persistent(root: Path, thread: ThreadPoolExecutor | None = None) -> Callable[[WorkspaceKey, Any], WorkspacePool]:
    def make(workspace: WorkspaceKey, model: Any) -> WorkspacePool:
        cache = PoolCache(root, workspace.pool_name, "fake")
        return WorkspacePool(model.tokenizer.encode, cache=cache, cache_thread=thread)

    return make


def pools_on(root: Path, clock: Callable[[], float] = time.monotonic) -> WorkspacePools:
    model = SimpleNamespace(loaded=SimpleNamespace(model=FakeModel()), drafting=SimpleNamespace(seeds=None))
    return WorkspacePools(persistent(root, new_cache_thread()), cast("Any", model), 0.001, clock)


def test_a_thousand_workspaces_cost_a_bounded_number_of_pools_threads_and_files(tmp_path: Path) -> None:
    pools = pools_on(tmp_path)
    threads = threading.active_count()
    descriptors = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for number in range(300):
        pool = pools.get(WorkspaceKey("", f"file:///w{number}"))
        assert pool is not None
        if number % 10 == 0:
            pool.accept([1, 2, 3])
        pools.memory(WorkspaceKey("", f"file:///w{number}"))
    assert len(pools._pools) <= pools_module.MAX_OPEN
    assert len(pools._memories) <= 128
    assert threading.active_count() <= threads + 1
    if descriptors:
        assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors + pools_module.MAX_OPEN + 8
    assert len(list(tmp_path.iterdir())) <= 31  # names without content leave no folder
    again = pools.get(WorkspaceKey("", "file:///w0"))
    assert again is not None
    again.wait_restored()
    assert again.stats().num_accepted > 0
    pools.close()


def test_an_unused_pool_is_closed_once_saved_and_opens_again(tmp_path: Path) -> None:
    now = [0.0]
    pools = pools_on(tmp_path, lambda: now[0])
    used, idle = WorkspaceKey("", "file:///used"), WorkspaceKey("", "file:///idle")
    for key in (used, idle):
        pool = pools.get(key)
        assert pool is not None
        pool.wait_restored()
        pool.accept([1, 2, 3])
    pools.get(used).open_document("a.py", "x = 1\n")  # type: ignore[union-attr]  # it was there above
    for step in range(1, 20):
        now[0] = step * 301.0
        while pools.index():
            pass
        pools.close_unused()
        pools.save()
        for pool in tuple(pools._pools.values()):
            pool.wait_saved()
    assert list(pools._pools) == [used]
    assert pools.close_due_s > now[0]
    reopened = pools.get(idle)
    assert reopened is not None
    reopened.wait_restored()
    assert reopened.stats().num_accepted > 0
    pools.close()


def test_edits_that_never_pause_are_on_disk_within_seconds(
    rigs: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_SAVE_EVERY_S", 0.2)
    rig = rigs(FakeModel("x = compute(1)\n"), PLAIN, make_pool=persistent(tmp_path))
    rig.open("x = 1\n")
    stop = threading.Event()

    def type_without_pause() -> None:
        line = "x = 1"
        for version in itertools.count(2):
            if stop.wait(0.001):
                return
            new = f"name_{version} = {version}"
            rig.engine.change_document(A, version, [TextChange(0, len(line), new)])
            line = new

    typist = threading.Thread(target=type_without_pause)
    # The engine's idle work must never get a turn: only what a busy turn does may save.
    monkeypatch.setattr(rig.engine, "_work_idle", lambda: None)
    typist.start()
    try:
        limit = time.monotonic() + TIMEOUT_S
        while True:  # what a process that was killed now would leave
            copy = PoolCache(tmp_path, WORKSPACE.pool_name, "fake").read()
            if copy.state is not None and copy.state.index.tokens.size > 0 and copy.changes:
                break
            assert time.monotonic() < limit, "nothing was saved while edits did not pause"
            time.sleep(0.05)
    finally:
        stop.set()
        typist.join()


def test_a_folder_deleted_under_the_backend_is_made_again(tmp_path: Path) -> None:
    now = [0.0]
    cache = PoolCache(tmp_path / "pools", "w", "fake")
    pool = WorkspacePool(FakeModel().tokenizer.encode, cache=cache, clock=lambda: now[0])
    pool.wait_restored()
    pool.accept([1, 2, 3])
    pool.save()
    pool.wait_saved()
    shutil.rmtree(tmp_path / "pools")
    for _ in range(4):
        pool.accept([4, 5, 6])
        pool.save()
        pool.wait_saved()
        now[0] += 31.0
    restored = PoolCache(tmp_path / "pools", "w", "fake").read()
    assert restored.state is not None
    assert restored.state.index.tokens.size >= 12
    pool.close()
