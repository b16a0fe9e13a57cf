"""The completion engine: one thread that owns model, KV caches and pools, and everything waiting for it.

Requests go first and the newest of a document replaces the one before it. Between requests the thread indexes in
slices of about a millisecond, warms the prompt around the last edit and saves; any request pre-empts that. Unused for
the keep-alive time, the model and its caches are let go, and the next request or edit loads them again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from forelook.completion.completer import Aids, Completer, CompletionModel, Watch
from forelook.completion.context import ContextChooser
from forelook.completion.documents import Document, DocumentStore
from forelook.completion.drafting import Drafting
from forelook.completion.figures import EngineFigures
from forelook.completion.pool_keys import pool_key
from forelook.completion.request import (
    CompletionRequest,
    CompletionResult,
    EngineState,
    EngineStatus,
    RequestStats,
    TextChange,
    TriggerKind,
)
from forelook.completion.settings import EngineSettings
from forelook.completion.usage import UsageCounters
from forelook.decoding.drafts import DraftSource
from forelook.decoding.previous_suggestion import PreviousSuggestion
from forelook.decoding.tree_drafter import DraftMemory
from forelook.errors import DecodingError, ForelookError, RequestCancelledError, StaleDocumentError
from forelook.workspace.workspace_pool import WorkspacePool

_LOG = logging.getLogger(__name__)
_PREWARM_AFTER_S = 0.15
_PREWARM_MIN_TOKENS = 64
_SAVE_EVERY_S = 5.0
_MAX_READY = 8

OnPartial = Callable[[str], None]
OnDone = Callable[[CompletionResult | ForelookError], None]


class EngineModel(CompletionModel, Protocol):
    """What the engine needs of a loaded model."""

    @property
    def name(self) -> str:
        """As the user gave it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names model, revision and tokenizer."""
        ...

    @property
    def dtype(self) -> object:
        """Of the weights."""
        ...

    @property
    def status_line(self) -> str:
        """What a user should know about this model."""
        ...


LoadModel = Callable[[Callable[[float, str], None]], EngineModel]
MakePool = Callable[[str, EngineModel], WorkspacePool]
MakeDrafting = Callable[[EngineModel], Drafting]


@dataclass(eq=False)
class _Job:
    """A submitted request."""

    request: CompletionRequest
    document: Document
    on_partial: OnPartial
    on_done: OnDone
    arrived_s: float
    deadline_s: float
    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Stop before the next forward."""
        self.cancelled.set()


@dataclass(frozen=True, slots=True)
class _Ready:
    """A result computed ahead, and the text and cursor it belongs to."""

    uri: str
    text: str
    offset: int
    result: CompletionResult


class CompletionHandle:
    """A running completion."""

    def __init__(self, job: _Job) -> None:
        self._job = job

    def cancel(self) -> None:
        """Stop before the next forward; ``on_done`` then gets a RequestCancelledError."""
        self._job.cancel()


class CompletionEngine:
    """Owns a model and answers requests on its documents.

    Document calls and ``submit`` come from one thread, validate at once and raise DocumentError. Callbacks run on the
    engine's thread, except where ``submit`` can answer at once.

    Args:
        load: makes the model, telling its progress; runs on the engine's thread.
        settings: limits and shares.
        on_status: told every change of status.
        make_pool: makes the n-gram pool of a workspace.
        make_drafting: measures what drafting wants to know of a model; by default nothing is measured.
        release_memory: gives back to the system what an unloaded model held.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        load: LoadModel,
        settings: EngineSettings,
        on_status: Callable[[EngineStatus], None],
        *,
        make_pool: MakePool | None = None,
        make_drafting: MakeDrafting | None = None,
        release_memory: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._settings = settings
        self._on_status = on_status
        self._make_pool = make_pool or self._default_pool
        self._make_drafting = make_drafting or (lambda _model: Drafting())
        self._release_memory = release_memory
        self._drafting = Drafting()
        self._clock = clock
        self._status = EngineStatus(EngineState.STARTING, message="starting")
        self._documents = DocumentStore(settings.max_document_chars)
        self._usage = UsageCounters(settings.statistics_path)
        self._context = ContextChooser()

        self._wake = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._commands: deque[Callable[[], None]] = deque()
        self._running: _Job | None = None
        self._closing = False
        self._wants_model = False
        self._thread: threading.Thread | None = None

        # Only the engine's thread touches these.
        self._model: EngineModel | None = None
        self._completer: Completer | None = None
        self._pools: dict[str, WorkspacePool] = {}
        self._memories: dict[str, DraftMemory] = {}
        self._ready: OrderedDict[tuple[str, int], _Ready] = OrderedDict()
        self._last_answer: tuple[Document, CompletionRequest, CompletionResult] | None = None
        self._speculate_from: tuple[Document, CompletionRequest, CompletionResult] | None = None
        self._warm_at: tuple[str, int, float] | None = None
        self._saved_s = clock()
        self._used_s = clock()
        self._unloaded = False
        self._pool_changed = False

        self._figures = EngineFigures()

    # --- life

    @property
    def status(self) -> EngineStatus:
        """Where the model stands."""
        return self._status

    def start(self) -> None:
        """Begin to load the model on the engine's thread; returns at once."""
        self._thread = threading.Thread(target=self._run, name="forelook-engine", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop what runs within one decode step, save, and end the thread."""
        with self._wake:
            self._closing = True
            for job in self._jobs:
                job.cancel()
            if self._running is not None:
                self._running.cancel()
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    # --- documents

    def open_document(self, workspace: str, uri: str, language_id: str, version: int, text: str) -> None:
        """Mirror a document.

        Raises:
            DocumentTextError: it is too large.
        """
        document = self._documents.open(workspace, uri, language_id, version, text)

        def take() -> None:
            self._context.touch(document)
            self._with_pool(workspace, lambda pool: pool.open_document(pool_key(workspace, uri), text))

        self._command(take, wants_model=True)

    def change_document(self, uri: str, version: int, changes: Sequence[TextChange]) -> None:
        """Apply changes, each to the text the ones before it left.

        Raises:
            DocumentError: one of its kinds; nothing was applied.
        """
        _, document, applied = self._documents.change(uri, version, changes)
        cursor = applied[-1].new_end if applied else None

        def update() -> None:
            self._context.touch(document)
            key = pool_key(document.workspace, uri)
            self._with_pool(document.workspace, lambda pool: pool.change_document(key, document.text))
            if cursor is not None:
                self._warm_at = (uri, cursor, self._clock())

        self._command(update, wants_model=True)

    def close_document(self, uri: str) -> None:
        """Forget a document; its text stays in the pool of its workspace.

        Raises:
            UnknownDocumentError: it is not open.
        """
        document = self._documents.close(uri)

        def close() -> None:
            self._context.forget(uri)
            key = pool_key(document.workspace, uri)
            self._with_pool(document.workspace, lambda pool: pool.close_document(key))
            if self._completer is not None:
                self._completer.prompts.forget(uri)

        self._command(close)

    def add_workspace_files(self, workspace: str, files: Sequence[tuple[str, str]]) -> None:
        """Learn from files that are not open, at low priority."""
        self._command(lambda: self._with_pool(workspace, lambda pool: pool.add_files(files)), wants_model=True)

    def remove_workspace_files(self, workspace: str, paths: Sequence[str]) -> None:
        """Forget such files."""
        self._command(lambda: self._with_pool(workspace, lambda pool: pool.remove_files(paths)))

    # --- requests

    def submit(self, request: CompletionRequest, on_partial: OnPartial, on_done: OnDone) -> CompletionHandle:
        """Begin a completion; an older one of the same document is superseded.

        Args:
            request: what to complete.
            on_partial: given all the text generated so far, from the cursor on, after every step.
            on_done: called exactly once, with the result or the error; a superseded or cancelled request gets a
                RequestCancelledError.

        Raises:
            UnknownDocumentError: the document is not open.
            StaleDocumentError: the version is not the mirror's.
            PositionError: the cursor is outside the document.
        """
        document = self._documents.get(request.uri)
        if request.version != document.version:
            raise StaleDocumentError(
                f"version = {request.version} is not held here: the mirror has version {document.version}; "
                "send the changes first"
            )
        document.check_offset(request.offset)
        settings, now = self._settings, self._clock()
        invoked = request.trigger is TriggerKind.INVOKED
        deadline_ms = request.deadline_ms or (settings.invoked_deadline_ms if invoked else settings.deadline_ms)
        job = _Job(request, document, on_partial, on_done, now, now + deadline_ms / 1e3)
        if self._status.state is not EngineState.READY:
            reason = "no_model" if self._status.state is EngineState.ERROR else "loading"
            on_done(CompletionResult((), "", reason, RequestStats()))
            return CompletionHandle(job)
        with self._wake:
            self._figures.add("requests")
            for other in (*self._jobs, self._running):
                if other is not None and other.request.uri == request.uri and not other.cancelled.is_set():
                    self._figures.add("superseded")
                    other.cancel()
            self._jobs.append(job)
            self._wake.notify_all()
        return CompletionHandle(job)

    def record_event(
        self, workspace: str, language_id: str, kind: str, num_chars: int = 0, text: str | None = None
    ) -> None:
        """Count what became of a suggestion; accepted text teaches the pool of its workspace."""

        def record() -> None:
            self._usage.record(language_id, kind, num_chars)
            answer = self._last_answer
            if kind == "shown" and answer is not None and answer[0].workspace == workspace and self._speculates():
                self._speculate_from = answer
            model = self._model
            if kind.startswith("accepted") and text and model is not None:
                self._with_pool(workspace, lambda pool: pool.accept(model.tokenizer.encode(text)))

        self._command(record)

    # --- figures

    def stats(self) -> dict[str, object]:
        """Counts and times since the start, and what users did with suggestions; never text."""
        completer = self._completer
        return {
            "model": self._status.model,
            "state": self._status.state.value,
            "is_model_loaded": completer is not None,
            "num_documents": len(self._documents),
            "kv_cache_bytes": completer.sequences.nbytes if completer else 0,
            "num_cached_prompts": len(completer.sequences) if completer else 0,
            **self._figures.to_dict(),
            "usage": self._usage.to_dict(),
        }

    def pool_stats(self, workspace: str) -> dict[str, object]:
        """Counts of one workspace's pool."""
        pool = self._pools.get(workspace)
        if pool is None:
            return {"num_tokens": 0, "num_documents": 0}
        snapshot = pool.stats()
        return {name: getattr(snapshot, name) for name in snapshot.__slots__}

    def clear_pool(self, workspace: str) -> None:
        """Empty a workspace's pool, its copy on disk too."""

        def clear() -> None:
            self._with_pool(workspace, lambda pool: pool.clear())
            self._memories.pop(workspace, None)

        self._command(clear)

    # --- the engine's thread

    def _command(self, command: Callable[[], None], *, wants_model: bool = False) -> None:
        """Queue work; an unloaded model is loaded for it where the work says that a request may follow."""
        with self._wake:
            self._commands.append(command)
            self._wants_model |= wants_model
            self._wake.notify_all()

    def _run(self) -> None:
        try:
            self._load_model()
        except ForelookError as error:
            self._set_status(EngineState.ERROR, message=str(error))
        except Exception as error:  # noqa: BLE001 - border of the thread: users are told, requests get no suggestion
            _LOG.error("loading the model failed: %s", _where(error))
            reason = f"the model cannot be loaded ({type(error).__name__}); run `forelook doctor`"
            self._set_status(EngineState.ERROR, message=reason)
        while self._turn():
            pass
        for pool in self._pools.values():
            self._guarded("closing a pool", pool.close)
        self._usage.save()

    def _load_model(self) -> None:
        self._set_status(EngineState.LOADING, progress=0.0, message="loading")
        model = self._load(lambda share, line: self._set_status(EngineState.LOADING, progress=share, message=line))
        self._drafting = self._make_drafting(model)
        self._take_model(model)
        self._used_s = self._clock()

    def _take_model(self, model: EngineModel) -> None:
        self._completer = self._make_completer(model)
        self._model = model
        self._status = EngineStatus(
            EngineState.READY, None, model.status_line, model.name, str(model.device), str(model.dtype).split(".")[-1]
        )
        self._on_status(self._status)

    def _unload(self) -> None:
        """Let go of weights and caches; documents, pools and what drafting learned stay."""
        self._save()
        self._completer = self._model = self._warm_at = self._speculate_from = None
        self._unloaded = True
        self._guarded("giving memory back", self._release_memory)
        message = f"unloaded after {self._settings.keep_alive_s:g} s without use; loads again when you edit"
        self._set_ready_status(None, message)

    def _reload(self) -> ForelookError | None:
        """Load the model again. Clients are told that it is ready all the while, as their requests wait for it."""
        started = self._clock()
        try:
            model = self._load(lambda share, line: self._set_ready_status(share, line))
        except ForelookError as error:
            failure: ForelookError = error
        except Exception as error:  # noqa: BLE001 - border of the thread: what waits is told, the next one tries again
            _LOG.error("loading the model again failed: %s", _where(error))
            failure = DecodingError(f"the model cannot be loaded again ({type(error).__name__}); see the backend's log")
        else:
            self._unloaded = False
            self._take_model(model)
            now = self._clock()
            with self._wake:  # the user's time for an answer begins when there can be one
                for job in (self._running, *self._jobs):
                    if job is not None:
                        job.deadline_s += min(now - started, now - job.arrived_s)
            return None
        self._set_ready_status(None, f"not loaded: {failure}")
        return failure

    def _set_ready_status(self, progress: float | None, message: str) -> None:
        self._status = replace(self._status, state=EngineState.READY, progress=progress, message=message)
        self._on_status(self._status)

    def _make_completer(self, model: EngineModel) -> Completer:
        return Completer(model, self._settings, budget=self._drafting.budget)

    def _set_status(self, state: EngineState, *, progress: float | None = None, message: str = "") -> None:
        self._status = EngineStatus(state, progress, message)
        self._on_status(self._status)

    def _turn(self) -> bool:
        """One piece of work, the most urgent first; False when the engine is to end."""
        with self._wake:
            job = self._jobs.popleft() if self._jobs else None
            commands = list(self._commands)
            self._commands.clear()
            self._running = job
            closing = self._closing
            wants_model, self._wants_model = self._wants_model or job is not None, False
        failure: ForelookError | None = None
        if wants_model and not closing:
            failure = self._reload() if self._unloaded else None
            self._used_s = self._clock()
        for command in commands:
            self._guarded("a document change", command)
        if job is not None:
            if failure is None:
                self._answer(job)
            else:
                self._figures.add("failed")
                self._guarded("a completion's callback", lambda: job.on_done(failure))
            self._used_s = self._clock()
            with self._wake:
                self._running = None
            return True
        if closing:
            return False
        if commands:
            return True
        timeout = self._idle()
        with self._wake:
            if not self._has_work() and timeout != 0:
                self._wake.wait(timeout)
        return True

    def _has_work(self) -> bool:
        return bool(self._jobs or self._commands or self._closing)

    def _guarded(self, what: str, work: Callable[[], None]) -> None:
        """Run background work; a fault in it is logged and the service goes on."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - border of the thread: background work must not end it
            _LOG.error("%s failed: %s", what, _where(error))

    def _answer(self, job: _Job) -> None:
        if self._completer is None:
            job.on_done(CompletionResult((), "", "no_model", RequestStats()))
            return
        outcome: CompletionResult | ForelookError
        try:
            outcome = self._result(job, self._completer)
        except RequestCancelledError as error:
            self._figures.add("cancelled")
            outcome = error
        except ForelookError as error:
            self._figures.add("failed")
            outcome = error
        except Exception as error:  # noqa: BLE001 - border of the thread: one request fails, the engine goes on
            _LOG.error("a completion failed: %s", _where(error))
            self._figures.add("failed")
            outcome = DecodingError(f"the completion failed inside ({type(error).__name__}); see the backend's log")
            self._completer.sequences.clear()
        self._guarded("a completion's callback", lambda: job.on_done(outcome))

    def _result(self, job: _Job, completer: Completer) -> CompletionResult:
        if job.cancelled.is_set():
            raise RequestCancelledError("superseded before it began")
        ready = self._ready.get((job.document.uri, job.request.offset))
        if ready is not None and ready.text == job.document.text and job.request.selected is None:
            self._figures.add("answered_ahead")
            result = ready.result
        else:
            watch = Watch(job.arrived_s, job.deadline_s, job.cancelled.is_set, job.on_partial)
            result = completer.complete(job.document, job.request, watch, self._aids(job.document, job.request.offset))
        self._figures.add_result(result)
        self._last_answer = (job.document, job.request, result)
        if self._warm_at is not None and self._warm_at[0] == job.document.uri:
            self._warm_at = None
        return result

    def _previous_suggestion(self, document: Document) -> PreviousSuggestion | None:
        """The last answer in this document: after a keystroke that leaves it, much of it often still holds."""
        if self._last_answer is None or self._model is None:
            return None
        before, request, result = self._last_answer
        if before.uri != document.uri or not result.suggestions:
            return None
        suggestion = result.suggestions[0]
        encode = self._model.tokenizer.encode
        line_start = before.text.rfind("\n", 0, suggestion.start) + 1
        typed = before.text[line_start : request.offset]
        shown = suggestion.text[max(0, request.offset - suggestion.start) :]
        return PreviousSuggestion(encode(typed), encode(shown + result.unused_tail))

    def _aids(self, document: Document, offset: int) -> Aids:
        sources: list[DraftSource] = []

        def add_source(pool: WorkspacePool) -> None:
            sources.append(pool.source(pool_key(document.workspace, document.uri), offset))

        # Without its drafts a completion is slower and no worse.
        self._guarded("drafting from the workspace", lambda: self._with_pool(document.workspace, add_source))
        memory = self._memories.get(document.workspace)
        if memory is None:
            memory = self._memories[document.workspace] = DraftMemory(self._drafting.seeds)
        previous = self._previous_suggestion(document)
        if previous is not None:
            sources.append(previous)
        wanted = self._completer is not None and self._completer.wants_context
        return Aids(self._context.choose(document, offset) if wanted else (), sources, memory)

    # --- between requests

    def _idle(self) -> float | None:
        """One slice of background work; returns how long there is nothing to do, ``None`` for until woken."""
        if self._completer is None:
            return None
        if self._context.has_work:
            self._guarded("choosing context", self._look_for_context)
            return 0
        if self._speculate_from is not None:
            start, self._speculate_from = self._speculate_from, None
            self._guarded("computing ahead", lambda: self._speculate(start))
            return 0
        waits: list[float] = []
        if self._warm_at is not None and self._settings.prewarm:
            due = self._warm_at[2] + _PREWARM_AFTER_S - self._clock()
            if due <= 0:
                place, self._warm_at = self._warm_at, None
                self._guarded("prewarming", lambda: self._prewarm(place[0], place[1]))
                return 0
            waits.append(due)
        if self._index():
            return 0
        if self._pool_changed or self._usage.has_unsaved:
            due = self._saved_s + _SAVE_EVERY_S - self._clock()
            if due <= 0:
                self._save()
                return 0
            waits.append(due)
        if self._settings.keep_alive_s is not None:
            due = self._used_s + self._settings.keep_alive_s - self._clock()
            if due <= 0:
                self._unload()
                return 0
            waits.append(due)
        return min(waits) if waits else None

    def _index(self) -> bool:
        for pool in self._pools.values():
            more = False

            def work(pool: WorkspacePool = pool) -> None:
                nonlocal more
                more = pool.run_slice(self._settings.index_slice_s)

            self._guarded("indexing", work)
            if more:
                return True
        return False

    def _look_for_context(self) -> None:
        changed = self._context.work()
        if changed is not None and self._last_answer is not None and self._last_answer[0].uri == changed:
            # The next prompt begins otherwise; what the KV cache lacks is computed before anybody waits for it.
            self._warm_at = (changed, self._last_answer[1].offset, self._clock())

    def _prewarm(self, uri: str, offset: int) -> None:
        document = self._context.latest(uri)
        if document is None or offset > len(document.text) or self._completer is None:
            return
        aids = self._aids(document, offset)
        if self._completer.num_uncached(document, offset, aids) < _PREWARM_MIN_TOKENS:
            return
        self._figures.add("prewarmed_tokens", self._completer.prefill(document, offset, aids, self._has_work))

    def _speculates(self) -> bool:
        wanted = self._settings.speculate_on_show
        if wanted is not None:
            return wanted
        return self._model is not None and self._model.device.type != "cpu"

    def _speculate(self, answer: tuple[Document, CompletionRequest, CompletionResult]) -> None:
        """Complete the document as it will be once the shown suggestion is accepted."""
        document, request, result = answer
        if not result.suggestions or self._completer is None:
            return
        taken = result.suggestions[0]
        text = document.text[: taken.start] + taken.text + document.text[taken.end :]
        offset = taken.start + len(taken.text)
        after = Document(document.workspace, document.uri, document.language_id, document.version, text)
        follow_up = CompletionRequest(document.uri, document.version, offset, multi_line=request.multi_line)
        now = self._clock()
        watch = Watch(now, now + self._settings.invoked_deadline_ms / 1e3, self._has_work)
        try:
            ahead = self._completer.complete(after, follow_up, watch, self._aids(after, offset))
        except RequestCancelledError:
            return
        self._figures.add("speculations")
        self._ready[(document.uri, offset)] = _Ready(document.uri, text, offset, ahead)
        while len(self._ready) > _MAX_READY:
            self._ready.popitem(last=False)

    def _save(self) -> None:
        self._saved_s = self._clock()
        self._pool_changed = False
        for pool in self._pools.values():
            self._guarded("saving a pool", pool.save)
        self._usage.save()

    def _with_pool(self, workspace: str, work: Callable[[WorkspacePool], None]) -> None:
        """Do something with the pool of a workspace; before there was a model there is none."""
        pool = self._pools.get(workspace)
        if pool is None and self._model is not None:
            pool = self._pools[workspace] = self._make_pool(workspace, self._model)
        if pool is not None:
            self._pool_changed = True
            work(pool)

    def _default_pool(self, _workspace: str, model: EngineModel) -> WorkspacePool:
        return WorkspacePool(model.tokenizer.encode)


def _where(error: BaseException) -> str:
    """An unforeseen error's type and place; its message may hold text of a document and stays out of the log."""
    trace, places = error.__traceback__, []
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__} at {' > '.join(places[-5:])}"
