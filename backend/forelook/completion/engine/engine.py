"""The completion engine: one thread that owns model, KV caches and pools, and everything waiting for it.

Requests go first and the newest of a document replaces the one before it. Between requests the thread indexes in
slices of about a millisecond, warms the prompt around the last edit and saves; any request pre-empts that. Unused for
the keep-alive time, the model and its caches are let go, and the next request or edit loads them again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from forelook.completion.completer import Aids, Completer, Watch
from forelook.completion.document_store import Document, DocumentStore
from forelook.completion.engine.drafting import Drafting
from forelook.completion.engine.inbox import CompletionHandle, Inbox, Job, OnDone, OnPartial
from forelook.completion.engine.metrics import EngineFigures
from forelook.completion.engine.model_state import EngineModel, LoadModel, MakeDrafting, ModelHolder
from forelook.completion.engine.pools import MakePool, WorkspacePools
from forelook.completion.engine.speculation import Ahead, Answer
from forelook.completion.engine.usage import UsageCounters
from forelook.completion.faults import guarded, where
from forelook.completion.pool_keys import pool_key
from forelook.completion.prompt.context import ContextChooser
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
from forelook.decoding.drafting.draft import DraftSource
from forelook.decoding.drafting.sources.previous import PreviousSuggestion
from forelook.errors import DecodingError, ForelookError, RequestCancelledError, StaleDocumentError
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.workspace.pool import WorkspacePool

__all__ = ["CompletionEngine", "CompletionHandle", "EngineModel", "LoadModel", "MakeDrafting", "MakePool"]

_LOG = logging.getLogger(__name__)
_SAVE_EVERY_S = 5.0


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
        self._settings = settings
        self._clock = clock
        self._documents = DocumentStore(settings.max_document_chars)
        self._usage = UsageCounters(settings.statistics_path)
        self._figures = EngineFigures()
        self._inbox = Inbox()
        self._thread: threading.Thread | None = None

        # Only the engine's thread changes these.
        self._holder = ModelHolder(
            load, make_drafting or (lambda _model: Drafting()), release_memory, self._take_model, on_status
        )
        self._completer: Completer | None = None
        self._pools = WorkspacePools(make_pool or _pool_in_memory, settings.index_slice_s)
        self._context = ContextChooser()
        self._ahead = Ahead(self._figures, self._aids, self._inbox.has_work, clock, settings.invoked_deadline_ms / 1e3)
        self._last_answer: Answer | None = None
        self._saved_s = clock()
        self._used_s = clock()

    # --- life

    @property
    def status(self) -> EngineStatus:
        """Where the model stands."""
        return self._holder.status

    def start(self) -> None:
        """Begin to load the model on the engine's thread; returns at once."""
        self._thread = threading.Thread(target=self._run, name="forelook-engine", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop what runs within one decode step, save, and end the thread."""
        self._inbox.close()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    # --- documents

    def open_document(
        self, workspace: WorkspaceKey, key: DocumentKey, language_id: str, version: int, text: str
    ) -> None:
        """Mirror a document.

        Raises:
            DocumentTextError: it is too large.
        """
        document = self._documents.open(workspace, key, language_id, version, text)

        def take() -> None:
            self._context.touch(document)
            self._with_pool(workspace, lambda pool: pool.open_document(pool_key(workspace, key), text))

        self._inbox.command(take, wants_model=True)

    def change_document(self, key: DocumentKey, version: int, changes: Sequence[TextChange]) -> None:
        """Apply changes, each to the text the ones before it left.

        Raises:
            DocumentError: one of its kinds; nothing was applied.
        """
        _, document, applied = self._documents.change(key, version, changes)
        cursor = applied[-1].new_end if applied else None

        def update() -> None:
            self._context.touch(document)
            name = pool_key(document.workspace, key)
            self._with_pool(document.workspace, lambda pool: pool.change_document(name, document.text))
            if cursor is not None:
                self._ahead.edited(key, cursor)

        self._inbox.command(update, wants_model=True)

    def close_document(self, key: DocumentKey) -> None:
        """Forget a document; its text stays in the pool of its workspace.

        Raises:
            UnknownDocumentError: it is not open.
        """
        document = self._documents.close(key)

        def close() -> None:
            self._context.forget(key)
            self._ahead.forget(key)
            name = pool_key(document.workspace, key)
            self._with_pool(document.workspace, lambda pool: pool.close_document(name))
            if self._completer is not None:
                self._completer.prompts.forget(key)

        self._inbox.command(close)

    def add_workspace_files(self, workspace: WorkspaceKey, files: Sequence[tuple[str, str]]) -> None:
        """Learn from files that are not open, at low priority."""
        self._inbox.command(lambda: self._with_pool(workspace, lambda pool: pool.add_files(files)), wants_model=True)

    def remove_workspace_files(self, workspace: WorkspaceKey, paths: Sequence[str]) -> None:
        """Forget such files."""
        self._inbox.command(lambda: self._with_pool(workspace, lambda pool: pool.remove_files(paths)))

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
        document = self._documents.get(request.key)
        if request.version != document.version:
            raise StaleDocumentError(
                f"version = {request.version} is not held here: the mirror has version {document.version}; "
                "send the changes first"
            )
        document.check_offset(request.offset)
        settings, now = self._settings, self._clock()
        invoked = request.trigger is TriggerKind.INVOKED
        deadline_ms = request.deadline_ms or (settings.invoked_deadline_ms if invoked else settings.deadline_ms)
        job = Job(request, document, on_partial, on_done, now, now + deadline_ms / 1e3)
        state = self._holder.status.state
        if state is not EngineState.READY:
            reason = "no_model" if state is EngineState.ERROR else "loading"
            on_done(CompletionResult((), "", reason, RequestStats()))
            return CompletionHandle(job)
        self._figures.add("requests")
        self._figures.add("superseded", self._inbox.submit(job))
        return CompletionHandle(job)

    def record_event(
        self, workspace: WorkspaceKey, language_id: str, kind: str, num_chars: int = 0, text: str | None = None
    ) -> None:
        """Count what became of a suggestion; accepted text teaches the pool of its workspace."""

        def record() -> None:
            self._usage.record(language_id, kind, num_chars)
            answer = self._last_answer
            if kind == "shown" and answer is not None and answer.document.workspace == workspace and self._speculates():
                self._ahead.shown(answer)
            model = self._holder.model
            if kind.startswith("accepted") and text and model is not None:
                self._with_pool(workspace, lambda pool: pool.accept(model.tokenizer.encode(text)))

        self._inbox.command(record)

    # --- figures

    def stats(self) -> dict[str, object]:
        """Counts and times since the start, and what users did with suggestions; never text."""
        completer = self._completer
        return {
            "model": self.status.model,
            "state": self.status.state.value,
            "is_model_loaded": completer is not None,
            "num_documents": len(self._documents),
            "kv_cache_bytes": completer.sequences.nbytes if completer else 0,
            "num_cached_prompts": len(completer.sequences) if completer else 0,
            **self._figures.to_dict(),
            "usage": self._usage.to_dict(),
        }

    def pool_stats(self, workspace: WorkspaceKey) -> dict[str, object]:
        """Counts of one workspace's pool."""
        return self._pools.stats(workspace)

    def clear_pool(self, workspace: WorkspaceKey) -> None:
        """Empty a workspace's pool, its copy on disk too."""

        def clear() -> None:
            self._with_pool(workspace, lambda pool: pool.clear())
            self._pools.forget_memory(workspace)

        self._inbox.command(clear)

    # --- the engine's thread

    def _run(self) -> None:
        self._holder.load()
        self._used_s = self._clock()
        while self._turn():
            pass
        self._pools.close()
        self._usage.save()

    def _take_model(self, model: EngineModel) -> None:
        self._completer = self._make_completer(model)

    def _make_completer(self, model: EngineModel) -> Completer:
        drafting = self._holder.drafting
        return Completer(model, self._settings, budget=drafting.budget, loop=drafting.loop)

    def _turn(self) -> bool:
        """One piece of work, the most urgent first; False when the engine is to end."""
        turn = self._inbox.take()
        failure: ForelookError | None = None
        if turn.wants_model and not turn.closing:
            failure = self._reload() if self._holder.is_unloaded else None
            self._used_s = self._clock()
        for command in turn.commands:
            guarded("a document change", command)
        if turn.job is not None:
            self._answer(turn.job, failure)
            self._used_s = self._clock()
            self._inbox.finished()
        elif turn.closing:
            return False
        elif not turn.commands:
            self._inbox.wait(self._idle())
        return True

    def _reload(self) -> ForelookError | None:
        started = self._clock()
        failure = self._holder.reload()
        if failure is None:
            self._inbox.extend_deadlines(started, self._clock())
        return failure

    def _unload(self, unused_s: float) -> None:
        """Let go of weights and caches; documents, pools and what drafting learned stay."""
        self._save()
        self._completer = None
        self._ahead.clear()
        self._holder.unload(unused_s)

    # --- one request

    def _answer(self, job: Job, failure: ForelookError | None) -> None:
        outcome: CompletionResult | ForelookError
        completer = self._completer
        try:
            if failure is not None:
                raise failure
            if completer is None:
                outcome = CompletionResult((), "", "no_model", RequestStats())
            else:
                outcome = self._result(job, completer)
        except RequestCancelledError as error:
            self._figures.add("cancelled")
            outcome = error
        except ForelookError as error:
            self._figures.add("failed")
            outcome = error
        except Exception as error:  # noqa: BLE001 - border of the thread: one request fails, the engine goes on
            _LOG.error("a completion failed: %s", where(error))
            self._figures.add("failed")
            outcome = DecodingError(f"the completion failed inside ({type(error).__name__}); see the backend's log")
            if completer is not None:
                completer.sequences.clear()
        guarded("a completion's callback", lambda: job.on_done(outcome))

    def _result(self, job: Job, completer: Completer) -> CompletionResult:
        if job.cancelled.is_set():
            raise RequestCancelledError("superseded before it began")
        document, request = job.document, job.request
        result = self._ahead.answer_for(document, request)
        if result is not None:
            self._figures.add("answered_ahead")
            # What it cost was counted when it was computed.
            self._figures.add_result(replace(result, stats=RequestStats()))
        else:
            watch = Watch(
                job.arrived_s,
                job.deadline_s,
                job.cancelled.is_set,
                job.on_partial,
                lambda stats: self._figures.add_cancelled(stats),
            )
            result = completer.complete(document, request, watch, self._aids(document, request.offset))
            self._figures.add_result(result)
        self._last_answer = Answer(document, request, result)
        self._ahead.answered(document.key)
        return result

    def _aids(self, document: Document, offset: int) -> Aids:
        sources: list[DraftSource] = []

        def add_source(pool: WorkspacePool) -> None:
            sources.append(pool.source(pool_key(document.workspace, document.key), offset))

        # Without its drafts a completion is slower and no worse.
        guarded("drafting from the workspace", lambda: self._with_pool(document.workspace, add_source))
        previous = self._previous_suggestion(document)
        if previous is not None:
            sources.append(previous)
        wanted = self._completer is not None and self._completer.wants_context
        memory = self._pools.memory(document.workspace, self._holder.drafting.seeds)
        return Aids(self._context.choose(document, offset) if wanted else (), sources, memory)

    def _previous_suggestion(self, document: Document) -> PreviousSuggestion | None:
        """The last answer in this document: after a keystroke that leaves it, much of it often still holds."""
        answer, model = self._last_answer, self._holder.model
        if answer is None or model is None or answer.document.key != document.key or not answer.result.suggestions:
            return None
        before, request, suggestion = answer.document, answer.request, answer.result.suggestions[0]
        encode = model.tokenizer.encode
        line_start = before.text.rfind("\n", 0, suggestion.start) + 1
        typed = before.text[line_start : request.offset]
        shown = suggestion.text[max(0, request.offset - suggestion.start) :]
        return PreviousSuggestion(encode(typed), encode(shown + answer.result.raw_tail))

    # --- between requests

    def _idle(self) -> float | None:
        """One slice of background work; returns how long there is nothing to do, ``None`` for until woken."""
        completer, ahead = self._completer, self._ahead
        if completer is None:
            return None
        if self._context.has_work:
            guarded("choosing context", self._look_for_context)
            return 0
        if ahead.has_follow_up:
            guarded("computing ahead", lambda: ahead.follow_up(completer))
            return 0
        waits: list[float] = []
        due = ahead.warm_due_s() if self._settings.prewarm else None
        if due is not None and due <= 0:
            guarded("prewarming", lambda: ahead.prewarm(completer, self._context.latest))
            return 0
        if due is not None:
            waits.append(due)
        if self._pools.index():
            return 0
        if self._pools.has_unsaved or self._usage.has_unsaved:
            due = self._saved_s + _SAVE_EVERY_S - self._clock()
            if due <= 0:
                self._save()
                return 0
            waits.append(due)
        keep_alive_s = self._settings.keep_alive_s
        if keep_alive_s is not None:
            due = self._used_s + keep_alive_s - self._clock()
            if due <= 0:
                self._unload(keep_alive_s)
                return 0
            waits.append(due)
        return min(waits) if waits else None

    def _look_for_context(self) -> None:
        changed = self._context.work()
        answer = self._last_answer
        if changed is not None and answer is not None and answer.document.key == changed:
            # The next prompt begins otherwise; what the KV cache lacks is computed before anybody waits for it.
            self._ahead.edited(changed, answer.request.offset)

    def _speculates(self) -> bool:
        wanted = self._settings.speculate_on_show
        if wanted is not None:
            return wanted
        model = self._holder.model
        return model is not None and model.device.type != "cpu"

    def _save(self) -> None:
        self._saved_s = self._clock()
        self._pools.save()
        self._usage.save()

    def _with_pool(self, workspace: WorkspaceKey, work: Callable[[WorkspacePool], None]) -> None:
        self._pools.use(workspace, self._holder.model, work)


def _pool_in_memory(_workspace: WorkspaceKey, model: EngineModel) -> WorkspacePool:
    return WorkspacePool(model.tokenizer.encode)
