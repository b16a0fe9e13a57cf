"""The server that all clients of this folder speak to."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.http_clients.serving import HttpServer, http_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    """A real server with the starter model, one per test process."""
    if sys.platform == "win32":
        pytest.skip("starts the backend as a POSIX process")
    with http_server(tmp_path_factory.mktemp("http")) as one:
        yield one
