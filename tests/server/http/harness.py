"""A real server with the HTTP interfaces on a real socket, on a completion engine with a fake model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forelook.completion.engine.engine import CompletionEngine
from forelook.config import EngineConfig, ServerConfig
from forelook.local.access import AccessPolicy
from forelook.server.app import HttpListener, create_app
from forelook.server.backend import ExitHooks
from forelook.server.engine import OnStatus
from forelook.server.run import Server

from tests.completion.fake_model import FakeModel

KEY, OTHER_KEY = "k" * 64, "o" * 64
TARGET = "".join(f"value_{number} = compute({number})\n" for number in range(60))
FAST = EngineConfig(prewarm=False, speculate=False)


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The values of a stream of server-sent events, without the last ``[DONE]``."""
        lines = self.body.decode().split("\n\n")
        return [json.loads(line.removeprefix("data: ")) for line in lines if line and line != "data: [DONE]"]

    @property
    def lines(self) -> list[Any]:
        """The values of newline-delimited JSON."""
        return [json.loads(line) for line in self.body.splitlines()]


@dataclass
class HttpServer:
    """A server that runs.

    Attributes:
        port: of the HTTP listener.
        path: of the editors' Unix socket.
        key: the first of its keys; empty without any.
    """

    port: int
    path: Path
    model: FakeModel
    key: str
    engines: list[CompletionEngine] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def engine(self) -> CompletionEngine:
        return self.engines[0]

    async def ask(
        self,
        path: str,
        body: object = None,
        *,
        method: str | None = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        """Send one request on a connection of its own; a body makes it a POST."""
        reader, writer = await self.send(path, body, method=method, key=key, headers=headers, raw=raw)
        try:
            return parse_answer(await reader.read())
        finally:
            writer.close()

    async def send(
        self,
        path: str,
        body: object = None,
        *,
        method: str | None = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request and leave the connection open."""
        data = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        has_body = body is not None or raw is not None
        key = self.key if key is None else key
        lines = {"Host": f"127.0.0.1:{self.port}", "Connection": "close", "Content-Length": str(len(data))}
        if key:
            lines["Authorization"] = f"Bearer {key}"
        lines |= headers or {}
        method = method or ("POST" if has_body else "GET")
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data)
        await writer.drain()
        return reader, writer


def parse_answer(raw: bytes) -> Answer:
    """An answer from its bytes."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join(_chunks(body))
    return Answer(int(status.split()[1]), headers, body)


def _chunks(body: bytes) -> list[bytes]:
    found = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            break
        found.append(body[:length])
        body = body[length + 2 :]
    return found


@contextlib.asynccontextmanager
async def http_running(
    directory: Path,
    *,
    model: FakeModel | None = None,
    target: str = TARGET,
    keys: tuple[str, ...] = (KEY,),
    config: ServerConfig | None = None,
    engine_config: EngineConfig = FAST,
    policy: AccessPolicy | None = None,
    waits: bool = True,
) -> AsyncIterator[HttpServer]:
    """Serve the editor protocol on a Unix socket in ``directory`` and HTTP on a free loopback port.

    Args:
        directory: for the socket.
        model: continues ``target``; made by default.
        target: the text that the model knows.
        keys: accepted ones; empty to accept any request.
        config: the server's limits.
        engine_config: the engine's.
        policy: who may ask, instead of the holders of ``keys``.
        waits: whether to wait for the model to be loaded.
    """
    config = config or ServerConfig(idle_timeout_s=None)
    editors, clients = socket.socket(socket.AF_UNIX), socket.socket()
    editors.bind(str(directory / "s"))
    clients.bind(("127.0.0.1", 0))
    model = model or FakeModel(target)
    port = clients.getsockname()[1]
    state = HttpServer(port, directory / "s", model, keys[0] if keys else "")
    loop, ready = asyncio.get_running_loop(), asyncio.Event()

    def factory(on_status: OnStatus) -> CompletionEngine:
        def changed(status: Any) -> None:
            on_status(status)
            if status.state.value == "ready":
                loop.call_soon_threadsafe(ready.set)

        engine = CompletionEngine(lambda _progress: model, engine_config, changed)
        state.engines.append(engine)
        return engine

    hooks = ExitHooks(idle=lambda: None, shutdown=lambda: None, failed=lambda _status: None)
    listening = asyncio.Event()
    hosts = frozenset({"127.0.0.1", "localhost"})
    http = HttpListener(port, policy or AccessPolicy(tokens=keys, hosts=hosts))
    app = create_app(factory, config, AccessPolicy(), hooks, http=http)
    server = Server(app, config, listening.set, clients)
    task = asyncio.create_task(server.serve(sockets=[editors]))
    await listening.wait()
    if waits:
        await ready.wait()
        await asyncio.sleep(0)
    try:
        yield state
    finally:
        server.should_exit = True
        await task
        editors.close()
        clients.close()
