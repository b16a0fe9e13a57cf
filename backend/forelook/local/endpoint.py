"""Where the backend listens, its token, its locks, and how it is found or started. Standard library only.

One backend serves one (user, model, revision, device, dtype, protocol version). In the user's runtime folder (0700):

    KEY.lock    held by the backend for as long as it lives; the kernel lets go of it however the backend ends
    KEY.spawn   held by a client while it starts a backend, so that two editors start one
    KEY.json    where the backend listens, written once it does
    KEY.sock    its Unix socket, 0600
    KEY.token   the token of a backend on TCP, 0600, new at every start
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from forelook.config import LOOPBACK_HOSTS
from forelook.errors import BackendUnreachableError, EndpointError
from forelook.local.access import read_tokens
from forelook.local.files import file_lock, is_locked, make_private_dir, write_atomically
from forelook.protocol.messages import PROTOCOL_VERSION, WEBSOCKET_PATH

MAX_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107  # sun_path less its closing NUL
MAX_LOG_BYTES = 5_000_000
_RECORD_NAMES = "[0-9a-f]" * 16 + ".json"


def has_unix_sockets() -> bool:
    """Whether this platform's asyncio can listen on Unix sockets."""
    return sys.platform != "win32"


# --- Folders -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UserPaths:
    """The user's folders, each 0700 once made.

    Attributes:
        runtime_dir: sockets, locks and tokens.
        state_dir: logs and statistics.
        cache_dir: persistent pools.
        short_dir: stands in for ``runtime_dir`` where that is too long for a Unix socket.
    """

    runtime_dir: Path
    state_dir: Path
    cache_dir: Path
    short_dir: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], home: Path, user_id: int | None) -> UserPaths:
        """The folders of the XDG base directory specification, or their platform's like.

        Args:
            environ: the process environment; only ``cli.py`` and ``__main__.py`` hold it.
            home: the user's home folder.
            user_id: the numeric user id, ``None`` on Windows.
        """
        if sys.platform == "win32":
            local = Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "forelook"
            return cls(local / "run", local / "state", local / "cache", local / "run")
        state = _xdg(environ, "XDG_STATE_HOME", home / ".local" / "state") / "forelook"
        cache = _xdg(environ, "XDG_CACHE_HOME", home / ".cache") / "forelook"
        runtime = environ.get("XDG_RUNTIME_DIR", "")
        runtime_dir = Path(runtime) / "forelook" if runtime.startswith("/") else state / "run"
        return cls(runtime_dir, state, cache, Path("/tmp") / f"forelook-{user_id}")  # noqa: S108 - owner is checked

    @property
    def log_path(self) -> Path:
        """The backend's log."""
        return self.state_dir / "backend.log"

    @property
    def statistics_path(self) -> Path:
        """What users did with suggestions, as counts."""
        return self.state_dir / "statistics.json"

    @property
    def models_path(self) -> Path:
        """Which models were pulled, at which commits."""
        return self.state_dir / "models.json"

    @property
    def pools_dir(self) -> Path:
        """The persistent n-gram pools."""
        return self.cache_dir / "pools"


def _xdg(environ: Mapping[str, str], name: str, default: Path) -> Path:
    value = environ.get(name, "")
    return Path(value) if value.startswith("/") else default  # the specification: a relative path is ignored


# --- Identity ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BackendIdentity:
    """What one backend serves; editors that ask for the same share it.

    Attributes:
        model: a folder or a hub id, ``None`` for the starter model.
        revision, device, dtype: as asked for, not as resolved.
    """

    model: str | None = None
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"

    def normalized(self) -> BackendIdentity:
        """The same with a folder's path made absolute, so that it means the same from any working folder."""
        if self.model is not None and Path(self.model).is_dir():
            return BackendIdentity(str(Path(self.model).resolve()), self.revision, self.device, self.dtype)
        return self

    @property
    def key(self) -> str:
        """A file name for this identity."""
        parts = [self.model or "", self.revision or "", self.device, self.dtype, str(PROTOCOL_VERSION)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def command_arguments(self) -> list[str]:
        """The options of ``forelook serve`` that ask for this identity."""
        arguments = ["--device", self.device, "--dtype", self.dtype]
        if self.model is not None:
            arguments += ["--model", self.model]
        if self.revision is not None:
            arguments += ["--revision", self.revision]
        return arguments


def _socket_dir(paths: UserPaths) -> Path:
    longest = paths.runtime_dir / f"{BackendIdentity().key}.sock"  # all keys are of one length
    return paths.short_dir if len(os.fsencode(longest)) > MAX_SOCKET_PATH_BYTES else paths.runtime_dir


@dataclass(frozen=True, slots=True)
class BackendFiles:
    """The files of one backend in the runtime folder."""

    lock: Path
    spawn_lock: Path
    record: Path
    socket: Path
    token: Path

    @classmethod
    def of(cls, identity: BackendIdentity, paths: UserPaths) -> BackendFiles:
        """Name the files, in the short folder where the socket's path would be too long."""
        key = identity.key
        base = make_private_dir(_socket_dir(paths))
        return cls(
            lock=base / f"{key}.lock",
            spawn_lock=base / f"{key}.spawn",
            record=base / f"{key}.json",
            socket=base / f"{key}.sock",
            token=base / f"{key}.token",
        )


# --- Endpoints ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a backend listens: a Unix socket, or TCP with a token.

    Attributes:
        socket_path: the Unix socket, ``None`` for TCP.
        host, port: the TCP address.
        tls: whether TCP is wrapped in TLS.
        token_path: the file that holds the token, ``None`` where the socket's file mode is the guard.
        pid: the backend's process, where known.
        server_version: the backend's version of Forelook, where known.
        lock_path: what the backend holds for as long as it lives, where known.
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
        """An endpoint the user names: ``unix:/path``, ``ws://127.0.0.1:8123`` or ``wss://host:8123``.

        Raises:
            EndpointError: another form, or an unencrypted address that leaves this machine.
        """
        if url.startswith("unix:"):
            path = url.removeprefix("unix:").removeprefix("//")
            if not path.startswith("/"):
                raise EndpointError("endpoint = unix:… needs an absolute path, as in unix:/run/user/1000/backend.sock")
            return cls(socket_path=path)
        parts = urlsplit(url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if parts.scheme not in ("ws", "wss") or not host or port is None:
            raise EndpointError(
                f"endpoint = {parts.scheme}:… is not understood: use unix:/PATH, ws://127.0.0.1:PORT or wss://HOST:PORT"
            )
        if parts.path not in ("", "/", WEBSOCKET_PATH):
            raise EndpointError(f"endpoint path = {parts.path} is not served: leave it out, or say {WEBSOCKET_PATH}")
        if parts.username or parts.password or parts.query:
            raise EndpointError("endpoint must not carry credentials: put the token in a 0600 file")
        if parts.scheme == "ws" and host not in LOOPBACK_HOSTS:
            raise EndpointError(f"endpoint host = {host} leaves this machine unencrypted: use wss://")
        return cls(host=host, port=port, tls=parts.scheme == "wss", token_path=token_path)

    @property
    def url(self) -> str:
        """The websocket url; for a Unix socket the host only fills the Host header."""
        if self.socket_path is not None:
            return f"ws://localhost{WEBSOCKET_PATH}"
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host
        return f"{'wss' if self.tls else 'ws'}://{host}:{self.port}{WEBSOCKET_PATH}"

    @property
    def description(self) -> str:
        """For people: the address without anything secret."""
        return f"unix:{self.socket_path}" if self.socket_path is not None else self.url.removesuffix(WEBSOCKET_PATH)

    def headers(self) -> dict[str, str]:
        """Headers of the opening request: the token, where there is one.

        Raises:
            AuthenticationError: the token file is missing or open to others.
        """
        if self.token_path is None:
            return {}
        return {"Authorization": f"Bearer {read_tokens(Path(self.token_path))[0]}"}


def discover(identity: BackendIdentity, paths: UserPaths) -> Endpoint | None:
    """The backend that serves ``identity`` now, or ``None``; a record left behind by a dead one counts as none.

    Raises:
        EndpointError: the runtime folder cannot be used, or the record cannot be read.
    """
    files = BackendFiles.of(identity.normalized(), paths)
    return _read_record(files.record)


def running_backends(paths: UserPaths) -> list[Endpoint]:
    """All backends of this user that run now.

    Raises:
        EndpointError: as for :func:`discover`.
    """
    records = sorted(make_private_dir(_socket_dir(paths)).glob(_RECORD_NAMES))
    return [endpoint for endpoint in map(_read_record, records) if endpoint is not None]


def _read_record(record: Path) -> Endpoint | None:
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        endpoint = Endpoint(**content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise EndpointError(f"{record} cannot be read ({type(error).__name__}): remove it and start again") from error
    if not is_locked(record.with_suffix(".lock")):
        return None
    if endpoint.socket_path is not None and not Path(endpoint.socket_path).exists():
        raise EndpointError(
            f"the backend with process id {endpoint.pid} runs, but its socket {endpoint.socket_path} was removed: "
            "end that process, and the next start makes a new one"
        )
    return endpoint


# --- The backend's side ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def claim(files: BackendFiles, timeout_s: float) -> Iterator[None]:
    """Be the backend of ``files``; remains of a dead one are cleared, and our own at the end.

    Raises:
        EndpointError: a living backend holds it.
    """
    with file_lock(files.lock, timeout_s, "a backend for this model and device already runs"):
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


# --- The client's side -------------------------------------------------------------------------------------------


def connect_or_spawn(
    identity: BackendIdentity,
    paths: UserPaths,
    environ: Mapping[str, str],
    *,
    extra_arguments: Sequence[str] = (),
    timeout_s: float = 60.0,
) -> Endpoint:
    """The backend for ``identity``, started if none runs. Blocks; safe from any number of processes at once.

    Args:
        identity: what it must serve.
        paths: the user's folders.
        environ: the environment it is started with.
        extra_arguments: further options of ``forelook serve``, used only if this call starts it.
        timeout_s: most time until it listens; loading the model comes after.

    Raises:
        BackendUnreachableError: it did not start; the message says why and where its log is.
    """
    identity = identity.normalized()
    endpoint = discover(identity, paths)
    if endpoint is not None:
        return endpoint
    files = BackendFiles.of(identity, paths)
    with file_lock(files.spawn_lock, timeout_s, "another process is starting the backend"):
        endpoint = discover(identity, paths)  # started by another while this one waited
        if endpoint is not None:
            return endpoint
        spawn_backend(identity, paths, environ, extra_arguments=extra_arguments, timeout_s=timeout_s)
        endpoint = discover(identity, paths)
    if endpoint is None:
        raise BackendUnreachableError(f"the backend started and went away at once: its log is {paths.log_path}")
    return endpoint


def spawn_backend(
    identity: BackendIdentity,
    paths: UserPaths,
    environ: Mapping[str, str],
    *,
    extra_arguments: Sequence[str] = (),
    timeout_s: float = 60.0,
) -> int:
    """Start ``forelook serve`` detached and wait until it says that it listens.

    Returns:
        Its process id.

    Raises:
        BackendUnreachableError: it ended or said nothing in time.
    """
    runtime_dir = make_private_dir(BackendFiles.of(identity, paths).lock.parent)
    command = [
        sys.executable,
        "-m",
        "forelook",
        "serve",
        "--announce",
        *identity.command_arguments(),
        *extra_arguments,
    ]
    with open_log(paths) as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=runtime_dir,  # `-m` puts the working folder on the module path: it must be one only the user can write
            env=dict(environ),
            start_new_session=True,
        )
    assert process.stdout is not None
    with process.stdout:
        line = _read_line(process.stdout, timeout_s)
    try:
        announced = json.loads(line) if line else {}
    except ValueError:
        announced = {}
    # its exit status must be collected while this process lives, or a dead backend stays as a zombie
    threading.Thread(target=process.wait, name="forelook-backend-reaper", daemon=True).start()
    if "listening" in announced:
        return process.pid
    process.terminate()
    reason = announced.get("error") or (f"it said nothing for {timeout_s:g} s" if line is None else "it ended")
    raise BackendUnreachableError(f"the backend did not start: {reason}; its log is {paths.log_path}")


def _read_line(stream: IO[bytes], timeout_s: float) -> bytes | None:
    """The first line, ``b""`` at the end of the stream, ``None`` when neither came in time."""
    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.append(stream.readline(65_536)), daemon=True)
    reader.start()
    reader.join(timeout_s)
    return lines[0] if lines else None


def open_log(paths: UserPaths) -> IO[bytes]:
    """The backend's log for appending, 0600; a long one is set aside first."""
    make_private_dir(paths.state_dir)
    path = paths.log_path
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
