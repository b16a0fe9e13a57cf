"""One replica as an ASGI application, with a fake engine and without Ray."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from forelook.cluster.cluster_config import ClusterConfig
from forelook.cluster.replica_app import REPLICA_HEADER, BusyShare, ReplicaApp
from forelook.config import ServerConfig
from forelook.errors import ModelError
from forelook.protocol import messages
from forelook.protocol.messages import SESSION_ID_HEADER, EngineState, Status
from forelook.server import connection as server_connection
from forelook.server.engine import OnStatus
from forelook.server.run import Server
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.server.fake_engine import FakeEngine
from tests.server.harness import URI, WORKSPACE, Client

A, B = "a" * 32, "b" * 32


def headers_of(key: str, session: str = "") -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", SESSION_ID_HEADER: session}


def only_key(path: Path) -> Path:
    """A file with a single key: on a machine of one's own it is the owner's."""
    path.write_text(f"{A}\n")
    return path


class Replica:
    """A replica that listens on a loopback port, below a route as Ray has it."""

    def __init__(self, app: ReplicaApp, port: int) -> None:
        self.app = app
        self.port = port

    def websocket(self, key: str, session: str = "") -> connect:
        url = f"ws://127.0.0.1:{self.port}/model/rpc"
        return connect(url, additional_headers=headers_of(key, session), compression=None)

    async def get(self, path: str, key: str) -> str:
        """The answer with its headers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        answer = (await asyncio.wait_for(reader.read(), 20)).decode()
        writer.close()
        return answer

    @contextlib.asynccontextmanager
    async def client(self, key: str, session: str = "") -> AsyncIterator[Client]:
        async with self.websocket(key, session) as websocket:
            client = Client(websocket)
            await client.hello()
            yield client
            await client.close()


def make_app(
    key_file: Path, make_engine: Callable[[OnStatus], FakeEngine] = FakeEngine, *, name: str = "one", **args: Any
) -> ReplicaApp:
    config = ClusterConfig.from_json({"tokenFile": str(key_file), "folder": str(key_file.parent), **args})
    return ReplicaApp(config, name, "starter", make_engine)


@contextlib.asynccontextmanager
async def serving(app: ReplicaApp) -> AsyncIterator[Replica]:
    async def below_route(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/model"} if "path" in scope else scope, receive, send)

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listening = asyncio.Event()
    server = Server(below_route, ServerConfig(), listening.set)
    await app.start()
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await listening.wait()
    try:
        yield Replica(app, listener.getsockname()[1])
    finally:
        server.should_exit = True
        await task
        await app.stop()
        listener.close()


async def test_editors_and_http_clients_share_an_address_below_a_route(key_file: Path) -> None:
    async with serving(make_app(key_file)) as replica, replica.client(A) as editor:
        assert (await editor.result("status"))["state"] == "ready"
        answer = await replica.get("/model/health", A)
        assert answer.startswith("HTTP/1.1 200")
        assert f"{REPLICA_HEADER}: one" in answer
        assert json.loads(answer.rpartition("\r\n\r\n")[2]) == {"status": "ok"}


async def test_metrics_are_those_of_all_replicas_and_name_them(key_file: Path) -> None:
    app, other = make_app(only_key(key_file)), make_app(only_key(key_file), name="two")
    async with serving(app) as replica, serving(other):
        text = ""
        while 'replica="two"' not in text:
            text = await replica.get("/model/metrics", A)
        assert 'forelook_ready{replica="one"} 1' in text
        assert 'forelook_connections{replica="two"} 0' in text


async def test_two_users_with_the_same_workspace_path_share_nothing(key_file: Path) -> None:
    app = make_app(key_file)
    async with serving(app) as replica, replica.client(A) as first, replica.client(B) as second:
        for client, text in ((first, "one"), (second, "other")):
            params = {"workspace": WORKSPACE, "files": [{"path": "x.py", "text": text}]}
            await client.notify("workspace/files", params)
            await client.result("status")
        engine = app.backend.made_engine
        assert isinstance(engine, FakeEngine)
        assert sorted(engine.files.values()) == ["one", "other"]
        assert len({workspace.pool_name for workspace, _ in engine.files}) == 2


async def test_no_client_can_stop_a_replica(key_file: Path) -> None:
    async with serving(make_app(only_key(key_file))) as replica, replica.client(A) as client:
        assert (await client.error("shutdown")).message.startswith("this backend is shared")


async def test_a_full_replica_says_so_and_recovers(key_file: Path) -> None:
    app = make_app(key_file, sessions=1)
    async with serving(app) as replica:
        async with replica.client(A) as client:
            await client.notify("document/open", document())
            await client.result("status")
            with pytest.raises(InvalidStatus) as caught:
                async with replica.client(B):
                    pass
            assert caught.value.response.status_code == 503
            assert b"connection limit reached" in (caught.value.response.body or b"")
        for _ in range(1_000):  # until the replica knows that the client has left
            if app.backend.metrics.num_connections == 0:
                break
            await asyncio.sleep(0.01)
        async with replica.client(B) as client:
            assert (await client.result("status"))["state"] == "ready"


async def test_a_client_of_another_version_is_told_so(key_file: Path) -> None:
    async with serving(make_app(key_file)) as replica, replica.websocket(A) as websocket:
        client = Client(websocket)
        params = {"protocol_version": 1, "client_name": "old", "client_version": "0.1.0"}
        assert "update or restart the client" in (await client.error("hello", params)).message
        await client.close()


async def test_only_sessions_that_belong_elsewhere_are_asked_to_move(key_file: Path) -> None:
    app = make_app(key_file)
    async with (
        serving(app) as replica,
        replica.client(A, "here") as here,
        replica.client(A, "there") as there,
        replica.client(B) as nowhere,
    ):
        app.backend.move_sessions(lambda session: session == "there")
        await asyncio.wait_for(there.notifications["connection/move"].get(), 5)
        for client in (here, nowhere):
            await client.result("status")
            assert client.notifications["connection/move"].empty()


async def test_a_replica_that_ends_asks_all_to_move_and_closes_who_stays(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_connection, "MOVE_TIMEOUT_S", 0.2)
    app = make_app(key_file)
    async with serving(app) as replica, replica.client(A, "x") as client:
        app.backend.end_sessions()
        await asyncio.wait_for(client.notifications["connection/move"].get(), 5)
        monkeypatch.setattr(server_connection, "MOVE_TIMEOUT_S", 60.0)  # it need not be quick
        async with replica.client(B, "late") as late:  # its router has not heard yet
            await asyncio.wait_for(late.notifications["connection/move"].get(), 5)
        await asyncio.wait_for(client.websocket.wait_closed(), 5)
        assert client.websocket.close_code == 1012


async def test_a_model_that_cannot_be_loaded_fails_the_start_with_its_reason(key_file: Path) -> None:
    def failing(on_status: OnStatus) -> FakeEngine:
        engine = FakeEngine(on_status, ready=False)
        on_status(Status(EngineState.ERROR, message="model = x is not here: download it"))
        return engine

    app = make_app(key_file, failing)
    with pytest.raises(ModelError, match="download it"):
        await app.start()
    await app.stop()


async def test_an_engine_that_fails_makes_the_replica_unhealthy(key_file: Path) -> None:
    app = make_app(key_file)
    await app.start()
    app.check()
    engine = app.backend.made_engine
    assert isinstance(engine, FakeEngine)
    engine.has_failed = True
    engine.set_status(Status(EngineState.STARTING, message="the engine stopped"))
    await asyncio.sleep(0.05)
    with pytest.raises(ModelError, match="the engine stopped"):
        app.check()
    await app.stop()


def test_the_busy_share_is_of_the_time_since_the_last_question() -> None:
    now_s = 0.0
    busy = BusyShare(lambda: now_s)
    now_s = 10.0
    assert busy.since_last(4.0) == pytest.approx(0.4)
    now_s = 20.0
    assert busy.since_last(4.0) == 0.0
    now_s = 30.0
    assert busy.since_last(99.0) == 1.0
    assert busy.since_last(99.0) == 0.0


def document() -> dict[str, object]:
    params = messages.DocumentOpenParams(WORKSPACE, URI, "python", 1, "x = 1\n")
    return dict(messages.to_json(params))
