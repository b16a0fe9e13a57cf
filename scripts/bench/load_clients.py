"""One editor of a load test: documents and requests over the editor protocol, or requests over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import itertools
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from forelook import __version__
from forelook.errors import RequestCancelledError
from forelook.protocol import jsonrpc, messages
from forelook.protocol.messages import WEBSOCKET_PATH
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bench.traces import Edit

SESSION_ID_HEADER = "x-session-id"
REPLICA_HEADER = "x-forelook-replica"
MAX_BYTES = 2**26
NUM_TOKENS = 24  # of an answer over HTTP, about a line
LINES_AROUND = 40  # of a request over HTTP


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, or why there is none.

    Attributes:
        outcome: ``answered``, ``superseded``, ``refused``, or ``failed``.
        text: what is suggested from the cursor on; empty for nothing.
        replica: which one answered; empty where none says so.
        service_ms: what the device needed, and the rest of the engine's work for it.
        queue_ms: how long the request waited for the device.
        forwards: passes of the model.
    """

    outcome: str
    text: str = ""
    replica: str = ""
    service_ms: float = 0.0
    queue_ms: float = 0.0
    forwards: int = 0


class Editor(Protocol):
    """What a typist needs of a client."""

    async def open(self, uri: str, language_id: str, text: str) -> None:
        """Open a document."""

    async def change(self, edit: Edit, text: str) -> None:
        """Apply an edit; ``text`` is the document after it."""

    async def ask(self, text: str, offset: int) -> Reply:
        """Complete at a cursor; a later call ends this one as superseded."""

    async def close(self) -> None:
        """Disconnect."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect.

    Attributes:
        url: ``ws://…`` or ``wss://…`` of the editor protocol, ``http://…`` or ``https://…`` of the HTTP interfaces; a
            path before theirs is kept.
        keys: of the users, in turn; empty where none is needed.
    """

    url: str
    keys: tuple[str, ...] = ()

    @property
    def is_http(self) -> bool:
        return urlsplit(self.url).scheme in ("http", "https")

    @property
    def tls(self) -> ssl.SSLContext | None:
        return ssl.create_default_context() if urlsplit(self.url).scheme in ("https", "wss") else None

    def headers(self, user: int, workspace: str) -> dict[str, str]:
        """Headers of a user's requests: the key, and what a cluster routes by."""
        key = self.keys[user % len(self.keys)] if self.keys else ""
        session = hashlib.sha256(f"{key}\0{workspace}".encode()).hexdigest()[:32]
        return {SESSION_ID_HEADER: session, **({"Authorization": f"Bearer {key}"} if key else {})}


async def connected(address: Address, user: int, workspace: str) -> Editor:
    """A client of a user with one workspace.

    Raises:
        OSError: it cannot connect; websockets' errors too.
    """
    headers = address.headers(user, workspace)
    if address.is_http:
        return HttpEditor(address, headers)
    parts = urlsplit(address.url)
    path = parts.path.rstrip("/")
    url = address.url if path.endswith(WEBSOCKET_PATH) else f"{parts.scheme}://{parts.netloc}{path}{WEBSOCKET_PATH}"
    websocket = await connect(
        url, additional_headers=headers, compression=None, max_size=MAX_BYTES, proxy=None, ssl=address.tls
    )
    editor = SocketEditor(websocket, workspace)
    await editor.hello()
    return editor


@dataclass
class _Document:
    uri: str = ""
    version: int = 0
    asked: jsonrpc.RequestId | None = None


class SocketEditor:
    """The editor protocol, one document at a time."""

    def __init__(self, websocket: ClientConnection, workspace: str) -> None:
        self._websocket = websocket
        self._workspace = workspace
        self._ids = itertools.count(1)
        self._answers: dict[jsonrpc.RequestId | None, asyncio.Future[jsonrpc.Response | jsonrpc.ErrorResponse]] = {}
        self._document = _Document()
        response = websocket.response
        self._replica = "" if response is None else response.headers.get(REPLICA_HEADER, "")
        self._reader = asyncio.create_task(self._read())

    async def hello(self) -> None:
        params = messages.HelloParams(messages.PROTOCOL_VERSION, "bench-load", __version__)
        answer = await self._request(messages.HELLO, params)
        if isinstance(answer, jsonrpc.ErrorResponse):
            raise answer.to_error()
        hello = messages.from_json(messages.HelloResult, answer.result, allow_unknown=True)
        self._replica = self._replica or f"process {hello.pid}"

    async def open(self, uri: str, language_id: str, text: str) -> None:
        if self._document.uri:
            await self._notify(messages.DOCUMENT_CLOSE, messages.DocumentCloseParams(self._document.uri))
        self._document = _Document(uri, 1)
        params = messages.DocumentOpenParams(self._workspace, uri, language_id, 1, text)
        await self._notify(messages.DOCUMENT_OPEN, params)

    async def change(self, edit: Edit, text: str) -> None:
        del text
        self._document.version += 1
        change = messages.TextChange(edit.start, edit.end, edit.text)
        params = messages.DocumentChangeParams(self._document.uri, self._document.version, (change,))
        await self._notify(messages.DOCUMENT_CHANGE, params)

    async def ask(self, text: str, offset: int) -> Reply:
        before = text[max(0, offset - 200) : offset]
        params = messages.CompletionParams(self._document.uri, self._document.version, offset)
        answer = await self._request(messages.COMPLETION, params)
        if isinstance(answer, jsonrpc.ErrorResponse):
            is_superseded = answer.code == RequestCancelledError.code
            return Reply("superseded" if is_superseded else "refused", replica=self._replica)
        result = messages.from_json(messages.CompletionResult, answer.result, allow_unknown=True)
        stats = result.stats
        shown = ""
        for suggestion in result.suggestions[:1]:
            typed = before[len(before) - (offset - suggestion.start) :]
            if suggestion.text.startswith(typed):
                shown = suggestion.text[len(typed) :]
        service_ms = max(0.0, stats.total_ms - stats.queue_ms)
        return Reply("answered", shown, self._replica, service_ms, stats.queue_ms, stats.num_forwards)

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._websocket.close()

    async def _request(self, method: Any, params: object) -> jsonrpc.Response | jsonrpc.ErrorResponse:
        request_id = next(self._ids)
        future: asyncio.Future[jsonrpc.Response | jsonrpc.ErrorResponse] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = future
        await self._websocket.send(jsonrpc.encode_request(request_id, method, params))
        return await future

    async def _notify(self, method: Any, params: object) -> None:
        await self._websocket.send(jsonrpc.encode_notification(method, params))

    async def _read(self) -> None:
        try:
            async for frame in self._websocket:
                message = jsonrpc.decode_message(frame if isinstance(frame, str) else frame.decode())
                if isinstance(message, jsonrpc.Response | jsonrpc.ErrorResponse):
                    future = self._answers.pop(message.id, None)
                    if future is not None and not future.done():
                        future.set_result(message)
        except ConnectionClosed:
            pass
        finally:
            for future in self._answers.values():
                if not future.done():
                    future.set_exception(ConnectionError("the connection was closed"))
                    future.exception()  # its typist may have gone


@dataclass
class _Asking:
    connection: http.client.HTTPConnection
    is_superseded: bool = field(default=False)


class HttpEditor:
    """llama.vim's requests, each on a connection of its own; a newer one closes that of the older."""

    def __init__(self, address: Address, headers: Mapping[str, str]) -> None:
        self._parts = urlsplit(address.url)
        self._tls = address.tls
        self._headers = {**headers, "Content-Type": "application/json", "Connection": "close"}
        self._asking: _Asking | None = None

    async def open(self, uri: str, language_id: str, text: str) -> None:
        del uri, language_id, text

    async def change(self, edit: Edit, text: str) -> None:
        del edit, text

    async def ask(self, text: str, offset: int) -> Reply:
        self._end()
        asking = self._asking = _Asking(self._connection())
        return await asyncio.to_thread(self._send, asking, text, offset)

    async def close(self) -> None:
        self._end()

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._tls is not None:
            return http.client.HTTPSConnection(host, port, timeout=120, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=120)

    def _end(self) -> None:
        if self._asking is not None:
            self._asking.is_superseded = True
            socket = self._asking.connection.sock
            if socket is not None:
                with contextlib.suppress(OSError):
                    socket.shutdown(2)

    def _send(self, asking: _Asking, text: str, offset: int) -> Reply:
        before, after = text[:offset].split("\n"), text[offset:].split("\n")
        body = {
            "input_prefix": "".join(f"{line}\n" for line in before[-LINES_AROUND - 1 : -1]),
            "prompt": before[-1],
            "input_suffix": "\n".join(after[:LINES_AROUND]),
            "n_predict": NUM_TOKENS,
            "stop": ["\n"],
        }
        started_s = time.perf_counter()
        try:
            path = f"{self._parts.path.rstrip('/')}/infill"
            asking.connection.request("POST", path, json.dumps(body), self._headers)
            response = asking.connection.getresponse()
            data, replica = response.read(), response.getheader(REPLICA_HEADER, "")
        except (OSError, http.client.HTTPException):
            return Reply("superseded" if asking.is_superseded else "failed")
        finally:
            asking.connection.close()
        if response.status != 200:
            return Reply("refused" if response.status in (401, 403, 429, 503) else "failed", replica=replica)
        answer = json.loads(data)
        timings = answer["timings"]
        service_ms = timings["prompt_ms"] + timings["predicted_ms"]
        elapsed_ms = (time.perf_counter() - started_s) * 1e3
        return Reply("answered", answer["content"], replica, service_ms, max(0.0, elapsed_ms - service_ms))
