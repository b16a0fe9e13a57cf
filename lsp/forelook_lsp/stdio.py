"""LSP over standard input and output."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from typing import Any, BinaryIO

from forelook_lsp.lsp_protocol import ForelookProtocol
from forelook_lsp.server import ForelookServer
from forelook_lsp.window import FindBackend

_CONTENT_LENGTH = re.compile(rb"content-length:\s*(\d+)\s*", re.IGNORECASE)
MAX_MESSAGE_BYTES = 256 * 2**20


class _Writer:
    """What pygls writes to. A full pipe blocks here, which is the right brake: reading has a thread of its own."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.flush()

    def close(self) -> None:
        self._stream.flush()


def read_message(stream: BinaryIO) -> bytes | None:
    """Return the next message's body; ``None`` at the end of the stream, also where it ends inside a message."""
    length: int | None = None
    while True:
        line = stream.readline(65_536)
        if not line:
            return None
        match = _CONTENT_LENGTH.fullmatch(line.strip(b"\r\n"))
        if match is not None:
            length = int(match.group(1))
        elif not line.strip() and length is not None:
            break
    if length > MAX_MESSAGE_BYTES:
        return None
    body = stream.read(length)
    return body if len(body) == length else None


async def serve_stdio(find_backend: FindBackend, stdin: BinaryIO, stdout: BinaryIO) -> int:
    """Serve one editor window until it says ``exit`` or goes away; returns the exit code LSP wants."""
    loop = asyncio.get_running_loop()
    server = ForelookServer(find_backend)
    server.protocol.set_writer(_Writer(stdout))
    server.protocol.exit_code = loop.create_future()
    messages: asyncio.Queue[bytes | None] = asyncio.Queue()

    def read() -> None:
        body: bytes | None = b""
        while body is not None:
            body = read_message(stdin)
            try:
                loop.call_soon_threadsafe(messages.put_nowait, body)
            except RuntimeError:  # the loop has ended
                return

    threading.Thread(target=read, name="forelook-stdin", daemon=True).start()
    receiving = loop.create_task(_receive(server.protocol, messages))
    ends: set[asyncio.Future[Any]] = {receiving, server.protocol.exit_code}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    except BrokenPipeError:
        return 1
    finally:
        receiving.cancel()
        await server.window.close()
    return server.protocol.exit_code.result() if server.protocol.exit_code.done() else 1


async def _receive(protocol: ForelookProtocol, messages: asyncio.Queue[bytes | None]) -> None:
    while (body := await messages.get()) is not None:
        protocol.receive(body)
        # One turn of the loop, so that a request's handler sees the documents as they were when it arrived.
        await asyncio.sleep(0)


def take_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Stdin and stdout for LSP alone: whatever else prints goes to stderr from here on."""
    streams = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    return streams
