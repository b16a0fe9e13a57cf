"""The language server in a thread of the test, or as a process that listens on a websocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import lsp_frames
from bench.lsp_client import TIMEOUT_S, LspClient, start_process
from forelook_lsp.launch import backend_finder
from forelook_lsp.model_offer import FindOffer
from forelook_lsp.transports.stdio import serve_stdio
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import ConnectionClosed


@contextlib.asynccontextmanager
async def stdio_server_in_a_thread(
    environment: Mapping[str, str], find_offer: FindOffer | None = None
) -> AsyncIterator[LspClient]:
    """The same server over real pipes, in a thread: spares the half second that a process takes to start."""
    to_server, from_client = os.pipe()
    to_client, from_server = os.pipe()
    loop = asyncio.get_running_loop()

    def serve() -> int:
        find_backend = backend_finder(environment, Path(environment["HOME"]), os.getuid())
        with os.fdopen(from_server, "wb") as stdout:
            return asyncio.run(serve_stdio(find_backend, to_server, stdout, find_offer))

    def send(message: str) -> None:
        data = memoryview(lsp_frames.encode(message))
        while data:
            data = data[os.write(from_client, data) :]

    client = LspClient(send)
    stream = asyncio.StreamReader(limit=2**26)
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(to_client))
    serving = asyncio.create_task(asyncio.to_thread(serve))

    async def read() -> None:
        while (message := await lsp_frames.read_async(stream)) is not None:
            await client.received_message(message)
        await client.end()

    reading = asyncio.create_task(read())
    try:
        yield client
    finally:
        os.close(from_client)
        await asyncio.wait_for(serving, TIMEOUT_S)
        await reading
        os.close(to_server)
        pipe.close()


class WebsocketClient:
    """One editor's connection to a language server over websocket."""

    def __init__(self, websocket: Any) -> None:
        self.websocket = websocket
        self.client = LspClient(websocket.send)
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in self.websocket:
                assert isinstance(message, str), "one JSON message a text frame"
                await self.client.received_message(json.loads(message))
        await self.client.end()

    async def wait_closed(self) -> None:
        await asyncio.wait_for(self.reading, TIMEOUT_S)


class WebsocketAddress:
    """Where a language server listens."""

    def __init__(self, announced: str) -> None:
        content = json.loads(announced)
        self.address: str = content["listening"]
        token_file = content["token_file"]
        self.token = Path(token_file).read_text("ascii").strip() if token_file else ""

    @contextlib.asynccontextmanager
    async def connect(self, headers: Mapping[str, str] | None = None, **options: Any) -> AsyncIterator[WebsocketClient]:
        given = {"Authorization": f"Bearer {self.token}"} if headers is None else dict(headers)
        async with websocket_connect(
            self.address, additional_headers=given, max_size=2**28, proxy=None, compression=None, **options
        ) as websocket:
            connection = WebsocketClient(websocket)
            yield connection
        await connection.wait_closed()


class WebsocketServer(WebsocketAddress):
    """The real server, listening on a websocket."""

    def __init__(self, process: asyncio.subprocess.Process, announced: str) -> None:
        super().__init__(announced)
        self.process = process
        self.errors = b""

    async def read_errors(self) -> None:
        assert self.process.stderr is not None
        while chunk := await self.process.stderr.read(65_536):
            self.errors += chunk


@contextlib.contextmanager
def shared_websocket_server(environment: Mapping[str, str]) -> Iterator[WebsocketAddress]:
    """One that serves many tests, each in an event loop of its own."""
    command = [sys.executable, "-m", "forelook_lsp", "--websocket", "127.0.0.1:0", "--log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(environment)) as process:
        assert process.stdout is not None
        try:
            yield WebsocketAddress(process.stdout.readline().decode())
        finally:
            process.terminate()


@contextlib.asynccontextmanager
async def websocket_server(environment: Mapping[str, str], *arguments: str) -> AsyncIterator[WebsocketServer]:
    process = await start_process(environment, arguments or ("--websocket", "127.0.0.1:0"))
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), TIMEOUT_S)
    assert line, (await process.stderr.read()).decode() if process.stderr is not None else ""
    server = WebsocketServer(process, line.decode())
    reading = asyncio.create_task(server.read_errors())
    try:
        yield server
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), TIMEOUT_S)
        await reading
