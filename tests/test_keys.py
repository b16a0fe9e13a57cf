"""Keys of workspaces and documents; the name of a pool on disk is the one of 0.1.0."""

from __future__ import annotations

from pathlib import Path

import pytest
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.workspace.cache import PoolCache


@pytest.mark.parametrize(
    ("key", "folder"),
    [
        (WorkspaceKey("", "file:///home/ada/p"), "55a405c96b558ba6c62cc891d9356076"),
        (WorkspaceKey("ada", "file:///home/ada/p"), "b6d2327ff627c28c9ad841f320100a28"),
    ],
)
def test_a_pool_written_by_0_1_0_is_found(key: WorkspaceKey, folder: str, tmp_path: Path) -> None:
    assert PoolCache(tmp_path, key.pool_name, "starter").folder == tmp_path / folder


def test_users_and_windows_have_keys_of_their_own() -> None:
    assert WorkspaceKey("ada", "file:///p") != WorkspaceKey("bob", "file:///p")
    assert DocumentKey(1, "file:///a.py") != DocumentKey(2, "file:///a.py")
