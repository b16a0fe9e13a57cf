"""The n-gram pool as published: a key token and the few n-grams last seen to start with it."""

from __future__ import annotations

from collections.abc import Sequence

from forelook.errors import ConfigError


class PublishedPool:
    """Key token → up to ``max_candidates`` tuples of ``ngram_size`` - 1 tokens, newest last.

    Inserting a tuple again makes it the newest; each key evicts its oldest. Source: arXiv 2402.02057, section 3.2.
    """

    def __init__(self, ngram_size: int, max_candidates: int) -> None:
        if ngram_size < 2:
            raise ConfigError("ngram_size", ngram_size, "2 or more")
        if max_candidates < 0:
            raise ConfigError("max_candidates", max_candidates, "0 or more")
        self._ngram_size = ngram_size
        self._max_candidates = max_candidates
        self._continuations: dict[int, dict[tuple[int, ...], None]] = {}

    def insert(self, ngram: Sequence[int]) -> None:
        """Learn one n-gram: its first token is the key."""
        if len(ngram) != self._ngram_size:
            raise ConfigError("len(ngram)", len(ngram), f"ngram_size = {self._ngram_size}")
        if self._max_candidates == 0:
            return
        candidates = self._continuations.setdefault(ngram[0], {})
        continuation = tuple(ngram[1:])
        candidates.pop(continuation, None)
        candidates[continuation] = None
        if len(candidates) > self._max_candidates:
            del candidates[next(iter(candidates))]

    def insert_text(self, token_ids: Sequence[int], boundary_ids: frozenset[int] = frozenset()) -> None:
        """Learn every n-gram of a text that has no boundary token in it."""
        size = self._ngram_size
        last_boundary = -1
        for end, token in enumerate(token_ids, start=1):
            if token in boundary_ids:
                last_boundary = end - 1
            if end - size > last_boundary:
                self.insert(token_ids[end - size : end])

    def candidates(self, key: int) -> list[tuple[int, ...]]:
        """Continuations of the key, newest first."""
        return list(reversed(self._continuations.get(key, {})))
