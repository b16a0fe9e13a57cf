"""LSP over websocket: many editor windows, each with a server object of its own.

Clients need the token. Web pages are refused: a page in the user's browser can connect to this machine, but the browser
then sends its Origin.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forelook.budgets import ByteBudget
from forelook.config import check_tls
from forelook.errors import ConfigError
from forelook.local.access import AccessPolicy, Refusal, accepted_hosts, server_tls
from forelook.local.listener import BACKLOG, GuardedListener
from forelook.local.outbox import Outbox
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from forelook_lsp.limits import IDLE_CONNECTION_S, MAX_CONNECTIONS, MAX_MESSAGE_BYTES
from forelook_lsp.server import ForelookServer
from forelook_lsp.window import FindBackend, document_budget

logger = logging.getLogger(__name__)

PING_INTERVAL_S = 30  # chosen, not measured


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen, and who may connect.

    Attributes:
        host, port: the address; port 0 chooses a free one.
        token: a client must send it as ``Authorization: Bearer``. There is one, for one user: the language server reads
            the files of its own user and shares that user's backend, so other tokens could not keep users apart.
        tls_certificate, tls_key: PEM files; non-loopback addresses require them.
    """

    host: str
    port: int
    token: str
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        names = ("--websocket", "--tls-certificate", "--tls-key")
        check_tls(self.host, self.tls_certificate, self.tls_key, names)

    @classmethod
    def parse_address(cls, address: str) -> tuple[str, int]:
        """Parse ``HOST:PORT``, ``[IPV6]:PORT`` or ``PORT``.

        Raises:
            ConfigError: any other form.
        """
        host, _, port = address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
        if not port.isdecimal() or int(port) > 65_535:
            raise ConfigError("--websocket", address, "HOST:PORT with a port from 0 to 65535")
        return host, int(port)

    @property
    def policy(self) -> AccessPolicy:
        """Who may connect; with TLS the certificate already proves the server's name."""
        return AccessPolicy((self.token,), None if self.tls_certificate is not None else accepted_hosts(self.host))


class _Writer:
    """The stream that pygls writes to; one task sends its messages in order."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._outbox = Outbox(connection.send)
        self._task = asyncio.get_running_loop().create_task(self._send())

    def write(self, data: bytes) -> None:
        self._outbox.post(data.decode())
        if self._outbox.overflowed.is_set():
            logger.warning("disconnected a client that stopped reading its messages")
            self._connection.transport.abort()

    def close(self) -> None:
        self._task.cancel()

    async def flush(self) -> None:
        """Wait until everything written has been sent, or the connection has closed."""
        await self._outbox.flush()

    async def _send(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            await self._outbox.run()


class _Windows:
    """The connected windows; at the limit the one that is idle for longest makes room for another."""

    def __init__(self) -> None:
        self._heard_s: dict[ServerConnection, float] = {}

    def heard(self, connection: ServerConnection) -> None:
        """A message has come, or the connection has been accepted."""
        self._heard_s[connection] = time.monotonic()

    def left(self, connection: ServerConnection) -> None:
        """A connection has closed."""
        self._heard_s.pop(connection, None)

    def make_room(self) -> bool:
        """Whether there is room for one more."""
        if len(self._heard_s) < MAX_CONNECTIONS:
            return True
        oldest = min(self._heard_s, key=self._heard_s.__getitem__)
        if time.monotonic() - self._heard_s[oldest] < IDLE_CONNECTION_S:
            return False
        logger.warning("closed an idle connection to make room for another")
        del self._heard_s[oldest]
        oldest.transport.abort()
        return True


async def serve_connection(
    find_backend: FindBackend, connection: ServerConnection, budget: ByteBudget, windows: _Windows
) -> None:
    """Serve one editor window until it sends ``exit`` or disconnects."""
    loop = asyncio.get_running_loop()
    server = ForelookServer(find_backend, budget=budget)
    writer = _Writer(connection)
    server.protocol.set_writer(writer, include_headers=False)
    server.protocol.exit_code = loop.create_future()

    async def receive() -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                windows.heard(connection)
                server.protocol.receive(message)
                # One iteration of the loop, so that a request's handler sees the documents as they were on its arrival.
                await asyncio.sleep(0)

    receiving = loop.create_task(receive())
    ends: set[asyncio.Future[Any]] = {receiving, server.protocol.exit_code}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not receiving.done():
            await writer.flush()
    finally:
        receiving.cancel()
        writer.close()
        await server.window.close()
        await connection.close()


@contextlib.asynccontextmanager
async def listening(find_backend: FindBackend, listen: Listen) -> AsyncIterator[Server]:
    """Accept connections inside the context; yields the server, whose sockets have the port."""
    tls = None
    if listen.tls_certificate is not None:
        tls = server_tls(
            listen.tls_certificate, listen.tls_key, certificate_field="--tls-certificate", key_field="--tls-key"
        )
    policy = listen.policy
    listener = GuardedListener.bind_to(listen.host, listen.port)
    budget, windows = document_budget(), _Windows()

    def check(connection: ServerConnection, request: Request) -> Response | None:
        verdict = policy.check(request.headers.get_all)
        if not isinstance(verdict, Refusal) and not windows.make_room():
            verdict = Refusal(503, "connection limit reached")
        if not isinstance(verdict, Refusal):
            listener.authenticated(connection.remote_address)
            windows.heard(connection)
            return None
        logger.warning("refused a connection with %d: %s", verdict.status, verdict.reason)
        return connection.respond(http.HTTPStatus(verdict.status), verdict.reason + "\n")

    async def handle(connection: ServerConnection) -> None:
        try:
            await serve_connection(find_backend, connection, budget, windows)
        finally:
            windows.left(connection)

    with contextlib.closing(listener):
        async with serve(
            handle,
            sock=listener,
            backlog=BACKLOG,
            process_request=check,
            ssl=tls,
            max_size=MAX_MESSAGE_BYTES,
            max_queue=1,  # of messages that wait, each of up to that size
            compression=None,
            ping_interval=PING_INTERVAL_S,
            server_header=None,
        ) as server:
            yield server


async def serve_websocket(
    find_backend: FindBackend, listen: Listen, announce: Callable[[str], None], stopped: asyncio.Event
) -> None:
    """Serve until ``stopped``.

    Args:
        find_backend: finds or starts the backend for some settings; blocks.
        listen: where to listen, and who may connect.
        announce: called with the address once connections are accepted.
        stopped: ends the server when set.
    """
    async with listening(find_backend, listen) as server:
        port = server.sockets[0].getsockname()[1]
        host = f"[{listen.host}]" if ":" in listen.host else listen.host
        announce(f"{'wss' if listen.tls_certificate is not None else 'ws'}://{host}:{port}")
        await stopped.wait()
