"""A backend of several replicas that asks a window to move: no gap, no lost answer, no lost text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from bench.lsp_client import LspClient
from forelook.local.endpoint import Endpoint, session_id
from forelook.protocol import jsonrpc, messages
from forelook_lsp.backend_connection import BackendConnection, _Link

from tests.lsp.conftest import URI
from tests.lsp.fake_backend import READY, FakeBackend

MOVE = jsonrpc.encode_notification(messages.CONNECTION_MOVE, messages.Empty())


async def move(backend: FakeBackend) -> None:
    """Ask the only window to move, and wait until it has said hello again."""
    num_hellos = backend.methods.count("hello")
    await backend.connections[0].websocket.send(MOVE)
    await backend.wait_until(lambda: backend.methods.count("hello") > num_hellos)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what no message announces."""
    deadline_s = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.02)


async def test_a_window_that_moves_opens_its_documents_at_the_new_place_before_it_leaves_the_old(
    editor: LspClient, backend: FakeBackend
) -> None:
    await editor.open(URI, "a")
    assert len(await editor.complete(URI, 0, 1)) == 1
    former = backend.connections[0]
    num_statuses = len(editor.params_of("forelook/status"))
    await move(backend)
    await until(lambda: len(backend.connections) == 1 and backend.connections[0] is not former)
    await editor.type_text(URI, 2, 0, 1, "b")
    assert len(await editor.complete(URI, 0, 2)) == 1
    assert backend.connections[0].texts == {URI: "ab"}
    shown = {status["state"] for status in editor.params_of("forelook/status")[num_statuses:]}
    assert shown <= {"ready", "completing"}, "the editor was told of a loss"


@pytest.fixture
def _slow_retirement(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection before stays until its request is answered, also on a busy machine."""
    monkeypatch.setattr("forelook_lsp.backend_connection.RETIRE_TIMEOUT_S", 60.0)


@pytest.mark.usefixtures("_slow_retirement")
async def test_a_request_that_runs_during_a_move_is_answered(editor: LspClient, backend: FakeBackend) -> None:
    backend.hold = asyncio.Event()
    await editor.open(URI, "a")
    _, future = await editor.start_complete(URI, 0, 1)
    await backend.wait_until(lambda: len(backend.completions) == 1)
    await move(backend)
    await backend.wait_until(lambda: len(backend.connections) == 2 and bool(backend.connections[1].texts))
    backend.release()
    answer = await asyncio.wait_for(future, 30)
    assert len(answer["items"]) == 1


@pytest.mark.usefixtures("_slow_retirement")
async def test_a_request_is_withdrawn_where_it_runs(editor: LspClient, backend: FakeBackend) -> None:
    backend.hold = asyncio.Event()
    await editor.open(URI, "a")
    await editor.start_complete(URI, 0, 1)
    await backend.wait_until(lambda: len(backend.completions) == 1)
    former = backend.connections[0]
    await move(backend)
    await backend.wait_until(lambda: len(backend.connections) == 2 and bool(backend.connections[1].texts))
    await editor.type_text(URI, 2, 0, 0, "nothing that was suggested ")
    await backend.wait_until(lambda: backend.cancelled != [])
    await until(lambda: former not in backend.connections)


async def test_a_move_to_where_nobody_answers_leaves_the_window_where_it_is(
    editor: LspClient, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forelook_lsp.backend_connection.MOVE_ATTEMPTS", 1)
    await editor.open(URI, "a")
    backend.protocol_version = 1  # of the replica that it would move to
    await move(backend)
    backend.protocol_version = messages.PROTOCOL_VERSION
    assert len(await editor.complete(URI, 0, 1)) == 1
    await move(backend)  # it may be asked again
    await until(lambda: len(backend.connections) == 1 and backend.methods.count("document/open") == 2)


async def test_a_window_that_is_asked_while_its_last_attempt_fails_moves(
    editor: LspClient, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forelook_lsp.backend_connection.MOVE_ATTEMPTS", 1)
    held: list[BackendConnection] = []
    released = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []  # the server's, which is another than the test's
    close = BackendConnection._close

    async def slow_close(connection: BackendConnection, link: _Link) -> None:
        loops.append(asyncio.get_running_loop())
        held.append(connection)
        await released.wait()
        await close(connection, link)

    await editor.open(URI, "a")
    await editor.complete(URI, 0, 1)  # the document has been judged, and is sent once to each place
    monkeypatch.setattr(BackendConnection, "_close", slow_close)
    backend.protocol_version = 1
    await move(backend)
    await until(lambda: held != [])
    backend.protocol_version = messages.PROTOCOL_VERSION
    await backend.connections[0].websocket.send(MOVE)
    await until(lambda: held[0]._link is not None and held[0]._link.must_move)
    loops[0].call_soon_threadsafe(released.set)
    await until(lambda: len(backend.connections) == 1 and backend.methods.count("document/open") == 2)


async def test_a_status_that_follows_hello_at_once_is_not_lost(editor: LspClient, backend: FakeBackend) -> None:
    loading = messages.Status(messages.EngineState.LOADING, 0.5, "loading")
    backend.status = loading
    await move(backend)
    await backend.set_status(READY)
    await editor.wait_for_status("ready")
    await editor.open(URI, "a")
    assert len(await editor.complete(URI, 0, 1)) == 1


def test_the_session_id_is_of_user_and_workspace_and_says_neither() -> None:
    ids = {session_id(token, uri) for token in ("a" * 32, "b" * 32) for uri in ("file:///x", "file:///y", "")}
    assert len(ids) == 6
    assert session_id("a" * 32, "file:///x") == session_id("a" * 32, "file:///x")
    assert all(len(each) == 32 and each.isalnum() for each in ids)


def test_a_route_selects_a_model_of_a_cluster() -> None:
    endpoint = Endpoint.from_url("wss://gpu.example:443/small")
    assert endpoint.url == "wss://gpu.example:443/small/rpc"
    assert Endpoint.from_url("wss://gpu.example:443/small/rpc") == endpoint
    assert endpoint.description == "wss://gpu.example:443/small"
