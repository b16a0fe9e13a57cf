"""What a completion is asked with, besides its document, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from forelook.completion.confidence import LineScore
from forelook.completion.prompt.files import FileContext
from forelook.decoding.drafting.draft import DraftSource
from forelook.decoding.drafting.tree_drafter import DraftMemory
from forelook.decoding.limits import TokenConstraint
from forelook.decoding.ngrams.index import TokenArray
from forelook.protocol.messages import CompletionResult, RequestStats, Suggestion


@dataclass(frozen=True, slots=True)
class Hints:
    """What helps one request beyond its document.

    Attributes:
        context: text of other files, most useful first.
        sources: draft sources.
        memory: what earlier requests of the workspace taught the drafter; updated by this one.
        after: tokens of the document after the cursor, for drafts from them; the prompt's suffix by default.
    """

    context: Sequence[FileContext] = ()
    sources: Sequence[DraftSource] = ()
    memory: DraftMemory | None = None
    after: TokenArray | None = None


@dataclass(frozen=True, slots=True)
class RequestControl:
    """Deadline, cancellation and progress callback of one request.

    Attributes:
        arrived_s, deadline_s: ``time.monotonic()`` values.
        is_cancelled: called before every forward.
        on_partial: called with all text generated so far, from the cursor on, as often as the settings say.
        is_waited_for: whether a short prompt now is worth more than a whole one later.
    """

    arrived_s: float
    deadline_s: float | None = None
    is_cancelled: Callable[[], bool] = lambda: False
    on_partial: Callable[[str], None] = lambda _text: None
    is_waited_for: bool = True


@dataclass(frozen=True, slots=True)
class PromptIds:
    """What the decoding loop needs of a prompt.

    Attributes:
        ids: the whole prompt.
        before: of these, the text that the output continues.
        after: tokens of the text after the cursor.
        constraint: which tokens the output may begin with.
    """

    ids: list[int]
    before: Sequence[int]
    after: Sequence[int] | TokenArray = ()
    constraint: TokenConstraint | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """A result, and what only the engine keeps of it.

    Attributes:
        result: what the client gets.
        raw_tail: all text generated after the first suggestion, to draft from.
        withheld: the suggestion that the model was not sure enough of, to draft from.
        score: of the first suggestion's first line, shown or withheld; ``None`` if it was not scored.
        had_short_prompt: whether the whole prompt, with more text, is still to be run.
    """

    result: CompletionResult
    raw_tail: str = ""
    withheld: Suggestion | None = None
    score: LineScore | None = None
    had_short_prompt: bool = False


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A request ended before it had an answer; ``stats`` is what it cost."""

    stats: RequestStats
