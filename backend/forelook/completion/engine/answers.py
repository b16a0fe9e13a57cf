"""The latest answer of each document: the source of drafts after a keystroke, and of follow-up suggestions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from forelook.completion.document_store import Document
from forelook.completion.requests import Completed
from forelook.decoding.drafting.sources.previous import PreviousSuggestion
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.protocol.messages import CompletionParams, Suggestion

_MAX_DOCUMENTS = 16  # chosen, not measured
_MAX_LINE_CHARS = 1_000  # of the line before the cursor, to find the place in it; chosen, not measured


@dataclass(frozen=True, slots=True)
class Answer:
    """A request, the document it was about, and its result."""

    document: Document
    request: CompletionParams
    completed: Completed

    @property
    def suggestion(self) -> Suggestion | None:
        """The first suggestion, if there is one."""
        return next(iter(self.completed.result.suggestions), None)

    def draft_source(self, encode: Callable[[str], list[int]]) -> PreviousSuggestion | None:
        """The suggestion as a source of drafts: after the next keystroke much of it often still applies."""
        # One that was not shown is as good a guess at what the model will say next.
        suggestion = self.suggestion or self.completed.withheld
        if suggestion is None:
            return None
        text, offset = self.document.text, self.request.offset
        line_start = max(text.rfind("\n", 0, suggestion.start) + 1, offset - _MAX_LINE_CHARS)
        unseen = suggestion.text[max(0, offset - suggestion.start) :]
        return PreviousSuggestion(encode(text[line_start:offset]), encode(unseen + self.completed.raw_tail))


class LatestAnswers:
    """The latest answer per document, for a bounded number of documents."""

    def __init__(self) -> None:
        self._answers: OrderedDict[DocumentKey, Answer] = OrderedDict()  # the latest last

    def add(self, answer: Answer) -> None:
        """Replace the answer of the document."""
        self._answers[answer.document.key] = answer
        self._answers.move_to_end(answer.document.key)
        if len(self._answers) > _MAX_DOCUMENTS:
            self._answers.popitem(last=False)

    def of(self, key: DocumentKey) -> Answer | None:
        """The latest answer of a document."""
        return self._answers.get(key)

    def latest_in(self, workspace: WorkspaceKey) -> Answer | None:
        """The latest answer of all documents of a workspace."""
        answers = reversed(self._answers.values())
        return next((answer for answer in answers if answer.document.workspace == workspace), None)

    def forget(self, key: DocumentKey) -> None:
        """Drop the answer of a closed document."""
        self._answers.pop(key, None)
