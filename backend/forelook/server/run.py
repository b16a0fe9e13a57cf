"""Runs the application: claims and binds the endpoint, serves until idle, a shutdown request or a signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from forelook import __version__
from forelook.config import ServerConfig
from forelook.errors import EndpointError
from forelook.local.access import AccessPolicy, accepted_hosts, new_token, read_tokens, server_tls
from forelook.local.endpoint import Endpoint, claim, discover, publish
from forelook.local.files import make_private_dir, remove_leftover
from forelook.local.identity import BackendFiles, BackendIdentity, UserPaths, has_unix_sockets
from forelook.local.listener import BACKLOG, GuardedListener
from forelook.local.user_keys import KeyRing
from forelook.protocol.messages import EngineState, Status
from forelook.server.app import HttpListener, create_app
from forelook.server.backend import ExitHooks
from forelook.server.engine import EngineFactory

logger = logging.getLogger("forelook.server")
HARD_LIMIT_FACTOR = 4  # larger messages are read up to this, so that the error can name the limit; chosen, not measured
SHUTDOWN_TIMEOUT_S = 5  # chosen, not measured
FAILED_DELAY_S = 0.5  # chosen, not measured: clients receive the status before the process ends
CLAIM_TIMEOUT_S = 10.0  # chosen, not measured


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Whether a record is news: uvicorn logs each refused websocket as an error, and refusals are already logged."""
    return record.msg != "ASGI callable returned without completing handshake."


class Server(uvicorn.Server):
    """An ASGI server with the settings that the protocol needs; calls ``on_listening`` once it listens.

    Args:
        app: the application.
        config: limits, and the TLS files.
        on_listening: called once.
        http: the socket of the HTTP interfaces, which have TLS of their own.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: ServerConfig,
        on_listening: Callable[[], None],
        http: socket.socket | None = None,
    ) -> None:
        # A Unix socket needs no TLS: then the files are those of the HTTP interfaces.
        certificate, key = (None, None) if config.port is None else (config.tls_certificate, config.tls_key)
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",  # another loop would not call the listener's accept
                http="h11",
                backlog=BACKLOG,
                ws="websockets-sansio",
                ws_max_size=config.max_message_bytes * HARD_LIMIT_FACTOR,
                ws_per_message_deflate=False,  # connections are local, and a small frame must not inflate to gigabytes
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
                ssl_certfile=certificate,
                ssl_keyfile=str(key) if key else None,
            )
        )
        self._on_listening = on_listening
        self._http = http
        self._http_tls: ssl.SSLContext | None = None
        if http is not None and config.http_has_tls and config.tls_certificate is not None:
            self._http_tls = server_tls(config.tls_certificate, config.tls_key)
        logging.getLogger("uvicorn.error").addFilter(_is_worth_logging)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening."""
        await super().startup(sockets)
        if self._http is not None and self.started:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(self._protocol, sock=self._http, ssl=self._http_tls, backlog=BACKLOG)
            self.servers.append(server)
        if self.started:
            self._on_listening()

    def _protocol(self) -> asyncio.Protocol:
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def serve(
    factory: EngineFactory,
    identity: BackendIdentity,
    paths: UserPaths,
    config: ServerConfig,
    on_listening: Callable[[Endpoint], None],
    settings: Mapping[str, object] = MappingProxyType({}),
) -> bool:
    """Serve ``identity`` until the backend is idle, asked to shut down or signaled. Call it from the main thread.

    Args:
        factory: makes the engine, in a thread, once the server listens.
        identity: what is served; ``identity.normalized()``.
        paths: the user's folders.
        config: address and limits.
        on_listening: called once clients can discover the endpoint and connect.
        settings: how the engine was started, as clients see it.

    Returns:
        False if it ended because the model cannot be loaded; clients and log have been told why.

    Raises:
        EndpointError: another backend serves the identity, or the address cannot be bound.
        ConfigError: the TLS files cannot be used.
    """
    is_loadable = True
    files = BackendFiles.of(identity, paths)
    running = discover(identity, paths)
    if running is not None:
        raise EndpointError(
            f"a backend for this model and device is already running: process {running.pid} at {running.description}; "
            "use it, or stop it with `forelook stop`"
        )
    with contextlib.ExitStack() as stack:
        stack.enter_context(claim(files, CLAIM_TIMEOUT_S))
        listener = stack.enter_context(contextlib.closing(_bind(config, files)))
        keys = None if config.keys_file is None else KeyRing(config.keys_file)
        endpoint, policy = _open_to(config, files, listener, keys)
        http: HttpListener | None = None
        http_socket: GuardedListener | None = None
        if config.http is not None:
            http_socket = stack.enter_context(contextlib.closing(_bind_tcp(config, *config.http_address, "--http")))
            endpoint, http = _open_http(config, paths, http_socket, endpoint, keys)

        def listening() -> None:
            publish(files, endpoint)
            logger.info("forelook %s listening at %s", __version__, endpoint.description)
            if endpoint.http_url is not None:
                keys = f"keys in {endpoint.http_key_path}" if endpoint.http_key_path else "without a key"
                logger.info("HTTP interfaces at %s, %s", endpoint.http_url, keys)
            on_listening(endpoint)

        def stop(reason: str) -> None:
            logger.info("exiting: %s", reason)
            server.should_exit = True

        def failed(status: Status) -> None:
            nonlocal is_loadable
            is_loadable = status.state is not EngineState.ERROR
            remove_leftover(files.record)  # the next start waits for this process to end, and takes its place
            reason = "another backend takes its place" if is_loadable else "the model cannot be loaded"
            asyncio.get_running_loop().call_later(FAILED_DELAY_S, stop, reason)

        hooks = ExitHooks(
            idle=lambda: stop("idle"),
            shutdown=lambda: stop("shutdown requested"),
            failed=failed,
        )
        # On a Unix socket, the mode of its file has already kept out everybody else.
        on_authenticated = listener.authenticated if isinstance(listener, GuardedListener) else lambda _client: None
        app = create_app(factory, config, policy, hooks, on_authenticated, settings, http)
        server = Server(app, config, listening, http_socket)
        # uvicorn stops, and raises the signal again when it is done: cleanup comes after that.
        with on_signals(lambda: None):
            server.run(sockets=[listener])
    return is_loadable


@contextlib.contextmanager
def on_signals(act: Callable[[], None]) -> Iterator[None]:
    """Call ``act`` on SIGTERM and SIGINT, which do nothing else meanwhile."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda _signum, _frame: act()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _bind(config: ServerConfig, files: BackendFiles) -> socket.socket:
    if config.port is None and has_unix_sockets():
        return bind_unix(files.socket)
    return _bind_tcp(config, config.host, config.port or 0, "--port")


def _bind_tcp(config: ServerConfig, host: str, port: int, flag: str) -> GuardedListener:
    if config.tls_certificate is not None:
        server_tls(config.tls_certificate, config.tls_key)  # check: the errors of uvicorn do not name the file
    try:
        return GuardedListener.bind_to(host, port)
    except OSError as error:
        raise EndpointError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another {flag}"
        ) from error


def bind_unix(path: Path) -> socket.socket:
    """Bind a Unix socket at ``path`` with mode 0600."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)  # a chmod would leave the file open to others until then
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise EndpointError(f"cannot listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(old_mask)
    return listener


def _open_to(
    config: ServerConfig, files: BackendFiles, listener: socket.socket, keys: KeyRing | None
) -> tuple[Endpoint, AccessPolicy]:
    """The address that clients connect to, and the credentials they need."""
    origins = frozenset(config.allowed_origins)
    endpoint = partial(Endpoint, pid=os.getpid(), server_version=__version__, lock_path=str(files.lock))
    if listener.family != socket.AF_INET and listener.family != socket.AF_INET6:
        return endpoint(socket_path=str(files.socket)), AccessPolicy(origins=origins)
    port: int = listener.getsockname()[1]
    if config.token_file is not None:
        token_path, tokens = config.token_file.resolve(), read_tokens(config.token_file)
    else:
        token_path, tokens = files.token, (new_token(files.token),)
    address = endpoint(host=config.host, port=port, tls=config.tls_key is not None, token_path=str(token_path))
    hosts = accepted_hosts(config.host, config.allowed_hosts)
    return address, AccessPolicy(tokens, hosts, origins, keys)


def _open_http(
    config: ServerConfig, paths: UserPaths, listener: GuardedListener, endpoint: Endpoint, ring: KeyRing | None
) -> tuple[Endpoint, HttpListener]:
    """The endpoint with the address of the HTTP interfaces, and who may use it."""
    host, port = config.http_address[0], int(listener.getsockname()[1])
    key_path: Path | None = None
    keys: tuple[str, ...] = ()
    if not config.http_without_key:
        key_path = (config.http_key_file or paths.http_key_path).resolve()
        if config.http_key_file is None and not key_path.exists():
            make_private_dir(key_path.parent)
            keys = (new_token(key_path),)
        else:
            keys = read_tokens(key_path)
    hosts = accepted_hosts(host, config.allowed_hosts)
    team = None if config.http_without_key else ring  # who needs no key is the owner, whatever is sent
    policy = AccessPolicy(keys, hosts, frozenset(config.allowed_origins), team)
    shown = f"[{host}]" if ":" in host else host
    url = f"{'https' if config.http_has_tls else 'http'}://{shown}:{port}"
    endpoint = replace(endpoint, http_url=url, http_key_path=None if key_path is None else str(key_path))
    return endpoint, HttpListener(port, policy, listener.authenticated)
