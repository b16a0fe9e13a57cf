"""Drafts from the text around the cursor and the output: where the context's end occurred before, what followed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from forelook.decoding.drafting.draft import Draft, DraftOrigin
from forelook.decoding.ngrams.index import BORDER, TokenArray
from forelook.decoding.ngrams.ranking import AFTER_CURSOR, Places, rank
from forelook.text import common_prefix

# Chosen, not measured.
_BEFORE_LIMIT = 6000
_AFTER_LIMIT = 3000
_OUTPUT_ROOM = 1024

# Measured: docs/decisions.md, "The constants of drafting lie on a plateau".
_MAX_MATCH = 16
_MAX_OCCURRENCES = 40


class PromptSource:
    """Suffix matching over the text around the cursor and the request's output.

    There is no index: numpy compares a few thousand integers in some microseconds, and a request starts at once.

    Args:
        before: the tokens before the cursor, which the output continues; their end is used.
        after: the tokens after the cursor; their beginning is used.
    """

    def __init__(self, before: Sequence[int], after: Sequence[int] | TokenArray = ()) -> None:
        # a list, as Python compares and cuts lists faster; and an array, in which numpy finds a token's occurrences
        self._after: list[int] = np.asarray(after[:_AFTER_LIMIT]).tolist()
        self._ids = [*[BORDER] * _MAX_MATCH, *self._after, BORDER, *before[-_BEFORE_LIMIT:]]
        self._cursor = len(self._ids)
        self._log: TokenArray = np.full(self._cursor + _OUTPUT_ROOM, BORDER, dtype=np.int32)
        self._log[: self._cursor] = self._ids

    @property
    def vocabulary(self) -> set[int]:
        """The different tokens of the text, the output so far among them."""
        return set(self._ids)

    def extend(self, token_ids: Sequence[int]) -> None:
        """Learn output just accepted."""
        start = len(self._ids)
        self._ids += token_ids
        if len(self._ids) > len(self._log):
            self._log = np.concatenate([self._log, np.full(len(self._ids), BORDER, dtype=np.int32)])
        self._log[start : len(self._ids)] = token_ids

    def propose(self, context: Sequence[int], *, max_candidates: int, max_length: int) -> list[Draft]:
        """What followed earlier occurrences of the context's end: longest match first, the latest among equals."""
        if not context or max_candidates < 1 or max_length < 1:
            return []
        ids = self._ids
        end = list(context[-_MAX_MATCH:])
        end[:0] = [BORDER - 1] * (_MAX_MATCH - len(end))  # equal to nothing, not even to a border
        scored = []
        for place in self._occurrences(context):
            length = 1
            while length < _MAX_MATCH and ids[place - length] == end[-1 - length]:
                length += 1
            scored.append((length, place))
        scored.sort(reverse=True)
        del scored[max_candidates:]
        drafts = _drafts(
            # a short match is seldom right for long
            [ids[place + 1 : place + 1 + min(max_length, 6 + 2 * length)] for length, place in scored],
            [length for length, _ in scored],
            [place >= self._cursor for _, place in scored],
        )
        if self._after and len(ids) == self._cursor and len(drafts) < max_candidates:
            # nothing has to match: what is written next often resembles the lines it replaces or precedes
            following = Places([1], [1.0], [AFTER_CURSOR], [self._after[:max_length]])
            found = rank(following, max_candidates=1, max_length=max_length, origin=DraftOrigin.PROMPT)
            drafts += [replace(draft, match_length=0) for draft in found]  # calibrated apart from matches
        return drafts

    def _occurrences(self, context: Sequence[int]) -> list[int]:
        """Where the context's last token is followed by another; of many, also those with the same one before it."""
        log = self._log
        found = np.flatnonzero(log[: len(self._ids) - 1] == context[-1])
        if len(found) <= _MAX_OCCURRENCES:
            return found.tolist()
        latest: list[int] = found[-_MAX_OCCURRENCES // 4 :].tolist()
        if len(context) < 2:
            return latest
        longer: list[int] = found[log[found - 1] == context[-2]][-_MAX_OCCURRENCES:].tolist()
        return list(dict.fromkeys([*latest, *longer]))


def _drafts(continuations: list[list[int]], match_lengths: list[int], in_output: list[bool]) -> list[Draft]:
    """One draft per different continuation; its shares count the occurrences matched at least as long.

    Continuations come the longest match first.
    """
    for tokens in continuations:
        if BORDER in tokens:
            del tokens[tokens.index(BORDER) :]
    count = len(continuations)
    agreement = [[0] * count for _ in range(count)]  # leading tokens that two continuations share
    for right in range(1, count):
        for left in range(right):
            agreement[left][right] = agreement[right][left] = common_prefix(continuations[left], continuations[right])
    drafts: list[Draft] = []
    end = 0
    for index, (tokens, match_length) in enumerate(zip(continuations, match_lengths, strict=True)):
        while end < count and match_lengths[end] >= match_length:
            end += 1  # the whole group of equal match length votes
        length = len(tokens)
        if length == 0 or any(agreement[index][earlier] == length for earlier in range(index)):
            continue
        agreed = [agreement[index][other] for other in range(end) if other != index]
        shares = []
        total = end
        for depth in range(1, max(agreed, default=0) + 1):
            supporters = 1 + sum(other >= depth for other in agreed)
            # half a count against it: one witness is weaker than ten that agree
            shares.append(supporters / (total + 0.5))
            total = supporters
        if len(shares) < length:
            shares.append(1 / (total + 0.5))
            shares += [1 / 1.5] * (length - len(shares))
        origin = DraftOrigin.OUTPUT if in_output[index] else DraftOrigin.PROMPT
        drafts.append(Draft(tuple(tokens), tuple(shares), match_length, origin))
    return drafts
