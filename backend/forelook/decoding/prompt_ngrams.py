"""Drafts from the prompt and the growing output: where the context's end stood before, what followed it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forelook.decoding.drafts import Draft, DraftOrigin

_MAX_MATCH = 16
_MAX_OCCURRENCES = 64
_NOTHING = -1
"""Stands in the log for a boundary and for what is beyond its ends; equal to no token."""


class PromptNgrams:
    """Suffix matching over one request's tokens.

    The log is scanned afresh every step: comparing some thousand integers takes numpy a few microseconds, less than
    keeping an index would, and a request starts at once.

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
        joined = list(prompt_ids)
        self._prompt_end = _MAX_MATCH + len(joined)
        if joined[-len(tail) :] != tail:
            joined += [_NOTHING, *tail]
        log = np.array(joined, dtype=np.int64)
        for boundary in boundary_ids:
            log[log == boundary] = _NOTHING
        padding = np.full(_MAX_MATCH + 1, _NOTHING, dtype=np.int64)
        room = np.full(max_new_tokens + 64, _NOTHING, dtype=np.int64)
        self._log = np.concatenate([padding[1:], log, room])
        self._length = _MAX_MATCH + len(log)

    def extend(self, token_ids: Sequence[int]) -> None:
        """Learn output just accepted."""
        end = self._length + len(token_ids)
        if end + 64 > len(self._log):
            self._log = np.concatenate([self._log, np.full(len(self._log), _NOTHING, dtype=np.int64)])
        self._log[self._length : end] = token_ids
        self._length = end

    def propose(self, context: Sequence[int], *, max_candidates: int, max_length: int) -> list[Draft]:
        """What followed earlier occurrences of the context's end: longest match first, the latest among equals."""
        if not context or max_candidates < 1 or max_length < 1:
            return []
        log = self._log
        found = np.flatnonzero(log[: self._length - 1] == context[-1])
        if len(found) == 0:
            return []
        if len(found) > _MAX_OCCURRENCES:
            found = found[-_MAX_OCCURRENCES:]
        reversed_end = np.full(_MAX_MATCH + 1, _NOTHING - 1, dtype=np.int64)
        end = context[: -_MAX_MATCH - 1 : -1]
        reversed_end[: len(end)] = end
        # the pad's last entry differs from everything, so the first difference is the match length
        match_lengths = (log[found[:, None] - _BACKWARDS] != reversed_end).argmax(axis=1)
        best = np.argsort(-(match_lengths * len(log) + found))[:max_candidates]
        starts = found[best]
        continuations = log[starts[:, None] + np.arange(1, min(max_length, 64) + 1)].tolist()
        return _drafts(continuations, match_lengths[best].tolist(), (starts >= self._prompt_end).tolist())


_BACKWARDS = np.minimum(np.arange(_MAX_MATCH + 1), _MAX_MATCH - 1)


def _drafts(continuations: list[list[int]], match_lengths: list[int], in_output: list[bool]) -> list[Draft]:
    """One draft per different continuation; its shares count the occurrences matched at least as long."""
    drafts: list[Draft] = []
    children: list[dict[int, int]] = [{}]
    counts = [0]
    emitted = [True]
    paths: list[tuple[list[int], int]] = []
    for index, (tokens, match_length) in enumerate(zip(continuations, match_lengths, strict=True)):
        node = 0
        counts[0] += 1
        path = []
        for token in tokens:
            if token < 0:
                break
            child = children[node].get(token)
            if child is None:
                child = children[node][token] = len(counts)
                children.append({})
                counts.append(0)
                emitted.append(False)
            counts[child] += 1
            path.append(child)
            node = child
        paths.append((path, index))
        if index + 1 < len(match_lengths) and match_lengths[index + 1] == match_length:
            continue
        # a whole group of equal match length is counted: emit what it adds
        for group_path, candidate in paths:
            if not group_path or emitted[group_path[-1]]:
                continue
            shares = []
            total = counts[0]
            for child in group_path:
                emitted[child] = True
                # half a count against it: one witness is weaker than ten that agree
                shares.append(counts[child] / (total + 0.5))
                total = counts[child]
            origin = DraftOrigin.OUTPUT if in_output[candidate] else DraftOrigin.PROMPT
            ids = tuple(continuations[candidate][: len(group_path)])
            drafts.append(Draft(ids, tuple(shares), match_length, origin))
        paths.clear()
    return drafts
