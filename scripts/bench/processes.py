"""Forelook's real processes for benchmarks and the demo: a private backend, and language servers that use it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from forelook.commands.cli import command_context

from bench.lsp_client import LspClient, StdioServer, stdio_server

READY_TIMEOUT_S = 180.0


@contextlib.contextmanager
def private_environment(*, sees_models: bool = False) -> Iterator[dict[str, str]]:
    """Yield an environment with folders of its own, so that no backend of the user is found or disturbed.

    Args:
        sees_models: whether the models are there that the user has pulled; without them the starter model runs.
    """
    folder = Path(tempfile.mkdtemp(prefix="fl-"))  # short: a socket's path has few characters
    names = ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")
    if sees_models:
        (folder / "forelook").mkdir(mode=0o700)
        (folder / "forelook" / "models").symlink_to(command_context().paths.models_dir)
    try:
        yield {**os.environ, **dict.fromkeys(names, str(folder))}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def backend(environment: dict[str, str], command: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start ``forelook serve``, or a command that accepts its options, and wait until it listens.

    Raises:
        RuntimeError: the backend ended or did not listen; the message holds the end of its log.
    """
    log_path = Path(environment["XDG_RUNTIME_DIR"]) / "backend.log"
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, "--announce", env=environment, stdout=asyncio.subprocess.PIPE, stderr=log
        )
        try:
            assert process.stdout is not None
            announced = await asyncio.wait_for(process.stdout.readline(), READY_TIMEOUT_S)
            if b'"listening"' not in announced:
                raise RuntimeError(f"the backend does not listen: {announced.decode()}{log_path.read_text()[-2000:]}")
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await asyncio.wait_for(process.wait(), 30)


@contextlib.asynccontextmanager
async def editor(
    environment: dict[str, str], options: dict[str, Any], folder: Path | None = None
) -> AsyncIterator[StdioServer]:
    """Start a language server as an editor with UTF-32 positions does; shut it down at the end.

    It shows every suggestion unless the options say otherwise, whatever the model's sureness of it.
    """
    async with stdio_server(environment) as server:
        await server.client.initialize(
            encodings=["utf-32"],
            options={"confidence": "off", **options},
            folder=folder,
            capabilities={"textDocument": {"inlineCompletion": {}}},
        )
        yield server
        await server.client.request("shutdown")
        await server.client.notify("exit")
        await server.wait()


async def until_ready(client: LspClient) -> dict[str, Any]:
    """Wait until the model answers and return the status.

    Raises:
        RuntimeError: the model cannot be loaded; the message is the backend's.
    """
    status = await client.wait_for_status("ready", "error", timeout_s=READY_TIMEOUT_S)
    if status["state"] == "error":
        raise RuntimeError(str(status.get("message")))
    return status


async def statistics_of(client: LspClient) -> dict[str, Any]:
    """Return the answer to the command ``forelook.stats``."""
    stats: dict[str, Any] = await client.request("workspace/executeCommand", {"command": "forelook.stats"})
    return stats


def engine_counts(stats: dict[str, Any]) -> dict[str, int]:
    """Return the counters of the backend's engine."""
    return {name: value for name, value in stats["backend"]["engine"].items() if isinstance(value, int)}


def position(text: str, offset: int) -> dict[str, int]:
    """Return the LSP position, in UTF-32, of an offset."""
    return {"line": text.count("\n", 0, offset), "character": offset - (text.rfind("\n", 0, offset) + 1)}
