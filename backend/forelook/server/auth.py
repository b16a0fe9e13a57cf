"""Who may connect: token, Host and Origin, checked before anything else of a request is looked at."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger("forelook.server")
PRINCIPAL = "forelook.principal"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused, as an HTTP answer."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """The rules of one listener.

    Attributes:
        tokens: any of these is accepted; none means that the socket's file mode is the guard.
        hosts: names accepted in ``Host``, lower case, no port; ``None`` accepts any, for a Unix socket.
        origins: web pages that may connect.
    """

    tokens: tuple[str, ...] = ()
    hosts: frozenset[str] | None = None
    origins: frozenset[str] = frozenset()

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> Refusal | str:
        """Why these request headers are refused, or the name of whoever sent them: empty for the one user there is."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            found.setdefault(name.lower(), []).append(value)
        if self.hosts is not None and not self._host_is_known(found.get(b"host", [])):
            return Refusal(421, "Host is not an address of this server")
        if any(origin.decode("latin-1") not in self.origins for origin in found.get(b"origin", [])):
            return Refusal(403, "web pages may not connect: their Origin must be listed with --allow-origin")
        if not self.tokens:
            return ""
        return self._principal(found)

    def _host_is_known(self, values: list[bytes]) -> bool:
        if self.hosts is None:
            return True
        if len(values) != 1:
            return False
        host = values[0].decode("latin-1").strip().lower()
        if host.startswith("["):
            return host[1:].partition("]")[0] in self.hosts
        return host.partition(":")[0] in self.hosts

    def _principal(self, found: Mapping[bytes, list[bytes]]) -> Refusal | str:
        values = found.get(b"authorization", [])
        scheme, _, given = (values[0] if len(values) == 1 else b"").partition(b" ")
        matching: str | None = None
        for token in self.tokens:  # every one is compared, so that the time taken does not tell which was close
            if hmac.compare_digest(given.strip(), token.encode()):
                matching = token
        if scheme.lower() != b"bearer" or matching is None:
            return Refusal(
                401, "the token is missing or wrong: send Authorization: Bearer with the token file's content"
            )
        if len(self.tokens) == 1:
            return ""
        return hashlib.sha256(matching.encode()).hexdigest()[:16]


class AccessControl:
    """ASGI middleware that lets requests through by an AccessPolicy."""

    def __init__(self, app: ASGIApp, policy: AccessPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with the sender's name in the scope."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        verdict = self._policy.check(scope["headers"])
        if isinstance(verdict, Refusal):
            log.warning("a connection was refused with %d: %s", verdict.status, verdict.reason)
            await refuse(scope, send, verdict)
            return
        scope[PRINCIPAL] = verdict
        await self._app(scope, receive, send)


async def refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Answer a request, or a websocket's opening request, with an HTTP error."""
    prefix = ""
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.reason})
            return
        prefix = "websocket."
    body = refusal.reason.encode() + b"\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": f"{prefix}http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{prefix}http.response.body", "body": body})
