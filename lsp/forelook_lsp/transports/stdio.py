"""LSP over standard input and output."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import threading
from typing import Any, BinaryIO

from forelook_lsp.limits import MAX_MESSAGE_BYTES, MAX_UNHANDLED_BYTES
from forelook_lsp.lsp_protocol import ForelookProtocol
from forelook_lsp.model_offer import FindOffer
from forelook_lsp.server import ForelookServer
from forelook_lsp.window import FindBackend

logger = logging.getLogger(__name__)

_CONTENT_LENGTH = re.compile(rb"content-length:[ \t]*(\d+)[ \t]*", re.IGNORECASE)
MAX_HEADER_BYTES = 16_384  # chosen, not measured
READ_BYTES = 2**18  # chosen, not measured


class FramingError(Exception):
    """The stream is not LSP: the start of the next message is unknown."""


class MessageSplitter:
    """Splits a byte stream into the bodies of LSP messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._length: int | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes and return the messages that are complete now.

        Raises:
            FramingError: a header without end or length, or a message above the size limit.
        """
        self._buffer += data
        bodies: list[bytes] = []
        while True:
            if self._length is None:
                end = self._buffer.find(b"\r\n\r\n")
                if end < 0:
                    if len(self._buffer) > MAX_HEADER_BYTES:
                        raise FramingError(f"a message header is longer than {MAX_HEADER_BYTES} bytes")
                    return bodies
                self._length = _content_length(bytes(self._buffer[:end]))
                del self._buffer[: end + 4]
            if len(self._buffer) < self._length:
                return bodies
            bodies.append(bytes(self._buffer[: self._length]))
            del self._buffer[: self._length]
            self._length = None


def _content_length(header: bytes) -> int:
    for line in header.split(b"\r\n"):
        match = _CONTENT_LENGTH.fullmatch(line)
        if match is not None:
            length = int(match.group(1))
            if length > MAX_MESSAGE_BYTES:
                raise FramingError(f"a message has {length} bytes (limit {MAX_MESSAGE_BYTES})")
            return length
    raise FramingError("a message header has no Content-Length")


class _Writer:
    """The stream that pygls writes to. A full pipe blocks it, while reading continues in a thread of its own."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.flush()

    def close(self) -> None:
        self._stream.flush()


async def serve_stdio(
    find_backend: FindBackend, stdin: int, stdout: BinaryIO, find_offer: FindOffer | None = None
) -> int:
    """Serve one editor window until it sends ``exit`` or closes the stream.

    Args:
        find_backend: finds or starts the backend for some settings; blocks.
        stdin: the file descriptor to read from.
        stdout: the stream to write to.
        find_offer: finds a larger model to offer; blocks.

    Returns:
        The exit code that LSP prescribes.
    """
    loop = asyncio.get_running_loop()
    server = ForelookServer(find_backend, find_offer)
    server.protocol.set_writer(_Writer(stdout))
    server.protocol.exit_code = loop.create_future()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    room = threading.Semaphore(MAX_UNHANDLED_BYTES // READ_BYTES)

    def read() -> None:
        # By descriptor: this thread would hold a buffered stream's lock forever, which aborts the interpreter's exit.
        data = b"-"
        while data:
            room.acquire()
            try:
                data = os.read(stdin, READ_BYTES)
            except OSError:
                data = b""
            try:
                loop.call_soon_threadsafe(chunks.put_nowait, data)
            except RuntimeError:  # the loop is closed
                return

    threading.Thread(target=read, name="forelook-stdin", daemon=True).start()
    receiving = loop.create_task(_receive(server.protocol, chunks, room))
    ends: set[asyncio.Future[Any]] = {receiving, server.protocol.exit_code}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if receiving.done() and (error := receiving.exception()) is not None:
            if not isinstance(error, (FramingError, BrokenPipeError)):
                raise error
            logger.error("lost the connection to the editor: %s", error)
    finally:
        receiving.cancel()
        await server.window.close()
    return server.protocol.exit_code.result() if server.protocol.exit_code.done() else 1


async def _receive(protocol: ForelookProtocol, chunks: asyncio.Queue[bytes], room: threading.Semaphore) -> None:
    splitter = MessageSplitter()
    while data := await chunks.get():
        room.release()
        for body in splitter.feed(data):
            protocol.receive(body)
            # One iteration of the loop, so that a request's handler sees the documents as they were on its arrival.
            await asyncio.sleep(0)


def take_standard_streams() -> tuple[int, BinaryIO]:
    """Reserve stdin and stdout for LSP; other output goes to stderr from now on."""
    stdout = sys.stdout.buffer
    sys.stdout = sys.stderr
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(0, os.O_BINARY)
        msvcrt.setmode(1, os.O_BINARY)
    return 0, stdout
