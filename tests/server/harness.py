"""A real server on a real socket, and a plain websocket client for it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from forelook.config import ServerConfig
from forelook.local.access import AccessPolicy
from forelook.protocol import jsonrpc, messages
from forelook.protocol.jsonrpc import ErrorResponse, Notification, Response
from forelook.server.app import create_app
from forelook.server.backend import ExitHooks
from forelook.server.engine import OnStatus
from forelook.server.run import Server
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosedError

from tests.server.fake_engine import FakeEngine

WORKSPACE = "file:///ws"
URI = "file:///ws/a.py"


class Client:
    """Sends whatever it is told; sorts what comes back by id and method."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self._ids = itertools.count(1)
        self._answers: dict[object, asyncio.Future[Response | ErrorResponse]] = {}
        self.unasked: asyncio.Queue[ErrorResponse] = asyncio.Queue()  # error responses with the id null
        self.notifications: dict[str, asyncio.Queue[dict[str, object]]] = {
            name: asyncio.Queue() for name in messages.SERVER_NOTIFICATIONS
        }
        self.order: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for frame in self.websocket:
                self._sort(frame)
        except ConnectionClosedError:
            for future in self._answers.values():
                future.cancel()

    def _sort(self, frame: str | bytes) -> None:
        assert isinstance(frame, str)
        message = jsonrpc.decode_message(frame)
        if isinstance(message, Notification):
            assert isinstance(message.params, dict)
            self.order.append(message.method)
            self.notifications[message.method].put_nowait(message.params)
        elif isinstance(message, (Response, ErrorResponse)):
            if message.id is None:
                assert isinstance(message, ErrorResponse)
                self.unasked.put_nowait(message)
                return
            self.order.append(f"answer {message.id}")
            future = self._answers.pop(message.id)  # a second answer to one request is a KeyError here
            future.set_result(message)

    async def send_request(
        self, method: str, params: object = None, request_id: jsonrpc.RequestId | None = None
    ) -> tuple[jsonrpc.RequestId, asyncio.Future[Response | ErrorResponse]]:
        request_id = next(self._ids) if request_id is None else request_id
        future: asyncio.Future[Response | ErrorResponse] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = future
        message = jsonrpc.Request(request_id, method, {} if params is None else params)
        await self.websocket.send(jsonrpc.encode_message(message))
        return request_id, future

    async def ask(self, method: str, params: object = None) -> Response | ErrorResponse:
        _, future = await self.send_request(method, params)
        return await future

    async def result(self, method: str, params: object = None) -> dict[str, object]:
        answer = await self.ask(method, params)
        assert isinstance(answer, Response), answer
        assert isinstance(answer.result, dict)
        return answer.result

    async def error(self, method: str, params: object = None) -> ErrorResponse:
        answer = await self.ask(method, params)
        assert isinstance(answer, ErrorResponse), answer
        return answer

    async def notify(self, method: str, params: object) -> None:
        await self.websocket.send(jsonrpc.encode_message(Notification(method, params)))

    async def hello(self) -> dict[str, object]:
        return await self.result("hello", {"protocol_version": messages.PROTOCOL_VERSION, "client_name": "test"})

    async def open(self, text: str, *, uri: str = URI, workspace: str = WORKSPACE, version: int = 1) -> None:
        await self.notify(
            "document/open",
            {"workspace": workspace, "uri": uri, "language_id": "python", "version": version, "text": text},
        )

    async def complete(self, offset: int = 0, *, uri: str = URI, version: int = 1, **more: object) -> str:
        result = await self.result("completion", {"uri": uri, "version": version, "offset": offset, **more})
        suggestions = result["suggestions"]
        assert isinstance(suggestions, list)
        text = suggestions[0]["text"]
        assert isinstance(text, str)
        return text

    async def next(self, method: str) -> dict[str, object]:
        return await self.notifications[method].get()

    async def close(self) -> None:
        await self.websocket.close()
        await self._reader


class Running:
    """A server that runs, its engine, and what its exit hooks were called for."""

    def __init__(self, address: Path | tuple[str, int]) -> None:
        self.address = address
        self.engines: list[FakeEngine] = []
        self.made = asyncio.Event()
        self.idle = asyncio.Event()
        self.shutdown = asyncio.Event()
        self.failed = asyncio.Event()

    @property
    def engine(self) -> FakeEngine:
        return self.engines[0]

    @contextlib.asynccontextmanager
    async def websocket(
        self, headers: Mapping[str, str] | None = None, host: str | None = None
    ) -> AsyncIterator[ClientConnection]:
        options = {"max_size": None, "compression": None, "additional_headers": dict(headers or {}), "proxy": None}
        if isinstance(self.address, Path):
            connecting = unix_connect(str(self.address), f"ws://{host or 'localhost'}/rpc", **options)
        else:
            address, port = self.address
            connecting = connect(f"ws://{host or address}:{port}/rpc", host=address, port=port, **options)
        async with connecting as websocket:
            yield websocket

    @contextlib.asynccontextmanager
    async def client(self, *, hello: bool = True) -> AsyncIterator[Client]:
        async with self.websocket() as websocket:
            client = Client(websocket)
            if hello:
                await client.hello()
            try:
                yield client
            finally:
                await client.close()


@contextlib.asynccontextmanager
async def running(
    directory: Path,
    config: ServerConfig | None = None,
    policy: AccessPolicy | None = None,
    *,
    tcp: bool = False,
    make_engine: Callable[[OnStatus], FakeEngine] = FakeEngine,
) -> AsyncIterator[Running]:
    """Serve on a Unix socket in ``directory``, or on a free loopback port."""
    config = config or ServerConfig(idle_timeout_s=None)
    listener = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
    path = directory / "s"
    listener.bind(("127.0.0.1", 0) if tcp else str(path))
    state = Running(listener.getsockname() if tcp else path)

    loop = asyncio.get_running_loop()

    def factory(on_status: OnStatus) -> FakeEngine:
        try:
            engine = make_engine(on_status)
            state.engines.append(engine)
            return engine
        finally:
            loop.call_soon_threadsafe(state.made.set)

    hooks = ExitHooks(idle=state.idle.set, shutdown=state.shutdown.set, failed=lambda _status: state.failed.set())
    listening = asyncio.Event()
    server = Server(create_app(factory, config, policy or AccessPolicy(), hooks), config, listening.set)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await listening.wait()
    await state.made.wait()  # a client's hello does not wait for the engine, which a test uses at once
    try:
        yield state
    finally:
        server.should_exit = True
        await task
        listener.close()
