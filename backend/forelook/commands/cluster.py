"""``forelook cluster up``, ``status`` and ``down``: a cluster on this machine. See docs/team.md."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import sys

from forelook.commands.command_context import CommandContext
from forelook.errors import ConfigError, EndpointError
from forelook.failures import LOG_FORMAT, OneLineFormatter
from forelook.local.access import new_token
from forelook.local.files import make_private_dir

RAY_VERSION = "2.60"
"""Ray's router for sessions is experimental, so one version of it is supported: the one in the extra."""

SHORTCUT = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "forelook.cluster.proxy_shortcut:middlewares"}
"""What Ray Serve's proxies read, to pass requests on without a call between actors. A value that is set stays."""


def cluster(options: argparse.Namespace, context: CommandContext) -> int:
    """Start or update the cluster, show it, or end it."""
    os.umask(0o077)
    check_ray()
    _ensure_environment(options, context)
    from forelook.cluster import local_cluster
    from forelook.commands.output import show_answers

    files = local_cluster.ClusterFiles.of(context.paths)
    running = files.running()
    if options.action == "up":
        if running is not None:
            local_cluster.update(options.config, running)
            print(f"updated the cluster at {running.url}", flush=True)
            return 0
        _log_to_stderr()
        local_cluster.host(options.config, files, lambda found: print(f"cluster ready at {found.url}", flush=True))
        return 0
    if running is None:
        raise EndpointError("no cluster is running; start one with `forelook cluster up CONFIG.yaml`")
    if options.action == "down":
        local_cluster.stop(running, files)
        return 0
    show_answers([local_cluster.status(running)], options.json)
    return 0


def check_ray() -> None:
    """Check that the extra is installed.

    Raises:
        ConfigError: Ray is missing, or of another version.
    """
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    if not version.startswith(f"{RAY_VERSION}."):
        raise ConfigError("ray", version, f"version {RAY_VERSION}; run `pip install 'forelook[cluster]'`")


def _ensure_environment(options: argparse.Namespace, context: CommandContext) -> None:
    """Start this command again with what Ray reads from its environment, unless it has that already.

    Other users of this machine reach Ray's ports, so it asks for a token. Usage statistics are off.
    """
    token_path = make_private_dir(context.paths.state_dir) / "ray-token"
    wanted = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "0",
        "RAY_worker_niceness": "0",  # by default 15: others' programs would come before every suggestion
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # despite its name: the address of this machine is 127.0.0.1
    }
    wanted |= {name: context.environ.get(name, value) for name, value in SHORTCUT.items()}
    if wanted.items() <= context.environ.items():
        return
    if not token_path.exists():
        new_token(token_path)
    arguments = ["cluster", options.action]
    arguments += [str(options.config)] if options.action == "up" else []
    arguments += ["--json"] if getattr(options, "json", False) else []
    os.execve(  # noqa: S606 - no shell; the same program
        sys.executable, [sys.executable, "-m", "forelook", *arguments], {**context.environ, **wanted}
    )


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter(LOG_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in ("ray", "websockets", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
