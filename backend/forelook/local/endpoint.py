"""Where a backend listens, how it says so, and how clients find it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from forelook.config import LOOPBACK_HOSTS
from forelook.errors import EndpointError
from forelook.local.access import OWNER_PREFIX, read_tokens
from forelook.local.files import file_lock, is_locked, make_private_dir, write_atomically
from forelook.local.identity import BackendFiles, BackendIdentity, UserPaths, socket_dir
from forelook.protocol.messages import WEBSOCKET_PATH

_RECORD_NAMES = "[0-9a-f]" * 16 + ".json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a backend listens: a Unix socket, or TCP with a token.

    Attributes:
        socket_path: the Unix socket, ``None`` for TCP.
        host, port: the TCP address.
        tls: whether TCP is wrapped in TLS.
        token_path: the file that holds the token, ``None`` where the mode of the socket file restricts access.
        pid: the backend's process, where known.
        server_version: the backend's version of Forelook, where known.
        lock_path: the lock that the backend holds as long as it lives, where known.
    """

    socket_path: str | None = None
    host: str | None = None
    port: int | None = None
    tls: bool = False
    token_path: str | None = None
    pid: int | None = None
    server_version: str | None = None
    lock_path: str | None = None

    def __post_init__(self) -> None:
        if (self.socket_path is None) == (self.host is None or self.port is None):
            raise EndpointError("an endpoint needs either socket_path or host and port")

    @classmethod
    def from_url(cls, url: str, token_path: str | None = None) -> Endpoint:
        """An endpoint given by the user: ``unix:/path``, ``ws://127.0.0.1:8123`` or ``wss://host:8123``.

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
        if parts.path not in ("", "/", WEBSOCKET_PATH):
            raise EndpointError(f"endpoint path = {parts.path} is not a valid path; omit it or use {WEBSOCKET_PATH}")
        if parts.username or parts.password or parts.query:
            raise EndpointError("endpoint must not contain credentials; put the token in a file of mode 0600")
        if parts.scheme == "ws" and host not in LOOPBACK_HOSTS:
            raise EndpointError(f"endpoint host = {host} is not on this machine; use wss://, which is encrypted")
        return cls(host=host, port=port, tls=parts.scheme == "wss", token_path=token_path)

    @property
    def url(self) -> str:
        """The websocket URL; for a Unix socket its host is only the Host header."""
        if self.socket_path is not None:
            return f"ws://localhost{WEBSOCKET_PATH}"
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host
        return f"{'wss' if self.tls else 'ws'}://{host}:{self.port}{WEBSOCKET_PATH}"

    @property
    def description(self) -> str:
        """The address without secrets, for messages."""
        return f"unix:{self.socket_path}" if self.socket_path is not None else self.url.removesuffix(WEBSOCKET_PATH)

    def headers(self) -> dict[str, str]:
        """Headers of the opening request: the token, if there is one.

        Raises:
            AuthenticationError: the token file is missing or readable by other users.
        """
        if self.token_path is None:
            return {}
        tokens = read_tokens(Path(self.token_path))
        owners = [token for token in tokens if token.startswith(OWNER_PREFIX)]
        return {"Authorization": f"Bearer {(owners or tokens)[0]}"}


def discover(identity: BackendIdentity, paths: UserPaths) -> Endpoint | None:
    """The running backend of ``identity``, or ``None``; the record of a dead backend is ignored.

    Raises:
        EndpointError: the runtime folder cannot be used, or the record cannot be read.
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
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        endpoint = Endpoint(**content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise EndpointError(
            f"{record} cannot be read ({type(error).__name__}); remove it and restart the backend"
        ) from error
    if not is_locked(record.with_suffix(".lock")):
        return None
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
        EndpointError: another backend still runs after ``timeout_s``.
    """
    with file_lock(files.lock, timeout_s, "a backend for this model and device is already running"):
        _clear(files)
        try:
            yield
        finally:
            _clear(files)


def _clear(files: BackendFiles) -> None:
    for path in (files.record, files.socket, files.token):
        path.unlink(missing_ok=True)


def publish(files: BackendFiles, endpoint: Endpoint) -> None:
    """Let clients discover ``endpoint``, which already accepts connections.

    Raises:
        EndpointError: the record cannot be written.
    """
    try:
        write_atomically(files.record, json.dumps(asdict(endpoint)))
    except OSError as error:
        raise EndpointError(f"{files.record} cannot be written: {error.strerror or error}") from error
