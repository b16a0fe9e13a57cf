"""Work that waits for the engine's thread: requests, at most one per document, and commands on documents and pools."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from forelook.completion.document_store import Document
from forelook.errors import ForelookError
from forelook.protocol.messages import CompletionParams, CompletionResult

OnPartial = Callable[[str], None]
OnDone = Callable[[CompletionResult | ForelookError], None]
Command = Callable[[], None]


@dataclass(eq=False)
class Job:
    """A submitted request; times are the engine's clock."""

    request: CompletionParams
    document: Document
    on_partial: OnPartial
    on_done: OnDone
    arrived_s: float
    deadline_s: float
    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Stop before the next forward; ``on_done`` is then called with a RequestCancelledError."""
        self.cancelled.set()


@dataclass(frozen=True, slots=True)
class Turn:
    """The next work of the engine's thread.

    Attributes:
        job: the oldest waiting request.
        commands: all commands that were queued before it; they run first.
        wants_model: whether any of it needs the model loaded.
        closing: whether the engine is closing.
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
        """Queue a request and cancel older ones of its document; returns the number of cancelled ones."""
        num_superseded = 0
        with self._wake:
            for other in (*self._jobs, self._running):
                if other is not None and other.document.key == job.document.key and not other.cancelled.is_set():
                    num_superseded += 1
                    other.cancel()
            self._jobs.append(job)
            self._wake.notify_all()
        return num_superseded

    def command(self, command: Command, *, wants_model: bool = False) -> None:
        """Queue work. ``wants_model`` reloads an unloaded model, where a request is likely to follow."""
        with self._wake:
            self._commands.append(command)
            self._wants_model |= wants_model
            self._wake.notify_all()

    def close(self) -> None:
        """Cancel every request and let the engine's thread end."""
        with self._wake:
            self._closing = True
            for job in self._jobs:
                job.cancel()
            if self._running is not None:
                self._running.cancel()
            self._wake.notify_all()

    # --- the engine's thread

    def take(self) -> Turn:
        """The next request and every command that was queued before it."""
        with self._wake:
            job = self._jobs.popleft() if self._jobs else None
            commands = list(self._commands)
            self._commands.clear()
            self._running = job
            wants_model, self._wants_model = self._wants_model or job is not None, False
            return Turn(job, commands, wants_model, self._closing)

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

    def has_work(self) -> bool:
        """Whether anything waits; background work polls this to yield."""
        return bool(self._jobs or self._commands or self._closing)

    def wait(self, timeout_s: float | None) -> None:
        """Sleep until something is queued, at most ``timeout_s``."""
        with self._wake:
            if not self.has_work() and timeout_s != 0:
                self._wake.wait(timeout_s)
