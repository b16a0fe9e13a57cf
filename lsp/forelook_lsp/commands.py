"""The commands of ``workspace/executeCommand``: one row each. docs/language-server.md lists the same rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from forelook.errors import BackendUnreachableError, ForelookError
from forelook.protocol import jsonrpc, messages

from forelook_lsp.window import EditorWindow

TIMEOUT_S = 5.0  # chosen, not measured

P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        name: its name, without the editor's ``commandSuffix``.
        title: its name for people.
        handler: called with the window and the command's arguments; may be a coroutine function.
        argument: its argument, for the documentation.
        text: its effect or answer, for the documentation.
    """

    name: str
    title: str
    handler: Callable[..., Any]
    argument: str
    text: str


def _accepted(window: EditorWindow, *arguments: Any) -> None:
    if arguments and isinstance(arguments[0], str):
        window.suggestions.accepted(arguments[0])


def _toggle(window: EditorWindow, *arguments: Any) -> dict[str, Any]:
    language = arguments[0] if arguments and isinstance(arguments[0], str) and arguments[0] else None
    return {"enabled": window.toggle(language), "language": language}


async def _statistics(window: EditorWindow, *_: Any) -> dict[str, Any]:
    backend: dict[str, object]
    try:
        stats = await _request(window, messages.STATS, messages.Empty())
        backend = {"server": stats.server, "engine": stats.engine}
    except ForelookError as error:
        backend = {"error": str(error)}
    return {"window": window.suggestions.statistics(), "backend": backend}


async def _pool_statistics(window: EditorWindow, *_: Any) -> dict[str, Any]:
    pools: dict[str, object] = {}
    for name in window.documents.workspaces():
        pools[name] = (await _request(window, messages.POOL_STATS, messages.WorkspaceParams(name))).pool
    return {"workspaces": pools}


async def _clear_pool(window: EditorWindow, *_: Any) -> dict[str, Any]:
    window.indexing.stop()
    names = window.documents.workspaces()
    for name in names:
        await _request(window, messages.POOL_CLEAR, messages.WorkspaceParams(name))
    window.presenter.status.pool_tokens = 0
    window.presenter.show()
    return {"workspaces": names}


async def _restart_backend(window: EditorWindow, *_: Any) -> None:
    await window.restart_backend()


def _status(window: EditorWindow, *_: Any) -> dict[str, Any]:
    return window.presenter.status.snapshot().to_json()


async def _request(window: EditorWindow, method: jsonrpc.RequestMethod[P, R], params: P) -> R:
    """Send a command's request.

    Raises:
        ForelookError: no backend, no answer in time, or the backend's own error.
    """
    try:
        return await asyncio.wait_for(window.backend.request(method, params), TIMEOUT_S)
    except asyncio.TimeoutError:
        raise BackendUnreachableError(
            f"the backend did not answer {method.name} within {TIMEOUT_S:g} s; retry, or restart it"
        ) from None


ACCEPTED = Command(
    "forelook.accepted",
    "Forelook: accepted",
    _accepted,
    "a suggestion's id",
    "none; every item's `command` is this one",
)
COMMANDS: tuple[Command, ...] = (
    Command(
        "forelook.toggle",
        "Switch Suggestions On or Off Everywhere",
        _toggle,
        "a language id, or none for all languages",
        '`{"enabled", "language"}`',
    ),
    Command(
        "forelook.stats", "Show Statistics", _statistics, "", "counts of this window and of the backend, never text"
    ),
    Command(
        "forelook.poolStats",
        "Show Statistics of the Workspace's Pool",
        _pool_statistics,
        "",
        "counts of the pools of this window's workspaces",
    ),
    Command(
        "forelook.clearPool",
        "Clear What Was Learned From This Workspace",
        _clear_pool,
        "",
        "the workspaces of this window; their pools are emptied, on disk too",
    ),
    Command(
        "forelook.restartBackend",
        "Restart the Backend",
        _restart_backend,
        "",
        "none; the backend is restarted for all its windows",
    ),
    Command("forelook.status", "Show Status", _status, "", "the status, as below"),
    ACCEPTED,
)
