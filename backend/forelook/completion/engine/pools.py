"""The n-gram pools of the workspaces and what drafting learned in each; nothing is shared between workspaces."""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np

from forelook.budgets import ByteBudget
from forelook.completion.engine.model_state import ModelState
from forelook.decoding.drafting.tree_drafter import DraftMemory
from forelook.decoding.layout import IntArray
from forelook.failures import logged
from forelook.keys import DEPENDENCIES, WorkspaceKey
from forelook.model.loading import LoadedModel
from forelook.workspace.pool import WorkspacePool

MakePool = Callable[[WorkspaceKey, LoadedModel], WorkspacePool]

logger = logging.getLogger(__name__)

MAX_OPEN = 64  # chosen, not measured: more workspaces than connections
CLOSE_AFTER_S = 300.0  # chosen, not measured
_MAX_MEMORIES = 128  # chosen, not measured


def pool_in_memory(_workspace: WorkspaceKey, model: LoadedModel) -> WorkspacePool:
    """A pool that is not kept on disk."""
    return WorkspacePool(model.tokenizer.encode)


class WorkspacePools:
    """Pools by workspace, opened on use and closed once unused.

    Only the engine's thread calls it; any thread may call ``stats``.

    Args:
        make_pool: makes the pool of a workspace for the tokenizer of a model.
        model: where the model comes from; without one no pool is made.
        slice_s: time of one slice of indexing.
        clock: monotonic seconds.
        budget: memory for files that wait to be indexed; ``None`` for a budget per pool.
    """

    def __init__(
        self,
        make_pool: MakePool,
        model: ModelState,
        slice_s: float,
        clock: Callable[[], float] = time.monotonic,
        budget: ByteBudget | None = None,
    ) -> None:
        self._budget = budget
        self._make_pool = make_pool
        self._model = model
        self._slice_s = slice_s
        self._clock = clock
        self._pools: OrderedDict[WorkspaceKey, WorkspacePool] = OrderedDict()  # the last used last
        self._used_s: dict[WorkspaceKey, float] = {}
        self._memories: OrderedDict[WorkspaceKey, DraftMemory] = OrderedDict()
        self.has_unsaved = False

    def get(self, workspace: WorkspaceKey) -> WorkspacePool | None:
        """The pool of a workspace, for use; ``None`` before the first model was loaded, or if too many are in use."""
        pool = self._pools.get(workspace)
        loaded = self._model.loaded
        if pool is None and loaded is not None and self._has_room():
            pool = self._pools[workspace] = self._make_pool(workspace, loaded.model)
            if self._budget is not None:
                pool.share(self._budget, workspace.principal)
        if pool is not None:
            self._pools.move_to_end(workspace)
            self._used_s[workspace] = self._clock()
            self.has_unsaved = True
        return pool

    def latest_of(self, principal: str, without: WorkspaceKey) -> WorkspacePool | None:
        """The pool of the workspace that a user has used last, but not that of ``without``."""
        not_asked = (without.uri, DEPENDENCIES)
        keys = (key for key in reversed(self._pools) if key.principal == principal and key.uri not in not_asked)
        return next((self._pools[key] for key in keys), None)

    def dependencies(self, principal: str) -> WorkspacePool | None:
        """The libraries that a user's documents import; ``None`` where no client has sent any."""
        key = WorkspaceKey(principal, DEPENDENCIES)
        return self.get(key) if key in self._pools else None

    def _has_room(self) -> bool:
        """Close the pool that was used longest ago if all places are taken; False if all have open documents."""
        if len(self._pools) < MAX_OPEN:
            return True
        oldest = next((key for key, pool in self._pools.items() if pool.stats().num_open == 0), None)
        if oldest is None:
            logger.warning("%d workspaces have open documents; drafting without a pool in further ones", MAX_OPEN)
            return False
        self._close(oldest)
        return True

    def close_unused(self) -> None:
        """Close what has had no open document and no use for a while and is on disk."""
        now_s = self._clock()
        for workspace in [key for key, used_s in self._used_s.items() if used_s + CLOSE_AFTER_S <= now_s]:
            if self._pools[workspace].is_unused:
                self._close(workspace)
            else:
                self._used_s[workspace] = now_s  # ask again later

    @property
    def close_due_s(self) -> float:
        """When the next pool may be closed; infinite without any."""
        return min(self._used_s.values(), default=math.inf) + CLOSE_AFTER_S

    def _close(self, workspace: WorkspaceKey) -> None:
        del self._used_s[workspace]
        with logged("closing a pool"):
            self._pools.pop(workspace).close()

    def memory(self, workspace: WorkspaceKey) -> DraftMemory:
        """What earlier requests of a workspace taught the drafter."""
        memory = self._memories.get(workspace)
        if memory is None:
            memory = self._memories[workspace] = DraftMemory(self._model.drafting.seeds)
            if len(self._memories) > _MAX_MEMORIES:
                self._memories.popitem(last=False)
        self._memories.move_to_end(workspace)
        return memory

    def clear(self, workspace: WorkspaceKey) -> None:
        """Empty the pool of a workspace, on disk too, and drop what the drafter learned.

        Raises:
            PoolCacheError: the files cannot be deleted.
        """
        self._memories.pop(workspace, None)
        if (pool := self.get(workspace)) is not None:
            pool.clear()

    def remove(self, workspace: WorkspaceKey, paths: Sequence[str]) -> None:
        """Drop files, or folders with all below them, and what the drafter learned from them."""
        if (pool := self.get(workspace)) is not None:
            pool.remove_files(paths)
            self._memories.pop(workspace, None)

    def keep(self, workspace: WorkspaceKey, paths: frozenset[str]) -> None:
        """Drop all files but these and open documents, and then also what the drafter learned."""
        if (pool := self.get(workspace)) is not None and pool.keep_files(paths):
            self._memories.pop(workspace, None)

    def index(self) -> bool:
        """Index for one slice; returns whether more is left."""
        # libraries come last, as they are the least relevant
        for key in sorted(self._pools, key=lambda key: key.uri == DEPENDENCIES):
            with logged("indexing"):
                if self._pools[key].run_slice(self._slice_s):
                    return True
        return False

    def token_uses(self, vocab_size: int) -> IntArray:
        """[V] how much each token matters in all pools: how often it occurs, those of open documents first."""
        uses = np.zeros(vocab_size, dtype=np.int64)
        for pool in self._pools.values():
            uses += pool.token_uses(vocab_size)
        return uses

    def pairs_in_use(self) -> IntArray:
        """Pairs of neighboring tokens in all pools, those that matter most first; each as one integer."""
        parts = [part for pool in self._pools.values() for part in pool.pair_uses()]
        if not parts:
            return np.zeros(0, dtype=np.int64)
        pairs, places = np.unique(np.concatenate([pairs for pairs, _ in parts]), return_inverse=True)
        uses = np.bincount(places, weights=np.concatenate([counts for _, counts in parts]))
        in_order: IntArray = pairs[np.argsort(-uses, kind="stable")]
        return in_order

    def save(self) -> None:
        """Write what has changed to disk."""
        self.has_unsaved = False
        for pool in self._pools.values():
            with logged("saving a pool"):
                pool.save()
                self.has_unsaved |= pool.has_unsaved

    def close(self) -> None:
        """Save, and release the files."""
        for workspace in tuple(self._pools):
            self._close(workspace)

    def totals(self) -> dict[str, int]:
        """Counts of all open pools."""
        stats = [pool.stats() for pool in tuple(self._pools.values())]
        return {
            "num_pools": len(stats),
            "pool_tokens": sum(pool.num_tokens for pool in stats),
            "pool_bytes": sum(pool.nbytes for pool in stats),
        }

    def stats(self, workspace: WorkspaceKey) -> dict[str, object]:
        """Counts of one workspace's pool."""
        pool = self._pools.get(workspace)
        return {"num_tokens": 0, "num_documents": 0} if pool is None else asdict(pool.stats())
