"""``forelook doctor``, ``status``, ``stats``, ``stop`` and ``pool``: ask the running backends, or stop them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forelook.commands.command_context import (
    ANSWER_TIMEOUT_S,
    EXIT_FAULT,
    LOADING_TIMEOUT_S,
    CommandContext,
    given_endpoint,
    identity_of,
    left_to_right_of,
)
from forelook.errors import BackendUnreachableError
from forelook.local.endpoint import Endpoint, discover, running_backends
from forelook.local.files import file_lock
from forelook.local.identity import BackendIdentity
from forelook.local.spawn import connect_or_spawn
from forelook.protocol import messages

if TYPE_CHECKING:
    from forelook.commands.client import BackendClient

_STOP_TIMEOUT_S = 30.0  # chosen, not measured: the backend closes connections, saves its pools and frees the model

Answer = dict[str, object]


def doctor(options: argparse.Namespace, context: CommandContext) -> int:
    """Print every check; the exit status says whether one failed."""
    from forelook.commands.doctor import examine
    from forelook.commands.output import show_checks

    checks = examine(identity_of(options), context.paths, left_to_right=left_to_right_of(options))
    show_checks(checks, options.json)
    return EXIT_FAULT if any(check.is_fault for check in checks) else 0


def status(options: argparse.Namespace, context: CommandContext) -> int:
    """Print each backend's process, version, model and state."""

    def ask(client: BackendClient) -> Answer:
        hello = client.hello
        return {"pid": hello.pid, "server_version": hello.server_version, **messages.to_json(hello.status)}

    return _print(_ask(_required(options, context), ask), options)


def stats(options: argparse.Namespace, context: CommandContext) -> int:
    """Print counts and latencies; without a running backend, the stored usage counts."""
    if options.endpoint is None and not _chosen_backends(options, context):
        from forelook.completion.engine.usage import UsageCounters

        usage = UsageCounters(context.paths.statistics_path).to_dict()
        return _print([{"endpoint": None, "engine": {"usage": usage}}], options)

    def ask(client: BackendClient) -> Answer:
        return messages.to_json(client.call(messages.STATS, messages.Empty(), ANSWER_TIMEOUT_S))

    return _print(_ask(_required(options, context), ask), options)


def stop(options: argparse.Namespace, context: CommandContext) -> int:
    """Stop the chosen backends and wait until their processes have released their locks."""

    def ask(client: BackendClient) -> Answer:
        client.shut_down(ANSWER_TIMEOUT_S)
        return {"pid": client.hello.pid, "state": "stopped"}

    endpoints = _chosen_backends(options, context)
    answers = _ask(endpoints, ask)
    for endpoint in endpoints:
        if endpoint.lock_path is not None:
            with file_lock(Path(endpoint.lock_path), _STOP_TIMEOUT_S, "the backend is still shutting down"):
                pass
    return _print(answers, options)


def pool(options: argparse.Namespace, context: CommandContext) -> int:
    """Show, clear or locate a workspace's pool; starts a backend if none is running, because only it reads pools."""
    if options.action == "path":
        print(context.paths.pools_dir)
        return 0
    if not _chosen_backends(options, context):
        connect_or_spawn(identity_of(options), context.paths, context.environ)
    workspace = messages.WorkspaceParams(options.workspace.resolve().as_uri())

    def ask(client: BackendClient) -> Answer:
        client.wait_until_ready(LOADING_TIMEOUT_S)
        if options.action == "stats":
            return messages.to_json(client.call(messages.POOL_STATS, workspace, ANSWER_TIMEOUT_S))
        return messages.to_json(client.call(messages.POOL_CLEAR, workspace, ANSWER_TIMEOUT_S))

    return _print(_ask(_required(options, context), ask), options)


def _chosen_backends(options: argparse.Namespace, context: CommandContext) -> list[Endpoint]:
    """The backend that the options name; without such options, all that are running."""
    endpoint = given_endpoint(options)
    if endpoint is not None:
        return [endpoint]
    identity = identity_of(options)
    if identity == BackendIdentity():
        return running_backends(context.paths)
    endpoint = discover(identity, context.paths)
    return [] if endpoint is None else [endpoint]


def _required(options: argparse.Namespace, context: CommandContext) -> list[Endpoint]:
    """The chosen backends, at least one.

    Raises:
        BackendUnreachableError: none is running.
    """
    endpoints = _chosen_backends(options, context)
    if not endpoints:
        raise BackendUnreachableError("no backend is running; open an editor or run `forelook serve`")
    return endpoints


def _ask(endpoints: Sequence[Endpoint], ask: Callable[[BackendClient], Answer]) -> list[Answer]:
    """Connect to each backend and ask it."""
    from forelook.commands.client import connected

    answers: list[Answer] = []
    for endpoint in endpoints:
        with connected(endpoint) as client:
            answers.append({"endpoint": endpoint.description, **ask(client)})
    return answers


def _print(answers: Sequence[Answer], options: argparse.Namespace) -> int:
    from forelook.commands.output import show_answers

    show_answers(answers, options.json)
    return 0
