"""Who may connect to a local server: its token, and the Host and Origin of the opening request.

A page in the user's browser can open a socket to this machine. It gives itself away by its Origin, or, where it has
made its own host name resolve to this machine, by its Host.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import ssl
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from forelook.config import LOOPBACK_HOSTS
from forelook.errors import AuthenticationError, ConfigError
from forelook.local.files import read_regular_file, write_atomically
from forelook.local.user_keys import METRICS_READER, KeyRing, Role

TOKEN_BYTES = 32  # 256 random bits
_MAX_TOKEN_FILE_BYTES = 2**20  # chosen, not measured: thousands of users
OWNER_PREFIX = "owner-"
"""Starts the owner's token in a file of several: its holder may stop the backend and sees the figures of all users."""

REVOKED_KEY = "this key was revoked; ask for another one"

GetHeaders = Callable[[str], Sequence[str]]
"""All values of a request header, by its name in any case."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused, as an HTTP answer."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """The rules of one listener.

    Attributes:
        tokens: any of these is accepted; empty where the mode of the socket file restricts access.
        hosts: names accepted in ``Host``, lower case, without port; ``None`` accepts any.
        origins: web pages that may connect.
        keys: those of a team's users are accepted too.
    """

    tokens: tuple[str, ...] = ()
    hosts: frozenset[str] | None = None
    origins: frozenset[str] = frozenset()
    keys: KeyRing | None = None

    def check(self, get_headers: GetHeaders) -> Refusal | str:
        """Why a request is refused, or the name of its sender: empty where there is only one user."""
        if self.hosts is not None and _host_name(get_headers("Host")) not in self.hosts:
            return Refusal(421, "Host is not an address of this server")
        if not self.origins.issuperset(get_headers("Origin")):
            return Refusal(403, "connections from web pages are not allowed")
        if not self.tokens and self.keys is None:
            return ""
        return self._principal(get_headers("Authorization"))

    def _principal(self, values: Sequence[str]) -> Refusal | str:
        scheme, _, given = (values[0] if len(values) == 1 else "").partition(" ")
        sent = given.strip().encode("utf-8", "replace")
        key = self.keys.find(sent) if self.keys is not None and scheme.lower() == "bearer" else None
        if key is not None:
            if not key.is_valid:
                return Refusal(401, REVOKED_KEY)
            return METRICS_READER if key.role is Role.METRICS else key.principal
        # All tokens are compared, so that the time does not reveal which one was close.
        matching = [token for token in self.tokens if hmac.compare_digest(sent, token.encode())]
        if scheme.lower() != "bearer" or not matching:
            return Refusal(401, "the token is missing or wrong; send Authorization: Bearer TOKEN")
        is_owner = len(self.tokens) == 1 or matching[0].startswith(OWNER_PREFIX)
        return "" if is_owner else hashlib.sha256(matching[0].encode()).hexdigest()[:16]


def accepted_hosts(host: str, further: Iterable[str] = ()) -> frozenset[str]:
    """The names that ``Host`` may carry for a server that listens on ``host``."""
    names = frozenset(name.lower() for name in (host, *further))
    return names | LOOPBACK_HOSTS if host in LOOPBACK_HOSTS else names


def _host_name(values: Sequence[str]) -> str:
    host = values[0].strip().lower() if len(values) == 1 else ""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def server_tls(
    certificate: Path, key: Path | None, *, certificate_field: str = "tls_certificate", key_field: str = "tls_key"
) -> ssl.SSLContext:
    """The TLS context of a server.

    Args:
        certificate: PEM file.
        key: PEM file; ``None`` where the certificate's file contains the key.
        certificate_field: what the user calls the certificate, for the error.
        key_field: what the user calls the key, for the error.

    Raises:
        ConfigError: a file is missing or is no PEM, or the key does not fit the certificate.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # OpenSSL names neither file
        expected = f"a PEM certificate whose key is in {key_field} = {key} ({error.strerror or error})"
        raise ConfigError(certificate_field, str(certificate), expected) from error
    return context


def new_token(path: Path) -> str:
    """A fresh token, also written to ``path``.

    Raises:
        AuthenticationError: the file cannot be written.
    """
    token = secrets.token_hex(TOKEN_BYTES)
    try:
        write_atomically(path, token + "\n")
    except OSError as error:
        raise AuthenticationError(f"the token file {path} cannot be written: {error.strerror or error}") from error
    return token


def read_tokens(path: Path) -> tuple[str, ...]:
    """The tokens in ``path``, one per line.

    Raises:
        AuthenticationError: the file is missing, empty, readable by other users or no regular file, or a token is too
            short.
    """

    def check(info: os.stat_result) -> None:
        if sys.platform != "win32" and info.st_mode & 0o077:
            raise AuthenticationError(f"{path} is readable by other users; run `chmod 600` on it and replace the token")

    try:
        data = read_regular_file(path, _MAX_TOKEN_FILE_BYTES, follows_links=True, check=check)
        tokens = tuple(data.decode("ascii").split())
    except (OSError, UnicodeDecodeError) as error:
        raise AuthenticationError(f"the token file {path} cannot be read ({type(error).__name__})") from error
    if not tokens or any(len(token) < TOKEN_BYTES for token in tokens):
        raise AuthenticationError(f"invalid token file {path} (expected one token per line, {TOKEN_BYTES}+ characters)")
    return tokens
