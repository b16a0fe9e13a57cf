"""The access policy as ASGI middleware."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from forelook.local.access import AccessPolicy, Refusal
from forelook.local.user_keys import METRICS_READER

logger = logging.getLogger("forelook.server")
PRINCIPAL = "forelook.principal"
METRICS_PATH = "/metrics"

Refuse = Callable[[Scope, Send, Refusal], Awaitable[None]]
"""Answers a request that is refused."""

OnAuthenticated = Callable[[Sequence[object] | None], None]
"""Called with the host and port of a client that was let in, ``None`` on a Unix socket."""


async def refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Answer an HTTP request or a websocket's opening request with an HTTP error."""
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


class AccessControl:
    """ASGI middleware that applies an access policy."""

    def __init__(
        self,
        app: ASGIApp,
        policy: AccessPolicy,
        on_authenticated: OnAuthenticated,
        on_refused: Callable[[], None] = lambda: None,
        refuse: Refuse = refuse,
    ) -> None:
        self._app = app
        self._on_refused = on_refused
        self._policy = policy
        self._on_authenticated = on_authenticated
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or forward it with the user's name in the scope."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        verdict = self._policy.check(Headers(scope=scope).getlist)
        if verdict == METRICS_READER and (scope["type"], scope["path"]) != ("http", METRICS_PATH):
            verdict = Refusal(403, f"this key only reads {METRICS_PATH}")
        if isinstance(verdict, Refusal):
            logger.warning("refused a connection with %d: %s", verdict.status, verdict.reason)
            self._on_refused()
            await self._refuse(scope, send, verdict)
            return
        self._on_authenticated(scope.get("client"))
        scope[PRINCIPAL] = verdict
        await self._app(scope, receive, send)
