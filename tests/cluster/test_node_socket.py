"""Requests that reach a replica over the socket of its node: as if it were asked itself. Without Ray."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from forelook.cluster import node_socket
from forelook.cluster.node_socket import FrameError, NodeSocket, encoded, read_message, relay
from forelook.config import ServerConfig
from forelook.server.run import Server
from starlette.types import ASGIApp
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.cluster.test_replica_app import A, Replica, document, make_app, serving


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s" / "one"


@contextlib.asynccontextmanager
async def front(path: Path) -> AsyncIterator[int]:
    """A server that only passes on what it gets; the port."""

    async def pass_on(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
            return
        reader, writer = await asyncio.open_unix_connection(path)
        await relay(reader, writer, {**scope, "root_path": "/model"}, receive, send)

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listening = asyncio.Event()
    server = Server(pass_on, ServerConfig(), listening.set)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await listening.wait()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


@contextlib.asynccontextmanager
async def replica_at(path: Path, key_file: Path) -> AsyncIterator[Replica]:
    """A replica that is reached over its socket only."""
    app = make_app(key_file)
    node = NodeSocket(app, path)
    async with serving(app):
        await node.start()
        async with front(path) as port:
            yield Replica(app, port)
        await node.stop(5.0)


@contextlib.asynccontextmanager
async def application_at(path: Path, app: ASGIApp) -> AsyncIterator[tuple[NodeSocket, int]]:
    node = NodeSocket(app, path)
    await node.start()
    async with front(path) as port:
        yield node, port
        await node.stop(0.0)


async def answer_of(port: int, request: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    answer = (await asyncio.wait_for(reader.read(), 20)).decode()
    writer.close()
    return answer


async def test_editors_and_http_clients_are_answered_as_by_the_replica_itself(key_file: Path, path: Path) -> None:
    async with replica_at(path, key_file) as replica, replica.client(A, "x") as client:
        await client.notify("document/open", document())
        assert (await client.result("status"))["state"] == "ready"
        assert client.websocket.response is not None
        assert client.websocket.response.headers["x-forelook-replica"] == "one"
        answer = await replica.get("/model/health", A)
        assert answer.startswith("HTTP/1.1 200")
        assert json.loads(answer.rpartition("\r\n\r\n")[2]) == {"status": "ok"}


async def test_the_replica_still_asks_for_a_key(key_file: Path, path: Path) -> None:
    async with replica_at(path, key_file) as replica:
        with pytest.raises(InvalidStatus) as caught:
            async with replica.client("c" * 32):
                pass
        assert caught.value.response.status_code == 401
        assert (await replica.get("/model/health", "c" * 32)).startswith("HTTP/1.1 401")


async def test_no_other_user_can_enter_the_folder_of_the_sockets(path: Path) -> None:
    path.parent.mkdir(mode=0o777)
    path.parent.chmod(0o777)
    node = NodeSocket(failing, path)
    await node.start()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await node.stop(0.0)
    with pytest.raises(FileNotFoundError):
        await asyncio.open_unix_connection(path)


async def test_bytes_of_all_values_arrive(path: Path) -> None:
    received: list[dict[str, Any]] = []
    body = bytes(range(256)) * 4

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        received.append(scope)
        while (message := await receive())["type"] == "http.request":
            received.append(message)
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-bytes", b"\xff")]})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    async with application_at(path, echo) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /a%20b?c=d HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
    scope, *messages = received
    assert (scope["path"], scope["query_string"], scope["root_path"]) == ("/a b", b"c=d", "/model")
    assert (b"host", b"x") in scope["headers"]
    assert b"".join(message["body"] for message in messages) == body
    assert b"x-bytes: \xff" in answer
    assert body in answer


async def test_an_answer_arrives_whatever_of_the_request_was_not_read(path: Path) -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"long"})

    async with application_at(path, refuse) as (_, port):
        for _ in range(100):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\nConnection: close\r\n\r\n" + b"x" * 40)
            await asyncio.sleep(0)
            writer.write(b"x" * 10)
            assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 413")
            writer.close()


async def test_a_client_that_leaves_ends_its_request(path: Path) -> None:
    left = asyncio.Event()

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        del scope, send
        while (await receive())["type"] != "http.disconnect":
            pass
        assert (await receive())["type"] == "http.disconnect", "it stays gone"
        left.set()

    async with application_at(path, wait) as (_, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.1)
        writer.close()
        await asyncio.wait_for(left.wait(), 5)


async def test_a_stream_is_let_go_before_its_rest_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python 3.12 on `wait_for` runs what it waits for at once, without a task of its own."""

    async def wait_for(awaitable: Awaitable[Any], timeout_s: float) -> Any:
        with anyio.fail_after(timeout_s):
            return await awaitable

    requests: list[asyncio.Task[None]] = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        requests.extend(node._requests)
        await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    monkeypatch.setattr(asyncio, "wait_for", wait_for)
    node = NodeSocket(answer, path)
    await node.start()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(encoded({"type": "http", "headers": []}))
    while (message := await read_message(reader)) is not None and message["type"] != "end":
        pass
    writer.close()
    await asyncio.gather(*requests)
    assert len(requests) == 1
    await node.stop(5.0)


async def failing(scope: Any, receive: Any, send: Any) -> None:
    """An application that fails before it has answered."""
    del receive, send
    raise RuntimeError(scope["type"])


async def test_a_replica_that_ends_before_it_answers_is_busy_for_a_second(path: Path) -> None:
    async with application_at(path, failing) as (_, port):
        answer = await answer_of(port, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.startswith("HTTP/1.1 503")
        assert "retry-after: 1\r\n" in answer
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"ws://127.0.0.1:{port}/rpc", proxy=None)
        assert caught.value.response.status_code == 503


async def test_the_sockets_of_a_replica_that_ends_say_so(path: Path) -> None:
    async def accept(scope: Any, receive: Any, send: Any) -> None:
        del scope
        await receive()
        await send({"type": "websocket.accept", "headers": []})

    async with application_at(path, accept) as (_, port):
        websocket = await connect(f"ws://127.0.0.1:{port}/rpc", proxy=None)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(websocket.recv(), 5)
        assert websocket.close_code == 1012


@pytest.mark.parametrize("is_in_time", [True, False])
async def test_a_replica_that_ends_waits_for_what_it_has_begun(path: Path, is_in_time: bool) -> None:
    go_on, begun = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        begun.set()
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async with application_at(path, slow) as (node, port):
        asking = asyncio.create_task(answer_of(port, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
        await asyncio.wait_for(begun.wait(), 5)
        ending = asyncio.create_task(node.stop(5.0 if is_in_time else 0.05))
        await asyncio.sleep(0.02)
        with pytest.raises(OSError, match="No such file"):
            await asyncio.open_unix_connection(path)
        if is_in_time:
            go_on.set()
        await asyncio.wait_for(ending, 5)
        assert (await asking).startswith("HTTP/1.1 200" if is_in_time else "HTTP/1.1 503")


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x02[]", b"\x00\x00\x00\x02{}", b"\x00\x00\x00\x01x"]
)
async def test_what_is_no_message_is_refused(data: bytes) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    with pytest.raises(FrameError):
        await read_message(reader)


async def test_a_frame_that_is_cut_off_is_the_end() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(encoded({"type": "http.request", "body": b"x"})[:-1])
    reader.feed_eof()
    assert await read_message(reader) is None


async def test_a_client_that_sends_faster_than_it_is_heard_has_to_wait(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_socket, "_MAX_WAITING", 2)
    go_on = asyncio.Event()
    count = 0

    async def slow(scope: Any, receive: Callable[[], Awaitable[dict[str, Any]]], send: Any) -> None:
        del scope, send
        nonlocal count
        await go_on.wait()
        while (await receive())["type"] == "http.request":
            count += 1

    node = NodeSocket(slow, path)
    await node.start()
    _, writer = await asyncio.open_unix_connection(path)
    writer.write(encoded({"type": "http", "headers": []}))
    for _ in range(400):
        writer.write(encoded({"type": "http.request", "body": b"x" * 10_000, "more_body": True}))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(writer.drain(), 0.2)
    go_on.set()
    await asyncio.wait_for(writer.drain(), 5)
    writer.close()
    await node.stop(5.0)
    assert count == 400
