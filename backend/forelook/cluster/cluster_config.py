"""The arguments of one application: ``args`` in the configuration file of Ray Serve. Needs no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forelook.config import EngineConfig, ServerConfig
from forelook.errors import ConfigError
from forelook.local.identity import BackendIdentity, UserPaths
from forelook.settings.kinds import boolean, integer, number, path, text, texts, unset
from forelook.settings.rows import check, read_json, rows_of, setting

_SETTINGS = "settings"


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """One model of a cluster: its replicas and who may use them.

    Attributes:
        engine: the settings of ``forelook serve`` that each replica's engine is started with.

    Raises:
        ConfigError: a value is outside its range.
    """

    engine: EngineConfig = field(default_factory=EngineConfig)

    keys_file: Path | None = setting(
        None, unset(path("the path of a file that only you can read")),
        "A team's keys, made with `forelook keys issue`; on the shared folder, so that all replicas follow it.",
        name="keys",
    )  # fmt: skip
    token_file: Path | None = setting(
        None, unset(path("the path of a file that only you can read")),
        "Accepted tokens, one per line, mode 0600; the only one, or one that begins with `owner-`, is the owner's.",
        name="tokenFile",
    )  # fmt: skip
    folder: Path = setting(
        Path(), path("the path of a folder that all machines share"),
        "Pools, counts and pulled models; shared by all machines, so that a session that moves finds its pool.",
        name="folder",
    )  # fmt: skip
    num_replicas: int = setting(
        1, integer(1, 1000), "Number of replicas; with `maxReplicas` the smallest number.", name="replicas"
    )
    max_replicas: int | None = setting(
        None, unset(integer(1, 1000), "as many as `replicas`"), "Largest number of replicas.", name="maxReplicas"
    )
    busy_share: float = setting(
        0.5, number(0.05, 0.95), "Share of the time that a replica's device may be busy before another is added.",
        name="busyShare",
    )  # fmt: skip
    num_sessions: int = setting(
        64, integer(1, 1000), "Maximum number of editor connections of one replica.", name="sessions"
    )
    num_cpus: float = setting(1.0, number(0.0, 1024.0), "CPU cores of one replica.", name="cpus")
    num_gpus: float = setting(0.0, number(0.0, 64.0), "GPUs of one replica; may be a fraction.", name="gpus")
    num_fallback_replicas: int = setting(
        1, integer(0, 1), "Other replicas that are tried if a session's own one takes no requests.",
        name="fallbackReplicas",
    )  # fmt: skip
    move_timeout_s: float = setting(
        30.0, number(1.0, 3600.0), "Time for the sessions of a replica that ends to move.", name="moveTimeout"
    )
    surge: bool = setting(
        True, boolean(),
        "In an update start all new replicas before those of before end, which needs room for both; else one by one.",
        name="surge",
    )  # fmt: skip
    release: str | None = setting(
        None, unset(text("any text")), "Any text; a change replaces all replicas, as after an update of Forelook.",
        name="release",
    )  # fmt: skip
    allowed_origins: tuple[str, ...] = setting(
        (), texts("a list of origins"), "Origins of web pages that may connect.", name="allowedOrigins"
    )
    allowed_hosts: tuple[str, ...] = setting(
        (), texts("a list of host names"), "Accepted Host names; all if there are none.", name="allowedHosts"
    )

    def __post_init__(self) -> None:
        check(self)
        if self.max_replicas is not None and self.max_replicas < self.num_replicas:
            raise ConfigError("args.maxReplicas", self.max_replicas, f"at least replicas = {self.num_replicas}")
        if self.engine.devices != 1:
            raise ConfigError("args.settings.devices", self.engine.devices, "1, as a replica has one engine")

    @classmethod
    def from_json(cls, args: object) -> ClusterConfig:
        """Read the arguments of an application.

        Raises:
            ConfigError: one is missing, unknown or outside its range.
        """
        if not isinstance(args, Mapping):
            raise ConfigError("args", type(args).__name__, "an object with folder and keys")
        values = _read(cls, {name: value for name, value in args.items() if name != _SETTINGS}, "args.")
        if "folder" not in values:
            raise ConfigError("args.folder", None, "a path")
        if values.get("keys_file") is None and values.get("token_file") is None:
            raise ConfigError("args.keys", None, "a path, unless tokenFile is given: otherwise no client may connect")
        engine = _read(EngineConfig, args.get(_SETTINGS), "args.settings.")
        return cls(engine=EngineConfig(**engine), **values)

    @property
    def identity(self) -> BackendIdentity:
        """What each replica serves."""
        return BackendIdentity.of(self.engine)

    @property
    def paths(self) -> UserPaths:
        """The folders of a replica, all in the shared one."""
        folder = self.folder
        return UserPaths(folder / "run", folder / "state", folder, folder / "run")

    @property
    def server(self) -> ServerConfig:
        """The limits of a replica."""
        return ServerConfig(
            max_connections=self.num_sessions, max_user_connections=self.num_sessions, idle_timeout_s=None
        )


def _read(cls: type, settings: object, prefix: str) -> dict[str, Any]:
    values, problems = read_json([row for row in rows_of(cls) if row.name], settings, prefix=prefix)
    if problems:
        raise problems[0]
    return values
