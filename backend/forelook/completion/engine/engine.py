"""The completion engine: one thread that owns the model, its KV caches and the pools, and the inbox in front of it.

Requests come first, and a newer request of a document replaces the older one. Between requests the thread chooses
context, computes follow-ups, prefills the prompt around the last edit, indexes in slices of about a millisecond, saves
and, in idle time, asks the model for the successors of the tokens in use; any request pre-empts that. After the
keep-alive time without use the model is unloaded; the next request or edit reloads it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from forelook.budgets import ByteBudget, text_bytes
from forelook.completion.document_store import DocumentStore
from forelook.completion.engine.ahead import WorkAhead
from forelook.completion.engine.answers import Answer
from forelook.completion.engine.documents import DocumentFeed
from forelook.completion.engine.drafting import Drafting
from forelook.completion.engine.generations import Generations
from forelook.completion.engine.inbox import GenerationJob, Inbox, Job, OnDone, OnGenerated, OnPartial, Turn
from forelook.completion.engine.model_state import Loaded, LoadModel, MakeDrafting, ModelState
from forelook.completion.engine.pools import MakePool, WorkspacePools, pool_in_memory
from forelook.completion.engine.users import OWNER, User, Users
from forelook.completion.requests import Cancelled, RequestControl
from forelook.config import EngineConfig
from forelook.errors import (
    DecodingError,
    ForelookError,
    ModelChangedError,
    ModelError,
    RequestCancelledError,
    StaleDocumentError,
)
from forelook.failures import log_failure, logged
from forelook.finish_reason import FinishReason
from forelook.heap import trim_heap
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.model.tokenizer import CodeTokenizer
from forelook.protocol.events import ACCEPTANCES, EventKind
from forelook.protocol.generation import GenerationParams, ModelFacts
from forelook.protocol.messages import (
    CompletionEventParams,
    CompletionParams,
    CompletionResult,
    EngineState,
    RequestStats,
    Status,
    TextChange,
    TriggerKind,
)

_SAVE_EVERY_S = 5.0  # chosen, not measured
_INDEX_EVERY_S = 0.1  # while work never pauses; chosen, not measured
_TRIM_AFTER_S = 5.0  # of a pause; chosen, not measured
_TRIM_EVERY_S = 60.0  # while work never pauses; chosen, not measured
_FAILED_PAUSE_S = 0.2  # chosen, not measured: work that fails every time must not take a whole core


class CompletionEngine:
    """Owns a model and answers requests about its documents.

    Document calls and ``submit`` come from one thread, validate at once and raise DocumentError. Callbacks run on the
    engine's thread, except where ``submit`` can answer at once.

    Args:
        load: loads the model and reports its progress; runs on the engine's thread.
        config: limits and shares.
        on_status: called with every change of the status.
        make_pool: makes the n-gram pool of a workspace; in memory by default.
        make_drafting: what drafting knows about a model at first; by default nothing, and it learns nothing.
        release_memory: returns the memory of an unloaded model to the system.
        statistics_path: file of the usage counters; ``None`` keeps them in memory.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        load: LoadModel,
        config: EngineConfig,
        on_status: Callable[[Status], None],
        *,
        make_pool: MakePool | None = None,
        make_drafting: MakeDrafting | None = None,
        release_memory: Callable[[], None] = lambda: None,
        statistics_path: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._clock = clock
        what, fix = "texts of open documents", "close some documents"
        self._documents = DocumentStore(ByteBudget(what, fix, config.user_document_bytes, config.document_bytes))
        what, fix = "texts that wait to be indexed", "send this again later"
        queue = ByteBudget(what, fix, config.user_queue_bytes, config.queue_bytes)
        self._end: ForelookError | None = None  # why the engine's thread has ended without being asked to
        self._users = Users(prewarm=config.prewarm, statistics_path=statistics_path)
        self._inbox = Inbox(queue)
        self._thread: threading.Thread | None = None

        # Only the engine's thread changes these.
        self._model = ModelState(load, make_drafting or (lambda _model: Drafting()), config, release_memory, on_status)
        self._pools = WorkspacePools(make_pool or pool_in_memory, self._model, config.index_slice_s, clock, queue)
        self._feed = DocumentFeed(self._documents, self._inbox, self._model, self._pools, self._users, clock)
        self._ahead = WorkAhead(config, self._users, self._pools, self._inbox.has_work, clock)
        self._generations = Generations(self._users, self._pools, self._inbox.has_work, self._feed.drop_unused, clock)
        self._saved_s = self._used_s = self._indexed_s = self._worked_s = self._trimmed_s = clock()

    @property
    def has_failed(self) -> bool:
        """Whether the engine's thread has ended without being asked to; its process must be replaced."""
        return self._end is not None

    @property
    def status(self) -> Status:
        """The model's state."""
        return self._model.status

    def start(self) -> None:
        """Start the engine's thread, which loads the model; returns at once."""
        self._thread = threading.Thread(target=self._run, name="forelook-engine", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the running request within one decode step, save, and end the thread."""
        self._inbox.close()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    # --- the engine's thread: one turn

    def _run(self) -> None:
        try:
            self._model.load()
            self._used_s = self._clock()
            while self._turn():
                pass
        except BaseException as error:  # noqa: BLE001 - the last border: clients must learn that nothing answers
            log_failure("the engine's thread", error)
            stopped = DecodingError("the engine stopped; see the backend's log")
            self._give_way(f"the engine stopped ({type(error).__name__}); the backend restarts", stopped)
        with logged("closing the pools"):
            self._pools.close()
        with logged("saving the counts"):
            self._users.usage.save()
        with logged("saving what drafting learned"):
            self._model.drafting.save()

    def _give_way(self, reason: str, error: ForelookError) -> None:
        """End for another process; no request waits for this one."""
        self._end = error
        self._model.give_up(reason)
        for job in self._inbox.fail():
            job.finish(error)
        self._generations.fail(error)

    def _turn(self) -> bool:
        """Do the most urgent piece of work; returns False to end the thread, which no failure does."""
        turn = self._inbox.take(self._generations.lets_pass)
        for generation in turn.generations:
            self._generations.add(generation)
        if turn.wants_model and not turn.closing and self._model.has_changed_on_disk:
            reason = f"the files of {self._model.status.model} changed on disk; the backend restarts to load them"
            self._give_way(reason, ModelChangedError(f"{reason}; ask again"))
            return False
        try:
            self._take_turn(turn)
        except Exception as error:  # noqa: BLE001 - border of the thread
            log_failure("a turn of the engine", error)
            if turn.job is not None:
                turn.job.finish(DecodingError(f"the engine failed ({type(error).__name__}); see the backend's log"))
            self._inbox.wait(_FAILED_PAUSE_S)
        return turn.job is not None or not turn.closing

    def _take_turn(self, turn: Turn) -> None:
        failure = self._ensure_loaded() if turn.wants_model and not turn.closing else None
        for command in turn.commands:
            with logged("a document change"):
                command()
        if turn.commands:
            self._model.text_changed()
        if turn.job is not None:
            started_s = self._clock()
            self._answer(turn.job, failure)
            self._used_s = self._clock()
            self._generations.charge_document(turn.job.document.workspace.principal, self._used_s - started_s)
            self._inbox.finished()
        has_generated = self._generate(turn, failure)
        if turn.job is not None or turn.commands or has_generated:
            self._worked_s = self._clock()
            self._work_in_turn()
        elif not turn.closing:
            self._inbox.wait(self._work_idle())

    def _generate(self, turn: Turn, failure: ForelookError | None) -> bool:
        """Run a slice of what needs no document, unless a request came first; returns whether there was any."""
        if not self._generations.has_work:
            return False
        loaded = self._model.loaded
        if turn.closing:
            self._generations.fail(RequestCancelledError("the backend exits"))
        elif loaded is None:
            self._generations.fail(failure or ModelError(f"no model is loaded: {self._model.status.message}"))
        elif turn.job is None:
            self._generations.run_slice(loaded)
            self._used_s = self._clock()
        return True

    def _work_in_turn(self) -> None:
        """One slice of what otherwise waits for a pause, so that edits without one lose only seconds of learning."""
        now_s = self._clock()
        if now_s - self._indexed_s >= _INDEX_EVERY_S and self._model.loaded is not None:
            self._indexed_s = now_s
            self._pools.index()
        if self._save_due_s() <= now_s:
            self._save()
        if self._trimmed_s + _TRIM_EVERY_S <= now_s:
            self._trim()

    def _work_ahead(self, loaded: Loaded) -> bool:
        """Do one slice of what a request may need next; returns whether there was any."""
        started_s = self._clock()
        try:
            return self._ahead.work(loaded)
        finally:
            self._users.worked_ahead(self._clock() - started_s)

    def _work_idle(self) -> float | None:
        """Do one slice of background work; returns seconds until there is more, ``None`` for until woken."""
        if self._model.loaded is None:
            return None
        now_s = self._clock()
        if self._save_due_s() <= now_s:
            self._save()
            return 0
        if self._work_ahead(self._model.loaded):
            return 0
        self._indexed_s = now_s
        if self._pools.index():
            self._model.text_changed()
            return 0
        self._pools.close_unused()
        now_s, save_s, unload_s = self._clock(), self._save_due_s(), self._unload_due_s()
        if unload_s <= now_s:
            self._unload()
            return 0
        # Once per pause, which may be the end of the load.
        trim_s = self._worked_s + _TRIM_AFTER_S if self._trimmed_s <= self._worked_s else math.inf
        if trim_s <= now_s:
            self._trim()
            return 0
        learn_s = self._model.learn_due_s(self._used_s)
        if learn_s <= now_s:
            self._model.learn(self._pools.token_uses, self._pools.pairs_in_use)
            return 0
        prewarm_s = min(user.speculation.prewarm_due_s for user in self._users.in_turn())
        next_s = min(prewarm_s, save_s, unload_s, trim_s, learn_s, self._pools.close_due_s)
        return None if math.isinf(next_s) else max(0.0, next_s - now_s)

    # --- the engine's thread: requests

    def _answer(self, job: Job, failure: ForelookError | None) -> None:
        """Answer one request; ``failure`` is why there is no model."""
        outcome: CompletionResult | ForelookError
        loaded = self._model.loaded
        user = self._users.of(job.document.workspace.principal)
        try:
            if failure is not None:
                raise failure
            outcome = self._complete(user, job, loaded)
        except ForelookError as error:
            user.metrics.add("cancelled" if isinstance(error, RequestCancelledError) else "failed")
            outcome = error
        except Exception as error:  # noqa: BLE001 - edge of the thread: one request fails
            log_failure("a completion", error)
            user.metrics.add("failed")
            outcome = DecodingError(f"the completion failed ({type(error).__name__}); see the backend's log")
            if loaded is not None:
                loaded.drop(user.name)  # the state of its caches is unknown
        job.finish(outcome)
        if loaded is not None:
            self._feed.drop_unused(user.name, loaded)

    def _complete(self, user: User, job: Job, loaded: Loaded | None) -> CompletionResult:
        if job.cancelled.is_set():
            raise RequestCancelledError("superseded before it started")
        if loaded is None:
            return CompletionResult((), FinishReason.NO_MODEL)
        document, request = job.document, job.request
        completed = user.speculation.result_for(document, request)
        if completed is not None:
            user.metrics.add("answered_ahead")
            # Its cost was counted when it was computed.
            user.metrics.add_result(replace(completed.result, stats=RequestStats()))
        else:
            control = RequestControl(job.arrived_s, job.deadline_s, job.cancelled.is_set, job.on_partial)
            hints = self._ahead.hints(user, document, request.offset, loaded)
            outcome = loaded.completer(user.name).complete(document, request, control, hints)
            if isinstance(outcome, Cancelled):
                user.metrics.add_cancelled(outcome.stats)
                raise RequestCancelledError("cancelled")
            completed = outcome
            user.metrics.add_result(completed.result)
        user.answers.add(Answer(document, request, completed))
        user.speculation.answered(document.key)
        if completed.result.finish_reason is FinishReason.DEADLINE:
            # Its prompt may be computed in part only, and the next keystroke needs the rest.
            user.speculation.cut_off(document.key, request.offset, self._clock())
        elif completed.had_short_prompt:
            user.speculation.edited(document.key, request.offset, self._clock())
        return completed.result

    # --- the engine's thread: between requests

    def _speculates_on(self, loaded: Loaded) -> bool:
        wanted = self._config.speculate
        return loaded.model.device.type != "cpu" if wanted is None else wanted

    def _save_due_s(self) -> float:
        has_unsaved = self._pools.has_unsaved or self._users.usage.has_unsaved or self._model.drafting.has_unsaved
        return self._saved_s + _SAVE_EVERY_S if has_unsaved else math.inf

    def _save(self) -> None:
        self._saved_s = self._clock()
        self._pools.save()
        self._users.usage.save()
        self._model.drafting.save()

    def _trim(self) -> None:
        """Return freed memory: texts and tensors of all sizes leave gaps that nothing fills."""
        self._trimmed_s = self._clock()
        trim_heap()

    def _ensure_loaded(self) -> ForelookError | None:
        """Reload an unloaded model and restart the keep-alive time; returns why the model could not be loaded."""
        failure = None
        if self._model.is_unloaded:
            started_s = self._clock()
            failure = self._model.reload()
            if failure is None:
                self._inbox.extend_deadlines(started_s, self._clock())
        self._used_s = self._clock()
        return failure

    def _unload_due_s(self) -> float:
        return self._used_s + (self._config.keep_alive_s or math.inf)

    def _unload(self) -> None:
        """Free weights and KV caches; documents, pools and draft statistics are kept."""
        self._save()
        for user in self._users.in_turn():
            user.speculation.clear_pending()
        self._model.unload(self._config.keep_alive_s or 0.0)

    # --- documents

    def open_document(
        self, workspace: WorkspaceKey, key: DocumentKey, language_id: str, version: int, text: str
    ) -> None:
        """Mirror a document.

        Raises:
            LimitError: too much waits for the engine.
        """
        self._feed.open(workspace, key, language_id, version, text)

    def change_document(
        self, key: DocumentKey, version: int, changes: Sequence[TextChange], max_bytes: int | None = None
    ) -> None:
        """Apply changes, each to the text that those before it left; the result may have ``max_bytes`` as UTF-8.

        Raises:
            DocumentError: one of its kinds; nothing was applied.
        """
        self._feed.change(key, version, changes, max_bytes)

    def move_cursor(self, key: DocumentKey, version: int, offset: int) -> None:
        """Prefill the prompt at a place in idle time; a place in another version, or outside the text, is ignored.

        Raises:
            UnknownDocumentError: it is not open.
        """
        self._feed.move_cursor(key, version, offset)

    def close_document(self, key: DocumentKey) -> None:
        """Forget a document; its text stays in the pool of its workspace.

        Raises:
            UnknownDocumentError: it is not open.
        """
        self._feed.close(key)

    def add_workspace_files(self, workspace: WorkspaceKey, files: Sequence[tuple[str, str]]) -> None:
        """Index files that are not open, at low priority.

        Raises:
            LimitError: too much waits for the engine.
        """
        self._feed.add_files(workspace, files)

    def remove_workspace_files(self, workspace: WorkspaceKey, paths: Sequence[str]) -> None:
        """Drop files from the pool, or folders with all that is below them."""
        self._feed.remove_files(workspace, paths)

    def keep_workspace_files(self, workspace: WorkspaceKey, paths: frozenset[str]) -> None:
        """Drop all files from the pool but these and open documents, also from its copy on disk."""
        self._feed.keep_files(workspace, paths)

    # --- requests

    def submit(self, key: DocumentKey, request: CompletionParams, on_partial: OnPartial, on_done: OnDone) -> Job:
        """Start a completion; an older one of the same document is superseded.

        Args:
            key: the document.
            request: where and how to complete it.
            on_partial: called with all text generated so far, from the cursor on, as often as the settings say.
            on_done: called exactly once, with the result or the error; with a RequestCancelledError if the request
                was superseded or cancelled.

        Raises:
            UnknownDocumentError: the document is not open.
            StaleDocumentError: the mirror has another version.
            PositionError: the cursor is outside the document.
        """
        document = self._documents.get(key)
        if request.version != document.version:
            raise StaleDocumentError(
                f"version = {request.version} is not the mirror's version {document.version}; send the changes first"
            )
        document.check_offset(request.offset)
        config, now_s = self._config, self._clock()
        invoked = request.trigger is TriggerKind.INVOKED
        deadline_ms = request.deadline_ms or (config.invoked_deadline_ms if invoked else config.typing_deadline_ms)
        job = Job(
            arrived_s=now_s,
            on_done=on_done,
            request=request,
            document=document,
            on_partial=on_partial,
            deadline_s=now_s + deadline_ms / 1e3,
        )
        state = self._model.status.state
        if self._end is not None:
            on_done(self._end)
            return job
        if state is not EngineState.READY:
            on_done(CompletionResult((), FinishReason.NO_MODEL if state is EngineState.ERROR else FinishReason.LOADING))
            return job
        metrics = self._users.of(document.workspace.principal).metrics
        metrics.add("requests")
        for older in self._inbox.submit(job):
            metrics.add("superseded")
            metrics.add("cancelled")
            older.finish(RequestCancelledError("superseded before it started"))
        if self._end is not None:  # it has ended meanwhile, and takes no job any more
            job.finish(self._end)
        return job

    def generate(
        self, principal: str, params: GenerationParams, on_text: Callable[[str], None], on_done: OnGenerated
    ) -> GenerationJob:
        """Start a request without a document.

        Args:
            principal: whose it is.
            params: what to generate.
            on_text: called with each piece of the output.
            on_done: called exactly once, with the result or the error; with a RequestCancelledError if it was
                cancelled.
        """
        job = GenerationJob(
            arrived_s=self._clock(), on_done=on_done, principal=principal, params=params, on_text=on_text
        )
        if self._end is None and self._model.status.state is not EngineState.READY:
            job.finish(ModelError(f"the model is not ready: {self._model.status.message}; try again later"))
        elif self._end is None:
            self._inbox.generate(job)
        if self._end is not None:
            job.finish(self._end)
        return job

    @property
    def model_facts(self) -> ModelFacts | None:
        """What clients are told about the model; ``None`` before it was loaded."""
        return self._model.facts

    def tokenize(self, text: str) -> list[int]:
        """Ids of a text.

        Raises:
            ModelError: no model was loaded yet.
        """
        return self._tokenizer.encode(text)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ids; control tokens have none.

        Raises:
            ModelError: no model was loaded yet.
        """
        return self._tokenizer.decode(ids)

    @property
    def _tokenizer(self) -> CodeTokenizer:
        if self._model.tokenizer is None:
            raise ModelError("no model is loaded yet; try again later")
        return self._model.tokenizer

    def record_event(self, workspace: WorkspaceKey, event: CompletionEventParams) -> None:
        """Count what became of a suggestion; accepted text goes into the pool of its workspace."""

        def record() -> None:
            self._users.record(workspace.principal, event)
            loaded = self._model.loaded
            if loaded is None:
                return
            if event.kind is EventKind.SHOWN and self._speculates_on(loaded):
                user = self._users.of(workspace.principal)
                user.speculation.shown(user.answers.latest_in(workspace))
            if event.kind in ACCEPTANCES and event.text and (pool := self._pools.get(workspace)) is not None:
                pool.accept(loaded.model.tokenizer.encode(event.text))

        self._inbox.command(record, user=workspace.principal, num_bytes=text_bytes(event.text or ""))

    # --- statistics

    def stats(self, principal: str = OWNER) -> dict[str, object]:
        """Counts and times since the start, and what became of suggestions; never text.

        Args:
            principal: whose figures; the owner's are those of the whole process.
        """
        loaded = self._model.loaded
        everyone = principal == OWNER
        caches = () if loaded is None else loaded.caches(None if everyone else principal)
        return {
            "model": self.status.model,
            "state": self.status.state.value,
            "is_model_loaded": loaded is not None,
            "num_documents": len(self._documents) if everyone else self._documents.count(principal),
            "kv_cache_bytes": sum(sequences.nbytes for sequences in caches),
            "num_cached_prompts": sum(len(sequences) for sequences in caches),
            **(self._totals() if everyone else {}),
            **self._users.stats(principal),
        }

    def _totals(self) -> dict[str, int]:
        return {"num_waiting": self._inbox.num_waiting + self._generations.num_waiting, **self._pools.totals()}

    def pool_stats(self, workspace: WorkspaceKey) -> dict[str, object]:
        """Counts of one workspace's pool."""
        return self._pools.stats(workspace)

    def clear_pool(self, workspace: WorkspaceKey) -> None:
        """Empty a workspace's pool, its copy on disk too."""
        self._inbox.command(partial(self._pools.clear, workspace))
