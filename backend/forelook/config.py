"""Settings as frozen dataclasses; an error names the field, its value and what is allowed. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from forelook.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "bfloat16", "float16", "float32", "float64", "int8", "int4")
MULTI_LINE = ("auto", "always", "never")
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})

T = TypeVar("T")


def _integer(field: str, value: object, low: int, high: int, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        unset = ", or unset for automatic" if optional else ""
        raise ConfigError(field, value, f"an integer from {low} to {high}{unset}")


def _number(field: str, value: object, low: float, high: float, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    valid = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not valid or not low <= value <= high:  # type: ignore[operator]  # `valid` says that it is a number
        raise ConfigError(field, value, f"a number from {low:g} to {high:g}{', or unset' if optional else ''}")


def _text(field: str, value: object, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigError(field, value, f"a string that is not empty{', or unset' if optional else ''}")


def _flag(field: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(field, value, "true or false")


def _one_of(field: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(field, value, f"one of {', '.join(allowed)}")


def _texts(field: str, value: object) -> None:
    if not isinstance(value, tuple) or not all(isinstance(v, str) and v and "\0" not in v for v in value):
        raise ConfigError(field, value, "a list of strings, none of them empty")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Which model runs where.

    Attributes:
        model: a folder or a hub id; ``None`` for the starter model.
        revision: of a hub id.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ….
        dtype: of the weights; ``"auto"`` is bfloat16 where the device has it, ``"int8"`` and ``"int4"`` quantize them.
        keep_alive_s: the model is unloaded after this long without use; ``None`` never.
    """

    model: str | None = None
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    keep_alive_s: float | None = None

    def __post_init__(self) -> None:
        _text("model", self.model, optional=True)
        _text("revision", self.revision, optional=True)
        kind, colon, index = self.device.partition(":") if isinstance(self.device, str) else ("", "", "")
        if kind not in DEVICES or (colon and not (kind == "cuda" and index.isdecimal())):
            raise ConfigError("device", self.device, f"one of {', '.join(DEVICES)} or cuda:N")
        _one_of("dtype", self.dtype, DTYPES)
        _number("keep_alive_s", self.keep_alive_s, 1.0, 10_000_000, optional=True)


@dataclass(frozen=True, slots=True)
class DecodingConfig:
    """Lookahead decoding's sizes; ``None`` chooses by the measured cost of a step.

    Attributes:
        window_size: W, columns of the lookahead window.
        ngram_size: N, tokens of an n-gram.
        max_candidates: G, n-grams verified per step.
    """

    window_size: int | None = None
    ngram_size: int | None = None
    max_candidates: int | None = None

    def __post_init__(self) -> None:
        _integer("window_size", self.window_size, 0, 64, optional=True)
        _integer("ngram_size", self.ngram_size, 2, 16, optional=True)
        _integer("max_candidates", self.max_candidates, 0, 64, optional=True)


@dataclass(frozen=True, slots=True)
class CompletionConfig:
    """What a completion may cost and hold; ``None`` is the engine's own choice.

    Attributes:
        max_new_tokens: most tokens of a suggestion that may span lines.
        deadline_ms: time for an automatic request.
        multi_line: whether suggestions may span lines.
        cross_file: whether prompts hold excerpts of other files.
        speculate: whether to compute what follows a suggestion while it is shown; ``None`` means not on a CPU.
    """

    max_new_tokens: int | None = None
    deadline_ms: int | None = None
    multi_line: str = "auto"
    cross_file: bool = True
    speculate: bool | None = None

    def __post_init__(self) -> None:
        _integer("max_new_tokens", self.max_new_tokens, 1, 4096, optional=True)
        _integer("deadline_ms", self.deadline_ms, 1, 600_000, optional=True)
        _one_of("multi_line", self.multi_line, MULTI_LINE)
        _flag("cross_file", self.cross_file)
        if self.speculate is not None:
            _flag("speculate", self.speculate)


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """The n-gram pools of the workspaces.

    Attributes:
        max_tokens: most tokens of one workspace's pool; the oldest leave first.
        persistent: whether pools are kept on disk between starts.
    """

    max_tokens: int = 2_000_000
    persistent: bool = True

    def __post_init__(self) -> None:
        _integer("max_tokens", self.max_tokens, 1_000, 100_000_000)
        _flag("persistent", self.persistent)


@dataclass(frozen=True, slots=True)
class PrivacyConfig:
    """Files kept out of pool, context and cache.

    Attributes:
        ignore_globs: patterns in gitignore form, beside ``.gitignore``, ``.forelookignore`` and the built-in list.
    """

    ignore_globs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _texts("ignore_globs", self.ignore_globs)


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where the backend listens and what it accepts.

    Attributes:
        port: TCP port, 0 for a free one; ``None`` listens on a Unix socket.
        host: TCP address; one that other machines reach needs TLS.
        tls_certificate, tls_key: PEM files.
        token_file: tokens that are accepted, one a line, instead of a new one at every start.
        allowed_origins: web pages that may connect, none by default.
        allowed_hosts: further names in the ``Host`` header, beside the address listened on.
        idle_timeout_s: the backend ends after this long without connections; ``None`` never.
        close_timeout_s: time for the engine to end in order, when the backend ends.
        max_connections: connections at a time.
        max_message_bytes: longest message that is read; one of more than four times this ends its connection.
        max_document_bytes: longest document.
        max_documents: open documents of one connection.
        max_pending_requests: unanswered requests of one connection.
    """

    port: int | None = None
    host: str = "127.0.0.1"
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    token_file: Path | None = None
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    idle_timeout_s: float | None = 1800.0
    close_timeout_s: float = 10.0
    max_connections: int = 64
    max_message_bytes: int = 16 * 2**20
    max_document_bytes: int = 8 * 2**20
    max_documents: int = 1000
    max_pending_requests: int = 64

    def __post_init__(self) -> None:
        _integer("port", self.port, 0, 65_535, optional=True)
        _text("host", self.host)
        _texts("allowed_origins", self.allowed_origins)
        _texts("allowed_hosts", self.allowed_hosts)
        _number("idle_timeout_s", self.idle_timeout_s, 0.1, 10_000_000, optional=True)
        _number("close_timeout_s", self.close_timeout_s, 0.0, 600.0)
        _integer("max_connections", self.max_connections, 1, 10_000)
        _integer("max_message_bytes", self.max_message_bytes, 1_024, 2**30)
        _integer("max_document_bytes", self.max_document_bytes, 1_024, 2**30)
        _integer("max_documents", self.max_documents, 1, 1_000_000)
        _integer("max_pending_requests", self.max_pending_requests, 1, 10_000)
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError("tls_key", self.tls_key, "given together with tls_certificate")
        if self.port is not None and self.host not in LOOPBACK_HOSTS and self.tls_key is None:
            raise ConfigError("host", self.host, "a loopback address, unless tls_certificate and tls_key are given")


def section_from(cls: type[T], values: Mapping[str, Any], name: str) -> T:
    """One section from a mapping such as an editor's settings; lists become tuples.

    Args:
        cls: a dataclass of this module.
        values: settings by field name; ``null`` means the default.
        name: of the section, for messages.

    Raises:
        ConfigError: an unknown field, or a value outside its range.
    """
    declared = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]  # every section is a dataclass
    chosen: dict[str, object] = {}
    for key, value in values.items():
        if key not in declared:
            raise ConfigError(f"{name}.{key}", value, f"one of the fields {', '.join(declared)}")
        if value is None and declared[key].default is not MISSING:
            continue
        chosen[key] = tuple(value) if isinstance(value, list) else value
    try:
        return cls(**chosen)
    except ConfigError as error:
        raise ConfigError(f"{name}.{error.field}", error.value, error.expected) from error
