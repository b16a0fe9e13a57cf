"""The n-gram pool of one workspace, kept up to date with its documents. Driven by one thread only."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from forelook.decoding.ngram_pool import NgramPool
from forelook.workspace.line_tokens import Encode, LineTokens, find_cut_rule
from forelook.workspace.workspace_source import WorkspaceSource

_ACCEPTED = "accepted:"
_ACCEPTED_LIMIT = 1 << 14


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A snapshot of a pool."""

    num_tokens: int
    num_documents: int
    num_open: int
    num_waiting: int
    nbytes: int


class WorkspacePool:
    """Documents and accepted text of one workspace, as a draft source."""

    def __init__(self, encode: Encode, *, cache_dir: Path | None = None, max_tokens: int = 1 << 20) -> None:
        self._encode = encode
        self._rule = find_cut_rule(encode)
        self._pool = NgramPool(max_tokens)
        self._open: dict[str, LineTokens] = {}
        self._waiting_open: dict[str, str] = {}
        self._waiting_files: deque[tuple[str, str]] = deque()
        self._cache_dir = cache_dir

    def open_document(self, uri: str, text: str) -> None:
        """Take an opened document; it is indexed in the next slices."""
        self._open[uri] = LineTokens(self._encode, self._rule)
        self._waiting_open[uri] = text

    def change_document(self, uri: str, text: str) -> None:
        """Take a document's new text; only what changed is tokenised, in the next slice."""
        self._waiting_open[uri] = text

    def close_document(self, uri: str) -> None:
        """The document's file stays in the pool with the text it had last."""
        self._flush(uri)
        self._open.pop(uri, None)

    def add_files(self, files: Iterable[tuple[str, str]]) -> None:
        """Take files that are not open, at low priority. A file's key is the uri it would be opened with."""
        self._waiting_files.extend(files)

    def remove_files(self, keys: Iterable[str]) -> None:
        """Forget files."""
        for key in keys:
            self._pool.remove_document(key)

    def run_slice(self, budget_s: float) -> bool:
        """Work for about ``budget_s``; True while more is left."""
        deadline = time.monotonic() + budget_s
        while time.monotonic() < deadline:
            if self._waiting_open:
                self._flush(next(iter(self._waiting_open)))
            elif self._pool.has_work:
                self._pool.step()
            elif self._waiting_files:
                key, text = self._waiting_files.popleft()
                if key not in self._open:
                    self._pool.set_document(key, self._encode(text))
            else:
                return False
        return bool(self._waiting_open or self._waiting_files or self._pool.has_work)

    def _flush(self, uri: str) -> None:
        text = self._waiting_open.pop(uri, None)
        if text is None:
            return
        edit = self._open[uri].update(text)
        if edit is None:
            return
        if uri not in self._pool:
            self._pool.set_document(uri, edit.ids)
        else:
            self._pool.replace_tokens(uri, edit.start, edit.end, edit.ids)

    def source(self, uri: str, offset: int) -> WorkspaceSource:
        """A draft source for one request in an open document, its latest text included.

        Args:
            uri: the document.
            offset: the cursor, in code points.
        """
        self._flush(uri)
        document = self._open[uri]
        tokens = self._pool.tokens(uri) if uri in self._pool else np.zeros(0, dtype=np.int32)
        return WorkspaceSource(self._pool, uri, tokens[document.tokens_until(offset) :])

    def accept(self, ids: Sequence[int]) -> None:
        """Learn text the user took."""
        if _ACCEPTED not in self._pool:
            self._pool.set_document(_ACCEPTED, ids)
            return
        end = len(self._pool.tokens(_ACCEPTED))
        self._pool.replace_tokens(_ACCEPTED, end, end, ids)

    def stats(self) -> PoolStats:
        """A snapshot."""
        waiting = len(self._waiting_open) + len(self._waiting_files)
        return PoolStats(self._pool.num_tokens, self._pool.num_documents, len(self._open), waiting, self._pool.nbytes)

    def clear(self) -> None:
        """Forget everything, the cache on disk too."""
        self._pool.clear()
        self._waiting_files.clear()

    def save(self) -> None:
        """Write what changed to the cache."""

    def restore(self) -> None:
        """Load what the cache has."""
