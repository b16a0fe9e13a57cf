"""Work done before anybody asks: the prompt around the last edit brought into the KV cache, and follow-ups computed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from forelook.completion.completer import Aids, Completer, Watch
from forelook.completion.document_store import Document
from forelook.completion.engine.metrics import EngineFigures
from forelook.completion.request import CompletionRequest, CompletionResult
from forelook.errors import RequestCancelledError
from forelook.keys import DocumentKey

PREWARM_AFTER_S = 0.15
_PREWARM_MIN_TOKENS = 64
_MAX_READY = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """A request, the document it was asked about, and what was answered."""

    document: Document
    request: CompletionRequest
    result: CompletionResult


class Ahead:
    """Remembers what is worth computing ahead; only the engine's thread calls it.

    Args:
        figures: prewarmed tokens and speculations are counted there.
        find_aids: what helps a completion at a cursor.
        gives_way: whether a request or an edit waits; asked before every forward.
        clock: monotonic seconds.
        patience_s: longest time a follow-up may take.
    """

    def __init__(
        self,
        figures: EngineFigures,
        find_aids: Callable[[Document, int], Aids],
        gives_way: Callable[[], bool],
        clock: Callable[[], float],
        patience_s: float,
    ) -> None:
        self._figures = figures
        self._find_aids = find_aids
        self._gives_way = gives_way
        self._clock = clock
        self._patience_s = patience_s
        self._ready: OrderedDict[tuple[DocumentKey, int], tuple[str, CompletionResult]] = OrderedDict()
        self._follow: Answer | None = None
        self._warm_at: tuple[DocumentKey, int, float] | None = None

    # --- follow-ups of what is shown

    def answer_for(self, document: Document, request: CompletionRequest) -> CompletionResult | None:
        """A result computed ahead for exactly this text and cursor."""
        ready = self._ready.get((document.key, request.offset))
        if ready is None or request.selected is not None or ready[0] != document.text:
            return None
        return ready[1]

    def shown(self, answer: Answer) -> None:
        """A suggestion is on the screen: what would follow its acceptance is worth computing."""
        self._follow = answer

    @property
    def has_follow_up(self) -> bool:
        """Whether a follow-up waits to be computed."""
        return self._follow is not None

    def follow_up(self, completer: Completer) -> None:
        """Complete the document as it will be once the shown suggestion is accepted."""
        answer, self._follow = self._follow, None
        if answer is None or not answer.result.suggestions:
            return
        document, taken = answer.document, answer.result.suggestions[0]
        text = document.text[: taken.start] + taken.text + document.text[taken.end :]
        offset = taken.start + len(taken.text)
        after = Document(document.workspace, document.key, document.language_id, document.version, text)
        request = CompletionRequest(document.key, document.version, offset, multi_line=answer.request.multi_line)
        now = self._clock()
        watch = Watch(now, now + self._patience_s, self._gives_way)
        try:
            result = completer.complete(after, request, watch, self._find_aids(after, offset))
        except RequestCancelledError:
            return
        self._figures.add("speculations")
        self._figures.add("background_forwards", result.stats.num_forwards)
        self._ready[(document.key, offset)] = (text, result)
        while len(self._ready) > _MAX_READY:
            self._ready.popitem(last=False)

    # --- the prompt around the last edit

    def edited(self, key: DocumentKey, offset: int) -> None:
        """A document was edited; where its cursor is likely to stand."""
        self._warm_at = (key, offset, self._clock())

    def answered(self, key: DocumentKey) -> None:
        """A request of a document was answered: its prompt is warm."""
        if self._warm_at is not None and self._warm_at[0] == key:
            self._warm_at = None

    def warm_due_s(self) -> float | None:
        """Seconds until prewarming is due, ``None`` when nothing is to be warmed."""
        return None if self._warm_at is None else self._warm_at[2] + PREWARM_AFTER_S - self._clock()

    def prewarm(self, completer: Completer, latest: Callable[[DocumentKey], Document | None]) -> None:
        """Bring the prompt around the last edit into a KV cache, unless a request comes."""
        place, self._warm_at = self._warm_at, None
        if place is None:
            return
        key, offset, _ = place
        document = latest(key)
        if document is None or offset > len(document.text):
            return
        aids = self._find_aids(document, offset)
        if completer.num_uncached(document, offset, aids) < _PREWARM_MIN_TOKENS:
            return
        num_tokens, num_forwards = completer.prefill(document, offset, aids, self._gives_way)
        self._figures.add("prewarmed_tokens", num_tokens)
        self._figures.add("background_forwards", num_forwards)

    # --- forgetting

    def forget(self, key: DocumentKey) -> None:
        """Drop what was computed for a closed document."""
        for place in [place for place in self._ready if place[0] == key]:
            del self._ready[place]
        if self._follow is not None and self._follow.document.key == key:
            self._follow = None
        self.answered(key)

    def clear(self) -> None:
        """Drop what waits: the model is let go."""
        self._follow = self._warm_at = None
