"""The n-gram pools of the workspaces and what drafting learned in each; nothing is shared between workspaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from forelook.completion.engine.model_state import ModelState
from forelook.decoding.drafting.tree_drafter import DraftMemory
from forelook.failures import logged
from forelook.keys import WorkspaceKey
from forelook.model.loading import LoadedModel
from forelook.workspace.pool import WorkspacePool

MakePool = Callable[[WorkspaceKey, LoadedModel], WorkspacePool]


class WorkspacePools:
    """Pools by workspace, made on first use. Only the engine's thread calls it; any thread may call ``stats``.

    Args:
        make_pool: makes the pool of a workspace for the tokenizer of a model.
        model: where the model comes from; without one no pool is made.
        slice_s: time of one slice of indexing.
    """

    def __init__(self, make_pool: MakePool, model: ModelState, slice_s: float) -> None:
        self._make_pool = make_pool
        self._model = model
        self._slice_s = slice_s
        self._pools: dict[WorkspaceKey, WorkspacePool] = {}
        self._memories: dict[WorkspaceKey, DraftMemory] = {}
        self.has_unsaved = False

    def get(self, workspace: WorkspaceKey) -> WorkspacePool | None:
        """The pool of a workspace, for use; ``None`` before the first model was loaded."""
        pool = self._pools.get(workspace)
        loaded = self._model.loaded
        if pool is None and loaded is not None:
            pool = self._pools[workspace] = self._make_pool(workspace, loaded.model)
        self.has_unsaved |= pool is not None
        return pool

    def memory(self, workspace: WorkspaceKey) -> DraftMemory:
        """What earlier requests of a workspace taught the drafter."""
        memory = self._memories.get(workspace)
        if memory is None:
            memory = self._memories[workspace] = DraftMemory(self._model.drafting.seeds)
        return memory

    def clear(self, workspace: WorkspaceKey) -> None:
        """Empty the pool of a workspace, on disk too, and drop what the drafter learned.

        Raises:
            PoolCacheError: the files cannot be deleted.
        """
        self._memories.pop(workspace, None)
        if (pool := self.get(workspace)) is not None:
            pool.clear()

    def index(self) -> bool:
        """Index for one slice; returns whether more is left."""
        for pool in self._pools.values():
            with logged("indexing"):
                if pool.run_slice(self._slice_s):
                    return True
        return False

    def save(self) -> None:
        """Write what has changed to disk."""
        self.has_unsaved = False
        for pool in self._pools.values():
            with logged("saving a pool"):
                pool.save()

    def close(self) -> None:
        """Save, and release the files."""
        for pool in self._pools.values():
            with logged("closing a pool"):
                pool.close()

    def stats(self, workspace: WorkspaceKey) -> dict[str, object]:
        """Counts of one workspace's pool."""
        pool = self._pools.get(workspace)
        return {"num_tokens": 0, "num_documents": 0} if pool is None else asdict(pool.stats())
