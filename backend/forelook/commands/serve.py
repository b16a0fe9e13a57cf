"""``forelook serve``, and the other ranks that it starts."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

from forelook.commands.arguments import read_configs
from forelook.commands.command_context import EXIT_MODEL, CommandContext
from forelook.errors import ForelookError
from forelook.failures import LOG_FORMAT, OneLineFormatter
from forelook.local.endpoint import Endpoint
from forelook.local.identity import BackendIdentity
from forelook.local.log_handler import stderr_handler
from forelook.ranks.source import RankSource, torchrun_rank
from forelook.settings.rows import Effect, as_json


def serve(options: argparse.Namespace, context: CommandContext) -> int:
    """Run the backend until it is idle, asked to stop, signalled, or cannot load its model."""
    os.umask(0o077)

    def announce(message: dict[str, object]) -> None:
        if options.announce:
            print(json.dumps(message), flush=True)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the starter reads one line and closes

    def listening(endpoint: Endpoint) -> None:
        http = {"http": endpoint.http_url, "http_key_file": endpoint.http_key_path} if endpoint.http_url else {}
        announce({"listening": endpoint.description, "pid": os.getpid(), **http})

    try:
        config, server_config = read_configs(options)
        _log_to_stderr(server_config.log_level, context.paths.log_path)
        identity = BackendIdentity.of(config)
        ranks: RankSource | None = None
        place = torchrun_rank(context.environ)
        if place is not None:
            rank, size = place
            if rank > 0:
                return _follow(identity, rank, size, None, context)
            ranks = RankSource(size)
        elif config.devices != 1:
            command = [sys.executable, "-m", "forelook", "follow", *identity.normalized().command_arguments()]
            ranks = RankSource(config.devices, command)
        from forelook.engine_factory import engine_factory
        from forelook.server.run import serve as run_server

        factory = engine_factory(replace(config, model=identity.model, adapter=identity.adapter), context.paths, ranks)
        settings = as_json(config, (Effect.RESTART,))
        is_loadable = run_server(factory, identity, context.paths, server_config, listening, settings)
    except ForelookError as error:
        announce({"error": str(error)})
        raise
    return 0 if is_loadable else EXIT_MODEL


def _log_to_stderr(level: str, log_path: Path) -> None:
    handler = stderr_handler(log_path, sys.stderr)
    handler.setFormatter(OneLineFormatter(LOG_FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in ("uvicorn", "uvicorn.error", "websockets", "asyncio"):  # below this they log frames: users' text
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def follow(options: argparse.Namespace, context: CommandContext) -> int:
    """Run one of the ranks that decode together with a backend, until the backend exits."""
    os.umask(0o077)
    _log_to_stderr("info", context.paths.log_path)
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    rank, size = options.rank
    return _follow(BackendIdentity.of(read_configs(options)[0]), rank, size, options.folder, context)


def _follow(identity: BackendIdentity, rank: int, size: int, folder: Path | None, context: CommandContext) -> int:
    from forelook.ranks.ranks import follow_rank_zero

    follow_rank_zero(rank, size, folder, identity, context.paths)
    return 0


def _end_with_standard_input() -> None:
    """Exit when the process that started this one closes the other end, or is killed."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(0)
