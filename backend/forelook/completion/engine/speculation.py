"""Speculative work: prefill where the cursor is or after a deadline, and follow-up suggestions.

This module decides what is worth computing and keeps the results; the engine computes, between requests.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace

from forelook.completion.document_store import Document
from forelook.completion.engine.answers import Answer
from forelook.completion.requests import Completed
from forelook.keys import DocumentKey
from forelook.protocol.messages import CompletionParams, TriggerKind

PREWARM_AFTER_S = 0.15  # chosen, not measured
PREWARM_MIN_TOKENS = 64  # chosen, not measured: fewer cost a request little
_MAX_RESULTS = 8  # chosen, not measured


@dataclass(frozen=True, slots=True)
class FollowUp:
    """The request that would follow if the user accepted a suggestion, and the document as it would be."""

    document: Document
    request: CompletionParams


@dataclass(frozen=True, slots=True)
class Prewarm:
    """The prompt at ``offset`` of a document is worth prefilling at ``due_s``."""

    key: DocumentKey
    offset: int
    due_s: float


class Speculation:
    """At most one follow-up and one prefill are pending. Times are the engine's clock.

    Args:
        prewarm: whether edits and moved cursors lead to prefills.
    """

    def __init__(self, *, prewarm: bool) -> None:
        self._wants_prewarm = prewarm
        self._results: OrderedDict[tuple[DocumentKey, int], tuple[FollowUp, Completed]] = OrderedDict()
        self._shown: Answer | None = None
        self._prewarm: Prewarm | None = None

    # --- follow-up suggestions

    def shown(self, answer: Answer | None) -> None:
        """The answer's suggestion is on the screen: its follow-up is worth computing."""
        self._shown = answer

    def take_follow_up(self) -> FollowUp | None:
        """The pending follow-up, once."""
        answer, self._shown = self._shown, None
        if answer is None or (suggestion := answer.suggestion) is None:
            return None
        text = answer.document.text
        text = text[: suggestion.start] + suggestion.text + text[suggestion.end :]
        document = replace(answer.document, text=text)
        offset = suggestion.start + len(suggestion.text)
        return FollowUp(document, _as_typed(replace(answer.request, offset=offset)))

    def add_result(self, follow_up: FollowUp, completed: Completed) -> None:
        """Keep the result of a follow-up, for a bounded number of places."""
        self._results[(follow_up.document.key, follow_up.request.offset)] = (follow_up, completed)
        if len(self._results) > _MAX_RESULTS:
            self._results.popitem(last=False)

    def result_for(self, document: Document, request: CompletionParams) -> Completed | None:
        """The result computed for exactly this document, cursor and request."""
        found = self._results.get((document.key, request.offset))
        if found is None:
            return None
        follow_up, completed = found
        same_document = replace(follow_up.document, version=document.version) == document
        asked = replace(request, version=follow_up.request.version, deadline_ms=None, partial=False)
        return completed if same_document and asked == follow_up.request else None

    # --- prefill after an edit

    def edited(self, key: DocumentKey, offset: int, now_s: float) -> None:
        """A document was edited and its cursor is likely at ``offset``, or the cursor was moved there."""
        if self._wants_prewarm:
            self._prewarm = Prewarm(key, offset, now_s + PREWARM_AFTER_S)

    def cut_off(self, key: DocumentKey, offset: int, now_s: float) -> None:
        """The deadline ended a request, perhaps in the middle of its prompt: the rest is worth computing at once."""
        if self._wants_prewarm:
            self._prewarm = Prewarm(key, offset, now_s)

    def answered(self, key: DocumentKey) -> None:
        """A request was answered: the prompt of its document is in the KV cache."""
        if self._prewarm is not None and self._prewarm.key == key:
            self._prewarm = None

    @property
    def prewarm_due_s(self) -> float:
        """When the pending prefill is due; infinite without one."""
        return math.inf if self._prewarm is None else self._prewarm.due_s

    def take_prewarm(self, now_s: float) -> Prewarm | None:
        """The pending prefill if it is due, once."""
        if self.prewarm_due_s > now_s:
            return None
        prewarm, self._prewarm = self._prewarm, None
        return prewarm

    # --- forgetting

    def forget(self, key: DocumentKey) -> None:
        """Drop everything about a closed document, and all results: it may have been their context."""
        self._results.clear()
        if self._shown is not None and self._shown.document.key == key:
            self._shown = None
        self.answered(key)

    def clear_pending(self) -> None:
        """Drop pending work, when the model is unloaded."""
        self._shown = self._prewarm = None


def _as_typed(request: CompletionParams) -> CompletionParams:
    """The request that an editor sends by itself at the same place, under the same settings."""
    return replace(
        request,
        trigger=TriggerKind.AUTOMATIC,
        num_suggestions=1,
        deadline_ms=None,
        selected=None,
        partial=False,
    )
