"""One HTTP request and its answer, over ASGI: a bounded body, JSON, and a stream that ends with its client."""

from __future__ import annotations

import asyncio
import json
import math

import anyio
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from forelook.server.http.asking import JSON, encoded
from forelook.server.http.fields import HttpError

_LARGE_BYTES = 65_536  # a longer body is parsed in a thread; chosen, not measured
_READ_FACTOR = 4  # how much longer a body is read to the end; chosen, not measured
_SEND_TIMEOUT_S = 30.0  # for a client to read a piece of its answer; chosen, not measured


class ClientGoneError(Exception):
    """The client has closed the connection, or does not read its answer."""


class Exchange:
    """A request and its answer.

    Args:
        scope, receive, send: of ASGI.
        max_bytes: longest body.
        timeout_s: for the body to arrive.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_bytes: int, timeout_s: float) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = Headers(scope=scope)
        self._receive = receive
        self._send = send
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self.num_bytes = 0
        self.has_begun = False

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            HttpError: it is too long or too slow.
            ClientGoneError: the client has closed the connection.
        """
        try:
            with anyio.fail_after(self._timeout_s):
                return await self._read()
        except TimeoutError:
            raise HttpError(408, f"the body did not arrive within {self._timeout_s:g} s; send it at once") from None

    async def _read(self) -> bytes:
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part: bytes = message.get("body", b"")
            self.num_bytes += len(part)
            if self.num_bytes <= self._max_bytes:
                parts.append(part)
            has_more = message.get("more_body", False)
            # Who still sends does not read: the rest is taken in and dropped, so that the error arrives.
            if self.num_bytes > _READ_FACTOR * self._max_bytes or (not has_more and self.num_bytes > self._max_bytes):
                raise HttpError(413, f"the body is longer than {self._max_bytes} bytes; send less text")
            if not has_more:
                return b"".join(parts)

    async def disconnected(self) -> None:
        """Wait until the client closes the connection; call it after ``body``."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def answer(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        """Send a whole answer as JSON."""
        await self._answer(status, JSON, encoded(value), headers or {})

    async def answer_text(self, text: str, content_type: str) -> None:
        """Send a whole answer that is not JSON."""
        await self._answer(200, content_type, text.encode(), {})

    async def _answer(self, status: int, content_type: str, body: bytes, headers: dict[str, str]) -> None:
        await self._begin(status, {"content-type": content_type, "content-length": str(len(body)), **headers})
        # Only GET and POST have handlers, but every method may have an error.
        await self._put({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    async def stream(self, content_type: str, data: bytes) -> None:
        """Send a piece of a stream, before the first one the stream's head."""
        if not self.has_begun:
            await self._begin(200, {"content-type": content_type, "cache-control": "no-cache"})
        await self.piece(data)

    async def piece(self, data: bytes, *, is_last: bool = False) -> None:
        """Send a piece of a stream that has begun."""
        await self._put({"type": "http.response.body", "body": data, "more_body": not is_last})

    async def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.has_begun = True
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._put({"type": "http.response.start", "status": status, "headers": raw})

    async def _put(self, message: Message) -> None:
        # Not by asyncio.wait_for: before Python 3.12 it drops a cancellation that meets the end of what it waits for,
        # and a client that left at that moment would be answered to the end.
        try:
            with anyio.fail_after(_SEND_TIMEOUT_S):
                await self._send(message)
        except OSError:  # TimeoutError is one
            raise ClientGoneError from None


def error_headers(error: HttpError) -> dict[str, str]:
    """The headers that an error needs."""
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.status == 405:
        headers["allow"] = "GET, POST"
    return headers


async def parsed(body: bytes) -> object:
    """The body's JSON; a large one is parsed in a thread.

    Raises:
        HttpError: it is no JSON.
    """
    try:
        return await asyncio.to_thread(_parse, body) if len(body) > _LARGE_BYTES else _parse(body)
    except (ValueError, RecursionError):
        raise HttpError(400, "the body is not valid JSON") from None


def _parse(body: bytes) -> object:
    value: object = json.loads(body, parse_constant=_refuse)
    return value


def _refuse(name: str) -> object:
    raise ValueError(name)
