"""Follows which replicas take requests, and asks sessions to move that another replica serves from now on.

Ray tells a replica that it ends only once its connections are closed, which those of editors never are. So a replica
listens to what the routers listen to: the controller's list of the replicas that take requests. This is not part of
Ray's public interface, which is one reason for the pinned version.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import ray
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve._private.long_poll import LongPollClient, LongPollNamespace

from forelook.cluster.ring import HashRing
from forelook.server.backend import Backend

logger = logging.getLogger("forelook.cluster")

SETTLE_S = 1.0
"""Between a change and the request to move: long enough for all routers to know it. Chosen, not measured."""


class Membership:
    """Keeps the sessions of a replica at their place; used on the event loop of its backend.

    Args:
        backend: the replica's.
        own: its unique id.
        call_later: of the event loop.
    """

    def __init__(
        self, backend: Backend, own: str, call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle]
    ) -> None:
        self._backend = backend
        self._own = own
        self._call_later = call_later
        self._replicas: frozenset[str] = frozenset()
        self._timer: asyncio.TimerHandle | None = None
        self._poll: Any = None

    def follow(self, deployment: object) -> None:
        """Listen to the controller from now on; ``deployment`` is Ray's id of the deployment."""
        self._poll = LongPollClient(
            ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE),
            {(LongPollNamespace.DEPLOYMENT_TARGETS, deployment): self._heed},
            call_in_event_loop=asyncio.get_running_loop(),
            client_id=f"forelook:{self._own}",
        )

    def stop(self) -> None:
        """Stop listening."""
        if self._poll is not None:
            self._poll.stop()
        if self._timer is not None:
            self._timer.cancel()

    def _heed(self, targets: Any) -> None:
        self.update(frozenset(info.replica_id.unique_id for info in targets.running_replicas))

    def update(self, replicas: frozenset[str]) -> None:
        """Heed the replicas that take requests."""
        before, self._replicas = self._replicas, replicas
        if replicas == before or self._own not in before | replicas:
            return  # nothing new, or it does not take requests yet
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._own not in replicas:
            logger.info("this replica ends: its sessions move to the %d others", len(replicas))
            self._backend.end_sessions()
        elif self._own in before:  # else it has no sessions yet
            self._timer = self._call_later(SETTLE_S, self._rebalance)

    def _rebalance(self) -> None:
        ring = HashRing(self._replicas)
        self._backend.move_sessions(lambda session_id: ring.owner(session_id) != self._own)
