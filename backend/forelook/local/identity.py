"""Which backend: the user's folders, what one backend serves, and the files it owns.

One backend serves one (user, model, revision, adapter, device, dtype, protocol version). In the user's runtime folder
(0700):

    KEY.lock    held by the backend as long as it lives; the kernel releases it however the backend ends
    KEY.spawn   held by a client while it starts a backend, so that two editors start one
    KEY.json    where the backend listens, written once it accepts connections
    KEY.sock    its Unix socket, 0600
    KEY.token   the token of a backend on TCP, 0600, regenerated at every start
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType

from forelook.config import EngineConfig
from forelook.local.files import make_private_dir
from forelook.protocol.messages import PROTOCOL_VERSION

MAX_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107  # sun_path without its terminating NUL


def has_unix_sockets() -> bool:
    """Whether this platform's asyncio can listen on Unix sockets."""
    return sys.platform != "win32"


@dataclass(frozen=True, slots=True)
class UserPaths:
    """The user's folders, each of mode 0700 once created.

    Attributes:
        runtime_dir: sockets, locks and tokens.
        state_dir: logs and statistics.
        cache_dir: persistent pools.
        short_dir: replaces ``runtime_dir`` where that is too long for a Unix socket.
    """

    runtime_dir: Path
    state_dir: Path
    cache_dir: Path
    short_dir: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], home: Path, user_id: int | None) -> UserPaths:
        """The folders of the XDG base directory specification, or the platform's equivalents.

        Args:
            environ: the process environment; only the entry points read it.
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
        """Counts of what the user did with suggestions."""
        return self.state_dir / "statistics.json"

    @property
    def models_path(self) -> Path:
        """The models that were pulled, with their commits."""
        return self.state_dir / "models.json"

    @property
    def models_dir(self) -> Path:
        """The files of models that came from packages."""
        return self.state_dir / "models"

    @property
    def http_key_path(self) -> Path:
        """The key of the HTTP interfaces, kept so that clients' settings stay valid."""
        return self.state_dir / "http-key"

    @property
    def user_keys_path(self) -> Path:
        """The keys of a team's users, as hashes."""
        return self.state_dir / "keys.json"

    @property
    def pools_dir(self) -> Path:
        """The persistent n-gram pools."""
        return self.cache_dir / "pools"


def _xdg(environ: Mapping[str, str], name: str, default: Path) -> Path:
    value = environ.get(name, "")
    return Path(value) if value.startswith("/") else default  # by the specification relative paths are ignored


@dataclass(frozen=True, slots=True)
class BackendIdentity:
    """What one backend serves; editors that ask for the same one share it.

    Attributes:
        model: a folder, a GGUF file, a hub id or a name of the catalog, ``None`` for the default model.
        revision, device, dtype: as asked for, not as resolved.
        adapter: folder of a low-rank adapter, ``None`` for the model's own.
    """

    model: str | None = None
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    adapter: str | None = None

    @classmethod
    def of(cls, config: EngineConfig) -> BackendIdentity:
        """The backend that runs what the settings ask for, normalized."""
        return cls(config.model, config.revision, config.device, config.dtype, config.adapter).normalized()

    def normalized(self) -> BackendIdentity:
        """The same identity with absolute paths, so that it does not depend on the working folder.

        The last part of a file's path stays as it is: the hub's cache links a file's name to a hash.
        """
        return replace(self, model=_absolute(self.model), adapter=_absolute(self.adapter))

    @property
    def key(self) -> str:
        """A file name for this identity."""
        parts = [self.model or "", self.revision or "", self.device, self.dtype, str(PROTOCOL_VERSION)]
        parts += [self.adapter] if self.adapter else []
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def command_arguments(self, settings: Mapping[str, object] = MappingProxyType({})) -> list[str]:
        """The options of ``forelook serve`` that start this backend with further settings."""
        return ["--config", json.dumps({**settings, **asdict(self)})]


def _absolute(name: str | None) -> str | None:
    """The absolute path of a folder or file; anything else as it is."""
    if name is None:
        return None
    path = Path(name)
    if path.is_dir():
        return str(path.resolve())
    return str(path.parent.resolve() / path.name) if path.is_file() else name


def socket_dir(paths: UserPaths) -> Path:
    """The folder of sockets, locks and records: the short one where the path of a socket would be too long."""
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
        """Name the files, and create their folder.

        Raises:
            EndpointError: the folder cannot be used.
        """
        key = identity.key
        base = make_private_dir(socket_dir(paths))
        return cls(
            lock=base / f"{key}.lock",
            spawn_lock=base / f"{key}.spawn",
            record=base / f"{key}.json",
            socket=base / f"{key}.sock",
            token=base / f"{key}.token",
        )
