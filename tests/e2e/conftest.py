"""A user of their own for every test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from tests.e2e.user import forelook


@pytest.fixture
def home() -> Iterator[dict[str, str]]:
    """The environment of a user with folders of their own; short, as a socket's path must be."""
    with tempfile.TemporaryDirectory(prefix="fl", ignore_cleanup_errors=True) as folder:
        named = dict.fromkeys(("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), folder)
        environment = {**os.environ, **named, "HOME": folder, "OMP_NUM_THREADS": "1"}
        yield environment
        forelook(environment, "stop")
