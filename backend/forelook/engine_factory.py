"""From the settings of a command to the completion engine. Importing this module imports no torch; calling it does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forelook.config import CompletionConfig, DecodingConfig, PoolConfig
from forelook.keys import WorkspaceKey
from forelook.local.files import make_private_dir
from forelook.local.identity import BackendIdentity, UserPaths
from forelook.privacy.secrets import is_secret
from forelook.ranks.source import RankSource
from forelook.server.engine import Engine, EngineFactory, OnStatus

if TYPE_CHECKING:
    from forelook.completion.engine.engine import EngineModel
    from forelook.completion.settings import EngineSettings
    from forelook.workspace.pool import WorkspacePool


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine works, beyond which model it runs.

    Attributes:
        decoding: W, N and G; any of them set means lookahead decoding as published, with the others as in the paper.
        completion: limits of a completion.
        pool: the n-gram pools.
        autoregressive: decode token by token, for comparison.
        left_to_right: take a model that was not trained to infill.
        keep_alive_s: unload the model after this long without use; ``None`` never.
        ranks: processes that decode together with this one, if any.
    """

    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    completion: CompletionConfig = field(default_factory=CompletionConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    autoregressive: bool = False
    left_to_right: bool = False
    keep_alive_s: float | None = None
    ranks: RankSource | None = None


def engine_factory(identity: BackendIdentity, options: EngineOptions, paths: UserPaths) -> EngineFactory:
    """What makes the engine for ``identity``."""

    def make(on_status: OnStatus) -> Engine:
        from forelook.completion.engine.drafting import Drafting, measure_drafting
        from forelook.completion.engine.engine import CompletionEngine
        from forelook.model.hub import pinned_folder
        from forelook.model.loading import LoadedModel, load_model
        from forelook.model.memory import release_memory

        def load(on_progress: Callable[[float, str], None]) -> LoadedModel:
            # Empty at the first load, when there is no group yet; ranks that start load by themselves.
            with contextlib.nullcontext() if ranks is None else ranks.loading():
                return load_model(
                    identity.model,
                    revision=identity.revision,
                    folder=pinned_folder(paths.models_path, identity.model, identity.revision),
                    device=identity.device,
                    dtype=identity.dtype,
                    allow_left_to_right=options.left_to_right,
                    on_progress=on_progress,
                )

        def release() -> None:
            if ranks is not None:
                ranks.unload()
            release_memory()

        settings = engine_settings(options, paths)
        ranks = None
        if options.ranks is not None and not options.autoregressive:
            from forelook.ranks.ranks import Ranks

            ranks = Ranks(options.ranks)
            ranks.prepare(identity.device)

        def make_pool(workspace: WorkspaceKey, model: EngineModel) -> WorkspacePool:
            from forelook.workspace.cache import PoolCache
            from forelook.workspace.pool import WorkspacePool

            root = settings.pool_cache_dir
            return WorkspacePool(
                model.tokenizer.encode,
                cache=None if root is None else PoolCache(root, workspace.pool_name, model.fingerprint),
                max_tokens=options.pool.max_tokens,
                permits=lambda key: not is_secret(workspace.uri, key),
            )

        def make_drafting(model: EngineModel) -> Drafting:
            if options.autoregressive or not isinstance(model, LoadedModel):
                return Drafting()
            measured = measure_drafting(model, make_private_dir(paths.cache_dir))
            return measured if ranks is None else ranks.shared(measured)

        return CompletionEngine(
            load,
            settings,
            on_status,
            make_pool=make_pool,
            make_drafting=make_drafting,
            release_memory=release,
        )

    return make


def engine_settings(options: EngineOptions, paths: UserPaths) -> EngineSettings:
    """The engine's settings; what is unset stays the engine's own choice."""
    from forelook.completion.settings import DecodingMethod, EngineSettings
    from forelook.decoding.lookahead.published import PublishedSettings

    completion, decoding = options.completion, options.decoding
    sizes = {
        name: value
        for name in ("window_size", "ngram_size", "max_candidates")
        if (value := getattr(decoding, name)) is not None
    }
    chosen: dict[str, Any] = {"statistics_path": paths.statistics_path, "keep_alive_s": options.keep_alive_s}
    make_private_dir(paths.state_dir)
    if options.pool.persistent:
        chosen["pool_cache_dir"] = paths.pools_dir
        make_private_dir(paths.cache_dir)
    if options.autoregressive:
        chosen["method"] = DecodingMethod.AUTOREGRESSIVE
    elif sizes and decoding.window_size != 0:
        chosen |= {"method": DecodingMethod.PUBLISHED, "published": PublishedSettings(**sizes)}
    if completion.max_new_tokens is not None:
        chosen["max_block_tokens"] = completion.max_new_tokens
        chosen["max_line_tokens"] = min(completion.max_new_tokens, EngineSettings().max_line_tokens)
    if completion.deadline_ms is not None:
        chosen["deadline_ms"] = completion.deadline_ms
    if completion.speculate is not None:
        chosen["speculate_on_show"] = completion.speculate
    if not completion.cross_file:
        chosen["context_share"] = 0.0
    return EngineSettings(**chosen)
