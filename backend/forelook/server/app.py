"""The ASGI application: one websocket for the protocol, pages for operators, and the HTTP interfaces."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from forelook import __version__
from forelook.config import ServerConfig
from forelook.failures import log_failure
from forelook.local.access import REVOKED_KEY, AccessPolicy, Refusal
from forelook.local.outbox import Outbox
from forelook.local.user_keys import METRICS_READER
from forelook.protocol.messages import SESSION_ID_HEADER, WEBSOCKET_PATH, EngineState
from forelook.server.auth import PRINCIPAL, AccessControl, OnAuthenticated, refuse
from forelook.server.backend import Backend, ExitHooks
from forelook.server.connection import Connection
from forelook.server.engine import EngineFactory
from forelook.server.http.interface import HttpInterface
from forelook.server.http.interface import refuse as refuse_http
from forelook.server.prometheus import CONTENT_TYPE

logger = logging.getLogger("forelook.server")
POLICY_VIOLATION = 1008
TRY_AGAIN_LATER = 1013
REVOKED = 4401  # of the range that applications choose from, after HTTP's 401
SERVICE_RESTART = 1012
MAX_SESSION_ID_CHARS = 256  # chosen, not measured
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
    keys = policy.keys or (None if http is None else http.policy.keys)
    backend = Backend(factory, config, hooks, settings, keys)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001
        backend.start()
        try:
            yield
        finally:
            await backend.stop()

    editors = editor_app(backend, policy, on_authenticated, lifespan)
    if http is None:
        return editors
    clients = client_app(backend, http.policy, http.on_authenticated)

    async def by_listener(scope: Scope, receive: Receive, send: Send) -> None:
        server = scope.get("server")
        is_http = scope["type"] != "lifespan" and server is not None and server[1] == http.port
        await (clients if is_http else editors)(scope, receive, send)

    return by_listener


def client_app(
    backend: Backend, policy: AccessPolicy, on_authenticated: OnAuthenticated = lambda _client: None
) -> ASGIApp:
    """The HTTP interfaces of a backend, for whom ``policy`` lets in."""
    interface = HttpInterface(backend, backend.config)
    return AccessControl(interface, policy, on_authenticated, backend.refused, refuse_http)


def editor_app(
    backend: Backend,
    policy: AccessPolicy,
    on_authenticated: OnAuthenticated = lambda _client: None,
    lifespan: Lifespan[Starlette] | None = None,
) -> ASGIApp:
    """The editor protocol and the operators' pages of a backend.

    Args:
        backend: what answers.
        policy: who may connect.
        on_authenticated: called with the address of every client that was let in.
        lifespan: starts and stops the backend; ``None`` where the caller does.
    """

    async def health(request: Request) -> JSONResponse:  # noqa: ARG001
        status = backend.status
        return JSONResponse(
            {"state": status.state.value, "message": status.message, "server_version": __version__},
            status_code=503 if status.state is EngineState.ERROR else 200,
        )

    async def stats(request: Request) -> JSONResponse:
        principal = _figures_of(request)
        server = backend.metrics_of(principal).to_json()
        return JSONResponse({"server": server, "engine": await backend.engine_stats(principal)})

    async def metrics(request: Request) -> Response:
        return Response(await backend.exposition(_figures_of(request)), media_type=CONTENT_TYPE)

    return Starlette(
        routes=[
            WebSocketRoute(WEBSOCKET_PATH, _RpcEndpoint(backend)),
            Route("/health", health),
            Route("/metrics", metrics),
            Route("/stats", stats),
        ],
        middleware=[
            Middleware(AccessControl, policy=policy, on_authenticated=on_authenticated, on_refused=backend.refused)
        ],
        lifespan=lifespan,
    )


def _figures_of(request: Request) -> str:
    """Whose figures a request is shown: its user's; those of all to the owner and to readers of metrics."""
    principal: str = request.scope.get(PRINCIPAL, "")
    return "" if principal == METRICS_READER else principal


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
        session_id = Headers(scope=scope).get(SESSION_ID_HEADER, "")[:MAX_SESSION_ID_CHARS]
        connection = Connection(self._backend, outbox, principal, session_id)
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
        """Run until the client disconnects, stops reading its messages or loses its key."""
        reader = asyncio.create_task(_read(connection, receive))
        writer = asyncio.create_task(outbox.run())
        overflow = asyncio.create_task(outbox.overflowed.wait())
        eviction = asyncio.create_task(connection.evicted.wait())
        revocation = asyncio.create_task(self._backend.revoked(connection.principal).wait())
        stay = asyncio.create_task(connection.overstayed.wait())
        tasks = (reader, writer, overflow, eviction, revocation, stay)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if overflow.done() and not reader.done():
                logger.warning("disconnected a client that stopped reading its messages")
                await _close(send, POLICY_VIOLATION, "messages are not read")
            elif revocation.done() and not reader.done():
                logger.info("closed a connection: its key was revoked")
                await _close(send, REVOKED, REVOKED_KEY)
            elif eviction.done() and not reader.done():
                await _close(send, TRY_AGAIN_LATER, "connection limit reached; this one was idle for longest")
            elif stay.done() and not reader.done():
                await _close(send, SERVICE_RESTART, "another replica serves this session; connect again")
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
