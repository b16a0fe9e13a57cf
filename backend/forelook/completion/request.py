"""What the completion engine is asked and what it answers. Offsets count Unicode code points of the document."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from forelook.keys import DocumentKey


class TriggerKind(Enum):
    """Who asked: the user by a command, or the editor while typing."""

    INVOKED = "invoked"
    AUTOMATIC = "automatic"


class MultiLine(Enum):
    """Whether a suggestion may span lines."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class EngineState(Enum):
    """Where the model stands."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class TextChange:
    """Replace ``[start, end)`` of the document by ``text``."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class SelectedCompletion:
    """The entry selected in the editor's completion popup: it would replace ``[start, end)`` by ``text``."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """Complete the document at a cursor.

    Attributes:
        key: an open document.
        version: the version the client sees; another one in the mirror is a StaleDocumentError.
        offset: the cursor, in code points.
        trigger: automatic or invoked.
        num_suggestions: most different suggestions to return; more than one only for an invoked request.
        max_new_tokens: ``None`` for the engine's setting.
        deadline_ms: time for this request from its arrival, ``None`` for the engine's setting.
        multi_line: whether the suggestion may span lines.
        selected: the popup's selection, which suggestions must extend.
    """

    key: DocumentKey
    version: int
    offset: int
    trigger: TriggerKind = TriggerKind.AUTOMATIC
    num_suggestions: int = 1
    max_new_tokens: int | None = None
    deadline_ms: int | None = None
    multi_line: MultiLine = MultiLine.AUTO
    selected: SelectedCompletion | None = None


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Text to put in place of ``[start, end)``, which lies within one line and contains the cursor."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class RequestStats:
    """What one request cost; times in milliseconds."""

    queue_ms: float = 0.0
    prompt_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    total_ms: float = 0.0
    num_prompt_tokens: int = 0
    num_reused_tokens: int = 0
    num_prefill_tokens: int = 0
    num_forwards: int = 0
    num_steps: int = 0
    num_generated_tokens: int = 0
    num_drafted_tokens: int = 0
    num_accepted_tokens: int = 0
    tokens_per_step: float = 0.0
    accepted_by_origin: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CompletionResult:
    """Suggestions, best first; none is a normal answer.

    Attributes:
        suggestions: cleaned suggestions; the text before the cursor in each one's range is a prefix of its text.
        unused_tail: a line generated beyond the first suggestion, good to offer right after it.
        finish_reason: the decoding loop's reason, or why there is none (``"no_model"``, ``"empty_prompt"`` …).
        stats: what it cost.
        raw_tail: all that was generated beyond the first suggestion, to draft from.
    """

    suggestions: tuple[Suggestion, ...]
    unused_tail: str
    finish_reason: str
    stats: RequestStats
    raw_tail: str = ""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """A snapshot for status notifications.

    Attributes:
        state: where the model stands.
        progress: share of the model loaded, 0 to 1, while loading.
        message: one line for people; for an error, its cause and remedy.
        model, device, dtype: what runs, once known.
    """

    state: EngineState
    progress: float | None = None
    message: str = ""
    model: str = ""
    device: str = ""
    dtype: str = ""
