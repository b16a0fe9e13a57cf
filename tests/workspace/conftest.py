"""Tokenizers and pools for the workspace tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forelook.workspace.cache import PoolCache
from forelook.workspace.pool import WorkspacePool


def encode_bytes(text: str) -> list[int]:
    """One token per byte."""
    return list(text.encode())


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


MakePool = Callable[..., WorkspacePool]


@pytest.fixture
def make_pool(tmp_path: Path, clock: Clock) -> Iterator[MakePool]:
    """Makes pools over one cache folder, and closes them."""
    made: list[WorkspacePool] = []

    def make(workspace: str = "file:///w", fingerprint: str = "model", **options: object) -> WorkspacePool:
        cache = options.pop("cache", None) or PoolCache(tmp_path / "pools", workspace, fingerprint)
        pool = WorkspacePool(encode_bytes, cache=cache, clock=clock, **options)  # type: ignore[arg-type]
        made.append(pool)
        return pool

    yield make
    for pool in made:
        pool.close()


def settle(pool: WorkspacePool) -> None:
    """Let a pool finish what waits, what comes from the disk included."""
    pool.wait_restored()
    while pool.run_slice(0.05):
        pass


def drafted(pool: WorkspacePool, uri: str, before: str, length: int = 12) -> str:
    """What the pool drafts first after a text."""
    drafts = pool.source(uri).propose(encode_bytes(before), max_candidates=1, max_length=length)
    return bytes(drafts[0].token_ids).decode(errors="replace") if drafts else ""
