"""An engine without a model: real document mirrors, answers by a rule the test sets, from threads of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from forelook.budgets import ByteBudget
from forelook.completion.document_store import DocumentStore
from forelook.errors import ForelookError
from forelook.finish_reason import FinishReason
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.protocol.messages import (
    CompletionEventParams,
    CompletionParams,
    CompletionResult,
    EngineState,
    RequestStats,
    Status,
    Suggestion,
    TextChange,
)
from forelook.server.engine import OnStatus

Answer = Callable[[CompletionParams, str], "CompletionResult | ForelookError"]


def suggest_length(request: CompletionParams, text: str) -> CompletionResult:
    """Suggests the document's length and the cursor, so that a test sees which text the engine held."""
    suggestion = Suggestion(f"{len(text)}@{request.offset}", request.offset, request.offset)
    stats = RequestStats(total_ms=1.5, num_steps=2, num_generated_tokens=3, tokens_per_step=1.5)
    return CompletionResult((suggestion,), FinishReason.STOP_TOKEN, next_line="tail", stats=stats)


class FakeHandle:
    """A completion that ends when the test lets it, or when it is cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


class FakeEngine:
    """See the module.

    Attributes:
        gate: completions are answered once it is set; it is, unless a test clears it.
        partials: streamed before each answer.
        answer: makes the answer from the request and the document's text.
    """

    def __init__(self, on_status: OnStatus, *, ready: bool = True) -> None:
        self._on_status = on_status
        self._ready = ready
        self._worker = ThreadPoolExecutor(max_workers=64, thread_name_prefix="fake-engine")
        self.status = Status(EngineState.STARTING)
        self.documents = DocumentStore(ByteBudget("documents", "close some", 2**30, 2**30))
        self.files: dict[tuple[WorkspaceKey, str], str] = {}
        self.events: list[tuple[WorkspaceKey, CompletionEventParams]] = []
        self.cursors: list[tuple[DocumentKey, int, int]] = []
        self.requests: list[CompletionParams] = []
        self.handles: list[FakeHandle] = []
        self.kept: list[tuple[WorkspaceKey, frozenset[str]]] = []
        self.cleared: list[WorkspaceKey] = []
        self.gate = threading.Event()
        self.gate.set()
        self.partials: tuple[str, ...] = ()
        self.answer: Answer = suggest_length
        self.closed = False
        self.has_failed = False

    def start(self) -> None:
        if self._ready:
            self.set_status(Status(EngineState.READY, model="fake", device="cpu", dtype="float32"))

    def set_status(self, status: Status) -> None:
        self.status = status
        self._on_status(status)

    def close(self) -> None:
        self.gate.set()
        self._worker.shutdown(wait=True)
        self.closed = True

    def open_document(
        self, workspace: WorkspaceKey, key: DocumentKey, language_id: str, version: int, text: str
    ) -> None:
        self.documents.open(workspace, key, language_id, version, text)

    def change_document(
        self, key: DocumentKey, version: int, changes: Sequence[TextChange], max_bytes: int | None = None
    ) -> None:
        self.documents.change(key, version, changes, max_bytes=max_bytes)

    def move_cursor(self, key: DocumentKey, version: int, offset: int) -> None:
        self.cursors.append((self.documents.get(key).key, version, offset))

    def close_document(self, key: DocumentKey) -> None:
        self.documents.close(key)

    def add_workspace_files(self, workspace: WorkspaceKey, files: Sequence[tuple[str, str]]) -> None:
        for path, text in files:
            self.files[workspace, path] = text

    def remove_workspace_files(self, workspace: WorkspaceKey, paths: Sequence[str]) -> None:
        for path in paths:
            self.files.pop((workspace, path), None)

    def keep_workspace_files(self, workspace: WorkspaceKey, paths: frozenset[str]) -> None:
        self.kept.append((workspace, paths))

    def submit(
        self,
        key: DocumentKey,
        request: CompletionParams,
        on_partial: Callable[[str], None],
        on_done: Callable[[CompletionResult | ForelookError], None],
    ) -> FakeHandle:
        document = self.documents.get(key)
        document.check_offset(request.offset)
        handle = FakeHandle()
        self.requests.append(request)
        self.handles.append(handle)
        self._worker.submit(self._run, request, document.text, on_partial, on_done)
        return handle

    def _run(
        self,
        request: CompletionParams,
        text: str,
        on_partial: Callable[[str], None],
        on_done: Callable[[CompletionResult | ForelookError], None],
    ) -> None:
        for partial in self.partials:
            on_partial(partial)
        self.gate.wait()
        on_done(self.answer(request, text))

    def record_event(self, workspace: WorkspaceKey, event: CompletionEventParams) -> None:
        self.events.append((workspace, event))

    def stats(self, principal: str) -> dict[str, object]:
        return {"num_requests": len(self.requests), **({"principal": principal} if principal else {})}

    def pool_stats(self, workspace: WorkspaceKey) -> dict[str, object]:
        return {"num_tokens": sum(len(text) for (owner, _), text in self.files.items() if owner == workspace)}

    def clear_pool(self, workspace: WorkspaceKey) -> None:
        self.cleared.append(workspace)
        self.files = {key: text for key, text in self.files.items() if key[0] != workspace}
