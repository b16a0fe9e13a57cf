"""Reads and writes a pool's cache in its own thread, so that a slow disk never delays a decode step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from forelook.decoding.ngrams.pool import NgramPool, PoolState
from forelook.errors import PoolCacheError
from forelook.failures import log_failure
from forelook.workspace.cache import PoolCache, Restored
from forelook.workspace.cache_format import Change

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestoredPool:
    """A pool built from the cache, and the digests of its documents' texts."""

    pool: NgramPool
    digests: dict[str, int]


def new_cache_thread() -> ThreadPoolExecutor:
    """One thread for the disk."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="forelook-pool-cache")


class CacheWorker:
    """Owns a :class:`PoolCache` on one thread. Errors are logged here; the pool continues in memory.

    Args:
        cache: the files.
        max_tokens: limit of a restored pool.
        permits: whether the document of a key may be used; others are dropped from a restored pool.
        thread: one thread, which several workers may share; ``None`` for one of its own.
    """

    def __init__(
        self,
        cache: PoolCache,
        max_tokens: int,
        permits: Callable[[str], bool] = lambda key: True,  # noqa: ARG005 - the name is part of the interface
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        self._cache = cache
        self._permits = permits
        self._max_tokens = max_tokens
        self._owns_thread = thread is None
        self._thread = thread or new_cache_thread()
        self._last_error = ""
        self._write: Future[bool] | None = None
        self._was_refused = False
        self._inherited: RestoredPool | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a write is in progress."""
        return self._write is not None and not self._write.done()

    @property
    def journal_bytes(self) -> int:
        """Size of the journal."""
        return self._cache.journal_bytes

    @property
    def last_write_failed(self) -> bool:
        """Whether the last completed write left nothing on disk."""
        return self._write is not None and self._write.done() and not self._write.result()

    def restore(self) -> Future[RestoredPool | None]:
        """Read the cache; ``None`` if there is no sound one."""
        return self._thread.submit(self._restore)

    def take_inherited(self) -> RestoredPool | None:
        """The pool of the previous writer, once, after this process has become the writer."""
        inherited, self._inherited = self._inherited, None
        return inherited

    def write_base(self, state: PoolState, digests: dict[str, int]) -> None:
        """Replace the files."""
        self._submit(lambda: self._cache.write_base(state, digests))

    def append(self, changes: Sequence[Change]) -> None:
        """Append to the journal."""
        self._submit(lambda: self._cache.append(changes))

    def delete(self) -> None:
        """Delete the files, and wait until they are gone.

        Raises:
            PoolCacheError: they cannot be deleted.
        """
        self._thread.submit(self._cache.delete).result()

    def wait(self) -> None:
        """Wait until the write in progress has ended."""
        if self._write is not None:
            self._write.result()

    def close(self) -> None:
        """Finish pending work and let other processes write."""
        released = self._thread.submit(self._cache.release)
        if self._owns_thread:
            self._thread.shutdown(wait=True)
        else:
            released.result()

    def _submit(self, write: Callable[[], None]) -> None:
        self._write = self._thread.submit(self._run, write)

    def _run(self, write: Callable[[], None]) -> bool:
        """Write as the only writer; returns whether the files are up to date."""
        try:
            if not self._cache.acquire():
                self._was_refused = True  # another process writes
                return False
            if self._was_refused:
                self._was_refused = False
                self._inherited = self._restore()
                return False  # the caller merges that first, and then writes everything
            write()
        except PoolCacheError as error:
            self._log_once(error)
            return False
        except Exception as error:  # noqa: BLE001 - border of the thread: the next save tries again
            log_failure("saving a pool", error)
            return False
        self._last_error = ""
        return True

    def _restore(self) -> RestoredPool | None:
        if not self._cache.exists:
            return None  # no folder for a name that may never have anything to keep
        try:
            self._was_refused = not self._cache.acquire()
        except PoolCacheError as error:
            self._log_once(error)
        while True:
            restored = self._cache.read()
            if restored.state is None:
                return None
            try:
                return _build(restored, restored.state, self._max_tokens, self._permits)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - sound checksums around parts that do not fit: a bug in the writer
                if not self._cache.reject(restored.generation, error):
                    return None

    def _log_once(self, error: PoolCacheError) -> None:
        """Log an error unless it repeats the last one."""
        if str(error) != self._last_error:
            self._last_error = str(error)
            logger.warning("%s", error)


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
            raise ValueError("the journal changes tokens that the base does not have")
        if change.digest:
            digests[change.key] = change.digest
    for key in map(str, pool.document_keys()):
        if not permits(key):
            pool.remove_document(key)
    return RestoredPool(pool, {key: digest for key, digest in digests.items() if key in pool})
