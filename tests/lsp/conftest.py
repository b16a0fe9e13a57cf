"""The real server as a subprocess, with a home of its own and a scripted backend."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bench.lsp_client import LspClient, StdioServer, stdio_server
from forelook_lsp.suggestions import requests

from tests.lsp.fake_backend import FakeBackend, fake_backend
from tests.lsp.servers import stdio_server_in_a_thread

URI = "file:///home/ada/project/engine.py"


@pytest.fixture(autouse=True)
def _patient_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server in a thread of the test gives no request up because the machine is busy."""
    monkeypatch.setattr(requests, "PATIENCE_S", 60.0)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home of its own, so that a test meets no backend but its own."""
    return make_environment(tmp_path)


def make_environment(folder: Path) -> dict[str, str]:
    """The environment of a user whose home is below ``folder``."""
    home = folder / "home"
    home.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG", "VIRTUAL_ENV") if name in os.environ}
    # Short: sockets whose paths are too long are in a folder that all test processes share.
    return {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(folder / "r"), "PYTHONWARNINGS": "error"}


@pytest.fixture
async def backend(environment: dict[str, str]) -> AsyncIterator[FakeBackend]:
    async with fake_backend(environment) as running:
        yield running


@pytest.fixture
async def server(environment: dict[str, str], backend: FakeBackend) -> AsyncIterator[StdioServer]:
    async with stdio_server(environment) as running:
        yield running


@pytest.fixture
async def editor(environment: dict[str, str], backend: FakeBackend) -> AsyncIterator[LspClient]:
    """An initialized editor whose backend is ready; its server runs in a thread, which is quicker.

    A test that stops the backend must not have the server start a real one while it makes the next.
    """
    async with stdio_server_in_a_thread(environment) as client:
        await client.initialize(options={"backend": {"start": False}})
        await client.wait_for_status("ready")
        yield client


def last_status(editor: LspClient) -> dict[str, Any]:
    return editor.params_of("forelook/status")[-1]


async def execute(editor: LspClient, command: str, *arguments: object) -> Any:
    return await editor.request("workspace/executeCommand", {"command": command, "arguments": list(arguments)})
