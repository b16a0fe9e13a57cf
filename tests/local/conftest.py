"""Folders of a user who has nothing running."""

from __future__ import annotations

from pathlib import Path

import pytest
from forelook.local.identity import UserPaths


@pytest.fixture
def paths(tmp_path: Path) -> UserPaths:
    return UserPaths(tmp_path / "r", tmp_path / "s", tmp_path / "c", tmp_path / "short")
