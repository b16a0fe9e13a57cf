"""An open document and the scanned file behind it share one place in the pool."""

from __future__ import annotations

import pytest
from forelook.completion.engine.pool_keys import pool_key
from forelook.keys import DocumentKey, WorkspaceKey


@pytest.mark.parametrize(
    ("workspace", "uri", "window", "expected"),
    [
        ("file:///home/ada/p", "file:///home/ada/p/src/a.py", 1, "src/a.py"),
        ("file:///home/ada/p/", "file:///home/ada/p/src/a%20b.py", 1, "src/a b.py"),
        ("file:///c%3A/p", "file:///C:/p/a.py", 1, "a.py"),
        ("file:///home/ada/p", "file:///home/ada/p/a.py", 2, "a.py#window=2"),
        ("file:///home/ada/p", "file:///home/ada/p/a.py#cell", 1, "a.py#cell"),
        ("file:///home/ada/p", "file:///home/ada/p2/a.py", 1, "file:///home/ada/p2/a.py"),
        ("no folder", "file:///home/ada/a.py", 1, "file:///home/ada/a.py"),
        ("file:///home/ada/p", "untitled:Untitled-1", 1, "untitled:Untitled-1"),
        ("file:///home/ada/p", "untitled:Untitled-1", 2, "untitled:Untitled-1#window=2"),
        ("file:///", "file:///etc/a.py", 1, "etc/a.py"),
    ],
)
def test_key_is_the_path_from_the_workspace_where_there_is_one(
    workspace: str, uri: str, window: int, expected: str
) -> None:
    assert pool_key(WorkspaceKey("", workspace), DocumentKey(window, uri)) == expected
    assert pool_key(WorkspaceKey("ada", workspace), DocumentKey(window, uri)) == expected
