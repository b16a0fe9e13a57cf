"""One replica as an ASGI application: the editor protocol and the HTTP interfaces of one engine. Needs no Ray."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from forelook.cluster.cluster_config import ClusterConfig
from forelook.cluster.replica_metrics import ReplicaMetrics
from forelook.config import ServerConfig
from forelook.engine_factory import engine_factory
from forelook.errors import ModelError
from forelook.local.access import AccessPolicy, read_tokens
from forelook.local.user_keys import KeyRing
from forelook.protocol.messages import EngineState, Status
from forelook.server.app import client_app, editor_app
from forelook.server.backend import Backend, ExitHooks
from forelook.server.engine import EngineFactory
from forelook.settings.rows import Effect, as_json

logger = logging.getLogger("forelook.cluster")

REPLICA_HEADER = "x-forelook-replica"
"""Header of every answer, so that it can be seen which replica a session has reached."""

_BEGINNINGS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class ReplicaBackend(Backend):
    """A backend that answers for its neighbors too where the figures of all users are wanted.

    Args:
        factory, config, hooks, settings, keys: as for a backend.
        folder: of the application's metrics.
        name: of this replica.
    """

    def __init__(
        self,
        factory: EngineFactory,
        config: ServerConfig,
        hooks: ExitHooks,
        settings: Mapping[str, object],
        keys: KeyRing | None,
        *,
        folder: Path,
        name: str,
    ) -> None:
        super().__init__(factory, config, hooks, settings, keys)
        self._replica_metrics = ReplicaMetrics(folder, name, partial(super().exposition, ""))

    def start(self) -> None:
        """Start building the engine, and keep the figures for the others."""
        super().start()
        self._replica_metrics.start()

    async def stop(self) -> None:
        """Close the engine."""
        await self._replica_metrics.stop()
        await super().stop()

    async def exposition(self, principal: str) -> str:
        """The figures of a user at this replica; for the owner and readers of metrics those of all replicas."""
        return await super().exposition(principal) if principal else await self._replica_metrics.all()


class ReplicaApp:
    """Answers what reaches one replica below its route.

    Args:
        config: the model, the keys and the limits.
        name: of this replica.
        application: its name.
        factory: makes the engine; by default the one that ``config`` names.
        clock: monotonic seconds.

    Raises:
        AuthenticationError: the keys cannot be read.
    """

    def __init__(
        self,
        config: ClusterConfig,
        name: str,
        application: str,
        factory: EngineFactory | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        hosts = frozenset(name.lower() for name in config.allowed_hosts) or None
        tokens = () if config.token_file is None else read_tokens(config.token_file)
        keys = None if config.keys_file is None else KeyRing(config.keys_file)
        policy = AccessPolicy(tokens, hosts, frozenset(config.allowed_origins), keys)
        hooks = ExitHooks(idle=lambda: None, shutdown=None, failed=self._fail)
        settings = as_json(config.engine, (Effect.RESTART,))
        make = factory or engine_factory(config.engine, config.paths)
        folder = config.folder / "metrics" / application
        self.backend = ReplicaBackend(make, config.server, hooks, settings, keys, folder=folder, name=name)
        self._editors = editor_app(self.backend, policy)
        self._clients = client_app(self.backend, policy)
        self._header = (REPLICA_HEADER.encode(), name.encode())
        self._settled = asyncio.Event()
        self._failure: Status | None = None
        self._busy = BusyShare(clock)

    async def start(self) -> None:
        """Load the model; a replica takes no session before it can answer.

        Raises:
            ModelError: it cannot be loaded.
        """
        self.backend.listen(self._heed)
        self.backend.start()
        await self._settled.wait()
        self.check()

    async def stop(self) -> None:
        """Save the pools and free the model."""
        await self.backend.stop()

    def check(self) -> None:
        """Raise if the engine cannot answer any more, so that another replica takes this one's place.

        Raises:
            ModelError: as the status says.
        """
        if self._failure is not None:
            raise ModelError(self._failure.message)

    async def busy_share(self) -> float:
        """The share of the time since the last call in which the device worked for requests."""
        engine = self.backend.made_engine
        stats: Any = await asyncio.to_thread(engine.stats, "") if engine is not None else {}
        return self._busy.since_last(stats.get("worked_ms", {}).get("requests", 0.0) / 1e3)

    def _heed(self, status: Status) -> None:
        if status.state in (EngineState.READY, EngineState.ERROR):
            self._settled.set()

    def _fail(self, status: Status) -> None:
        self._failure = status
        self._settled.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request: websockets are the editor protocol, all else the HTTP interfaces."""
        if scope["type"] in ("http", "websocket"):
            scope, send = _below_route(scope), self._named(send)
        await (self._clients if scope["type"] == "http" else self._editors)(scope, receive, send)

    def _named(self, send: Send) -> Send:
        """Send messages on, an answer's first one with the name of this replica."""

        async def send_named(message: Message) -> None:
            if message["type"] in _BEGINNINGS:
                message = {**message, "headers": [*message.get("headers", ()), self._header]}
            await send(message)

        return send_named


class BusyShare:
    """How much of the time a device was busy.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._asked_s = clock()
        self._busy_s = 0.0

    def since_last(self, busy_s: float) -> float:
        """The share since the last call, from 0 to 1; ``busy_s`` counts since the start."""
        now_s = self._clock()
        passed_s, worked_s = now_s - self._asked_s, busy_s - self._busy_s
        self._asked_s, self._busy_s = now_s, busy_s
        return min(1.0, max(0.0, worked_s / passed_s)) if passed_s > 0 else 0.0


def _below_route(scope: Scope) -> Scope:
    """The request as it would be without a route: the interfaces know their own paths only."""
    route = str(scope.get("root_path", "")).rstrip("/")
    path = str(scope["path"])
    if route and (path == route or path.startswith(f"{route}/")):
        path = path[len(route) :] or "/"
    return {**scope, "root_path": "", "path": path, "raw_path": path.encode()}
