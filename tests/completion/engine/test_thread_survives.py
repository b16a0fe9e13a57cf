"""Nothing that fails between requests, and no damaged file, ends the engine's thread; its end is no secret."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from forelook.completion.engine.engine import CompletionEngine
from forelook.completion.engine.usage import UsageCounters
from forelook.completion.engine.users import OWNER
from forelook.errors import DecodingError
from forelook.keys import DocumentKey
from forelook.protocol.events import EventKind
from forelook.protocol.messages import EngineState, TextChange
from forelook.workspace.pool import WorkspacePool

from tests.completion.engine_rig import PLAIN, TIMEOUT_S, WORKSPACE, A, Gate, Rig, event, wait_until
from tests.completion.fake_model import FakeModel

COLLABORATORS = {
    "_users": ("record", "of", "in_turn", "served", "usage"),
    "_pools": ("get", "index", "save", "memory", "close_unused", "close_due_s", "has_unsaved"),
    "context": ("touch", "work", "choose", "forget", "has_work"),
    "speculation": (
        "edited", "shown", "answered", "forget", "take_follow_up", "take_prewarm", "prewarm_due_s", "result_for",
    ),
    "answers": ("add", "of", "forget", "latest_in"),
    "metrics": ("add_result",),
}  # fmt: skip
FAILURES = [RuntimeError("x"), OverflowError(), RecursionError(), ValueError("x"), OSError(28, "x"), MemoryError()]
STATEMENTS = [(owner, name) for owner, names in COLLABORATORS.items() for name in names]


class Raising:
    """Stands for a collaborator of which one attribute fails, for a while."""

    def __init__(self, inner: object, name: str) -> None:
        self._inner, self._name, self.is_failing = inner, name, True

    def __getattr__(self, name: str) -> object:
        is_engine = threading.current_thread().name == "forelook-engine"
        if self.is_failing and is_engine and name == self._name:
            raise FAILURES[len(name) % len(FAILURES)]
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("_inner", "_name", "is_failing"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._inner, name, value)


@pytest.mark.parametrize(("owner", "name"), STATEMENTS)
def test_a_failure_of_any_collaborator_ends_no_thread(owner: str, name: str, rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x = compute(1)\ny = compute(2)\n"), replace(PLAIN, speculate=True, prewarm=True))
    rig.open("x = \n")
    if owner.startswith("_"):
        raising = Raising(getattr(rig.engine, owner), name)
        for holder in (rig.engine, rig.engine._feed):
            setattr(holder, owner, raising)
    else:
        user = rig.engine._users.of(OWNER)
        raising = Raising(getattr(user, owner), name)
        setattr(user, owner, raising)
    assert rig.ask(4).done.wait(TIMEOUT_S)
    rig.engine.change_document(A, 2, [TextChange(0, 0, "a")])
    rig.engine.record_event(WORKSPACE, event(EventKind.SHOWN, 10))
    rig.engine.record_event(WORKSPACE, event(EventKind.ACCEPTED, 3, "com"))
    assert rig.ask(5, version=2).done.wait(TIMEOUT_S)
    rig.engine.close_document(A)
    raising.is_failing = False
    rig.open("x = \n")
    assert rig.ask(4).texts == ["compute(1)"]
    assert not rig.engine.has_failed


def test_a_dead_thread_is_told_in_the_status_and_no_request_waits(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=1)
    model = FakeModel("x = compute(1)\n", on_forward=gate)
    rig = rigs(model, PLAIN)
    rig.open("x = \n")
    rig.open("x = \n", DocumentKey(1, "file:///c.py"))
    running = rig.ask(4)
    assert gate.reached.wait(TIMEOUT_S)
    waiting = rig.ask(4, DocumentKey(1, "file:///c.py"))

    def die(*_: object) -> None:
        raise SystemExit(3)

    rig.engine._complete = die  # type: ignore[method-assign,assignment]  # the next request ends the thread
    gate.open.set()
    wait_until(lambda: rig.engine.has_failed)
    assert isinstance(waiting.outcome, DecodingError)
    assert running.done.is_set()
    assert rig.engine.status.state is EngineState.STARTING
    assert "the backend restarts" in rig.statuses[-1].message
    assert isinstance(rig.ask(4).outcome, DecodingError)  # answered at once
    rig.engine.open_document(WORKSPACE, A, "python", 5, "x")  # accepted, and not kept waiting
    rig.engine.close()


DAMAGED = [
    b"", b"\0" * 64, b"[" * 100_000, b'{"version": 1, "counts": {"python.shown": 1e999}}', b"\xff\xfe",
    b'{"version": 1, "counts": {"python.shown": -5}}',
    b'{"version": 1, "counts": {"python.shown": ' + b"9" * 4300 + b"}}",
    b'{"version": 1, "counts": {"python.shown": ' + b"9" * 5000 + b"}}", b'{"version": 1, "counts": null}', b"NaN",
    b'{"version": 1, "counts": {"python.shown": [1]}}', b'"' + b"x" * 100_000 + b'"',
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_counts_are_set_aside_and_counting_goes_on(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "statistics.json"
    path.write_bytes(content)
    counters = UsageCounters(path)
    assert path.with_name("statistics.json.damaged").read_bytes() == content
    counters.record(event(EventKind.SHOWN, 10))
    counters.save()
    assert UsageCounters(path).to_dict()["shown"] == 1


def test_no_counts_poison_the_file(tmp_path: Path) -> None:
    path = tmp_path / "statistics.json"
    counters = UsageCounters(path)
    for _ in range(3):
        counters.record(replace(event(EventKind.SHOWN, 1), num_chars=int("9" * 4300)))
        counters.save()
    for number in range(1000):
        counters.record(replace(event(EventKind.SHOWN, 1), language_id=f"l{number}"))
    counters.save()
    assert path.stat().st_size < 200_000
    assert UsageCounters(path).to_dict()["shown"] == 1003


def test_only_the_newest_snapshot_of_a_document_waits(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=1)
    seen: list[str] = []
    rig = rigs(
        FakeModel("x = compute(1)\n", on_forward=gate),
        PLAIN,
        make_pool=lambda _workspace, model: RecordingPool(model.tokenizer.encode, seen),
    )
    rig.open("x = \n")
    running = rig.ask(4)
    assert gate.reached.wait(TIMEOUT_S)
    seen.clear()
    before = rig.engine._documents.get(A)
    for version in range(2, 200):
        rig.engine.change_document(A, version, [TextChange(0, 0, "ab")])
        rig.ask(4, version=version)
    waiting = rig.engine._inbox
    assert len(waiting._jobs) == 1
    assert len(waiting._commands) <= 2
    gate.open.set()
    assert running.done.wait(TIMEOUT_S)
    last = rig.ask(4, version=199)
    assert last.done.wait(TIMEOUT_S)
    assert set(seen) == {rig.engine._documents.get(A).text}
    assert before.text not in seen


class RecordingPool(WorkspacePool):
    """Notes every text of a change."""

    def __init__(self, encode: Callable[[str], list[int]], seen: list[str]) -> None:
        super().__init__(encode)
        self._seen = seen

    def change_document(self, key: str, text: str) -> None:
        self._seen.append(text)
        super().change_document(key, text)


def test_a_document_that_was_closed_before_its_turn_reaches_the_pool(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=1)
    rig = rigs(FakeModel("x = compute(1)\n", on_forward=gate), PLAIN)
    rig.open("x = \n")
    running = rig.ask(4)
    assert gate.reached.wait(TIMEOUT_S)
    b = DocumentKey(1, "file:///b.py")
    rig.engine.open_document(WORKSPACE, b, "python", 1, "alpha")
    rig.engine.change_document(b, 2, [TextChange(5, 5, " beta")])
    rig.engine.close_document(b)
    gate.open.set()
    assert running.done.wait(TIMEOUT_S)
    wait_until(lambda: rig.engine.pool_stats(WORKSPACE)["num_documents"] == 2)
    assert isinstance(rig.engine, CompletionEngine)
    assert threading.active_count() < 100
