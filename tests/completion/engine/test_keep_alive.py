"""An idle model is unloaded and reloaded by the next request or edit; no request is lost."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest
from forelook.completion.engine.engine import CompletionEngine
from forelook.config import EngineConfig
from forelook.decoding.layout import StepLayout
from forelook.errors import ConfigError, ForelookError, InsufficientMemoryError
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.protocol.events import EventKind
from forelook.protocol.messages import (
    CompletionEventParams,
    CompletionParams,
    CompletionResult,
    EngineState,
    Status,
    TextChange,
)

from tests.completion.fake_model import FakeModel

WORKSPACE, KEY = WorkspaceKey("", "w"), DocumentKey(1, "file:///a.py")
TARGET, TEXT = "x = alpha(1)\n", "x = al"
TIMEOUT_S = 20.0


class Rig:
    """An engine with a short keep-alive; ``loading`` runs at every load after the first."""

    def __init__(
        self,
        loading: Callable[[], None] = lambda: None,
        deadline_ms: int = 20_000,
        on_forward: Callable[[StepLayout], None] = lambda _layout: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.models: list[weakref.ref[FakeModel]] = []
        self.statuses: list[Status] = []
        self.released = threading.Semaphore(0)
        self._loading = loading
        self._on_forward = on_forward
        config = EngineConfig(autoregressive=True, prewarm=False, deadline_ms=deadline_ms, keep_alive_s=0.05)
        self.engine = CompletionEngine(
            self._load, config, self.statuses.append, release_memory=self._release, clock=clock
        )
        self.engine.start()
        assert self.released.acquire(timeout=TIMEOUT_S), "the idle model was not unloaded"

    def _release(self) -> None:
        gc.collect()
        self.was_freed = self.models[-1]() is None
        self.released.release()

    def _load(self, progress: Callable[[float, str], None]) -> FakeModel:
        self.tell: Callable[[float, str], None] | None = progress
        progress(0.5, "loading the fake")
        if self.models:
            self._loading()
        model = FakeModel(TARGET, on_forward=self._on_forward)
        self.models.append(weakref.ref(model))
        return model

    def wait_until_told(self) -> None:
        """Wait until the status says that the model is unloaded, which follows the release of its memory."""
        deadline = time.monotonic() + TIMEOUT_S
        while "unloaded" not in self.engine.status.message:
            assert time.monotonic() < deadline, "the status does not say that the model is unloaded"
            time.sleep(0.005)

    def ask(self, version: int = 1) -> CompletionResult | ForelookError:
        outcomes: list[CompletionResult | ForelookError] = []
        done = threading.Event()

        def finish(outcome: CompletionResult | ForelookError) -> None:
            outcomes.append(outcome)
            done.set()

        self.engine.submit(KEY, CompletionParams(KEY.uri, version, len(TEXT)), lambda _text: None, finish)
        assert done.wait(TIMEOUT_S), "the request was lost"
        return outcomes[0]


@pytest.fixture
def rigs() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(*args: object, **options: object) -> Rig:
        made.append(Rig(*args, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for rig in made:
        rig.engine.close()


def suggested(outcome: CompletionResult | ForelookError) -> list[str]:
    assert isinstance(outcome, CompletionResult), outcome
    return [suggestion.text for suggestion in outcome.suggestions]


def test_an_idle_model_is_freed_and_the_status_says_so(rigs: Callable[..., Rig]) -> None:
    rig = rigs()
    assert rig.was_freed, "memory was released while the model was still referenced"
    rig.wait_until_told()
    assert rig.engine.status.state is EngineState.READY, "clients would not ask an engine that is not ready"
    assert "unloaded after 0.05 s" in rig.engine.status.message
    assert rig.engine.stats()["is_model_loaded"] is False


def test_request_on_an_unloaded_model_loads_it_and_is_answered(rigs: Callable[..., Rig]) -> None:
    rig = rigs()
    rig.engine.open_document(WORKSPACE, KEY, "python", 1, TEXT)
    assert rig.released.acquire(timeout=TIMEOUT_S)
    num_loaded = len(rig.models)
    assert suggested(rig.ask()) == ["pha(1)"]
    assert len(rig.models) == num_loaded + 1


def test_edit_loads_the_model_before_the_next_request(rigs: Callable[..., Rig]) -> None:
    loaded = threading.Event()
    rig = rigs(loaded.set)
    rig.engine.open_document(WORKSPACE, KEY, "python", 1, "x = a")
    assert loaded.wait(TIMEOUT_S)
    assert rig.released.acquire(timeout=TIMEOUT_S)
    loaded.clear()
    rig.engine.change_document(KEY, 2, [TextChange(5, 5, "l")])
    assert loaded.wait(TIMEOUT_S)
    assert suggested(rig.ask(version=2)) == ["pha(1)"], "the edit was lost"


def test_closing_a_document_does_not_load_the_model(rigs: Callable[..., Rig]) -> None:
    rig = rigs()
    rig.engine.open_document(WORKSPACE, KEY, "python", 1, TEXT)
    assert rig.released.acquire(timeout=TIMEOUT_S)
    num_loaded = len(rig.models)
    rig.engine.close_document(KEY)
    rig.engine.record_event(WORKSPACE, CompletionEventParams("w", "python", EventKind.SHOWN))
    time.sleep(0.1)
    assert len(rig.models) == num_loaded


def test_loading_again_does_not_eat_a_requests_deadline(
    rigs: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded_s = 0.0
    monotonic = time.monotonic

    def clock() -> float:
        return monotonic() + loaded_s

    def loading() -> None:
        nonlocal loaded_s
        loaded_s += 100.0  # longer than the request may take

    monkeypatch.setattr(time, "monotonic", clock)  # which a decode loop compares with deadlines
    rig = rigs(loading, clock=clock)
    rig.engine.open_document(WORKSPACE, KEY, "python", 1, TEXT)
    assert rig.released.acquire(timeout=TIMEOUT_S)
    assert suggested(rig.ask()) == ["pha(1)"]


def test_failed_load_fails_that_request_and_the_next_one_tries_again(rigs: Callable[..., Rig]) -> None:
    faults: list[Exception] = []

    def loading() -> None:
        if faults:
            raise faults.pop()

    rig = rigs(loading)
    rig.engine.open_document(WORKSPACE, KEY, "python", 1, TEXT)
    assert rig.released.acquire(timeout=TIMEOUT_S)
    for fault in (InsufficientMemoryError("the model does not fit"), RuntimeError("a driver fell over")):
        faults.append(fault)
        outcome = rig.ask()
        assert isinstance(outcome, ForelookError)
        assert rig.engine.status.state is EngineState.READY
        assert "not loaded" in rig.engine.status.message
    assert suggested(rig.ask()) == ["pha(1)"]


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_keep_alive_must_be_a_time(value: float) -> None:
    with pytest.raises(ConfigError, match="keep_alive_s"):
        EngineConfig(keep_alive_s=value)


def test_status_reports_a_reload_and_the_preparation_of_steps(rigs: Callable[..., Rig]) -> None:
    def prepare(layout: StepLayout) -> None:
        del layout
        if rig.tell is not None:
            rig.tell(1.0, "Preparing steps of 8 tokens")
            rig.tell(1.0, "")
            rig.tell = None

    rig = rigs(on_forward=prepare)
    rig.engine.open_document(WORKSPACE, KEY, "python", 1, TEXT)
    assert rig.released.acquire(timeout=TIMEOUT_S)
    rig.wait_until_told()
    rig.statuses.clear()
    assert suggested(rig.ask()) == ["pha(1)"]
    told = [(status.state, status.progress, status.message) for status in rig.statuses[:4]]
    assert told == [
        (EngineState.READY, 0.5, "loading the fake"),
        (EngineState.READY, None, ""),
        (EngineState.READY, 1.0, "Preparing steps of 8 tokens"),
        (EngineState.READY, None, ""),
    ]
