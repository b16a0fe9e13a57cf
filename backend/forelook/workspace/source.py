"""Drafts for one request: the text around the cursor, what the request has put out, and the workspace."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from forelook.decoding.drafting.draft import Draft, DraftOrigin
from forelook.decoding.ngrams.index import BORDER, MAX_MATCH, MAX_REACH, TokenArray
from forelook.decoding.ngrams.pool import NgramPool
from forelook.decoding.ngrams.ranking import AFTER_CURSOR, OUTPUT, SAME_DOCUMENT, Places, rank

_BEFORE_LIMIT = 6000
_AFTER_LIMIT = 3000
_NEAREST = 256
_PLACES = 24
_GAP: TokenArray = np.full(MAX_REACH + MAX_MATCH, BORDER, dtype=np.int32)
_BACK = -np.arange(MAX_MATCH + 1)
_NEVER = [-3] * (MAX_MATCH + 1)

# Fitted with the weights of ngram_ranking: a place twice as far from the cursor counts three quarters as much, and one
# after the cursor counts twice one before it.
_DISTANCE_EXPONENT = -0.387
_AFTER_FACTOR = 2.17


class LocalText:
    """The document around the cursor and the request's output, scanned afresh at every step.

    Comparing a few thousand integers takes numpy some microseconds, less than an index would cost to keep, and every
    place's distance to the cursor is known.
    """

    def __init__(self, before: Sequence[int], after: TokenArray) -> None:
        near_before = np.asarray(before[-_BEFORE_LIMIT:], dtype=np.int32)
        near_after = after[:_AFTER_LIMIT]
        room = np.full(1024, BORDER, dtype=np.int32)
        self._log = np.concatenate([_GAP, near_after, _GAP, near_before, room])
        self._after_start = len(_GAP)
        self._after_end = len(_GAP) + len(near_after)
        self._cursor = self._after_end + len(_GAP) + len(near_before)
        self._length = self._cursor

    def extend(self, ids: Sequence[int]) -> None:
        """Learn output."""
        end = self._length + len(ids)
        if end + len(_GAP) > len(self._log):
            self._log = np.concatenate([self._log, np.full(len(self._log), BORDER, dtype=np.int32)])
        self._log[self._length : end] = ids
        self._length = end

    def places(self, tail: Sequence[int], reach: int) -> Places:
        """Where the end of the context stands, the weightiest places of all."""
        log = self._log
        places = Places()
        if self._length == self._cursor and self._after_start < self._after_end:
            # Nothing matches yet, but what is written next often resembles the lines it replaces or stands above.
            places.match_lengths.append(1)
            places.factors.append(1.0)
            places.weights.append(AFTER_CURSOR)
            places.continuations.append(log[self._after_start : self._after_start + reach].tolist())
        found = np.flatnonzero(log[: self._length - 1] == tail[-1])
        if len(found) == 0:
            return places
        is_after = found < self._after_end
        distances = np.where(is_after, found - self._after_start + 1, self._length - found)
        if len(found) > _NEAREST:
            nearest = np.argpartition(distances, _NEAREST)[:_NEAREST]
            found, is_after, distances = found[nearest], is_after[nearest], distances[nearest]
        # A column more than can match, where nothing in the log is wanted: every row ends in a mismatch.
        wanted = np.array([*tail[::-1], *_NEVER[len(tail) :]], dtype=np.int32)
        matches = (log[found[:, None] + _BACK] != wanted).argmax(axis=1)
        factors = (distances + 1.0) ** _DISTANCE_EXPONENT
        factors[is_after] *= _AFTER_FACTOR
        if len(found) > _PLACES:
            best = np.argpartition(-factors * _SAME_DOCUMENT[matches], _PLACES)[:_PLACES]
            found, matches, factors = found[best], matches[best], factors[best]
        rows = log[found[:, None] + np.arange(1, reach + 1)]
        weights = [OUTPUT if place >= self._cursor else SAME_DOCUMENT for place in found.tolist()]
        places.extend(Places(matches.tolist(), factors.tolist(), weights, rows.tolist()))
        return places


_SAME_DOCUMENT = np.array(SAME_DOCUMENT)


class WorkspaceSource:
    """The draft source of one request."""

    def __init__(self, pool: NgramPool, key: Hashable | None, after: TokenArray) -> None:
        """Start a request.

        Args:
            pool: the workspace's pool.
            key: the document being edited.
            after: its tokens after the cursor.
        """
        self._pool = pool
        self._key = key
        self._after = after
        self._local: LocalText | None = None

    def propose(self, context: Sequence[int], *, max_candidates: int, max_length: int) -> list[Draft]:
        """Guess what follows ``context``, best guess first."""
        if not context:
            return []
        if self._local is None:
            self._local = LocalText(context, self._after)
        reach = min(max_length, MAX_REACH)
        tail = list(context[-MAX_MATCH:])
        places = self._local.places(tail, reach)
        places.extend(self._pool.places(tail, reach=reach, without=self._key))
        return rank(places, max_candidates=max_candidates, max_length=reach, origin=DraftOrigin.WORKSPACE)

    def extend(self, token_ids: Sequence[int]) -> None:
        """Find the output itself, from now on, where its tokens come again."""
        if self._local is not None:
            self._local.extend(token_ids)
