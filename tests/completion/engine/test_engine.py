"""The engine: newest request first, forwards counted, errors that do not end it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from forelook.completion.engine.engine import CompletionEngine
from forelook.decoding.layout import StepLayout
from forelook.errors import (
    DecodingError,
    ModelNotFoundError,
    PositionError,
    RequestCancelledError,
    StaleDocumentError,
    UnknownDocumentError,
)
from forelook.finish_reason import FinishReason
from forelook.keys import DocumentKey
from forelook.protocol.messages import (
    CompletionParams,
    CompletionResult,
    EngineState,
    Status,
    TextChange,
)

from tests.completion.engine_rig import PLAIN, TIMEOUT_S, WORKSPACE, A, B, Gate, Reply, Rig, wait_until
from tests.completion.fake_model import FakeModel


def test_a_newer_request_of_the_document_supersedes_within_one_step(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=5)
    rig = rigs(FakeModel("x = abcdefghijklmnop\n", on_forward=gate))
    rig.open("x = \n")
    first = rig.ask(4)
    assert gate.reached.wait(TIMEOUT_S)
    second = rig.ask(4)
    num_before = len(rig.model.forwards)
    gate.open.set()
    assert isinstance(first.outcome, RequestCancelledError)
    forwards_of_second = second.result.stats.num_forwards
    assert len(rig.model.forwards) - num_before - forwards_of_second == 0
    assert second.texts == ["abcdefghijklmnop"]


def test_a_cancelled_request_starts_no_further_forward(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=3)
    rig = rigs(FakeModel("x = abcdefghijklmnop\n", on_forward=gate))
    rig.open("x = \n")
    reply = rig.ask(4)
    assert gate.reached.wait(TIMEOUT_S)
    assert reply.handle is not None
    reply.handle.cancel()
    gate.open.set()
    assert isinstance(reply.outcome, RequestCancelledError)
    assert len(rig.model.forwards) == 3


def test_a_queued_request_that_is_superseded_never_reaches_the_model(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=1)
    rig = rigs(FakeModel("x = ab\n", on_forward=gate))
    rig.open("x = \n")
    rig.open("x = \n", B)
    running = rig.ask(4, B)
    assert gate.reached.wait(TIMEOUT_S)
    stale, newest = rig.ask(4), rig.ask(4)
    gate.open.set()
    assert running.texts == ["ab"], "another document's request is not superseded"
    assert isinstance(stale.outcome, RequestCancelledError)
    assert newest.texts == ["ab"]
    total = sum(reply.result.stats.num_forwards for reply in (running, newest))
    assert len(rig.model.forwards) == total


def test_deadline_returns_what_is_good_so_far(rigs: Callable[..., Rig]) -> None:
    deadline_ms = 50

    def dawdle(_layout: StepLayout) -> None:
        if len(rig.model.forwards) == 9:
            until = time.monotonic() + deadline_ms / 1e3
            while time.monotonic() < until:
                pass

    rig = rigs(FakeModel("x = first + second\n", on_forward=dawdle))
    rig.open("x = \n")
    reply = rig.ask(4, deadline_ms=deadline_ms)
    assert reply.result.finish_reason in (FinishReason.DEADLINE, FinishReason.SCOPE_END)
    if reply.result.finish_reason is FinishReason.DEADLINE:
        assert all("first + second".startswith(text) for text in reply.texts)


def test_wrong_requests_are_refused_at_once(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x"))
    rig.open("x = \n")
    with pytest.raises(UnknownDocumentError):
        rig.ask(0, DocumentKey(1, "file:///missing.py"))
    with pytest.raises(StaleDocumentError):
        rig.ask(0, version=7)
    with pytest.raises(PositionError):
        rig.ask(99)
    with pytest.raises(StaleDocumentError):
        rig.engine.change_document(A, 1, [])
    with pytest.raises(PositionError):
        rig.engine.change_document(A, 2, [TextChange(0, 99, "")])


def test_before_the_model_is_there_requests_are_answered_empty() -> None:
    release = threading.Event()
    model = FakeModel("x")

    def load(_progress: Callable[[float, str], None]) -> FakeModel:
        assert release.wait(TIMEOUT_S)
        return model

    ready = threading.Event()
    engine = CompletionEngine(load, PLAIN, lambda status: ready.set() if status.state is EngineState.READY else None)
    engine.start()
    engine.open_document(WORKSPACE, A, "python", 1, "x = \n")
    reply = Reply()
    engine.submit(A, CompletionParams(A.uri, 1, 4), reply.partial.append, reply.finish)
    assert reply.result.finish_reason is FinishReason.LOADING
    release.set()
    assert ready.wait(TIMEOUT_S)
    engine.close()


def test_a_model_that_cannot_be_loaded_is_a_status_not_a_crash() -> None:
    statuses: list[Status] = []
    failed = threading.Event()

    def load(_progress: Callable[[float, str], None]) -> FakeModel:
        raise ModelNotFoundError("nowhere: no such folder")

    def on_status(status: Status) -> None:
        statuses.append(status)
        if status.state is EngineState.ERROR:
            failed.set()

    engine = CompletionEngine(load, PLAIN, on_status)
    engine.start()
    assert failed.wait(TIMEOUT_S)
    assert statuses[-1].message == "nowhere: no such folder"
    engine.open_document(WORKSPACE, A, "python", 1, "x = \n")
    reply = Reply()
    engine.submit(A, CompletionParams(A.uri, 1, 4), reply.partial.append, reply.finish)
    assert reply.result.finish_reason is FinishReason.NO_MODEL
    engine.close()


def test_a_fault_in_a_forward_fails_one_request_only(
    rigs: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    def fail_once(_layout: StepLayout) -> None:
        if len(rig.model.forwards) == 2:
            raise RuntimeError("secret_text_of_the_document")

    rig = rigs(FakeModel("x = ab\n", on_forward=fail_once))
    rig.open("x = \n")
    assert isinstance(rig.ask(4).outcome, DecodingError)
    assert rig.ask(4).texts == ["ab"]
    assert "secret_text" not in caplog.text
    assert "RuntimeError" in caplog.text


def test_a_callback_that_fails_does_not_end_the_engine(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x = ab\n"))
    rig.open("x = \n")

    def fail(_outcome: object) -> None:
        raise ValueError("no")

    rig.engine.submit(A, CompletionParams(A.uri, 1, 4), lambda _text: None, fail)
    assert rig.ask(4).texts == ["ab"]


def test_document_changes_arrive_before_the_request_that_follows_them(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("alpha = 1\nbeta = alpha\n"))
    rig.open("alpha = 1\n")
    for version, character in enumerate("beta = ", start=2):
        end = len("alpha = 1\n") + version - 2
        rig.engine.change_document(A, version, [TextChange(end, end, character)])
    assert rig.ask(len("alpha = 1\nbeta = "), version=8).texts == ["alpha"]


def test_close_ends_a_running_request(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=2)
    rig = rigs(FakeModel("x = abcdefgh\n", on_forward=gate))
    rig.open("x = \n")
    running, queued = rig.ask(4), None
    assert gate.reached.wait(TIMEOUT_S)
    rig.open("x = \n", B)
    queued = rig.ask(4, B)
    closer = threading.Thread(target=rig.engine.close)
    closer.start()
    wait_until(lambda: rig.engine._inbox._closing)
    gate.open.set()
    closer.join(TIMEOUT_S)
    assert isinstance(running.outcome, RequestCancelledError | CompletionResult)
    assert isinstance(queued.outcome, RequestCancelledError)


def test_closed_document_is_unknown(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x"))
    rig.open("x = \n")
    rig.engine.close_document(A)
    with pytest.raises(UnknownDocumentError):
        rig.ask(0)
    with pytest.raises(UnknownDocumentError):
        rig.engine.close_document(A)


def test_an_answer_at_once_tells_no_parts(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x = compute(1)\ny = 2\n"), replace(PLAIN, partial_every_s=10.0))
    rig.open("x = \n")
    reply = rig.ask(4)
    assert reply.texts == ["compute(1)"]
    assert reply.partial == []


def test_what_a_cancelled_request_cost_is_counted(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=3)
    rig = rigs(FakeModel("x = compute(1)\n", on_forward=gate))
    rig.open("x = \n")
    reply = rig.ask(4)
    assert gate.reached.wait(TIMEOUT_S)
    assert reply.handle is not None
    reply.handle.cancel()
    gate.open.set()
    assert isinstance(reply.outcome, RequestCancelledError)
    stats = rig.engine.stats()
    assert stats["cancelled_forwards"] == stats["forwards"] == 3
