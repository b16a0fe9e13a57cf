"""What URIs name, in the spellings of different editors."""

from __future__ import annotations

from pathlib import Path

import pytest
from forelook.uris import local_path, path_within, uri_path


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///a/b%20c.py", "/a/b c.py"),
        ("file:///C%3A/a.py", "/c:/a.py"),
        ("file:///c:/a.py", "/c:/a.py"),
        ("file:///a/b.py#window=2", "/a/b.py"),
        ("untitled:Untitled-1", "Untitled-1"),
    ],
)
def test_the_path_is_decoded(uri: str, path: str) -> None:
    assert uri_path(uri) == path


@pytest.mark.parametrize(
    ("folder", "uri", "path"),
    [
        ("file:///p", "file:///p/src/a.py", "src/a.py"),
        ("file:///p/", "file:///p/a%23b.py", "a#b.py"),
        ("file:///C:/p", "file:///c%3A/p/a.py", "a.py"),
        ("file:///", "file:///a.py", "a.py"),
        ("file:///p", "file:///p2/a.py", None),
        ("file:///p", "file:///p/", None),
        ("file:///p", "file:///p", None),
    ],
)
def test_the_path_within_a_folder_is_relative(folder: str, uri: str, path: str | None) -> None:
    assert path_within(folder, uri) == path


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///a/b%20c.py", "/a/b c.py"),
        ("file:///a/b;c.py", "/a/b;c.py"),
        ("file://share/c$/a.py", "//share/c$/a.py"),
        ("file:///C%3A/a.py", "c:/a.py"),
        ("vscode-notebook-cell:/a/n.ipynb#W0sZ", "/a/n.ipynb"),
        ("untitled:Untitled-1", None),
        ("git:/a/b.py?x", None),
        ("/a/b.py", None),
    ],
)
def test_files_of_this_machine_are_told_from_other_uris(uri: str, path: str | None) -> None:
    assert local_path(uri) == (None if path is None else Path(path))
