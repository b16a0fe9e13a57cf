"""The n-gram pool of one workspace, kept up to date with its documents. Used from one thread.

Documents change at once and are indexed later: :meth:`WorkspacePool.run_slice` works for about as long as its caller
can spare between requests, and a request updates its own document first.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from forelook.budgets import ByteBudget
from forelook.decoding.drafting.draft import DraftOrigin
from forelook.decoding.drafting.sources.pool import PoolSource
from forelook.decoding.layout import IntArray
from forelook.decoding.ngrams.index import BORDER, TokenArray
from forelook.decoding.ngrams.pool import NgramPool, pair_counts
from forelook.model.tokenizer import Encode, TextSplitter
from forelook.workspace.cache import PoolCache
from forelook.workspace.cache_format import Change
from forelook.workspace.cache_worker import CacheWorker, RestoredPool
from forelook.workspace.file_keys import file_names, with_folders
from forelook.workspace.line_tokens import MAX_PART_CHARS, LineTokens
from forelook.workspace.waiting_files import WaitingFiles

_ACCEPTED = "\0accepted"
"""Key of accepted text; no URI or path contains a NUL."""

ACCEPTED_WEIGHT = 2.0
"""Weight of a place in accepted text, relative to one in a file. Chosen, not measured."""

_PAIR_TOKENS = 1 << 17  # whose pairs are counted, which takes some ten milliseconds; chosen, not measured
_OPEN_USES = 1 << 32  # of a token in an open document, in places elsewhere
_ACCEPTED_TOKENS = 1 << 14  # chosen, not measured
_BATCH_CHARS = 2048  # of a file per step of a slice; chosen, not measured
_MAX_WAITING_BYTES = 64 * 2**20  # of files that wait to be indexed, without a shared budget; chosen, not measured
_JOURNAL_LIMIT_BYTES = 1 << 21  # chosen, not measured: a longer journal is replaced by a base
_RETRY_S = 30.0  # after a failed write; chosen, not measured


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A snapshot of a pool.

    Attributes:
        num_tokens: tokens in the pool.
        num_documents: files and open documents in it.
        num_open: open documents.
        num_waiting: documents that wait to be indexed.
        num_accepted: tokens of accepted suggestions.
        nbytes: memory used.
        cache_path: its folder on disk; empty without one.
    """

    num_tokens: int
    num_documents: int
    num_open: int
    num_waiting: int
    num_accepted: int
    nbytes: int
    cache_path: str


class WorkspacePool:
    """Documents and accepted text of one workspace, as a draft source.

    A file and its open document have the same key, so that the pool contains it once.
    """

    def __init__(
        self,
        encode: Encode,
        *,
        splitter: TextSplitter | None = None,
        cache: PoolCache | None = None,
        cache_thread: ThreadPoolExecutor | None = None,
        max_tokens: int = 1 << 20,
        permits: Callable[[str], bool] = lambda key: True,  # noqa: ARG005 - the name is part of the interface
        catch_up_s: float = 0.01,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the pool; the content of the cache is added in the background.

        Args:
            encode: text to token ids.
            splitter: where text can be split; by default it is found out.
            cache: keeps the pool between starts; ``None`` for a pool in memory only.
            cache_thread: one thread for the disk, which several pools may share; ``None`` for one of its own.
            max_tokens: limit; the least recently used documents are dropped first.
            permits: whether the document of a key may be used; others in the cache are dropped.
            catch_up_s: maximum time that a request waits for its document's latest text to be indexed.
            clock: seconds, for retries.
        """
        self._encode = encode
        self._splitter = splitter or TextSplitter(encode)
        self._max_tokens = max_tokens
        self._permits = permits
        self._catch_up_s = catch_up_s
        self._clock = clock
        self._pool = NgramPool(max_tokens)
        self._open: dict[str, LineTokens] = {}
        self._changed: dict[str, str] = {}
        self._dropped: list[Callable[[str], bool]] = []  # while the cache is being read
        self._waiting = WaitingFiles(ByteBudget("waiting files", "wait", _MAX_WAITING_BYTES, _MAX_WAITING_BYTES), "")
        self._digests: dict[str, int] = {}
        self._job: Iterator[None] | None = None
        self._cache_path = "" if cache is None else str(cache.folder)
        self._worker = None if cache is None else CacheWorker(cache, max_tokens, self._permits_key, cache_thread)
        self._restoring: Future[RestoredPool | None] | None = None
        if self._worker is not None:
            self._restoring = self._worker.restore()
        self._journal: list[Change] = []
        self._needs_base = True
        self._has_files = False
        self._retry_at_s = 0.0

    def share(self, budget: ByteBudget, user: str) -> None:
        """Count files that wait to be indexed against a budget of a user; call it before there are any."""
        self._waiting = WaitingFiles(budget, user)

    # --- documents

    def open_document(self, key: str, text: str) -> None:
        """Add an open document; it is indexed in the next slices."""
        self._open[key] = LineTokens(self._splitter)
        self._changed[key] = text
        self._waiting.take(key)

    def is_open(self, key: str) -> bool:
        """Whether the document of a key is open."""
        return key in self._open

    def change_document(self, key: str, text: str) -> None:
        """Replace the text of an open document; the difference is tokenized in the next slice."""
        if key in self._open:
            self._changed[key] = text

    def close_document(self, key: str) -> None:
        """Keep the document's last text as that of a file."""
        if key not in self._open:
            return
        self._finish_job()
        text = self._changed.pop(key, None)
        is_waiting = text is not None and self._waiting.add(key, text)
        if not is_waiting and (lines := self._open[key]).pieces and key in self._pool:
            self._digests[key] = _digest(lines.text)
        del self._open[key]

    def add_files(self, files: Iterable[tuple[str, str]]) -> None:
        """Add files that are not open, in order of relevance; they are indexed when nothing else is left to do."""
        for key, text in files:
            if key not in self._open:
                self._waiting.add(key, text)  # without memory for it: it is less relevant than those that wait

    def remove_files(self, paths: Iterable[str]) -> None:
        """Drop files, or folders with all below them; an open document is not in the pool until it changes.

        Accepted text is dropped with them: it cannot be told which file it came from.
        """
        removed = frozenset(path.rstrip("/") for path in paths)
        self._drop(lambda key: any(part in removed for name in file_names(key) for part in with_folders(name)))

    def keep_files(self, paths: frozenset[str]) -> bool:
        """Drop all files but ``paths`` and the open documents; returns whether anything was dropped."""
        kept = {*paths, _ACCEPTED}
        return self._drop(lambda key: key not in self._open and kept.isdisjoint(file_names(key)))

    def _drop(self, is_dropped: Callable[[str], bool]) -> bool:
        """Remove documents from memory, and with the next save from the disk."""
        self._adopt_restored(wait=False)
        if self._restoring is not None:
            self._dropped.append(is_dropped)
        self._finish_job()
        keys = {str(key) for key in self._pool.document_keys()} | {*self._waiting, *self._changed}
        dropped = [key for key in keys if is_dropped(key)]
        for key in dropped:
            self._waiting.take(key)
            self._changed.pop(key, None)
            if key in self._open:
                self._open[key] = LineTokens(self._splitter)
            self._remove(key)
        if dropped:
            self._purge()
        return bool(dropped)

    def _purge(self) -> None:
        """Drop accepted text, and replace index, base and journal, which still contain what was dropped."""
        if _ACCEPTED in self._pool:
            self._remove(_ACCEPTED)
        self._pool.drop_stale()
        self._needs_base = True

    def accept(self, ids: Sequence[int]) -> None:
        """Add accepted text, and give more weight to the documents that contain it. Text only shown is not added."""
        self._pool.credit(ids)
        tokens = np.array([BORDER, *ids], dtype=np.int32)
        if _ACCEPTED in self._pool:
            end = self._pool.num_tokens_of(_ACCEPTED)
            self._replace(_ACCEPTED, end, end, tokens)
            if end > _ACCEPTED_TOKENS:
                self._replace(_ACCEPTED, 0, end // 2, tokens[:0])
        else:
            self._set(_ACCEPTED, tokens, 0)
            self._pool.set_weight(_ACCEPTED, ACCEPTED_WEIGHT)

    def source(self, key: str) -> PoolSource:
        """A draft source for one request in an open document: every document but that one."""
        self._adopt_restored(wait=False)
        return PoolSource(self._pool, key)

    def dependency_source(self) -> PoolSource:
        """The same for a pool of libraries."""
        return PoolSource(self._pool, origin=DraftOrigin.DEPENDENCY)

    def tokens_after(self, key: str, offset: int) -> TokenArray | None:
        """The tokens of an open document after the cursor, for drafts from them.

        Args:
            key: the document.
            offset: the cursor, in code points.

        Returns:
            ``None`` if the latest text is not indexed and that would take longer than a request may wait: a large
            document that was just opened takes seconds.
        """
        is_current = self._catch_up(key)
        lines = self._open.get(key)
        if not is_current or lines is None or key not in self._pool:
            return None
        return self._pool.tokens(key)[lines.tokens_until(offset) :]

    def stats(self) -> PoolStats:
        """A snapshot, which other threads may ask for."""
        pool = self._pool  # which may be replaced meanwhile, as accepted text may go
        try:
            accepted, num_texts = pool.num_tokens_of(_ACCEPTED), 1
        except KeyError:
            accepted, num_texts = 0, 0
        return PoolStats(
            num_tokens=pool.num_tokens,
            num_documents=pool.num_documents - num_texts,
            num_open=len(self._open),
            num_waiting=len(self._changed) + len(self._waiting),
            num_accepted=accepted,
            nbytes=pool.nbytes,
            cache_path=self._cache_path,
        )

    def token_uses(self, vocab_size: int) -> IntArray:
        """[V] how often each token occurs; in open documents every token counts more than any elsewhere."""
        uses = self._pool.token_counts(vocab_size)
        open_tokens = [self._pool.tokens(key) for key in self._open if key in self._pool]
        if open_tokens:
            uses += np.bincount(np.concatenate(open_tokens), minlength=vocab_size)[:vocab_size] * _OPEN_USES
        return uses

    def pair_uses(self) -> list[tuple[IntArray, IntArray]]:
        """Pairs of neighboring tokens, each as one integer, and how much it matters; one may be in several parts."""
        found = [self._pool.pair_counts(_PAIR_TOKENS)]
        for key in self._open:
            if key in self._pool:
                pairs, counts = pair_counts(self._pool.tokens(key)[:_PAIR_TOKENS])
                found.append((pairs, counts * _OPEN_USES))
        return found

    def tokens_of(self, key: str) -> list[int]:
        """The tokens of a document in the pool."""
        return self._pool.tokens(key).tolist() if key in self._pool else []

    # --- background

    def run_slice(self, budget_s: float) -> bool:
        """Work for about ``budget_s``; returns whether more is left.

        Open documents come first, then as much sorting as lookups need, then other files, then the rest of the sorting.
        No single step takes much longer than tokenizing two thousand characters.
        """
        deadline_s = time.perf_counter() + budget_s
        self._adopt_restored(wait=False)
        while time.perf_counter() < deadline_s:
            if not self._step():
                return False
        return True

    def _step(self) -> bool:
        if self._job is not None:
            if next(self._job, True):  # a step yields None
                self._job = None
            return True
        if self._changed:
            self._job = self._indexing_changes(next(iter(self._changed)))
            return True
        has_waiting = bool(self._waiting) and self._restoring is None
        if (self._pool.is_behind or not has_waiting) and self._pool.step():
            return True
        if has_waiting:
            key = next(iter(self._waiting))
            self._job = self._indexing_file(key, self._waiting.take(key) or "")
            return True
        return False

    def _catch_up(self, key: str) -> bool:
        """Index one document's latest text within ``catch_up_s``; returns whether it is up to date."""
        deadline_s = time.perf_counter() + self._catch_up_s
        while self._job is not None or key in self._changed:
            if time.perf_counter() >= deadline_s:
                return False
            if self._job is None:
                self._job = self._indexing_changes(key)
            if next(self._job, True):
                self._job = None
        return True

    def _finish_job(self) -> None:
        """Finish what a slice left incomplete."""
        if self._job is not None:
            for _ in self._job:
                pass
            self._job = None

    def _indexing_changes(self, key: str) -> Iterator[None]:
        text = self._changed.pop(key)
        lines = self._open[key]
        is_new = not lines.pieces
        is_known = is_new and key in self._pool and self._digests.get(key) == _digest(text)
        edit = None
        for step in lines.updating(text):
            edit = step
            yield
        if edit is None or (is_known and lines.num_tokens == self._pool.num_tokens_of(key)):
            return
        tokens = np.array(edit.ids, dtype=np.int32)
        if is_new or key not in self._pool:
            self._set(key, tokens, 0)
        else:
            self._replace(key, edit.start, edit.end, tokens)

    def _indexing_file(self, key: str, text: str) -> Iterator[None]:
        digest = _digest(text)
        if self._digests.get(key) == digest and key in self._pool:
            return
        parts: list[list[int]] = []
        batch: list[str] = []
        size = 0
        for piece in self._splitter.split(text):
            is_long = len(piece) > MAX_PART_CHARS
            if not is_long:
                batch.append(piece)
                size += len(piece)
            if is_long or size >= _BATCH_CHARS:
                parts.append(self._encode("".join(batch)))
                batch, size = [], 0
                yield
        parts.append(self._encode("".join(batch)))
        if key not in self._open:
            self._set(key, np.concatenate([np.array(part, dtype=np.int32) for part in parts]), digest)

    # --- changes, in memory and on disk

    def _set(self, key: str, tokens: TokenArray, digest: int) -> None:
        self._pool.set_document(key, tokens)
        self._record(Change(key, 0, None, tokens, digest))
        self._digests.pop(key, None)
        if digest:
            self._digests[key] = digest

    def _replace(self, key: str, start: int, end: int, tokens: TokenArray) -> None:
        self._pool.replace_tokens(key, start, end, tokens)
        self._digests.pop(key, None)
        self._record(Change(key, start, end, tokens))

    def _remove(self, key: str) -> None:
        self._pool.remove_document(key)
        self._digests.pop(key, None)
        self._record(Change(key, 0, None, None))

    def _record(self, change: Change) -> None:
        if self._worker is not None and not self._needs_base:
            self._journal.append(change)

    @property
    def has_unsaved(self) -> bool:
        """Whether a later :meth:`save` may have something to write."""
        worker = self._worker
        if worker is None:
            return False
        is_at_work = self._restoring is not None or worker.is_busy or worker.last_write_failed
        is_unwritten = self._needs_base and (self._has_files or self._pool.num_tokens > 0)
        return is_at_work or is_unwritten or bool(self._journal)

    @property
    def is_unused(self) -> bool:
        """Whether nothing is lost by closing it until the workspace is used again."""
        is_idle = not (self._open or self._changed or self._waiting or self._job is not None)
        return self._worker is not None and is_idle and not self.has_unsaved

    def save(self) -> None:
        """Write what has changed since the last call, in the background."""
        worker = self._worker
        if worker is None or worker.is_busy or self._restoring is not None:
            return
        inherited = worker.take_inherited()
        if inherited is not None:
            self._merge(inherited)
            self._needs_base = True
        elif worker.last_write_failed and not self._needs_base:
            self._needs_base = True  # the changes of the failed write are in no file
            self._retry_at_s = self._clock() + _RETRY_S
        if self._needs_base or worker.journal_bytes > _JOURNAL_LIMIT_BYTES:
            if self._clock() < self._retry_at_s or self._pool.is_rebuilding:
                return  # a base written now would still contain what was dropped
            if not self._has_files and not self._pool.num_tokens:
                return  # nothing to keep, and nothing on disk to replace
            self._journal.clear()
            self._needs_base = False
            self._has_files = True
            digests = {key: digest for key, digest in self._digests.items() if key in self._pool}
            worker.write_base(self._pool.dump(), digests)
        elif self._journal:
            worker.append(self._journal)
            self._journal = []

    def _merge(self, other: RestoredPool) -> None:
        """Add the documents that only the pool of another process has."""
        for key in map(str, other.pool.document_keys()):
            if key not in self._pool:
                self._set(key, other.pool.tokens(key), other.digests.get(key, 0))

    def _permits_key(self, key: str) -> bool:
        """Runs on the cache's thread: checking thousands of names must not delay a request."""
        return key == _ACCEPTED or self._permits(key)

    def wait_restored(self) -> None:
        """Wait until the content of the cache is in the pool."""
        self._adopt_restored(wait=True)

    def wait_saved(self) -> None:
        """Wait until the last save has ended."""
        if self._worker is not None:
            self._worker.wait()

    def close(self) -> None:
        """Save, and end the background thread; closing again does nothing."""
        self._waiting.clear()
        if self._worker is None:
            return
        self.wait_restored()
        if self._pool.is_rebuilding:
            self._pool.settle()
        for _ in range(2):  # the first may inherit the pool of another process
            self._retry_at_s = 0.0
            self.wait_saved()
            self.save()
        self._worker.close()
        self._worker = None

    def clear(self) -> None:
        """Empty the pool, on disk too; open documents are indexed again.

        Raises:
            PoolCacheError: the files cannot be deleted; the pool in memory is empty nevertheless.
        """
        self._adopt_restored(wait=True)
        self._pool.clear()
        self._job = None
        self._waiting.clear()
        self._digests.clear()
        self._journal.clear()
        self._needs_base = True
        for key, lines in self._open.items():
            self._changed.setdefault(key, lines.text)
            self._open[key] = LineTokens(self._splitter)
        self._has_files = False
        if self._worker is not None:
            self._worker.delete()

    def _adopt_restored(self, *, wait: bool) -> None:
        """Replace the pool by the one from the disk, updated with what was indexed meanwhile."""
        restoring = self._restoring
        if restoring is None or not (wait or restoring.done()):
            return
        self._restoring = None
        restored = restoring.result()
        dropped, self._dropped = self._dropped, []
        if restored is None:
            return
        self._has_files = True
        newer, self._pool = self._pool, restored.pool
        for key in newer.document_keys():
            self._pool.set_document(key, newer.tokens(key))
        self._digests = {key: value for key, value in restored.digests.items() if key not in newer}
        came_later = {*self._open, *self._waiting, *map(str, newer.document_keys())}
        old = {str(key) for key in self._pool.document_keys()} - came_later
        gone = [key for key in old if any(is_dropped(key) for is_dropped in dropped)]
        for key in gone:
            self._remove(key)
        if gone:
            self._purge()
        if _ACCEPTED in self._pool:
            self._pool.set_weight(_ACCEPTED, ACCEPTED_WEIGHT)


def _digest(text: str) -> int:
    """64-bit digest of a text, never 0."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") or 1
