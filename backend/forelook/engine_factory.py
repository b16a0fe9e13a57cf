"""From an :class:`EngineConfig` to the completion engine. Importing this module imports no torch; calling it does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from forelook.config import EngineConfig
from forelook.errors import EndpointError
from forelook.keys import WorkspaceKey
from forelook.local.files import make_private_dir
from forelook.local.identity import BackendIdentity, UserPaths
from forelook.privacy.secrets import is_secret
from forelook.ranks.source import RankSource
from forelook.server.engine import Engine, EngineFactory, OnStatus

if TYPE_CHECKING:
    from forelook.model.loading import LoadedModel
    from forelook.workspace.pool import WorkspacePool

logger = logging.getLogger(__name__)

_POOL_TOKENS = 2_000_000  # chosen, not measured


def engine_factory(config: EngineConfig, paths: UserPaths, rank_source: RankSource | None = None) -> EngineFactory:
    """The function that makes the engine.

    Args:
        config: which model runs, and how it completes.
        paths: the user's folders.
        rank_source: the processes that decode together with this one, if any.
    """

    def make(on_status: OnStatus) -> Engine:
        from forelook.completion.engine.drafting import Drafting, restore_drafting
        from forelook.completion.engine.engine import CompletionEngine
        from forelook.decoding.native.library import native_likeliest
        from forelook.decoding.ngrams.native.library import native_lookup
        from forelook.model.default_model import load_user_model
        from forelook.model.memory import release_memory

        has_state = _is_usable(paths.state_dir)
        has_cache = _is_usable(paths.cache_dir)
        cache_threads: list[ThreadPoolExecutor] = []
        ranks = None
        if rank_source is not None and not config.autoregressive:
            from forelook.ranks.ranks import Ranks

            ranks = Ranks(rank_source)
            ranks.prepare(config.device)

        def load(on_progress: Callable[[float, str], None]) -> LoadedModel:
            if not config.autoregressive:
                native_lookup()  # pools are made after it, so no request waits for a compiler
                native_likeliest()
            load_own = partial(
                load_user_model,
                BackendIdentity.of(config),
                paths,
                allow_left_to_right=config.left_to_right,
                on_progress=on_progress,
            )
            return load_own() if ranks is None else ranks.load(load_own)

        def release() -> None:
            if ranks is not None:
                ranks.unload()
            release_memory()

        def make_pool(workspace: WorkspaceKey, model: LoadedModel) -> WorkspacePool:
            from forelook.workspace.cache import PoolCache
            from forelook.workspace.cache_worker import new_cache_thread
            from forelook.workspace.pool import WorkspacePool

            cache = None
            if config.persistent_pool and has_cache and urlsplit(workspace.uri).scheme:  # no folder's stay in memory
                if not cache_threads:
                    cache_threads.append(new_cache_thread())
                cache = PoolCache(paths.pools_dir, workspace.pool_name, model.fingerprint)
            return WorkspacePool(
                model.tokenizer.encode,
                splitter=model.tokenizer.splitter,
                cache=cache,
                cache_thread=cache_threads[0] if cache_threads else None,
                max_tokens=config.pool_tokens or _POOL_TOKENS,
                permits=lambda key: not is_secret(workspace.uri, key),
            )

        def make_drafting(model: LoadedModel) -> Drafting:
            if config.autoregressive:
                return Drafting()
            # Which tokens the model was asked about tells something of the documents, as the pools do.
            keeps = has_cache and config.persistent_pool
            drafting = restore_drafting(model, paths.cache_dir if keeps else None)
            return drafting if ranks is None else ranks.shared(drafting)

        return CompletionEngine(
            load,
            config,
            on_status,
            make_pool=make_pool,
            make_drafting=make_drafting,
            release_memory=release,
            statistics_path=paths.statistics_path if has_state else None,
        )

    return make


def _is_usable(folder: Path) -> bool:
    """Make a private folder; without one the engine works, but keeps nothing for its next start."""
    try:
        make_private_dir(folder)
    except EndpointError as error:
        logger.warning("%s; nothing is kept there for the next start", error)
        return False
    return True
