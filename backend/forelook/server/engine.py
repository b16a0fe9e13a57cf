"""The interface of a completion engine: the server does not import the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from forelook.errors import ForelookError
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.protocol.generation import GenerationParams, GenerationResult, ModelFacts
from forelook.protocol.messages import CompletionEventParams, CompletionParams, CompletionResult, Status, TextChange

OnStatus = Callable[[Status], None]


class RunningCompletion(Protocol):
    """A running completion."""

    def cancel(self) -> None:
        """Stop before the next forward."""
        ...


class Engine(Protocol):
    """A completion engine. Callbacks may come from any thread.

    Calls come from the event loop's thread; ``change_document`` may come from another one, but then no other call about
    the document overlaps it, except for ``close_document``.
    """

    @property
    def has_failed(self) -> bool:
        """Whether it has stopped for good, so that the process must be replaced."""
        ...

    def start(self) -> None:
        """Start loading the model; returns at once."""
        ...

    def close(self) -> None:
        """Cancel running requests and wait for the engine to stop."""
        ...

    def open_document(
        self, workspace: WorkspaceKey, key: DocumentKey, language_id: str, version: int, text: str
    ) -> None:
        """Mirror a document; raises DocumentError."""
        ...

    def change_document(
        self, key: DocumentKey, version: int, changes: Sequence[TextChange], max_bytes: int | None = None
    ) -> None:
        """Apply changes; raises DocumentError."""
        ...

    def move_cursor(self, key: DocumentKey, version: int, offset: int) -> None:
        """Prepare for a request at a place, in idle time; ignored for another version. Raises UnknownDocumentError."""
        ...

    def close_document(self, key: DocumentKey) -> None:
        """Forget a document; raises UnknownDocumentError."""
        ...

    def add_workspace_files(self, workspace: WorkspaceKey, files: Sequence[tuple[str, str]]) -> None:
        """Index files that are not open."""
        ...

    def remove_workspace_files(self, workspace: WorkspaceKey, paths: Sequence[str]) -> None:
        """Drop files from the pool, or folders with all that is below them."""
        ...

    def keep_workspace_files(self, workspace: WorkspaceKey, paths: frozenset[str]) -> None:
        """Drop all files from the pool but these and open documents."""
        ...

    def submit(
        self,
        key: DocumentKey,
        request: CompletionParams,
        on_partial: Callable[[str], None],
        on_done: Callable[[CompletionResult | ForelookError], None],
    ) -> RunningCompletion:
        """Start a completion; raises DocumentError. ``on_done`` is called exactly once."""
        ...

    def generate(
        self,
        principal: str,
        params: GenerationParams,
        on_text: Callable[[str], None],
        on_done: Callable[[GenerationResult | ForelookError], None],
    ) -> RunningCompletion:
        """Start a request without a document. ``on_done`` is called exactly once."""
        ...

    @property
    def model_facts(self) -> ModelFacts | None:
        """What clients are told about the model; ``None`` before it was loaded."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """Ids of a text; raises ModelError without a model."""
        ...

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ids; raises ModelError without a model."""
        ...

    def record_event(self, workspace: WorkspaceKey, event: CompletionEventParams) -> None:
        """Count what became of a suggestion."""
        ...

    def stats(self, principal: str) -> dict[str, object]:
        """A user's own counts and times, never text; those of all users where ``principal`` is empty."""
        ...

    def pool_stats(self, workspace: WorkspaceKey) -> dict[str, object]:
        """Counts of a workspace's pool."""
        ...

    def clear_pool(self, workspace: WorkspaceKey) -> None:
        """Empty a workspace's pool, its persistent copy included."""
        ...


EngineFactory = Callable[[OnStatus], Engine]
