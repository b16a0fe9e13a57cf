"""ARCHITECTURE.md is true: every path it names exists, and every room of the code is on its map."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
TEXT = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
FOLDERS = ("backend", "lsp", "scripts", "tests", "docs", "extension/src")
PATH = re.compile(r"`([\w./-]*(?:/|\.(?:py|md|toml|txt|json)))`")


def test_every_named_path_exists() -> None:
    """A path may be cut at its left, as the text around it says in which room it is."""
    existing = {f"/{path.name}" for path in REPOSITORY.iterdir()}
    for folder in FOLDERS:
        existing |= {f"/{path.relative_to(REPOSITORY).as_posix()}" for path in (REPOSITORY / folder).rglob("*")}
    named = {name.rstrip("/") for name in PATH.findall(TEXT)}
    named |= {link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if ":" not in link}
    assert len(named) > 50
    assert [name for name in sorted(named) if not any(path.endswith(f"/{name}") for path in existing)] == []


@pytest.mark.parametrize("root", ["backend/forelook", "lsp/forelook_lsp"])
def test_every_room_is_on_the_map(root: str) -> None:
    start = TEXT.index("## Map")
    on_map = TEXT[start : TEXT.index("\n## ", start)]
    rooms = [path.name for path in (REPOSITORY / root).iterdir() if path.is_dir() and (path / "__init__.py").exists()]
    assert rooms
    assert [room for room in rooms if f"`{room}/`" not in on_map] == []


def test_the_tracked_files_stay_below_60_mb() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("needs git and a checkout")
    paths = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    assert sum(path.lstat().st_size for path in paths if path.is_file()) <= 60_000_000
