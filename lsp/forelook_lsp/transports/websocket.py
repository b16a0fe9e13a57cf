"""LSP over websocket: any number of editor windows, each with a server object of its own.

Only a client that holds the token may connect, and no web page may: a page in the user's browser can open a socket to
this machine, and the browser then sends its Origin.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forelook.errors import ConfigError
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from forelook_lsp.server import ForelookServer
from forelook_lsp.window import FindBackend

logger = logging.getLogger(__name__)

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
MAX_MESSAGE_BYTES = 256 * 2**20
MAX_WAITING_BYTES = 64 * 2**20
MAX_CONNECTIONS = 64
PING_INTERVAL_S = 30


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen, and who may connect.

    Attributes:
        host, port: the address; port 0 chooses a free one.
        tokens: a client must send one of these as ``Authorization: Bearer``.
        tls_certificate, tls_key: PEM files, needed beyond this machine.
    """

    host: str
    port: int
    tokens: tuple[str, ...]
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError("--tls-key", self.tls_key, "given together with --tls-certificate")
        if self.host not in LOOPBACK_HOSTS and self.tls_certificate is None:
            raise ConfigError("--websocket", self.host, "a loopback address, unless --tls-certificate is given")

    @classmethod
    def parse_address(cls, address: str) -> tuple[str, int]:
        """``HOST:PORT``, ``[IPV6]:PORT`` or ``PORT``.

        Raises:
            ConfigError: another form.
        """
        host, _, port = address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
        if not port.isdecimal() or int(port) > 65_535:
            raise ConfigError("--websocket", address, "HOST:PORT with a port from 0 to 65535")
        return host, int(port)

    def refusal(self, request: Request) -> tuple[http.HTTPStatus, str] | None:
        """Why an opening request is refused; ``None`` where it is not."""
        if request.headers.get_all("Origin"):
            return http.HTTPStatus.FORBIDDEN, "web pages may not connect"
        if self.tls_certificate is None and not self._names_this_host(request):
            return http.HTTPStatus.MISDIRECTED_REQUEST, "Host is not an address of this server"
        given = request.headers.get_all("Authorization")
        scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
        sent = token.strip().encode("utf-8", "replace")
        matches = [hmac.compare_digest(sent, known.encode()) for known in self.tokens]  # all, whichever is close
        if scheme.lower() != "bearer" or not any(matches):
            return http.HTTPStatus.UNAUTHORIZED, "the token is missing or wrong: send Authorization: Bearer TOKEN"
        return None

    def _names_this_host(self, request: Request) -> bool:
        """A page can make its own name mean this machine; its requests then carry that name."""
        values = request.headers.get_all("Host")
        host = values[0].strip().lower() if len(values) == 1 else ""
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return name in LOOPBACK_HOSTS or name == self.host


class _Writer:
    """What pygls writes to; one task sends, so that messages leave in order."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._messages: asyncio.Queue[str] = asyncio.Queue()
        self._waiting_bytes = 0
        self._task = asyncio.get_running_loop().create_task(self._send())

    def write(self, data: bytes) -> None:
        self._waiting_bytes += len(data)
        if self._waiting_bytes > MAX_WAITING_BYTES:
            logger.warning("a client does not read: its connection is closed")
            self._connection.transport.abort()
            return
        self._messages.put_nowait(data.decode())

    def close(self) -> None:
        self._task.cancel()

    async def flush(self) -> None:
        """Wait until everything written has been sent."""
        await self._messages.join()

    async def _send(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                message = await self._messages.get()
                try:
                    await self._connection.send(message)
                finally:
                    self._waiting_bytes -= len(message)
                    self._messages.task_done()
        while not self._messages.empty():  # nobody is left to read them, and nobody may wait for them
            self._messages.get_nowait()
            self._messages.task_done()


async def serve_connection(find_backend: FindBackend, connection: ServerConnection) -> None:
    """Serve one editor window until it says ``exit`` or goes away."""
    loop = asyncio.get_running_loop()
    server = ForelookServer(find_backend)
    writer = _Writer(connection)
    server.protocol.set_writer(writer, include_headers=False)
    server.protocol.exit_code = loop.create_future()

    async def receive() -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                server.protocol.receive(message)
                # One turn of the loop, so that a request's handler sees the documents as they were when it arrived.
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
    """Accept connections while the context lasts; gives the server, whose sockets tell the port."""
    tls: ssl.SSLContext | None = None
    if listen.tls_certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            tls.load_cert_chain(listen.tls_certificate, listen.tls_key)
        except OSError as error:  # a file that is not there, or is no PEM: OpenSSL names neither
            allowed = f"a PEM certificate whose key is in --tls-key = {listen.tls_key} ({error.strerror or error})"
            raise ConfigError("--tls-certificate", str(listen.tls_certificate), allowed) from error
    num_connections = 0

    def check(connection: ServerConnection, request: Request) -> Response | None:
        refusal = listen.refusal(request)
        if refusal is None and num_connections >= MAX_CONNECTIONS:
            refusal = http.HTTPStatus.SERVICE_UNAVAILABLE, "all connections are taken"
        if refusal is None:
            return None
        logger.warning("a connection was refused: %s", refusal[1])
        return connection.respond(refusal[0], refusal[1] + "\n")

    async def handle(connection: ServerConnection) -> None:
        nonlocal num_connections
        num_connections += 1
        try:
            await serve_connection(find_backend, connection)
        finally:
            num_connections -= 1

    async with serve(
        handle,
        listen.host,
        listen.port,
        process_request=check,
        ssl=tls,
        max_size=MAX_MESSAGE_BYTES,
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
        find_backend: finds or starts the backend for some options; blocks.
        listen: where, and who may connect.
        announce: is told the address once connections are accepted.
        stopped: ends it.
    """
    async with listening(find_backend, listen) as server:
        port = server.sockets[0].getsockname()[1]
        host = f"[{listen.host}]" if ":" in listen.host else listen.host
        announce(f"{'wss' if listen.tls_certificate is not None else 'ws'}://{host}:{port}")
        await stopped.wait()
