"""Where a backend listens, how it says so, and how clients find it."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from forelook.config import LOOPBACK_HOSTS
from forelook.errors import EndpointError, ForelookError
from forelook.local.access import OWNER_PREFIX, read_tokens
from forelook.local.files import (
    file_lock,
    is_locked,
    lock_holder,
    make_private_dir,
    names,
    read_regular_file,
    remove_leftover,
    write_atomically,
)
from forelook.local.identity import BackendFiles, BackendIdentity, UserPaths, socket_dir
from forelook.protocol.messages import SESSION_ID_HEADER, WEBSOCKET_PATH, from_json

logger = logging.getLogger(__name__)

_MAX_RECORD_BYTES = 65_536  # chosen, not measured
_RECORD_NAMES = "[0-9a-f]" * 16 + ".json"
_ROUTE = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
_SESSION_ID_CHARS = 32


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a backend listens: a Unix socket, or TCP with a token.

    Attributes:
        socket_path: the Unix socket, ``None`` for TCP.
        host, port: the TCP address.
        tls: whether TCP is wrapped in TLS.
        route: path below which a cluster serves one of several models; empty for none.
        token_path: the file that holds the token, ``None`` where the mode of the socket file restricts access.
        pid: the backend's process, where known.
        server_version: the backend's version of Forelook, where known.
        lock_path: the lock that the backend holds as long as it lives, where known.
        http_url: where it answers HTTP requests of other clients, if it does.
        http_key_path: the file with their keys, ``None`` where they need none.
    """

    socket_path: str | None = None
    host: str | None = None
    port: int | None = None
    tls: bool = False
    token_path: str | None = None
    pid: int | None = None
    server_version: str | None = None
    lock_path: str | None = None
    http_url: str | None = None
    http_key_path: str | None = None
    route: str = ""

    def __post_init__(self) -> None:
        if (self.socket_path is None) == (self.host is None or self.port is None):
            raise EndpointError("an endpoint needs either socket_path or host and port")

    @classmethod
    def from_url(cls, url: str, token_path: str | None = None) -> Endpoint:
        """An endpoint given by the user: ``unix:/path``, ``ws://127.0.0.1:8123``, ``wss://host:8123`` or ``…/route``.

        Raises:
            EndpointError: another form, or an unencrypted address of another machine.
        """
        if url.startswith("unix:"):
            path = url.removeprefix("unix:").removeprefix("//")
            if not path.startswith("/"):
                raise EndpointError(
                    f"invalid endpoint path {path!r} (expected an absolute one, as in unix:/run/me/backend.sock)"
                )
            return cls(socket_path=path)
        parts = urlsplit(url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if parts.scheme not in ("ws", "wss") or not host or port is None:
            raise EndpointError(
                f"endpoint = {parts.scheme}:… is not a supported scheme; "
                "use unix:/PATH, ws://127.0.0.1:PORT or wss://HOST:PORT"
            )
        route = parts.path.removesuffix(WEBSOCKET_PATH).removesuffix("/")
        if not _ROUTE.fullmatch(route):
            raise EndpointError(f"endpoint path = {parts.path} is not a valid path; omit it, or use a cluster's route")
        if parts.username or parts.password or parts.query:
            raise EndpointError("endpoint must not contain credentials; put the token in a file of mode 0600")
        if parts.scheme == "ws" and host not in LOOPBACK_HOSTS:
            raise EndpointError(f"endpoint host = {host} is not on this machine; use wss://, which is encrypted")
        return cls(host=host, port=port, tls=parts.scheme == "wss", token_path=token_path, route=route)

    @property
    def url(self) -> str:
        """The websocket URL; for a Unix socket its host is only the Host header."""
        if self.socket_path is not None:
            return f"ws://localhost{WEBSOCKET_PATH}"
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host
        return f"{'wss' if self.tls else 'ws'}://{host}:{self.port}{self.route}{WEBSOCKET_PATH}"

    @property
    def description(self) -> str:
        """The address without secrets, for messages."""
        return f"unix:{self.socket_path}" if self.socket_path is not None else self.url.removesuffix(WEBSOCKET_PATH)

    def headers(self, workspace: str = "") -> dict[str, str]:
        """Headers of the opening request: the token, if there is one, and with it the id of the session.

        Args:
            workspace: the URI of the client's workspace; empty for none.

        Raises:
            AuthenticationError: the token file is missing or readable by other users.
        """
        if self.token_path is None:
            return {}
        tokens = read_tokens(Path(self.token_path))
        owners = [token for token in tokens if token.startswith(OWNER_PREFIX)]
        token = (owners or tokens)[0]
        return {"Authorization": f"Bearer {token}", SESSION_ID_HEADER: session_id(token, workspace)}


def session_id(token: str, workspace: str) -> str:
    """What a cluster routes by: the same for all connections of a user and workspace; reveals neither."""
    return hmac.new(token.encode(), workspace.encode(), hashlib.sha256).hexdigest()[:_SESSION_ID_CHARS]


def discover(identity: BackendIdentity, paths: UserPaths) -> Endpoint | None:
    """The running backend of ``identity``, or ``None``; whatever a dead backend left is ignored.

    Raises:
        EndpointError: the runtime folder cannot be used, or a running backend's record is damaged.
    """
    files = BackendFiles.of(identity.normalized(), paths)
    return _read_record(files.record)


def running_backends(paths: UserPaths) -> list[Endpoint]:
    """All running backends of this user.

    Raises:
        EndpointError: as for :func:`discover`.
    """
    records = sorted(make_private_dir(socket_dir(paths)).glob(_RECORD_NAMES))
    return [endpoint for endpoint in map(_read_record, records) if endpoint is not None]


def _read_record(record: Path) -> Endpoint | None:
    lock = record.with_suffix(".lock")
    if not is_locked(lock):
        return None  # the lock decides: without its holder the record is a leftover, whatever it contains
    try:
        content = json.loads(read_regular_file(record, _MAX_RECORD_BYTES))
        endpoint = from_json(Endpoint, content, allow_unknown=True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, ForelookError) as error:
        if not is_locked(lock):
            return None  # it ended meanwhile
        raise EndpointError(
            f"the backend of {lock_holder(lock)} is running, but its record {record} cannot be read "
            f"({type(error).__name__}); end that process"
        ) from error
    if endpoint.socket_path is not None and not Path(endpoint.socket_path).exists():
        raise EndpointError(
            f"the backend with process id {endpoint.pid} is running, but its socket {endpoint.socket_path} is gone; "
            "end that process; the next start creates a new socket"
        )
    return endpoint


@contextlib.contextmanager
def claim(files: BackendFiles, timeout_s: float) -> Iterator[None]:
    """Be the backend of ``files`` while the context lasts; what a dead backend left behind is removed.

    Raises:
        EndpointError: another backend still runs after ``timeout_s``, or a leftover cannot be removed.
    """
    with file_lock(files.lock, timeout_s, "a backend for this model and device is already running") as lock:
        left = _clear(files)
        if left:
            logger.info("removed what a backend that was killed left behind: %s", ", ".join(left))
        try:
            yield
        finally:
            # At logout the folder may be removed; a later backend has made it again, and these names are that one's.
            if names(files.lock, lock):
                _clear(files)
            else:
                logger.info("left %s as it is: it belongs to another process now", files.lock.parent)


def _clear(files: BackendFiles) -> list[str]:
    try:
        return [path.name for path in (files.record, files.socket, files.token) if remove_leftover(path)]
    except OSError as error:
        raise EndpointError(f"{error.filename} cannot be removed: {error.strerror or error}") from error


def publish(files: BackendFiles, endpoint: Endpoint) -> None:
    """Let clients discover ``endpoint``, which already accepts connections.

    Raises:
        EndpointError: the record cannot be written.
    """
    try:
        write_atomically(files.record, json.dumps(asdict(endpoint)))
    except OSError as error:
        raise EndpointError(f"{files.record} cannot be written: {error.strerror or error}") from error
