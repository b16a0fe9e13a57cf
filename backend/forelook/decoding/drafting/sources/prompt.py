"""Drafts from the text around the cursor and the output: where the context's end occurred before, what followed it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forelook.decoding.drafting.draft import Draft, DraftOrigin
from forelook.decoding.ngrams.index import BORDER, MAX_MATCH, MAX_REACH, NO_TOKEN, TokenArray
from forelook.decoding.ngrams.ranking import AFTER_CURSOR, OUTPUT, SAME_DOCUMENT, Places, rank

# Limits on the scan: chosen, not measured.
_BEFORE_LIMIT = 6000
_AFTER_LIMIT = 3000
_NEAREST = 256
_PLACES = 24
_OUTPUT_ROOM = 1024
_GAP: TokenArray = np.full(MAX_REACH + MAX_MATCH, BORDER, dtype=np.int32)
_BACK = -np.arange(MAX_MATCH + 1)

# Fitted together with the weights of ngrams/ranking.py: a place twice as far from the cursor counts three quarters as
# much, and one after the cursor counts twice one before it.
_DISTANCE_EXPONENT = -0.387
_AFTER_FACTOR = 2.17
_SAME_DOCUMENT = np.array(SAME_DOCUMENT)


class PromptSource:
    """The text around the cursor and the request's output, scanned at every step.

    There is no index: numpy compares a few thousand integers in some microseconds, a request starts at once, and every
    place's distance to the cursor is known.

    Args:
        before: the tokens before the cursor, which the output continues; their end is used.
        after: the tokens after the cursor; their beginning is used.
    """

    def __init__(self, before: Sequence[int], after: Sequence[int] | TokenArray = ()) -> None:
        near_before = np.asarray(before[-_BEFORE_LIMIT:], dtype=np.int32)
        near_after = np.asarray(after[:_AFTER_LIMIT], dtype=np.int32)
        room = np.full(_OUTPUT_ROOM, BORDER, dtype=np.int32)
        self._log = np.concatenate([_GAP, near_after, _GAP, near_before, room])
        self._after_start = len(_GAP)
        self._after_end = len(_GAP) + len(near_after)
        self._cursor = self._after_end + len(_GAP) + len(near_before)
        self._length = self._cursor

    def extend(self, token_ids: Sequence[int]) -> None:
        """Learn output."""
        end = self._length + len(token_ids)
        if end + len(_GAP) > len(self._log):
            room = np.full(end, BORDER, dtype=np.int32)
            self._log = np.concatenate([self._log, room])
        self._log[self._length : end] = token_ids
        self._length = end

    def propose(self, context: Sequence[int], *, max_candidates: int, max_length: int) -> list[Draft]:
        """What followed earlier occurrences of the context's end, best guess first."""
        if not context:
            return []
        reach = min(max_length, MAX_REACH)
        places = self._places(list(context[-MAX_MATCH:]), reach)
        return rank(places, max_candidates=max_candidates, max_length=reach, origin=DraftOrigin.PROMPT)

    def _places(self, tail: list[int], reach: int) -> Places:
        """The places of most weight where the end of the context occurs."""
        log = self._log
        places = Places()
        if self._length == self._cursor and self._after_start < self._after_end:
            # Nothing matches yet, but what is written next often resembles the lines it replaces or precedes.
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
        # One column more than can match, where no log token is wanted: every row ends in a mismatch.
        wanted = np.array([*tail[::-1], *NO_TOKEN[len(tail) :]], dtype=np.int32)
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
