"""A shorter way through the proxy: a request whose replica is on the same node goes there over a Unix socket.

Ray Serve's proxies take this middleware from the variable ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``. It follows the
controller's routes and replicas, as the routers do, and places sessions by the same ring; whatever it cannot pass on
goes Ray's way. Measured: docs/decisions.md, "The way through Ray's proxy".
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray._private.worker import global_worker
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve._private.long_poll import LongPollClient, LongPollNamespace
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from forelook.cluster.node_socket import DISCONNECTED, relay
from forelook.cluster.ring import HashRing
from forelook.protocol.messages import SESSION_ID_HEADER

logger = logging.getLogger("forelook.cluster")

DEPLOYMENT = "forelook"
"""Name of the deployment of each application."""

IMPORT_PATH = "forelook.cluster.proxy_shortcut:middlewares"
"""What the variable of Ray Serve's proxies names."""


def middlewares() -> list[Middleware]:
    """What Ray Serve's proxies run before each request."""
    return [Middleware(ProxyShortcut)]


def socket_folder() -> Path:
    """Where the replicas of this node listen: in the folder of Ray's session, which all of its processes know."""
    return Path(global_worker.node.get_session_dir_path()) / DEPLOYMENT


class Places:
    """Which replica of which application a request belongs to."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, object]] = []  # the longest first
        self._rings: dict[object, HashRing] = {}

    def set_routes(self, routes: Mapping[object, str]) -> None:
        """Take over the routes of all applications, by application."""
        found = [(route, application) for application, route in routes.items()]
        self._routes = sorted(found, key=lambda each: len(each[0]), reverse=True)
        self._rings = {key: ring for key, ring in self._rings.items() if key in routes}

    def set_replicas(self, application: object, replicas: Iterable[str]) -> None:
        """Take over which replicas of an application take requests."""
        self._rings[application] = HashRing(replicas)

    def find(self, path: str, session_id: str) -> tuple[str, str] | None:
        """The route and the replica of a request; ``None`` where no replica is known."""
        for route, application in self._routes:
            if path == route or path.startswith(route if route.endswith("/") else f"{route}/"):
                ring = self._rings.get(application)
                replica = None if ring is None else ring.owner(session_id)
                return None if replica is None else (route.rstrip("/"), replica)
        return None


class ProxyShortcut:
    """The middleware of one proxy.

    Args:
        app: the proxy.
        places: where requests belong; by default they follow Ray's controller.
        folder: of the replicas' sockets.
    """

    def __init__(self, app: ASGIApp, places: Places | None = None, folder: Path | None = None) -> None:
        self._app = app
        self._folder = socket_folder() if folder is None else folder
        self._polls: dict[object, Any] = {}
        self._places = Places() if places is None else places
        if places is None:
            self._poll(None, LongPollNamespace.ROUTE_TABLE, self._heed_routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to its replica, or to the proxy."""
        found = self._find(scope) if scope["type"] in DISCONNECTED and not scope.get("root_path") else None
        if found is not None:
            route, replica = found
            try:
                connection = await asyncio.open_unix_connection(self._folder / replica)
            except OSError:
                pass  # it is on another node, or has ended
            else:
                await relay(*connection, {**scope, "root_path": route}, receive, send)
                return
        await self._app(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[str, str] | None:
        wanted = SESSION_ID_HEADER.encode()
        # Some load balancers write underscores, which Ray accepts too.
        session = next((value for name, value in scope["headers"] if name.replace(b"_", b"-") == wanted), b"")
        # Without a session any replica serves, as with Ray's router.
        return self._places.find(scope["path"], session.decode("latin-1") or secrets.token_hex(8))

    # --- what Ray's controller says

    def _poll(self, key: object, name: object, heed: Any) -> None:
        self._polls[key] = LongPollClient(
            ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE),
            {name: heed},
            call_in_event_loop=asyncio.get_running_loop(),
            client_id=f"forelook:proxy:{key}",
        )

    def _heed_routes(self, endpoints: Mapping[Any, Any]) -> None:
        routes = {deployment: info.route for deployment, info in endpoints.items() if deployment.name == DEPLOYMENT}
        self._places.set_routes(routes)
        for deployment in routes.keys() - self._polls.keys():
            self._poll(
                deployment,
                (LongPollNamespace.DEPLOYMENT_TARGETS, deployment),
                lambda targets, deployment=deployment: self._heed_replicas(deployment, targets),
            )
        for deployment in self._polls.keys() - routes.keys() - {None}:
            self._polls.pop(deployment).stop()

    def _heed_replicas(self, deployment: object, targets: Any) -> None:
        replicas = [info.replica_id.unique_id for info in targets.running_replicas]
        self._places.set_replicas(deployment, replicas)
        logger.info("%d replicas take requests", len(replicas))
