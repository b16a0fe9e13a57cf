"""The keys of a team's users: issued, revoked and read from one private file that holds only their hashes.

A key is 256 random bits, so its SHA-256 is as good as a slow hash: there is nothing to guess. Whoever reads the file
cannot use it to connect. A user's name is for the administrator; the server tells users apart by a random name,
which a later key of the same name does not inherit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path

from forelook.errors import AuthenticationError, ConfigError, EndpointError
from forelook.local.files import file_lock, read_regular_file, write_atomically

logger = logging.getLogger(__name__)

KEY_PREFIX = "forelook-"
"""Starts every key, so that those who search for leaked secrets can find one."""
KEY_BYTES = 32  # 256 random bits
METRICS_READER = "metrics"
"""The name of whoever holds a key that only reads the metrics of all users; users' names have 16 digits."""

_VERSION = 1
_MAX_FILE_BYTES = 16 * 2**20
_MAX_KEYS = 20_000  # revoked ones included; chosen, not measured
_MAX_QUOTA = 2**53 - 1
_LOCK_TIMEOUT_S = 10.0  # chosen, not measured: a change takes milliseconds
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_PRINCIPAL = re.compile(r"[0-9a-f]{16}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Role(Enum):
    """What a key opens."""

    USER = "user"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class UserKey:
    """A key, without the key.

    Attributes:
        name: what the administrator calls its user.
        principal: what the server calls its user: 16 random hexadecimal digits.
        digest: SHA-256 of the key, in hexadecimal.
        role: what it opens.
        issued_s: seconds since 1970.
        revoked_s: likewise; ``None`` while it is valid.
        requests_per_minute, tokens_per_day: quotas; ``None`` for none.
    """

    name: str
    principal: str
    digest: str
    role: Role = Role.USER
    issued_s: int = 0
    revoked_s: int | None = None
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError("name", self.name[:80], "up to 64 letters, digits and . _ @ -, the first no sign")
        for field in ("requests_per_minute", "tokens_per_day"):
            quota = getattr(self, field)
            if quota is not None and not 1 <= quota <= _MAX_QUOTA:
                raise ConfigError(field, quota, f"an integer from 1 to {_MAX_QUOTA}")

    @property
    def is_valid(self) -> bool:
        """Whether it opens anything."""
        return self.revoked_s is None


def issue_key(
    path: Path,
    name: str,
    *,
    role: Role = Role.USER,
    requests_per_minute: int | None = None,
    tokens_per_day: int | None = None,
    now_s: float | None = None,
) -> str:
    """Make a key for a user, and return it; only its hash is kept.

    Args:
        path: the file of the keys; made if it is missing.
        name: the user's.
        role: what the key opens.
        requests_per_minute: quota of each server; ``None`` for none.
        tokens_per_day: quota of all servers; ``None`` for none.
        now_s: seconds since 1970; by default now.

    Raises:
        ConfigError: the name or a quota is not valid, or the user has a key already.
        AuthenticationError: the file cannot be used.
    """
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    issued_s = int(time.time() if now_s is None else now_s)
    made = UserKey(
        name, secrets.token_hex(8), digest_of(key), role, issued_s, None, requests_per_minute, tokens_per_day
    )

    def add(keys: tuple[UserKey, ...]) -> tuple[UserKey, ...]:
        if any(other.name == name and other.is_valid for other in keys):
            raise ConfigError("name", name, "a user without a key; revoke the old one first")
        return (*keys, made)

    _change(path, add)
    return key


def revoke_key(path: Path, name: str, *, now_s: float | None = None) -> UserKey:
    """End the validity of a user's key; a running server closes its connections within seconds.

    Raises:
        ConfigError: the user has no valid key.
        AuthenticationError: the file cannot be used.
    """
    revoked_s = int(time.time() if now_s is None else now_s)
    return _replace(path, name, lambda key: replace(key, revoked_s=revoked_s))


def limit_key(path: Path, name: str, requests_per_minute: int | None, tokens_per_day: int | None) -> UserKey:
    """Replace the quotas of a user's key; ``None`` is none.

    Raises:
        ConfigError: a quota is not valid, or the user has no valid key.
        AuthenticationError: the file cannot be used.
    """
    quotas = {"requests_per_minute": requests_per_minute, "tokens_per_day": tokens_per_day}
    return _replace(path, name, lambda key: replace(key, **quotas))  # type: ignore[arg-type]  # both are integers


def read_keys(path: Path) -> tuple[UserKey, ...]:
    """All keys of a file, revoked ones too.

    Raises:
        AuthenticationError: it is missing, readable by others, no regular file, or damaged.
    """

    def check(info: os.stat_result) -> None:
        if sys.platform != "win32" and info.st_mode & 0o077:
            raise AuthenticationError(f"{path} can be used by other users; run `chmod 600` on it")

    try:
        content = json.loads(read_regular_file(path, _MAX_FILE_BYTES, follows_links=True, check=check))
        if content["version"] != _VERSION:
            raise AuthenticationError(f"{path} is of another version of Forelook (expected {_VERSION}); update it")
        return _checked(_read(entry) for entry in content["keys"])
    except FileNotFoundError:
        raise AuthenticationError(f"there are no keys in {path}; run `forelook keys issue NAME --keys FILE`") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, ConfigError) as error:
        raise AuthenticationError(f"the keys in {path} cannot be read ({type(error).__name__})") from error


def digest_of(key: str | bytes) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "replace") if isinstance(key, str) else key).hexdigest()


class KeyRing:
    """The keys of a file as they are now; any thread may call it.

    Args:
        path: the file.

    Raises:
        AuthenticationError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._state: tuple[int, int, int] | None = None
        self._trouble = ""
        self._by_digest: dict[str, UserKey] = {}
        self._by_principal: dict[str, UserKey] = {}
        self._former: frozenset[str] = frozenset()  # users who had a key since this process started
        self._load()

    def find(self, sent: bytes) -> UserKey | None:
        """The key that somebody has sent, valid or not.

        How long this takes says nothing about the keys: who sends one cannot choose its hash.
        """
        return self._by_digest.get(digest_of(sent))

    def of(self, principal: str) -> UserKey | None:
        """The valid key of a user."""
        return self._by_principal.get(principal)

    def has_ended(self, principal: str) -> bool:
        """Whether a user had a key of this file and has none any more."""
        return principal in self._former and principal not in self._by_principal

    def refresh(self) -> None:
        """Read the file again if it has changed. One that cannot be read changes nothing: the team goes on working."""
        try:
            if self._stamp() != self._state:
                self._load()
        except (OSError, AuthenticationError) as error:
            self._say(f"{error.strerror or error}" if isinstance(error, OSError) else str(error))
        else:
            self._trouble = ""

    def _load(self) -> None:
        try:
            state = self._stamp()
        except OSError:
            state = None  # reading it says why
        keys = read_keys(self.path)
        self._by_principal = {key.principal: key for key in keys if key.is_valid}
        self._by_digest = {key.digest: key for key in keys}
        self._former |= {key.principal for key in keys}
        self._state = state

    def _stamp(self) -> tuple[int, int, int]:
        info = self.path.stat()
        return info.st_ctime_ns, info.st_size, info.st_ino

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            logger.warning("cannot read the keys in %s again; continuing with the last ones: %s", self.path, trouble)
        self._trouble = trouble


def _replace(path: Path, name: str, change: Callable[[UserKey], UserKey]) -> UserKey:
    found: list[UserKey] = []

    def changed(keys: tuple[UserKey, ...]) -> tuple[UserKey, ...]:
        found.extend(change(key) for key in keys if key.name == name and key.is_valid)
        if not found:
            raise ConfigError("name", name[:80], "a user with a valid key; see `forelook keys list`")
        return tuple(found[0] if key.digest == found[0].digest else key for key in keys)

    _change(path, changed)
    return found[0]


def _change(path: Path, change: Callable[[tuple[UserKey, ...]], tuple[UserKey, ...]]) -> None:
    """Replace the keys of a file by what a function makes of them, as a whole or not at all."""
    path = path.resolve()  # a link stays a link
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with file_lock(path.with_suffix(".lock"), _LOCK_TIMEOUT_S, "changing the keys"):
            keys = _checked(change(read_keys(path) if path.exists() else ()))
            entries = [{**asdict(key), "role": key.role.value} for key in keys]
            content = json.dumps({"version": _VERSION, "keys": entries}, indent=1) + "\n"
            write_atomically(path, content, is_durable=True)
    except (OSError, EndpointError) as error:
        if isinstance(error, AuthenticationError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise AuthenticationError(f"the keys in {path} cannot be changed: {reason or error}") from error


def _read(entry: object) -> UserKey:
    if not isinstance(entry, dict):
        raise TypeError("a key is an object")
    key = UserKey(**{**entry, "role": Role(entry["role"])})
    texts, numbers = (key.name, key.principal, key.digest), (key.issued_s, key.revoked_s or 0)
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
        raise TypeError("a field is of another type")
    if not _PRINCIPAL.fullmatch(key.principal) or not _DIGEST.fullmatch(key.digest):
        raise ValueError("a hash is of another form")
    return key


def _checked(keys: Iterable[UserKey]) -> tuple[UserKey, ...]:
    """The keys, if they can be told apart: two users with one name inside the server would share everything."""
    found = tuple(keys)
    if len(found) > _MAX_KEYS:
        raise AuthenticationError(f"there are {len(found)} keys, revoked ones included (limit {_MAX_KEYS})")
    for values in ([key.principal for key in found], [key.digest for key in found]):
        if len(set(values)) < len(values):
            raise ValueError("a key is there twice")
    return found
