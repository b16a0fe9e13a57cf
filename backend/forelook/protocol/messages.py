"""The messages between clients and the backend: docs/protocol.md as code. Standard library only.

Params and results are frozen dataclasses, which the completion engine uses too. Their annotations are the validation
rules; a test compares docs/protocol.md with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Annotated, Any

from forelook.confidence import Confidence
from forelook.errors import ProtocolVersionError, UnknownMethodError
from forelook.finish_reason import FinishReason
from forelook.protocol.events import EventKind
from forelook.protocol.jsonrpc import NotificationMethod, RequestId, RequestMethod
from forelook.protocol.wire import AtLeast, Length
from forelook.protocol.wire import from_json as from_json
from forelook.protocol.wire import to_json as to_json

PROTOCOL_VERSION = 3
WEBSOCKET_PATH = "/rpc"
SESSION_ID_HEADER = "x-session-id"
"""Header of the opening request: in a cluster, connections with the same value reach the same replica."""

# Limits of the wire; chosen, not measured.
MAX_NAME_LENGTH = 8_192  # uris, workspace names, paths
MAX_LABEL_LENGTH = 256  # names of languages and programs, versions
MAX_CHANGES = 100_000
MAX_FILES = 4_096
MAX_SUGGESTIONS = 8
MAX_NEW_TOKENS = 4_096
MAX_DEADLINE_MS = 600_000
MAX_SUGGESTION_CHARS = 2**24

Name = Annotated[str, Length(1, MAX_NAME_LENGTH)]
Label = Annotated[str, Length(0, MAX_LABEL_LENGTH)]
Count = Annotated[int, AtLeast(0)]
Milliseconds = Annotated[float, AtLeast(0)]
Share = Annotated[float, AtLeast(0, 1)]


class EngineState(Enum):
    """The model's state."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    ERROR = "error"


class TriggerKind(Enum):
    """What asks for a completion: the editor while the user types, or a command of the user."""

    AUTOMATIC = "automatic"
    INVOKED = "invoked"


class MultiLine(Enum):
    """Whether a suggestion may span lines."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


# --- Params and results ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Empty:
    """No fields."""


@dataclass(frozen=True, slots=True)
class Status:
    """The model's state.

    Attributes:
        progress: share of the model loaded, while loading.
        message: one line for the user; for an error, its cause and fix.
        model, device, dtype: what runs, once known.
    """

    state: EngineState
    progress: Share | None = None
    message: str = ""
    model: str = ""
    device: str = ""
    dtype: str = ""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What the server accepts on one connection."""

    max_message_bytes: Count
    max_document_bytes: Count
    max_documents: Count
    max_pending_requests: Count


@dataclass(frozen=True, slots=True)
class HelloParams:
    """The first message of a connection; the same in every protocol version, so that any two can compare theirs."""

    protocol_version: Count
    client_name: Annotated[str, Length(1, MAX_LABEL_LENGTH)]
    client_version: Label = ""


@dataclass(frozen=True, slots=True)
class HelloResult:
    """The backend, its model's state and what it accepts.

    Attributes:
        settings: of those that take effect when a backend starts, the ones that differ from their defaults.
    """

    protocol_version: Count
    server_version: str
    pid: Count
    status: Status
    limits: ServerLimits
    settings: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DocumentOpenParams:
    """Open a document with its whole text."""

    workspace: Name
    uri: Name
    language_id: Label
    version: int
    text: str


@dataclass(frozen=True, slots=True)
class TextChange:
    """Replace the code points ``[start, end)`` by ``text``."""

    start: Count
    end: Count
    text: str


@dataclass(frozen=True, slots=True)
class DocumentChangeParams:
    """Changes in order, each to the result of those before it."""

    uri: Name
    version: int
    changes: Annotated[tuple[TextChange, ...], Length(0, MAX_CHANGES)]


@dataclass(frozen=True, slots=True)
class DocumentCursorParams:
    """The cursor rests at a place where nothing was typed."""

    uri: Name
    version: int
    offset: Count


@dataclass(frozen=True, slots=True)
class DocumentCloseParams:
    """Close a document."""

    uri: Name


@dataclass(frozen=True, slots=True)
class WorkspaceFile:
    """A workspace file that is not open; the sender has applied its privacy rules."""

    path: Name
    text: str


@dataclass(frozen=True, slots=True)
class WorkspaceFilesParams:
    """Files to index; a path that is sent again is replaced."""

    workspace: Name
    files: Annotated[tuple[WorkspaceFile, ...], Length(0, MAX_FILES)]


@dataclass(frozen=True, slots=True)
class WorkspaceForgetParams:
    """Files that were deleted or are excluded now; a folder stands for all that is below it."""

    workspace: Name
    paths: Annotated[tuple[Name, ...], Length(0, MAX_FILES)]


@dataclass(frozen=True, slots=True)
class WorkspaceKeepParams:
    """All files of a workspace that may be read, in parts; with the last, the rest is dropped from the pool.

    Attributes:
        part: 0, 1, …; 0 starts over.
        is_last: whether the list is complete with this part.
    """

    workspace: Name
    paths: Annotated[tuple[Name, ...], Length(0, MAX_FILES)]
    part: Count
    is_last: bool


@dataclass(frozen=True, slots=True)
class SelectedCompletion:
    """The entry selected in the editor's popup: it would replace ``[start, end)`` by ``text``."""

    start: Count
    end: Count
    text: str


@dataclass(frozen=True, slots=True)
class CompletionParams:
    """Complete an open document at a cursor.

    Attributes:
        offset: the cursor, in code points.
        num_suggestions: maximum number of suggestions; more than one only if invoked.
        max_new_tokens, deadline_ms: ``None`` for the backend's settings.
        selected: the popup's selection, which suggestions must extend.
        confidence: how sure the model must be of the first line, as a level or a probability; not if invoked.
        partial: whether to send ``completion/partial``.
    """

    uri: Name
    version: int
    offset: Count
    trigger: TriggerKind = TriggerKind.AUTOMATIC
    num_suggestions: Annotated[int, AtLeast(1, MAX_SUGGESTIONS)] = 1
    max_new_tokens: Annotated[int, AtLeast(1, MAX_NEW_TOKENS)] | None = None
    deadline_ms: Annotated[int, AtLeast(1, MAX_DEADLINE_MS)] | None = None
    multi_line: MultiLine = MultiLine.AUTO
    selected: SelectedCompletion | None = None
    confidence: Confidence | Share = Confidence.OFF
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Replace ``[start, end)``, which is within one line and contains the cursor, by ``text``."""

    text: str
    start: Count
    end: Count


@dataclass(frozen=True, slots=True)
class RequestStats:
    """The cost of one completion."""

    queue_ms: Milliseconds = 0.0
    prompt_ms: Milliseconds = 0.0
    prefill_ms: Milliseconds = 0.0
    decode_ms: Milliseconds = 0.0
    total_ms: Milliseconds = 0.0
    num_prompt_tokens: Count = 0
    num_reused_tokens: Count = 0
    num_prefill_tokens: Count = 0
    num_forwards: Count = 0
    num_steps: Count = 0
    num_generated_tokens: Count = 0
    num_drafted_tokens: Count = 0
    num_accepted_tokens: Count = 0
    tokens_per_step: Milliseconds = 0.0
    accepted_by_origin: dict[str, Count] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CompletionResult:
    """Suggestions, best first; may be empty.

    Attributes:
        finish_reason: why generation ended, or why there was none.
        is_cut: whether a limit ended the first suggestion, so that another request may extend it.
        next_line: a whole line generated after the first suggestion, cleaned, to show once that is accepted.
    """

    suggestions: tuple[Suggestion, ...]
    finish_reason: FinishReason
    is_cut: bool = False
    next_line: str = ""
    stats: RequestStats = field(default_factory=RequestStats)


@dataclass(frozen=True, slots=True)
class CompletionPartialParams:
    """All text generated so far for a running completion, from the cursor on."""

    id: RequestId
    text: str


@dataclass(frozen=True, slots=True)
class CompletionEventParams:
    """What the user did with a suggestion.

    Attributes:
        num_chars: characters of the suggestion that the event concerns.
        first_use: whether the suggestion was not used before, neither by a key nor by typing it to its end.
        text: the accepted text; it raises the weight of its n-grams in the pool and is never stored as text.
    """

    workspace: Name
    language_id: Label
    kind: EventKind
    num_chars: Annotated[int, AtLeast(0, MAX_SUGGESTION_CHARS)] = 0
    first_use: bool = False
    text: str | None = None


@dataclass(frozen=True, slots=True)
class CancelParams:
    """The request to cancel."""

    id: RequestId


@dataclass(frozen=True, slots=True)
class WorkspaceParams:
    """One workspace."""

    workspace: Name


@dataclass(frozen=True, slots=True)
class StatsResult:
    """Counts and times, never document text; the engine defines the keys of ``engine``."""

    server: dict[str, object]
    engine: dict[str, object]


@dataclass(frozen=True, slots=True)
class PoolStatsResult:
    """Counts of one workspace's pool; the pool defines the keys."""

    pool: dict[str, object]


@dataclass(frozen=True, slots=True)
class NotificationErrorParams:
    """A notification was refused; its document, if any, must be opened again."""

    method: str
    code: int
    message: str
    uri: str | None = None


# --- Methods -----------------------------------------------------------------------------------------------------

HELLO = RequestMethod("hello", HelloParams, HelloResult)
COMPLETION = RequestMethod("completion", CompletionParams, CompletionResult)
STATUS = RequestMethod("status", Empty, Status)
STATS = RequestMethod("stats", Empty, StatsResult)
POOL_STATS = RequestMethod("pool/stats", WorkspaceParams, PoolStatsResult)
POOL_CLEAR = RequestMethod("pool/clear", WorkspaceParams, Empty)
SHUTDOWN = RequestMethod("shutdown", Empty, Empty)
DOCUMENT_OPEN = NotificationMethod("document/open", DocumentOpenParams)
DOCUMENT_CHANGE = NotificationMethod("document/change", DocumentChangeParams)
DOCUMENT_CURSOR = NotificationMethod("document/cursor", DocumentCursorParams)
DOCUMENT_CLOSE = NotificationMethod("document/close", DocumentCloseParams)
WORKSPACE_FILES = NotificationMethod("workspace/files", WorkspaceFilesParams)
WORKSPACE_FORGET = NotificationMethod("workspace/forget", WorkspaceForgetParams)
WORKSPACE_KEEP = NotificationMethod("workspace/keep", WorkspaceKeepParams)
COMPLETION_EVENT = NotificationMethod("completion/event", CompletionEventParams)
CANCEL = NotificationMethod("$/cancel", CancelParams)
STATUS_CHANGED = NotificationMethod("status", Status)
COMPLETION_PARTIAL = NotificationMethod("completion/partial", CompletionPartialParams)
NOTIFICATION_ERROR = NotificationMethod("notification/error", NotificationErrorParams)
CONNECTION_MOVE = NotificationMethod("connection/move", Empty)

CLIENT_REQUESTS: Mapping[str, RequestMethod[Any, Any]] = MappingProxyType(
    {m.name: m for m in (HELLO, COMPLETION, STATUS, STATS, POOL_STATS, POOL_CLEAR, SHUTDOWN)}
)
CLIENT_NOTIFICATIONS: Mapping[str, NotificationMethod[Any]] = MappingProxyType(
    {
        m.name: m
        for m in (
            DOCUMENT_OPEN,
            DOCUMENT_CHANGE,
            DOCUMENT_CURSOR,
            DOCUMENT_CLOSE,
            WORKSPACE_FILES,
            WORKSPACE_FORGET,
            WORKSPACE_KEEP,
            COMPLETION_EVENT,
            CANCEL,
        )
    }
)
SERVER_NOTIFICATIONS: Mapping[str, NotificationMethod[Any]] = MappingProxyType(
    {m.name: m for m in (STATUS_CHANGED, COMPLETION_PARTIAL, NOTIFICATION_ERROR, CONNECTION_MOVE)}
)


def check_version(client_version: int) -> None:
    """Refuse a client of another protocol version.

    Raises:
        ProtocolVersionError: with both versions and the side to update.
    """
    if client_version != PROTOCOL_VERSION:
        older = "client" if client_version < PROTOCOL_VERSION else "backend"
        raise ProtocolVersionError(
            f"protocol version {client_version} is not supported by this backend (version {PROTOCOL_VERSION}); "
            f"update or restart the {older}"
        )


def request_method(name: str) -> RequestMethod[Any, Any]:
    """The request that clients send as ``name``.

    Raises:
        UnknownMethodError: with all request methods.
    """
    method = CLIENT_REQUESTS.get(name)
    if method is None:
        hint = "; it is a notification, send it without an id" if name in CLIENT_NOTIFICATIONS else ""
        raise UnknownMethodError(f"unknown request {name[:100]!r} (expected {', '.join(CLIENT_REQUESTS)}){hint}")
    return method


def notification_method(name: str) -> NotificationMethod[Any]:
    """The notification that clients send as ``name``.

    Raises:
        UnknownMethodError: with all notification methods.
    """
    method = CLIENT_NOTIFICATIONS.get(name)
    if method is None:
        hint = "; it is a request, send it with an id" if name in CLIENT_REQUESTS else ""
        raise UnknownMethodError(
            f"unknown notification {name[:100]!r} (expected {', '.join(CLIENT_NOTIFICATIONS)}){hint}"
        )
    return method
