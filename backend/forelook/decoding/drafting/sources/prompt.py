"""Drafts from the prompt and the growing output: where the context's end stood before, what followed it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forelook.decoding.drafting.draft import Draft, DraftOrigin
from forelook.text import common_prefix

_MAX_MATCH = 16
_MAX_OCCURRENCES = 40
_NOTHING = -1
"""Stands in the log for a boundary and for what is beyond its ends; equal to no token."""


class PromptNgrams:
    """Suffix matching over one request's tokens.

    There is no index: to compare some thousand integers takes numpy a few microseconds a step, and a request starts at
    once.

    Args:
        prompt_ids: the whole prompt.
        context: the tokens before the cursor, whose end the output continues. Where the prompt does not end with
            them (its last part is something else), output is logged behind a copy of their end.
        max_new_tokens: most tokens that will be learned.
        boundary_ids: sentinels and file separators: no match and no draft contains one.
    """

    def __init__(
        self,
        prompt_ids: Sequence[int],
        context: Sequence[int],
        max_new_tokens: int,
        boundary_ids: frozenset[int] = frozenset(),
    ) -> None:
        tail = list(context[-_MAX_MATCH:])
        ids = [_NOTHING] * _MAX_MATCH
        ids += [_NOTHING if token in boundary_ids else token for token in prompt_ids] if boundary_ids else prompt_ids
        self._prompt_end = len(ids)
        if ids[len(ids) - len(tail) :] != tail:
            ids += [_NOTHING, *tail]
        self._ids = ids
        # the same tokens once more: numpy finds the occurrences of a token, the list is quicker to compare and to cut
        self._log = np.full(len(ids) + max_new_tokens + 64, _NOTHING, dtype=np.int64)
        self._log[: len(ids)] = ids

    def extend(self, token_ids: Sequence[int]) -> None:
        """Learn output just accepted."""
        start = len(self._ids)
        self._ids += token_ids
        if len(self._ids) > len(self._log):
            self._log = np.concatenate([self._log, np.full(len(self._ids), _NOTHING, dtype=np.int64)])
        self._log[start : len(self._ids)] = token_ids

    def propose(self, context: Sequence[int], *, max_candidates: int, max_length: int) -> list[Draft]:
        """What followed earlier occurrences of the context's end: longest match first, the latest among equals."""
        if not context or max_candidates < 1 or max_length < 1:
            return []
        ids = self._ids
        occurrences = self._occurrences(context)
        if not occurrences:
            return []
        end = list(context[-_MAX_MATCH:])
        end[:0] = [_NOTHING - 1] * (_MAX_MATCH - len(end))  # equal to nothing, not even to a boundary
        scored = []
        for place in occurrences:
            length = 1
            while length < _MAX_MATCH and ids[place - length] == end[-1 - length]:
                length += 1
            scored.append((length, place))
        scored.sort(reverse=True)
        del scored[max_candidates:]
        return _drafts(
            # a short match is seldom right for long
            [ids[place + 1 : place + 1 + min(max_length, 6 + 2 * length)] for length, place in scored],
            [length for length, _ in scored],
            [place >= self._prompt_end for _, place in scored],
        )

    def _occurrences(self, context: Sequence[int]) -> list[int]:
        """Where the context's last token stands with another behind it; of many, those with the same one before it."""
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
        if _NOTHING in tokens:
            del tokens[tokens.index(_NOTHING) :]
    count = len(continuations)
    agreement = [[0] * count for _ in range(count)]  # leading tokens that two continuations share
    for right in range(1, count):
        for left in range(right):
            agreement[left][right] = agreement[right][left] = common_prefix(continuations[left], continuations[right])
    drafts: list[Draft] = []
    end = 0
    for index, (tokens, match_length) in enumerate(zip(continuations, match_lengths, strict=True)):
        while end < count and match_lengths[end] >= match_length:
            end += 1  # the whole group of equal match length has a say
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
