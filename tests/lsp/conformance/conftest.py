"""One home and one websocket server for all rows; each row has a backend of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from bench.lsp_client import LspClient

from tests.lsp.conformance.rows import Connected
from tests.lsp.conftest import make_environment
from tests.lsp.servers import WebsocketAddress, shared_websocket_server, stdio_server_in_a_thread


@pytest.fixture(scope="package")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_environment(tmp_path_factory.mktemp("conformance"))


@pytest.fixture(scope="package")
def listening(environment: dict[str, str]) -> Iterator[WebsocketAddress]:
    with shared_websocket_server(environment) as address:
        yield address


@pytest.fixture
def connected(environment: dict[str, str], listening: WebsocketAddress) -> Connected:
    @contextlib.asynccontextmanager
    async def connect(transport: str) -> AsyncIterator[LspClient]:
        if transport == "stdio":
            async with stdio_server_in_a_thread(environment) as client:
                yield client
        else:
            async with listening.connect() as connection:
                yield connection.client

    return connect
