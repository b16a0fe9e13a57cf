"""The application that Ray Serve runs: ``import_path: forelook.cluster.application:build``. See docs/team.md."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any

from ray import serve
from ray.serve._private.constants import RAY_SERVE_ENABLE_HA_PROXY, SERVE_SESSION_ID
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig

from forelook.cluster.cluster_config import ClusterConfig
from forelook.cluster.membership import Membership
from forelook.cluster.node_socket import NodeSocket
from forelook.cluster.proxy_shortcut import DEPLOYMENT, socket_folder
from forelook.cluster.replica_app import ReplicaApp
from forelook.cluster.ring import NUM_VIRTUAL_NODES
from forelook.cluster.scaling import BUSY, BusySharePolicy
from forelook.errors import ConfigError
from forelook.failures import LOG_FORMAT, OneLineFormatter, logged
from forelook.protocol.messages import SESSION_ID_HEADER

HTTP_SLOTS = 64
"""Places of a replica for HTTP requests, besides one for each connection of an editor. Chosen, not measured."""
_DRAIN_POLL_S = 0.25
_DRAIN_SHARE = 0.8  # of the time to move, after which Ray ends the process; chosen, not measured
_QUIET_LOGGERS = ("uvicorn", "uvicorn.error", "websockets", "asyncio")  # below warning they log frames: users' text


@serve.ingress()
class Replica:
    """One engine, and what clients say to it."""

    async def __init__(self, config: ClusterConfig) -> None:  # type: ignore[misc]  # Ray awaits it
        os.umask(0o077)
        _log_to_stderr()
        context, loop = serve.get_replica_context(), asyncio.get_running_loop()
        self._replica_app = ReplicaApp(config, context.replica_tag, context.app_name)
        await self._replica_app.start()
        self._drain_s = _DRAIN_SHARE * config.move_timeout_s
        self._socket = NodeSocket(self._replica_app, socket_folder() / context.replica_tag)
        with logged("listening to the node's proxy"):  # without it requests take Ray's way
            await self._socket.start()
        self._membership = Membership(self._replica_app.backend, context.replica_tag, loop.call_later)
        self._membership.follow(context.replica_id.deployment_id)

    def __serve_build_asgi_app__(self) -> ReplicaApp:
        return self._replica_app

    async def check_health(self) -> None:
        """Raise if the engine has failed: Ray then starts another replica."""
        self._replica_app.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What the autoscaler is told."""
        return {BUSY: await self._replica_app.busy_share()}

    async def __del__(self) -> None:
        if hasattr(self, "_membership"):  # it has started
            self._membership.stop()
            await self._socket.stop(self._drain_s)  # Ray does not know of these connections
            await self._replica_app.stop()


def build(args: dict[str, Any]) -> serve.Application:
    """The application of one model.

    Args:
        args: as :class:`ClusterConfig` reads them.

    Raises:
        ConfigError: an argument, or a setting of Ray Serve, under which sessions would not stay at their replica.
    """
    config = ClusterConfig.from_json(args)
    if RAY_SERVE_ENABLE_HA_PROXY:
        raise ConfigError(
            "RAY_SERVE_ENABLE_HA_PROXY", 1, "0: HAProxy routes websockets without regard to their session"
        )
    if SERVE_SESSION_ID != SESSION_ID_HEADER:
        raise ConfigError("RAY_SERVE_SESSION_ID_HEADER_KEY", SERVE_SESSION_ID, SESSION_ID_HEADER)
    return serve.deployment(
        Replica,
        name=DEPLOYMENT,
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.num_gpus},
        max_ongoing_requests=config.num_sessions + HTTP_SLOTS,
        max_queued_requests=config.num_sessions + HTTP_SLOTS,
        request_router_config=RequestRouterConfig(
            request_router_class="ray.serve.experimental.consistent_hash_router.ConsistentHashRouter",
            request_router_kwargs={
                "num_virtual_nodes": NUM_VIRTUAL_NODES,
                "num_fallback_replicas": config.num_fallback_replicas,
            },
        ),
        graceful_shutdown_timeout_s=config.move_timeout_s,
        graceful_shutdown_wait_loop_s=_DRAIN_POLL_S,
        **_update(config),
        **_scale(config),
    ).bind(config)


def _update(config: ClusterConfig) -> dict[str, Any]:
    if not config.surge:
        return {}  # Ray's default: one after another
    # The new replicas are ready before any of the former ones ends, and those end at once: sessions move once or twice.
    return {"max_surge_percent": 100, "rolling_update_percentage": 1.0}


def _scale(config: ClusterConfig) -> dict[str, Any]:
    if config.max_replicas is None:
        return {"num_replicas": config.num_replicas}
    policy = AutoscalingPolicy(policy_function=BusySharePolicy, policy_kwargs={"busy_share": config.busy_share})
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=config.num_replicas, max_replicas=config.max_replicas, policy=policy
        )
    }


def _log_to_stderr() -> None:
    """Log into Ray's file of the replica."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter(LOG_FORMAT))
    own = logging.getLogger("forelook")
    own.setLevel(logging.INFO)
    own.handlers = [handler]
    own.propagate = False
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
