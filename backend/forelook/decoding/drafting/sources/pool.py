"""Drafts from a pool of other documents."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from forelook.decoding.drafting.draft import Draft, DraftOrigin
from forelook.decoding.ngrams.pool import NgramPool


class PoolSource:
    """A pool as the draft source of one request.

    Args:
        pool: of the workspace.
        without: the document being edited, which the prompt's source covers up to date; ``None`` for no such document.
        origin: whose drafts these are.
    """

    def __init__(
        self, pool: NgramPool, without: Hashable | None = None, origin: DraftOrigin = DraftOrigin.WORKSPACE
    ) -> None:
        self._pool = pool
        self._without = without
        self._origin = origin

    def propose(self, context: Sequence[int], *, max_candidates: int, max_length: int) -> list[Draft]:
        """What followed the context's end in the pool's documents, best guess first."""
        return self._pool.propose(
            context, max_candidates=max_candidates, max_length=max_length, without=self._without, origin=self._origin
        )

    def extend(self, token_ids: Sequence[int]) -> None:
        """The output is the prompt source's."""
