"""Reads and writes a pool's cache in a thread of its own, so that a slow disk never holds up a decode step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from forelook.decoding.ngrams.pool import NgramPool, PoolState
from forelook.errors import PoolCacheError
from forelook.workspace.cache import Change, PoolCache, Restored

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestoredPool:
    """A pool built from the cache, and the digests of its documents' texts."""

    pool: NgramPool
    digests: dict[str, int]


class CacheWorker:
    """One thread that owns a :class:`PoolCache`. Faults are logged here; the pool goes on in memory.

    Args:
        cache: the files.
        max_tokens: bound of a restored pool.
        permits: whether a document's name may be read; others are dropped from what is restored.
    """

    def __init__(
        self,
        cache: PoolCache,
        max_tokens: int,
        permits: Callable[[str], bool] = lambda key: True,  # noqa: ARG005 - the name is part of the interface
    ) -> None:
        self._cache = cache
        self._permits = permits
        self._max_tokens = max_tokens
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forelook-pool-cache")
        self._last_fault = ""
        self._task: Future[bool] | None = None
        self._was_refused = False
        self._found: RestoredPool | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a write is under way."""
        return self._task is not None and not self._task.done()

    @property
    def journal_bytes(self) -> int:
        """Size of the journal."""
        return self._cache.journal_bytes

    @property
    def last_write_failed(self) -> bool:
        """Whether the last write that ended left nothing on disk."""
        return self._task is not None and self._task.done() and not self._task.result()

    def restore(self) -> Future[RestoredPool | None]:
        """Read the cache; ``None`` where there is nothing sound."""
        return self._thread.submit(self._restore)

    def take_found(self) -> RestoredPool | None:
        """What another process had written until it stopped and we became the writer; given once."""
        found, self._found = self._found, None
        return found

    def write_base(self, state: PoolState, digests: dict[str, int]) -> None:
        """Replace what is on disk."""
        self._submit(lambda: self._cache.write_base(state, digests))

    def append(self, changes: Sequence[Change]) -> None:
        """Add to what is on disk."""
        self._submit(lambda: self._cache.append(changes))

    def delete(self) -> None:
        """Delete what is on disk, and wait until it is gone.

        Raises:
            PoolCacheError: it cannot be deleted.
        """
        self._thread.submit(self._cache.delete).result()

    def wait(self) -> None:
        """Wait until the write under way has ended."""
        if self._task is not None:
            self._task.result()

    def close(self) -> None:
        """Finish what is under way and let other processes write."""
        self._thread.submit(self._cache.release)
        self._thread.shutdown(wait=True)

    def _submit(self, write: Callable[[], None]) -> None:
        self._task = self._thread.submit(self._guarded, write)

    def _guarded(self, write: Callable[[], None]) -> bool:
        try:
            if not self._cache.acquire():
                self._was_refused = True  # another process writes
                return False
            if self._was_refused:
                self._was_refused = False
                self._found = self._restore()
                return False  # the caller takes that in first, and then writes everything
            write()
        except PoolCacheError as error:
            if str(error) != self._last_fault:
                self._last_fault = str(error)
                _LOG.warning("%s", error)
            return False
        self._last_fault = ""
        return True

    def _restore(self) -> RestoredPool | None:
        try:
            self._was_refused = not self._cache.acquire()
        except PoolCacheError as error:
            self._last_fault = str(error)
            _LOG.warning("%s", error)
        while True:
            restored = self._cache.read()
            if restored.state is None:
                return None
            try:
                return _build(restored, restored.state, self._max_tokens, self._permits)
            except ValueError as error:  # sound checksums around parts that do not fit: a writer's fault
                if not self._cache.reject(restored.generation, error):
                    return None


def _build(restored: Restored, state: PoolState, max_tokens: int, permits: Callable[[str], bool]) -> RestoredPool:
    pool = NgramPool.load(state, max_tokens)
    digests = dict(restored.digests)
    for change in restored.changes:
        digests.pop(change.key, None)
        if change.ids is None:
            pool.remove_document(change.key)
            continue
        if change.end is None:
            pool.set_document(change.key, change.ids)
        elif change.key in pool and change.start <= change.end <= pool.num_tokens_of(change.key):
            pool.replace_tokens(change.key, change.start, change.end, change.ids)
        else:
            raise ValueError("the journal changes what the base does not have")
        if change.digest:
            digests[change.key] = change.digest
    for key in map(str, pool.document_keys()):
        if not permits(key):
            pool.remove_document(key)
    return RestoredPool(pool, {key: digest for key, digest in digests.items() if key in pool})
