"""The n-gram pools of the workspaces and what each workspace taught the drafter; never shared between workspaces."""

from __future__ import annotations

from collections.abc import Callable

from forelook.completion.engine.model_state import EngineModel
from forelook.completion.faults import guarded
from forelook.decoding.drafting.sources.successors import SuccessorSeeds
from forelook.decoding.drafting.tree_drafter import DraftMemory
from forelook.keys import WorkspaceKey
from forelook.workspace.pool import WorkspacePool

MakePool = Callable[[WorkspaceKey, EngineModel], WorkspacePool]


class WorkspacePools:
    """Made when first used, by the engine's thread; ``stats`` may be read from any."""

    def __init__(self, make_pool: MakePool, index_slice_s: float) -> None:
        self._make_pool = make_pool
        self._index_slice_s = index_slice_s
        self._pools: dict[WorkspaceKey, WorkspacePool] = {}
        self._memories: dict[WorkspaceKey, DraftMemory] = {}
        self.has_unsaved = False

    def use(self, workspace: WorkspaceKey, model: EngineModel | None, work: Callable[[WorkspacePool], None]) -> None:
        """Do something with the pool of a workspace; before there was a model there is none."""
        pool = self._pools.get(workspace)
        if pool is None and model is not None:
            pool = self._pools[workspace] = self._make_pool(workspace, model)
        if pool is not None:
            self.has_unsaved = True
            work(pool)

    def memory(self, workspace: WorkspaceKey, seeds: SuccessorSeeds | None) -> DraftMemory:
        """What earlier requests of a workspace taught."""
        memory = self._memories.get(workspace)
        if memory is None:
            memory = self._memories[workspace] = DraftMemory(seeds)
        return memory

    def forget_memory(self, workspace: WorkspaceKey) -> None:
        """Drop what earlier requests taught."""
        self._memories.pop(workspace, None)

    def index(self) -> bool:
        """One slice of indexing; whether there is more."""
        for pool in self._pools.values():
            more = False

            def work(pool: WorkspacePool = pool) -> None:
                nonlocal more
                more = pool.run_slice(self._index_slice_s)

            guarded("indexing", work)
            if more:
                return True
        return False

    def save(self) -> None:
        """Write what has changed to disk."""
        self.has_unsaved = False
        for pool in self._pools.values():
            guarded("saving a pool", pool.save)

    def close(self) -> None:
        """Save, and let go of the files."""
        for pool in self._pools.values():
            guarded("closing a pool", pool.close)

    def stats(self, workspace: WorkspaceKey) -> dict[str, object]:
        """Counts of one workspace's pool."""
        pool = self._pools.get(workspace)
        if pool is None:
            return {"num_tokens": 0, "num_documents": 0}
        snapshot = pool.stats()
        return {name: getattr(snapshot, name) for name in snapshot.__slots__}
