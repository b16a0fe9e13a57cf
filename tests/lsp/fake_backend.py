"""A backend that speaks docs/protocol.md over its real Unix socket and says what a test tells it to say."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from forelook.errors import ForelookError, ProtocolVersionError, RequestCancelledError
from forelook.finish_reason import FinishReason
from forelook.keys import DEPENDENCIES
from forelook.local.endpoint import Endpoint, claim, publish
from forelook.local.identity import BackendFiles, BackendIdentity, UserPaths
from forelook.protocol import jsonrpc, messages
from websockets.asyncio.server import Server, ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed

TIMEOUT_S = 30.0
READY = messages.Status(messages.EngineState.READY, None, "", "scripted", "cpu", "float32")
LIMITS = messages.ServerLimits(2**24, 2**23, 1000, 64)

Script = Callable[[str, messages.CompletionParams], "str | list[str]"]


@dataclass
class Connection:
    """One client of the fake backend, its documents mirrored by the protocol's own words."""

    websocket: ServerConnection
    texts: dict[str, str] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    workspaces: dict[str, str] = field(default_factory=dict)


class FakeBackend:
    """Answers completions with ``script``'s text after the cursor; ``hold`` makes them wait."""

    def __init__(self, paths: UserPaths) -> None:
        self.paths = paths
        self.status = READY
        self.protocol_version = messages.PROTOCOL_VERSION
        self.script: Script = lambda text, params: "pass"
        self.next_line = ""
        self.is_cut = False
        self.finish_reason = FinishReason.STOP_TOKEN
        self.num_replaced = 0
        self.hold: asyncio.Event | None = None
        self.connections: list[Connection] = []
        self.completions: list[messages.CompletionParams] = []
        self.cancelled: list[int | str] = []
        self.events: list[messages.CompletionEventParams] = []
        self.cursors: list[tuple[str, int]] = []
        self.files: dict[str, str] = {}
        self.libraries: dict[str, str] = {}
        self.forgotten: list[str] = []
        self.kept: dict[str, list[str]] = {}
        self.kept_parts: list[str] = []
        self.methods: list[str] = []
        self.unanswered: frozenset[str] = frozenset()  # methods that it is too busy for
        self.settings: dict[str, object] = {}
        self._changed = asyncio.Condition()
        self._server: Server | None = None
        self._claim = contextlib.ExitStack()
        self._running: dict[tuple[int, int | str], asyncio.Task[None]] = {}

    async def start(self, identity: BackendIdentity | None = None) -> None:
        files = BackendFiles.of((identity or BackendIdentity()).normalized(), self.paths)
        self._claim.enter_context(claim(files, 5.0))
        self._server = await unix_serve(self._serve, str(files.socket), compression=None, max_size=2**26)
        publish(files, Endpoint(socket_path=str(files.socket), pid=os.getpid()))

    async def stop(self) -> None:
        """Go away as a killed backend does: no goodbye, no socket left."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        self._claim.close()
        for task in list(self._running.values()):
            task.cancel()
        self.connections.clear()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(condition), TIMEOUT_S)

    async def set_status(self, status: messages.Status) -> None:
        self.status = status
        for connection in tuple(self.connections):
            with contextlib.suppress(ConnectionClosed):  # one that a window is leaving
                await connection.websocket.send(jsonrpc.encode_notification(messages.STATUS_CHANGED, status))

    async def say(self, text: str) -> None:
        """Stream ``text`` as the running completions' text so far."""
        for key in list(self._running):
            params = messages.CompletionPartialParams(key[1], text)
            for connection in self.connections:
                if id(connection) == key[0]:
                    await connection.websocket.send(jsonrpc.encode_notification(messages.COMPLETION_PARTIAL, params))

    def release(self) -> None:
        assert self.hold is not None
        self.hold.set()

    async def _serve(self, websocket: ServerConnection) -> None:
        connection = Connection(websocket)
        with contextlib.suppress(ConnectionClosed):
            async for frame in websocket:
                assert isinstance(frame, str), "frames are text"
                message = jsonrpc.decode_message(frame)
                async with self._changed:
                    if isinstance(message, jsonrpc.Request):
                        await self._request(connection, message)
                    elif isinstance(message, jsonrpc.Notification):
                        self._notification(connection, message)
                    self._changed.notify_all()
        async with self._changed:
            if connection in self.connections:
                self.connections.remove(connection)
            self._changed.notify_all()

    async def _request(self, connection: Connection, message: jsonrpc.Request) -> None:
        self.methods.append(message.method)
        method = messages.request_method(message.method)
        params = messages.from_json(method.params, message.params)
        if message.method == "completion":
            self.completions.append(params)
            text = connection.texts[params.uri]  # now: the next message may change it before the task starts
            assert connection.versions[params.uri] == params.version
            key = (id(connection), message.id)
            self._running[key] = asyncio.create_task(self._complete(connection, message.id, params, text))
            return
        if message.method in self.unanswered:
            return
        result: Any = messages.Empty()
        if message.method == "hello" and params.protocol_version != self.protocol_version:
            refusal = ProtocolVersionError(
                f"protocol_version = {params.protocol_version} is not spoken here: this backend speaks version "
                f"{self.protocol_version}; update or restart the backend"
            )
            await connection.websocket.send(jsonrpc.encode_message(jsonrpc.ErrorResponse.of(message.id, refusal)))
            return
        if message.method == "hello":
            self.connections.append(connection)
            hello = messages.HelloResult(messages.PROTOCOL_VERSION, "test", os.getpid(), self.status, LIMITS)
            result = replace(hello, settings=self.settings)
        elif message.method == "status":
            result = self.status
        elif message.method == "stats":
            result = messages.StatsResult(
                {"num_connections": len(self.connections)}, {"num_requests": len(self.completions)}
            )
        elif message.method == "pool/stats":
            result = messages.PoolStatsResult({"num_tokens": 1234})
        await connection.websocket.send(jsonrpc.encode_message(jsonrpc.Response(message.id, messages.to_json(result))))
        if message.method == "shutdown":
            asyncio.get_running_loop().call_soon(asyncio.ensure_future, connection.websocket.close())

    def _notification(self, connection: Connection, message: jsonrpc.Notification) -> None:
        self.methods.append(message.method)
        params = messages.from_json(messages.notification_method(message.method).params, message.params)
        if message.method == "document/open":
            connection.texts[params.uri] = params.text
            connection.versions[params.uri] = params.version
            connection.workspaces[params.uri] = params.workspace
        elif message.method == "document/change":
            text = connection.texts[params.uri]
            for change in params.changes:
                assert change.start <= change.end <= len(text)
                text = text[: change.start] + change.text + text[change.end :]
            connection.texts[params.uri] = text
            connection.versions[params.uri] = params.version
        elif message.method == "document/cursor":
            assert connection.versions[params.uri] == params.version
            self.cursors.append((params.uri, params.offset))
        elif message.method == "document/close":
            del connection.texts[params.uri]
        elif message.method == "workspace/files":
            held = self.libraries if params.workspace == DEPENDENCIES else self.files
            held.update({file.path: file.text for file in params.files})
        elif message.method == "workspace/forget":
            self.forgotten.extend(params.paths)
        elif message.method == "workspace/keep":
            self.kept_parts = [*(self.kept_parts if params.part else ()), *params.paths]
            if params.workspace == DEPENDENCIES:
                self.libraries = {path: self.libraries[path] for path in params.paths}
            elif params.is_last:
                self.kept[params.workspace] = self.kept_parts
                self.forgotten.extend(sorted(self.files.keys() - set(self.kept_parts)))
        elif message.method == "completion/event":
            self.events.append(params)
        elif message.method == "$/cancel":
            self.cancelled.append(params.id)
            task = self._running.get((id(connection), params.id))
            if task is not None:
                task.cancel()

    async def _complete(
        self, connection: Connection, request_id: int | str, params: messages.CompletionParams, text: str
    ) -> None:
        reply: jsonrpc.Message
        try:
            if self.hold is not None:
                await self.hold.wait()
            said = self.script(text, params)
            start = max(text.rfind("\n", 0, params.offset), text.rfind("\r", 0, params.offset)) + 1
            suggestions = tuple(
                messages.Suggestion(text[start : params.offset] + one, start, params.offset + self.num_replaced)
                for one in ([said] if isinstance(said, str) else said)[: params.num_suggestions]
            )
            stats = messages.RequestStats(num_steps=2, num_generated_tokens=5, tokens_per_step=2.5)
            result = messages.CompletionResult(suggestions, self.finish_reason, self.is_cut, self.next_line, stats)
            reply = jsonrpc.Response(request_id, messages.to_json(result))
        except asyncio.CancelledError:
            reply = jsonrpc.ErrorResponse.of(request_id, RequestCancelledError("cancelled"))
        except ForelookError as error:
            reply = jsonrpc.ErrorResponse.of(request_id, error)
        self._running.pop((id(connection), request_id), None)
        with contextlib.suppress(ConnectionClosed):
            await connection.websocket.send(jsonrpc.encode_message(reply))


@contextlib.asynccontextmanager
async def fake_backend(environment: Mapping[str, str], *, start: bool = True) -> AsyncIterator[FakeBackend]:
    paths = UserPaths.from_environment(environment, Path(environment["HOME"]), os.getuid())
    backend = FakeBackend(paths)
    if start:
        await backend.start()
    try:
        yield backend
    finally:
        await backend.stop()
