"""A completion engine on a fake model, for tests that read like scripts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from forelook.completion.engine.engine import CompletionEngine
from forelook.completion.engine.inbox import Job
from forelook.config import EngineConfig
from forelook.decoding.layout import StepLayout
from forelook.errors import ForelookError
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.protocol.events import EventKind
from forelook.protocol.messages import (
    CompletionEventParams,
    CompletionParams,
    CompletionResult,
    EngineState,
    Status,
)

from tests.completion.fake_model import FakeModel

WORKSPACE = WorkspaceKey("", "w")
A, B = DocumentKey(1, "file:///a.py"), DocumentKey(1, "file:///b.py")
PLAIN = EngineConfig(autoregressive=True, prewarm=False, deadline_ms=20_000, partial_every_s=0.0)
TIMEOUT_S = 30.0


@dataclass
class Reply:
    """Where a request's callbacks end up."""

    partial: list[str] = field(default_factory=list)
    outcomes: list[CompletionResult | ForelookError] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    handle: Job | None = None

    def finish(self, outcome: CompletionResult | ForelookError) -> None:
        self.outcomes.append(outcome)
        self.done.set()

    @property
    def outcome(self) -> CompletionResult | ForelookError:
        assert self.done.wait(TIMEOUT_S), "no answer"
        assert len(self.outcomes) == 1, "answered more than once"
        return self.outcomes[0]

    @property
    def result(self) -> CompletionResult:
        outcome = self.outcome
        assert isinstance(outcome, CompletionResult), outcome
        return outcome

    @property
    def texts(self) -> list[str]:
        return [suggestion.text for suggestion in self.result.suggestions]


def event(kind: EventKind, num_chars: int, text: str | None = None) -> CompletionEventParams:
    return CompletionEventParams(WORKSPACE.uri, "python", kind, num_chars, first_use=text is not None, text=text)


class Rig:
    """An engine on a fake model."""

    def __init__(self, model: FakeModel, config: EngineConfig = PLAIN, **options: Any) -> None:
        self.model = model
        self.statuses: list[Status] = []
        self.ready = threading.Event()
        self.engine = CompletionEngine(lambda _progress: model, config, self._on_status, **options)
        self.engine.start()
        assert self.ready.wait(TIMEOUT_S)

    def _on_status(self, status: Status) -> None:
        self.statuses.append(status)
        if status.state in (EngineState.READY, EngineState.ERROR):
            self.ready.set()

    def open(self, text: str, key: DocumentKey = A) -> None:
        self.engine.open_document(WORKSPACE, key, "python", 1, text)

    def settle(self, offset: int, key: DocumentKey = A) -> None:
        """Ask and wait for the answer, whatever it is."""
        assert self.ask(offset, key).done.wait(TIMEOUT_S)

    def ask(self, offset: int, key: DocumentKey = A, version: int = 1, **options: object) -> Reply:
        reply = Reply()
        request = CompletionParams(key.uri, version, offset, **options)  # type: ignore[arg-type]
        reply.handle = self.engine.submit(key, request, reply.partial.append, reply.finish)
        return reply


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll for work the engine does by itself between requests."""
    limit = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < limit, "it never happened"
        threading.Event().wait(0.002)


class Gate:
    """Holds the engine's thread inside one forward until it is opened."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._count = 0
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, _layout: StepLayout) -> None:
        self._count += 1
        if self._count == self._at:
            self.reached.set()
            assert self.open.wait(TIMEOUT_S)
