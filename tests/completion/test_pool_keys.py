"""An open document and the scanned file behind it share one place in the pool."""

from __future__ import annotations

import pytest
from forelook.completion.pool_keys import pool_key


@pytest.mark.parametrize(
    ("workspace", "uri", "expected"),
    [
        ("file:///home/ada/p", "file:///home/ada/p/src/a.py", "src/a.py"),
        ("file:///home/ada/p/", "file:///home/ada/p/src/a%20b.py", "src/a b.py"),
        ("file:///c%3A/p", "file:///C:/p/a.py", "a.py"),
        ("user7:file:///home/ada/p", "file:///home/ada/p/a.py", "a.py"),
        ("file:///home/ada/p", "file:///home/ada/p/a.py#window=2", "a.py#window=2"),
        ("file:///home/ada/p", "file:///home/ada/p2/a.py", "file:///home/ada/p2/a.py"),
        ("no folder", "file:///home/ada/a.py", "file:///home/ada/a.py"),
        ("file:///home/ada/p", "untitled:Untitled-1", "untitled:Untitled-1"),
        ("file:///", "file:///etc/a.py", "etc/a.py"),
    ],
)
def test_key_is_the_path_from_the_workspace_where_there_is_one(workspace: str, uri: str, expected: str) -> None:
    assert pool_key(workspace, uri) == expected
