"""Work that waits for the engine's thread: requests, at most one per document, and commands on documents and pools.

Requests without a document only pass through: the thread queues them by user.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from forelook.budgets import ByteBudget
from forelook.completion.document_store import Document
from forelook.errors import ForelookError, LimitError
from forelook.failures import logged
from forelook.protocol.generation import GenerationParams, GenerationResult
from forelook.protocol.messages import CompletionParams, CompletionResult

OnPartial = Callable[[str], None]
OnDone = Callable[[CompletionResult | ForelookError], None]
OnGenerated = Callable[[GenerationResult | ForelookError], None]
Command = Callable[[], None]

MAX_COMMANDS = 100_000  # chosen, not measured


T = TypeVar("T")


@dataclass(eq=False, kw_only=True)
class Pending(Generic[T]):
    """What every submitted request has; ``arrived_s`` is the engine's clock.

    Attributes:
        on_done: called once, by the engine's thread or, where that has failed, by the caller's.
    """

    arrived_s: float
    on_done: Callable[[T | ForelookError], None]
    cancelled: threading.Event = field(default_factory=threading.Event)
    _answered: threading.Lock = field(default_factory=threading.Lock)  # taken by the first answer, and never released

    def cancel(self) -> None:
        """Stop before the next forward; ``on_done`` is then called with a RequestCancelledError."""
        self.cancelled.set()

    def finish(self, outcome: T | ForelookError) -> None:
        """Answer it, unless it has its answer."""
        if self._answered.acquire(blocking=False):
            with logged("a request's callback"):
                self.on_done(outcome)


@dataclass(eq=False, kw_only=True)
class Job(Pending[CompletionResult]):
    """A submitted request for a document; ``deadline_s`` is the engine's clock."""

    request: CompletionParams
    document: Document
    on_partial: OnPartial
    deadline_s: float


@dataclass(eq=False, kw_only=True)
class GenerationJob(Pending[GenerationResult]):
    """A submitted request without a document."""

    principal: str
    params: GenerationParams
    on_text: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Turn:
    """The next work of the engine's thread.

    Attributes:
        job: the oldest waiting request.
        generations: all requests without a document that have come since the last turn.
        commands: all commands that were queued before it; they run first.
        wants_model: whether any of it needs the model loaded.
        closing: whether the engine is closing.
    """

    job: Job | None
    generations: list[GenerationJob]
    commands: list[Command]
    wants_model: bool
    closing: bool


class Inbox:
    """Filled from the callers' threads, emptied by the engine's. What waits is bounded in commands, and per user.

    Args:
        budget: memory for texts that wait.
    """

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._wake = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._generations: list[GenerationJob] = []
        self._commands: deque[Command] = deque()
        self._running: Job | None = None
        self._closing = self._failed = False
        self._wants_model = False
        self._waiting_bytes: Counter[str] = Counter()  # by user

    # --- the caller's thread

    def submit(self, job: Job) -> list[Job]:
        """Queue a request and cancel older ones of its document.

        Returns:
            The older ones that had not started, for the caller to answer; none of their snapshots waits any longer.
        """
        key = job.document.key
        with self._wake:
            superseded = [other for other in self._jobs if other.document.key == key]
            if superseded:
                self._jobs = deque(other for other in self._jobs if other.document.key != key)
            if self._running is not None and self._running.document.key == key:
                self._running.cancel()
            self._jobs.append(job)
            self._wake.notify_all()
        return superseded

    def generate(self, job: GenerationJob) -> None:
        """Queue a request without a document."""
        with self._wake:
            self._generations.append(job)
            self._wake.notify_all()

    def command(
        self,
        command: Command,
        *,
        wants_model: bool = False,
        user: str = "",
        num_bytes: int = 0,
        is_bounded: bool = True,
    ) -> None:
        """Queue work.

        Args:
            command: runs on the engine's thread.
            wants_model: whether to reload an unloaded model, where a request is likely to follow.
            user: whose it is.
            num_bytes: memory of the text that the command keeps.
            is_bounded: whether the number of commands is bounded for it; what removes state must always get in.

        Raises:
            LimitError: too much waits already, while the engine is busy.
        """
        with self._wake:
            if self._failed:
                return
            if is_bounded and len(self._commands) >= MAX_COMMANDS:
                raise LimitError(f"{MAX_COMMANDS} commands wait for the engine, which is busy; send this again later")
            self._budget.resize(user, 0, num_bytes)
            self._waiting_bytes[user] += num_bytes
            self._commands.append(command)
            self._wants_model |= wants_model
            self._wake.notify_all()

    def fail(self) -> list[Job | GenerationJob]:
        """Drop what waits and what will come: the engine's thread has failed. Returns the unanswered requests."""
        with self._wake:
            jobs = [job for job in (self._running, *self._jobs, *self._generations) if job is not None]
            self._failed = True
            self._running = None
            self._jobs.clear()
            self._generations.clear()
            self._commands.clear()
            self._nothing_waits()
        return jobs

    def _nothing_waits(self) -> None:
        for user, num_bytes in self._waiting_bytes.items():
            self._budget.resize(user, num_bytes, 0)
        self._waiting_bytes.clear()

    def close(self) -> None:
        """Cancel every request and let the engine's thread end."""
        with self._wake:
            self._closing = True
            for job in self._jobs:
                job.cancel()
            if self._running is not None:
                self._running.cancel()
            for generation in self._generations:
                generation.cancel()
            self._wake.notify_all()

    # --- the engine's thread

    def take(self, may_run: Callable[[str], bool] = lambda _principal: True) -> Turn:
        """The next request and every command that was queued before it.

        Args:
            may_run: whether it is the turn of a user's requests for documents.
        """
        with self._wake:
            job = next((job for job in self._jobs if self._closing or may_run(job.document.workspace.principal)), None)
            if job is not None:
                self._jobs.remove(job)
            commands, generations = list(self._commands), self._generations
            self._commands.clear()
            self._generations = []
            self._nothing_waits()
            self._running = job
            wants_model, self._wants_model = self._wants_model or job is not None or bool(generations), False
            return Turn(job, generations, commands, wants_model, self._closing)

    def finished(self) -> None:
        """The request that was taken has its answer."""
        with self._wake:
            self._running = None

    def extend_deadlines(self, started_s: float, now_s: float) -> None:
        """Do not count the time from ``started_s`` to ``now_s``, while the model was reloaded, against requests."""
        with self._wake:
            for job in (self._running, *self._jobs):
                if job is not None:
                    job.deadline_s += min(now_s - started_s, now_s - job.arrived_s)

    @property
    def num_waiting(self) -> int:
        """Requests that wait."""
        return len(self._jobs) + len(self._generations)

    def has_work(self) -> bool:
        """Whether anything waits; background work polls this to yield."""
        return bool(self._jobs or self._generations or self._commands or self._closing)

    def wait(self, timeout_s: float | None) -> None:
        """Sleep until something is queued, at most ``timeout_s``."""
        with self._wake:
            if not self.has_work() and timeout_s != 0:
                self._wake.wait(timeout_s)
