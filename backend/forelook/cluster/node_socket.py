"""Requests from the proxy of a node to a replica on the same node, over a Unix socket. Needs no Ray.

Ray hands a request to a replica by calls between actors: one for the request, one or more for its body or messages, one
per part of the answer. Here each request has a connection, and each message of ASGI is a frame: its length, and JSON in
which bytes are an object. Only the user who runs the cluster can enter the folder of the sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forelook.failures import log_failure
from forelook.local.files import make_private_dir

logger = logging.getLogger("forelook.cluster")

DISCONNECTED: dict[str, Message] = {
    "http": {"type": "http.disconnect"},
    "websocket": {"type": "websocket.disconnect", "code": 1006},
}
"""What an application receives once its client is gone."""

_LENGTH_BYTES = 4
_MAX_FRAME_BYTES = 256 * 2**20  # chosen, not measured: the longest websocket message, escaped
_MAX_WAITING = 16  # messages of one client that the application has not received; chosen, not measured
_BYTES = "latin-1"
_END: Message = {"type": "end"}
_END_TIMEOUT_S = 5.0  # chosen, not measured
_DROPPED_BYTES = 65_536
_RESTARTS = 1012  # the code of a websocket's end that says so
_SCOPE = (
    "type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path", "headers",
    "client", "server", "subprotocols", "extensions",
)  # fmt: skip


class FrameError(Exception):
    """What arrived is no frame, or too long."""


def encoded(message: Message) -> bytes:
    """A message as a frame."""
    data = json.dumps(message, default=_as_text, separators=(",", ":")).encode()
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """The next message; ``None`` at the end of the connection.

    Raises:
        FrameError: it is not a message.
    """
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
        if length > _MAX_FRAME_BYTES:
            raise FrameError(f"a frame of {length} bytes exceeds the limit of {_MAX_FRAME_BYTES}")
        message = json.loads(await reader.readexactly(length), object_hook=_as_bytes)
    except (asyncio.IncompleteReadError, OSError):
        return None
    except ValueError as error:
        raise FrameError("a frame is not JSON") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise FrameError("a frame has no type")
    return message


def described(scope: Scope) -> Message:
    """What a replica needs to know of a request."""
    return {name: scope[name] for name in _SCOPE if name in scope}


def _as_text(value: object) -> dict[str, str]:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {_BYTES: bytes(value).decode(_BYTES)}
    raise TypeError(f"{type(value).__name__} is not part of a message")


def _as_bytes(value: dict[str, Any]) -> Any:
    return value[_BYTES].encode(_BYTES) if value.keys() == {_BYTES} else value


class NodeSocket:
    """Answers what the proxies of the node send.

    Args:
        app: the replica's application.
        path: of the socket; its folder becomes private.
    """

    def __init__(self, app: ASGIApp, path: Path) -> None:
        self._app = app
        self._path = path
        self._server: asyncio.Server | None = None
        self._requests: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen.

        Raises:
            EndpointError: the folder cannot be used.
            OSError: the socket cannot be made.
        """
        make_private_dir(self._path.parent)
        self._server = await asyncio.start_unix_server(self._accept, self._path)

    async def stop(self, timeout_s: float) -> None:
        """Stop accepting requests, and cancel those that still run after ``timeout_s``."""
        if self._server is None:
            return
        self._server.close()
        self._path.unlink(missing_ok=True)
        if self._requests:
            await asyncio.wait(self._requests, timeout=timeout_s)
        for request in self._requests:
            request.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = asyncio.ensure_future(self._serve(reader, writer))
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reading: asyncio.Task[None] | None = None
        try:
            scope = await read_message(reader)
            if scope is None or scope["type"] not in DISCONNECTED:
                return
            messages: asyncio.Queue[Message] = asyncio.Queue(_MAX_WAITING)
            reading = asyncio.create_task(_read(reader, messages, DISCONNECTED[scope["type"]]))
            await self._app(_as_scope(scope), _receive(messages), _send(writer))
        except (OSError, FrameError) as error:
            logger.info("a request from the proxy ended: %s", type(error).__name__)
        except Exception as error:  # noqa: BLE001 - edge: one request fails
            log_failure("a request from the proxy", error)
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.wait({reading})  # a stream has one reader at a time, and `_end` is the next
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(_end(reader, writer), _END_TIMEOUT_S)
            await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let the proxy close the connection: a write of its own to a closed one would lose the answer that it reads."""
    writer.write(encoded(_END))
    await writer.drain()
    while await reader.read(_DROPPED_BYTES):
        pass


async def _read(reader: asyncio.StreamReader, messages: asyncio.Queue[Message], last: Message) -> None:
    """Queue what arrives, however often the application stops waiting for it."""
    with contextlib.suppress(FrameError):
        while (message := await read_message(reader)) is not None:
            await messages.put(message)
            if message["type"] == last["type"]:
                return
    await messages.put(last)


def _receive(messages: asyncio.Queue[Message]) -> Receive:
    last: Message | None = None

    async def receive() -> Message:
        nonlocal last
        message = await messages.get() if last is None else last
        last = message if message["type"].endswith(".disconnect") else None
        return message

    return receive


def _send(writer: asyncio.StreamWriter) -> Send:
    async def send(message: Message) -> None:
        writer.write(encoded(message))
        await writer.drain()

    return send


def _as_scope(message: Message) -> Scope:
    """JSON has no tuples, which ASGI asks for."""
    scope = dict(message)
    scope["headers"] = [(name, value) for name, value in message.get("headers", ())]
    for name in ("client", "server"):
        if scope.get(name) is not None:
            scope[name] = tuple(scope[name])
    return scope


async def relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, scope: Scope, receive: Receive, send: Send
) -> None:
    """Let the replica at the other end answer a request, and answer in its place where it ends before it has.

    Args:
        reader: of a new connection to a replica.
        writer: of the same; it is closed at the end.
        scope: of ASGI.
        receive: of ASGI.
        send: of ASGI.
    """
    sending = asyncio.create_task(_pass_on(receive, writer, scope))
    last: Message | None = None
    try:
        while (message := await read_message(reader)) not in (None, _END):
            assert message is not None
            last = message
            await send(message)
        await _complete(scope["type"], last, send)
    except OSError:
        logger.info("a client has closed its connection")
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await _close(writer)


async def _pass_on(receive: Callable[[], Awaitable[Message]], writer: asyncio.StreamWriter, scope: Scope) -> None:
    with contextlib.suppress(OSError):
        writer.write(encoded(described(scope)))
        while True:
            message = await receive()
            writer.write(encoded(message))
            await writer.drain()
            if message["type"] == DISCONNECTED[scope["type"]]["type"]:
                return


async def _complete(kind: str, last: Message | None, send: Send) -> None:
    """End what a replica has left: nothing yet, or a connection that is open."""
    if last is None:
        prefix = "" if kind == "http" else "websocket."
        headers = [(b"retry-after", b"1"), (b"content-length", b"0")]
        await send({"type": f"{prefix}http.response.start", "status": 503, "headers": headers})
        await send({"type": f"{prefix}http.response.body", "body": b""})
    elif last["type"] in ("websocket.accept", "websocket.send"):
        await send({"type": "websocket.close", "code": _RESTARTS})
