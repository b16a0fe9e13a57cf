"""A backend that comes and goes."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import MagicMock

import pytest
from bench.lsp_client import LspClient, StdioServer, stdio_server
from forelook.local.endpoint import Endpoint
from forelook.local.files import is_locked
from forelook.local.identity import BackendFiles, BackendIdentity
from forelook.protocol import messages
from forelook_lsp.backend_connection import BackendConnection, ClientName
from forelook_lsp.window import EditorWindow

from tests.lsp.conftest import URI, last_status
from tests.lsp.fake_backend import READY, FakeBackend, fake_backend
from tests.lsp.servers import stdio_server_in_a_thread


async def test_documents_are_opened_again_as_they_are_when_the_backend_comes_back(
    editor: LspClient, backend: FakeBackend
) -> None:
    await editor.open(URI, "a")
    assert len(await editor.complete(URI, 0, 1)) == 1
    await backend.stop()
    await editor.wait_until(lambda: last_status(editor)["state"] in ("error", "starting"))
    assert await editor.complete(URI, 0, 1) == []
    await editor.type_text(URI, 2, 0, 1, "b🙂")
    await editor.open(URI + "2", "other")
    await backend.start()
    await editor.wait_for_status("ready")
    assert len(await editor.complete(URI, 0, 4)) == 1
    assert backend.connections[0].texts == {URI: "ab🙂", URI + "2": "other"}


async def test_a_backend_that_dies_under_a_request_answers_it_with_nothing(
    editor: LspClient, backend: FakeBackend
) -> None:
    backend.hold = asyncio.Event()
    await editor.open(URI, "a")
    _, future = await editor.start_complete(URI, 0, 1)
    await backend.wait_until(lambda: len(backend.completions) == 1)
    await backend.stop()
    assert await asyncio.wait_for(future, 30) == {"items": []}


async def test_with_no_backend_the_editor_is_answered_at_once_and_told_why(environment: dict[str, str]) -> None:
    async with stdio_server(environment) as server:
        await server.client.initialize(options={"backend": {"start": False}})
        status = await server.client.wait_for_status("error")
        assert "forelook serve" in status["message"]
        await server.client.open(URI, "a")
        assert await server.client.complete(URI, 0, 1) == []
        async with fake_backend(environment):
            await server.client.wait_for_status("ready")
            assert len(await server.client.complete(URI, 0, 1)) == 1


async def test_a_backend_of_another_protocol_version_is_named_in_the_status(environment: dict[str, str]) -> None:
    async with fake_backend(environment, start=False) as backend, stdio_server(environment) as server:
        backend.protocol_version = 1
        await backend.start()
        await server.client.initialize(options={"backend": {"start": False}})
        status = await server.client.wait_for_status("error")
        assert "this backend speaks version 1; update or restart the backend" in status["message"]
        await server.client.open(URI, "a")
        assert await server.client.complete(URI, 0, 1) == []


async def test_a_model_that_failed_is_told_once_and_no_other_backend_is_started_for_it(
    environment: dict[str, str], backend: FakeBackend
) -> None:
    failed = messages.Status(messages.EngineState.ERROR, None, "model = x is not here: download it")
    async with stdio_server_in_a_thread(environment) as editor:
        await editor.initialize()
        await editor.wait_for_status("ready")
        await editor.open(URI, "a")
        await backend.set_status(failed)
        await editor.wait_for_status("error")
        await backend.stop()
        num_seen = len(editor.received)
        await asyncio.sleep(2.0)  # several attempts to find a backend
        assert not is_locked(BackendFiles.of(BackendIdentity(), backend.paths).lock), "started by the editor"
        statuses = [message for message in editor.received[num_seen:] if message["method"] == "forelook/status"]
        assert {message["params"]["state"] for message in statuses} <= {"error"}
        assert last_status(editor)["message"] == "model = x is not here: download it; then restart the backend"
        said = [params for params in editor.params_of("window/logMessage") if "download it" in params["message"]]
        assert len(said) == 1
        backend.status = READY
        await backend.start()  # another window restarted it
        await editor.wait_for_status("ready")
        assert len(await editor.complete(URI, 0, 1)) == 1


async def test_a_backend_that_never_answers_costs_the_editor_a_bounded_time(
    server: StdioServer, backend: FakeBackend
) -> None:
    await server.client.initialize(options={"deadlineMs": 20})
    await server.client.wait_for_status("ready")
    backend.hold = asyncio.Event()
    await server.client.open(URI, "a")
    assert await server.client.complete(URI, 0, 1) == []
    await backend.wait_until(lambda: len(backend.cancelled) == 1)


async def test_a_setting_of_the_backend_restarts_it_and_another_model_looks_for_another(
    server: StdioServer, backend: FakeBackend
) -> None:
    editor = server.client
    options = {"backend": {"start": False}}
    await editor.initialize(options=options)
    await editor.wait_for_status("ready")
    await editor.notify("workspace/didChangeConfiguration", {"settings": {"lookahead": {"window": 4}}})
    await backend.wait_until(lambda: backend.methods.count("hello") == 2)
    assert backend.methods.count("shutdown") == 1
    await editor.wait_for_status("ready")
    await editor.notify("workspace/didChangeConfiguration", {"settings": {"model": "/some/where"}})
    status = await editor.wait_for_status("error")
    assert "no backend is running" in status["message"]
    assert backend.methods.count("shutdown") == 1
    await backend.wait_until(lambda: backend.connections == [])


async def test_a_window_s_settings_do_not_restart_what_another_window_shares(
    environment: dict[str, str], backend: FakeBackend
) -> None:
    async with stdio_server_in_a_thread(environment) as first, stdio_server_in_a_thread(environment) as second:
        for editor in (first, second):
            await editor.initialize(options={"backend": {"start": False}})
            await editor.wait_for_status("ready")
            await editor.open(URI, "a")
        for change in ({"poolTokens": 5000}, {"lookahead": {"window": 4}, "speculate": True}, {"crossFile": False}):
            await second.notify("workspace/didChangeConfiguration", {"settings": change})
        await second.wait_until(lambda: "forelook.crossFile" in last_status(second)["message"])
        assert "not in effect: forelook.crossFile; other windows share" in last_status(second)["message"]
        assert last_status(second)["state"] == "ready"
        assert "shutdown" not in backend.methods
        assert backend.methods.count("hello") == 2
        for editor in (first, second):
            assert len(await editor.complete(URI, 0, 1)) == 1
        assert last_status(first)["message"] == ""
        await second.notify("workspace/didChangeConfiguration", {"settings": {}})
        await second.wait_until(lambda: last_status(second)["message"] == "")


async def test_settings_that_a_busy_backend_does_not_get_are_named_in_the_status(
    environment: dict[str, str], backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forelook_lsp.window.SHUTDOWN_TIMEOUT_S", 0.2)
    backend.unanswered = frozenset({"stats"})
    async with stdio_server_in_a_thread(environment) as editor:
        await editor.initialize(options={"backend": {"start": False}})
        await editor.wait_for_status("ready")
        await editor.notify("workspace/didChangeConfiguration", {"settings": {"crossFile": False}})
        await editor.wait_until(lambda: "forelook.crossFile" in last_status(editor)["message"])
        assert "the backend is too busy to answer" in last_status(editor)["message"]
        assert "shutdown" not in backend.methods


async def test_a_window_that_asks_for_other_settings_than_the_backend_has_is_told(
    environment: dict[str, str], backend: FakeBackend
) -> None:
    backend.settings = {"poolTokens": 5000, "speculate": True}
    async with stdio_server_in_a_thread(environment) as editor:
        await editor.initialize(options={"backend": {"start": False}, "poolTokens": 9000})
        status = await editor.wait_for_status("ready")
        assert "not in effect: forelook.poolTokens;" in status["message"], "it asked for nothing else"
        assert "shutdown" not in backend.methods


async def test_a_window_that_closes_just_as_hello_is_answered_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    hello: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(BackendConnection, "_ask", lambda *_: hello)
    connection = BackendConnection(lambda: Endpoint(""), ClientName("test", "0"), MagicMock())
    greeting = asyncio.create_task(connection._greet(MagicMock()))
    await asyncio.sleep(0.01)
    hello.set_result("answered")
    greeting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await greeting


async def test_a_window_that_closes_while_it_connects_anew_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[BackendConnection] = []

    async def run(connection: BackendConnection) -> None:
        runs.append(connection)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)  # as its link closes

    monkeypatch.setattr(BackendConnection, "_run", run)
    connection = BackendConnection(lambda: Endpoint(""), ClientName("test", "0"), MagicMock())
    connection.start()
    await asyncio.sleep(0)
    connection.reconnect()
    await asyncio.sleep(0)
    closing = asyncio.create_task(connection.close())
    await asyncio.wait({closing}, timeout=10.0)
    has_closed = closing.done()
    closing.cancel()
    assert has_closed
    assert len(runs) == 1, "it connects no more"


@pytest.mark.parametrize("num_connections", [1, 2])
async def test_a_window_that_closes_just_as_the_backend_answers_stops_no_backend(
    monkeypatch: pytest.MonkeyPatch, num_connections: int
) -> None:
    stats: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    asked: list[str] = []

    def request(_: BackendConnection, method: Any, _params: object) -> asyncio.Future[object]:
        asked.append(method.name)
        return stats

    monkeypatch.setattr(BackendConnection, "request", request)
    monkeypatch.setattr(BackendConnection, "connected", True)
    window = EditorWindow(MagicMock(), MagicMock())
    restarting = asyncio.create_task(window._restart_own_backend())
    await asyncio.sleep(0.01)
    stats.set_result(messages.StatsResult({"num_connections": num_connections}, {}))
    restarting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await restarting
    assert asked == ["stats"]
