"""What waits for the engine's thread: requests, the newest of a document alone, and work on documents and pools."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from forelook.completion.document_store import Document
from forelook.completion.request import CompletionRequest, CompletionResult
from forelook.errors import ForelookError

OnPartial = Callable[[str], None]
OnDone = Callable[[CompletionResult | ForelookError], None]
Command = Callable[[], None]


@dataclass(eq=False)
class Job:
    """A submitted request; times are the engine's clock."""

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


class CompletionHandle:
    """A running completion."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def cancel(self) -> None:
        """Stop before the next forward; ``on_done`` then gets a RequestCancelledError."""
        self._job.cancel()


@dataclass(frozen=True, slots=True)
class Turn:
    """What the engine's thread takes on next.

    Attributes:
        job: the oldest request that waits.
        commands: all work on documents that came before; it is done first.
        wants_model: whether any of it needs the model loaded.
        closing: whether the engine is to end.
    """

    job: Job | None
    commands: list[Command]
    wants_model: bool
    closing: bool


class Inbox:
    """Filled from the caller's thread, emptied by the engine's."""

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._commands: deque[Command] = deque()
        self._running: Job | None = None
        self._closing = False
        self._wants_model = False

    # --- the caller's thread

    def submit(self, job: Job) -> int:
        """Queue a request and cancel older ones of its document; returns how many those were."""
        num_superseded = 0
        with self._wake:
            for other in (*self._jobs, self._running):
                if other is not None and other.request.key == job.request.key and not other.cancelled.is_set():
                    num_superseded += 1
                    other.cancel()
            self._jobs.append(job)
            self._wake.notify_all()
        return num_superseded

    def command(self, command: Command, *, wants_model: bool = False) -> None:
        """Queue work; an unloaded model is loaded for it where the work says that a request may follow."""
        with self._wake:
            self._commands.append(command)
            self._wants_model |= wants_model
            self._wake.notify_all()

    def close(self) -> None:
        """Cancel everything and let the engine's thread end."""
        with self._wake:
            self._closing = True
            for job in self._jobs:
                job.cancel()
            if self._running is not None:
                self._running.cancel()
            self._wake.notify_all()

    # --- the engine's thread

    def take(self) -> Turn:
        """The next request and everything that came before it."""
        with self._wake:
            job = self._jobs.popleft() if self._jobs else None
            commands = list(self._commands)
            self._commands.clear()
            self._running = job
            wants_model, self._wants_model = self._wants_model or job is not None, False
            return Turn(job, commands, wants_model, self._closing)

    def finished(self) -> None:
        """The request taken is answered."""
        with self._wake:
            self._running = None

    def extend_deadlines(self, started_s: float, now_s: float) -> None:
        """What waited while the model was loaded gets that time back: an answer's time begins when there can be one."""
        with self._wake:
            for job in (self._running, *self._jobs):
                if job is not None:
                    job.deadline_s += min(now_s - started_s, now_s - job.arrived_s)

    def has_work(self) -> bool:
        """Whether something waits; background work looks here and gives way."""
        return bool(self._jobs or self._commands or self._closing)

    def wait(self, timeout_s: float | None) -> None:
        """Sleep until something comes, at most ``timeout_s``."""
        with self._wake:
            if not self.has_work() and timeout_s != 0:
                self._wake.wait(timeout_s)
