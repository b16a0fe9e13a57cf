"""``forelook serve``, and the further ranks that it starts."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

from forelook.commands.command_context import Surroundings, identity_of
from forelook.config import CompletionConfig, DecodingConfig, ModelConfig, PoolConfig, ServerConfig
from forelook.errors import ForelookError
from forelook.local.endpoint import Endpoint


def serve(options: argparse.Namespace, here: Surroundings) -> int:
    """Run the backend until it is idle, told to stop, or signalled."""
    os.umask(0o077)
    _log_to_stderr(options.log_level)
    from forelook.ranks.source import RankSource, torchrun_rank

    ranks: RankSource | None = None
    place = torchrun_rank(here.environ)
    if place is not None:
        rank, size = place
        if rank > 0:
            return _follow(options, rank, size, None, here)
        ranks = RankSource(size)
    elif options.devices != 1:
        model = identity_of(options).command_arguments()
        ranks = RankSource(options.devices, [sys.executable, "-m", "forelook", "follow", *model])

    def announce(message: dict[str, object]) -> None:
        if options.announce:
            print(json.dumps(message), flush=True)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the starter reads one line and leaves

    def listening(endpoint: Endpoint) -> None:
        announce({"listening": endpoint.description, "pid": os.getpid()})

    try:
        config = ServerConfig(
            port=options.port,
            host=options.host,
            tls_certificate=options.tls_certificate,
            tls_key=options.tls_key,
            token_file=options.token_file,
            allowed_origins=tuple(options.allow_origin),
            allowed_hosts=tuple(options.allow_host),
            idle_timeout_s=options.idle_timeout or None,
            max_connections=options.max_connections,
        )
        identity = identity_of(options)
        from forelook.engine_factory import EngineOptions, engine_factory

        engine_options = EngineOptions(
            decoding=DecodingConfig(options.window_size, options.ngram_size, options.max_candidates),
            completion=CompletionConfig(
                options.max_new_tokens,
                options.deadline_ms,
                cross_file=not options.no_cross_file,
                speculate={"auto": None, "on": True, "off": False}[options.speculate],
            ),
            pool=PoolConfig(persistent=not options.no_persistent_pool, **_given(max_tokens=options.pool_tokens)),
            autoregressive=options.autoregressive,
            left_to_right=options.left_to_right,
            ranks=ranks,
            keep_alive_s=ModelConfig(keep_alive_s=options.keep_alive).keep_alive_s,
        )
        factory = engine_factory(identity, engine_options, here.paths)
        from forelook.server.run import serve as run_server

        run_server(factory, identity, here.paths, config, listening)
    except ForelookError as error:
        announce({"error": str(error)})
        raise
    return 0


def _given(**values: Any) -> dict[str, Any]:
    """The arguments that were given."""
    return {name: value for name, value in values.items() if value is not None}


def _log_to_stderr(level: str) -> None:
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=level.upper(), format=form, stream=sys.stderr)
    for name in ("uvicorn", "uvicorn.error", "websockets", "asyncio"):  # below this they log frames: users' text
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def follow(options: argparse.Namespace, here: Surroundings) -> int:
    """Be one of the ranks that decode together with a backend, until it is gone."""
    os.umask(0o077)
    _log_to_stderr("info")
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    rank, size = options.rank
    return _follow(options, rank, size, options.folder, here)


def _follow(options: argparse.Namespace, rank: int, size: int, folder: Path | None, here: Surroundings) -> int:
    from forelook.ranks.ranks import follow_rank_zero

    follow_rank_zero(rank, size, folder, identity_of(options), here.paths)
    return 0


def _end_with_standard_input() -> None:
    """Whoever started this process holds the other end; it may be killed and say nothing."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(0)
