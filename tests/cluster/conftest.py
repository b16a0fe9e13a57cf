"""Keys for the tests of the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Two users' keys: letters, so that a test can name them."""
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text(f"{'a' * 32}\n{'b' * 32}\n")
    return path
