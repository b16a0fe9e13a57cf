"""The ASGI application: one websocket for the protocol, two JSON pages for operators, and the HTTP interfaces."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forelook import __version__
from forelook.config import ServerConfig
from forelook.failures import log_failure
from forelook.local.access import AccessPolicy, Refusal
from forelook.local.outbox import Outbox
from forelook.protocol.messages import WEBSOCKET_PATH, EngineState
from forelook.server.auth import PRINCIPAL, AccessControl, OnAuthenticated, refuse
from forelook.server.backend import Backend, ExitHooks
from forelook.server.connection import Connection
from forelook.server.engine import EngineFactory
from forelook.server.http.interface import HttpInterface
from forelook.server.http.interface import refuse as refuse_http

logger = logging.getLogger("forelook.server")
POLICY_VIOLATION = 1008
TRY_AGAIN_LATER = 1013
CLOSE_TIMEOUT_S = 1.0  # chosen, not measured


@dataclass(frozen=True, slots=True)
class HttpListener:
    """The listener of the HTTP interfaces.

    Attributes:
        port: its port, which tells its requests from those of the editor protocol.
        policy: who may ask.
        on_authenticated: called with the address of every client that was let in.
    """

    port: int
    policy: AccessPolicy
    on_authenticated: OnAuthenticated = lambda _client: None


def create_app(
    factory: EngineFactory,
    config: ServerConfig,
    policy: AccessPolicy,
    hooks: ExitHooks,
    on_authenticated: OnAuthenticated = lambda _client: None,
    settings: Mapping[str, object] = MappingProxyType({}),
    http: HttpListener | None = None,
) -> ASGIApp:
    """Create the application, which any ASGI server can run.

    Args:
        factory: makes the engine; called once, in a thread, when the application starts.
        config: limits.
        policy: who may connect.
        hooks: end the process.
        on_authenticated: called with the address of every client that was let in.
        settings: how the engine was started, as clients see it.
        http: the listener of the HTTP interfaces; ``None`` for none.
    """
    backend = Backend(factory, config, hooks, settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001
        backend.start()
        try:
            yield
        finally:
            await backend.stop()

    async def health(request: Request) -> JSONResponse:  # noqa: ARG001
        status = backend.status
        return JSONResponse(
            {"state": status.state.value, "message": status.message, "server_version": __version__},
            status_code=503 if status.state is EngineState.ERROR else 200,
        )

    async def metrics(request: Request) -> JSONResponse:
        engine, principal = backend.made_engine, request.scope.get(PRINCIPAL, "")
        engine_stats = await asyncio.to_thread(engine.stats, principal) if engine is not None else {}
        return JSONResponse({"server": backend.metrics_of(principal).to_json(), "engine": engine_stats})

    editors = Starlette(
        routes=[
            WebSocketRoute(WEBSOCKET_PATH, _RpcEndpoint(backend)),
            Route("/health", health),
            Route("/metrics", metrics),
        ],
        middleware=[Middleware(AccessControl, policy=policy, on_authenticated=on_authenticated)],
        lifespan=lifespan,
    )
    if http is None:
        return editors
    clients = AccessControl(HttpInterface(backend, config), http.policy, http.on_authenticated, refuse_http)

    async def by_listener(scope: Scope, receive: Receive, send: Send) -> None:
        server = scope.get("server")
        is_http = scope["type"] != "lifespan" and server is not None and server[1] == http.port
        await (clients if is_http else editors)(scope, receive, send)

    return by_listener


class _RpcEndpoint:
    """Moves frames between a websocket and its Connection."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        principal: str = scope.get(PRINCIPAL, "")
        if not self._backend.admit(principal):
            logger.warning("refused a connection: the limit is reached, and no other is idle")
            await refuse(scope, send, Refusal(503, "connection limit reached; close another editor window"))
            return

        async def send_text(text: str) -> None:
            await send({"type": "websocket.send", "text": text})

        outbox = Outbox(send_text)
        connection = Connection(self._backend, outbox, principal)
        self._backend.join(connection)
        try:
            await send({"type": "websocket.accept"})
            await self._exchange(connection, outbox, receive, send)
        except OSError:
            pass  # the client disconnected during a send
        except Exception as error:  # noqa: BLE001 - edge: this connection ends, the others do not
            log_failure("a connection", error)
        finally:
            connection.close()

    async def _exchange(self, connection: Connection, outbox: Outbox, receive: Receive, send: Send) -> None:
        """Run until the client disconnects or stops reading its messages."""
        reader = asyncio.create_task(_read(connection, receive))
        writer = asyncio.create_task(outbox.run())
        overflow = asyncio.create_task(outbox.overflowed.wait())
        eviction = asyncio.create_task(connection.evicted.wait())
        tasks = (reader, writer, overflow, eviction)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if overflow.done() and not reader.done():
                logger.warning("disconnected a client that stopped reading its messages")
                await _close(send, POLICY_VIOLATION, "messages are not read")
            elif eviction.done() and not reader.done():
                await _close(send, TRY_AGAIN_LATER, "connection limit reached; this one was idle for longest")
        except asyncio.TimeoutError:
            pass  # still not reading: the transport closes with this task
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome


async def _close(send: Send, code: int, reason: str) -> None:
    await asyncio.wait_for(send({"type": "websocket.close", "code": code, "reason": reason}), CLOSE_TIMEOUT_S)


async def _read(connection: Connection, receive: Receive) -> None:
    while True:
        message: Message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        if text is None:
            connection.receive_binary()
        else:
            await connection.receive(text)
