"""``forelook doctor``, ``status``, ``stats``, ``stop`` and ``pool``: what runs, how it does, and its end."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forelook.commands.command_context import ANSWER_TIMEOUT_S, EXIT_FAULT, LOADING_TIMEOUT_S, Surroundings, identity_of
from forelook.errors import BackendUnreachableError
from forelook.local.endpoint import Endpoint, discover, running_backends
from forelook.local.files import file_lock
from forelook.local.identity import BackendIdentity
from forelook.local.spawn import connect_or_spawn
from forelook.protocol import messages


def doctor(options: argparse.Namespace, here: Surroundings) -> int:
    """Print every check; the exit status says whether one failed."""
    from forelook.commands.doctor import examine
    from forelook.commands.output import show_checks

    checks = examine(identity_of(options), here.paths)
    show_checks(checks, options.json, print)
    return EXIT_FAULT if any(check.is_fault for check in checks) else 0


def _chosen_backends(options: argparse.Namespace, here: Surroundings) -> list[Endpoint]:
    """The one the options name, or all that run."""
    if options.endpoint is not None:
        return [Endpoint.from_url(options.endpoint, str(options.token_file) if options.token_file else None)]
    identity = identity_of(options)
    if identity == BackendIdentity():
        return running_backends(here.paths)
    endpoint = discover(identity, here.paths)
    return [] if endpoint is None else [endpoint]


def _asked(options: argparse.Namespace, here: Surroundings, ask: Callable[[Any], dict[str, object]]) -> int:
    """Ask each chosen backend and print the answers."""
    from forelook.commands.client import connected
    from forelook.commands.output import show_answers

    endpoints = _chosen_backends(options, here)
    if not endpoints:
        raise BackendUnreachableError("no backend is running: an editor starts one, and so does `forelook serve`")
    answers: list[dict[str, object]] = []
    for endpoint in endpoints:
        with connected(endpoint) as client:
            answers.append({"endpoint": endpoint.description, **ask(client)})
    show_answers(answers, options.json, print)
    return 0


def status(options: argparse.Namespace, here: Surroundings) -> int:
    """Show what runs."""

    def ask(client: Any) -> dict[str, object]:
        hello: messages.HelloResult = client.hello
        return {"pid": hello.pid, "server_version": hello.server_version, **messages.to_json(hello.status)}

    return _asked(options, here, ask)


def stats(options: argparse.Namespace, here: Surroundings) -> int:
    """Show counts and latencies, or where nothing runs, what users did with suggestions so far."""
    if options.endpoint is None and not _chosen_backends(options, here):
        from forelook.commands.output import show_answers
        from forelook.completion.engine.usage import UsageCounters

        usage = UsageCounters(here.paths.statistics_path).to_dict()
        show_answers([{"endpoint": None, "engine": {"usage": usage}}], options.json, print)
        return 0
    return _asked(
        options, here, lambda client: messages.to_json(client.call(messages.STATS, messages.Empty(), ANSWER_TIMEOUT_S))
    )


def stop(options: argparse.Namespace, here: Surroundings) -> int:
    """End the chosen backends and wait until they are gone."""
    from forelook.commands.client import connected
    from forelook.commands.output import show_answers

    answers: list[dict[str, object]] = []
    for endpoint in _chosen_backends(options, here):
        with connected(endpoint) as client:
            client.shut_down(ANSWER_TIMEOUT_S)
        answers.append({"endpoint": endpoint.description, "pid": endpoint.pid, "state": "stopped"})
        if endpoint.lock_path is not None:
            with file_lock(Path(endpoint.lock_path), 30.0, "the backend is still ending"):
                pass
    show_answers(answers, options.json, print)
    return 0


def pool(options: argparse.Namespace, here: Surroundings) -> int:
    """Show, clear or locate a workspace's pool; a backend is started where none runs, as only it can read a pool."""
    if options.action == "path":
        print(here.paths.pools_dir)
        return 0
    if not _chosen_backends(options, here):
        connect_or_spawn(identity_of(options), here.paths, here.environ)
    workspace = messages.WorkspaceParams(options.workspace.resolve().as_uri())
    method = messages.POOL_STATS if options.action == "stats" else messages.POOL_CLEAR

    def ask(client: Any) -> dict[str, object]:
        client.wait_until_ready(LOADING_TIMEOUT_S)
        return messages.to_json(client.call(method, workspace, ANSWER_TIMEOUT_S))

    return _asked(options, here, ask)
