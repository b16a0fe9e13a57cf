"""Memory for documents and for what waits is bounded per user and in all, and a refusal passes with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from forelook.errors import LimitError, UnknownDocumentError
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.protocol.messages import TextChange

from tests.completion.engine_rig import PLAIN, A, Gate, Rig, wait_until
from tests.completion.fake_model import FakeModel

SMALL = replace(PLAIN, user_document_bytes=10_000, document_bytes=15_000)


def open_document(rig: Rig, user: str, name: str, text: str) -> DocumentKey:
    key = DocumentKey(1, f"file:///{name}.py", user)
    rig.engine.open_document(WorkspaceKey(user, "w"), key, "python", 1, text)
    return key


def test_documents_have_memory_per_user_and_in_all(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x"), SMALL)
    first = open_document(rig, "a", "1", "x" * 4500)
    second = open_document(rig, "a", "2", "x" * 4500)
    with pytest.raises(LimitError, match=r"over the limit of 10000 for yours; close some documents"):
        open_document(rig, "a", "3", "x" * 4500)
    open_document(rig, "b", "1", "x" * 4500)
    with pytest.raises(LimitError, match=r"over the limit of 15000 for all users'; close some documents"):
        open_document(rig, "c", "1", "x" * 4500)
    rig.engine.close_document(first)
    open_document(rig, "c", "1", "x" * 4500)
    rig.engine.close_document(second)
    open_document(rig, "a", "3", "x" * 4500)


def test_a_change_that_there_is_no_memory_for_is_not_applied(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x"), SMALL)
    key = open_document(rig, "", "1", "x" * 6000)
    with pytest.raises(LimitError):
        rig.engine.change_document(key, 2, [TextChange(0, 0, "y" * 6000)])
    rig.engine.change_document(key, 2, [TextChange(0, 5000, "")])
    rig.engine.change_document(key, 3, [TextChange(0, 0, "y" * 6000)])
    rig.engine.close_document(key)
    with pytest.raises(UnknownDocumentError):
        rig.engine.change_document(key, 4, [])
    open_document(rig, "", "2", "x" * 9000)


def test_wide_text_counts_as_wide(rigs: Callable[..., Rig]) -> None:
    rig = rigs(FakeModel("x"), SMALL)
    with pytest.raises(LimitError):
        open_document(rig, "", "1", "x" * 2500 + "\U0001f600")


def test_files_that_wait_for_the_engine_have_memory_per_user(rigs: Callable[..., Rig]) -> None:
    gate = Gate(1)
    config = replace(PLAIN, user_queue_bytes=10_000, queue_bytes=15_000)
    rig = rigs(FakeModel("xy", on_forward=gate), config)
    rig.open("a")
    reply = rig.ask(1)
    assert gate.reached.wait(30.0)
    add = rig.engine.add_workspace_files
    add(WorkspaceKey("a", "w"), [("1", "x" * 9000)])
    with pytest.raises(LimitError, match="over the limit of 10000 for yours; send this again later"):
        add(WorkspaceKey("a", "v"), [("1", "x" * 9000)])
    with pytest.raises(LimitError, match="for all users'"):
        add(WorkspaceKey("b", "w"), [("1", "x" * 9000)])
    gate.open.set()
    assert reply.result
    wait_until(lambda: _is_taken(rig))
    rig.engine.close_document(A)


def _is_taken(rig: Rig) -> bool:
    try:
        rig.engine.add_workspace_files(WorkspaceKey("a", "v"), [("1", "x" * 9000)])
    except LimitError:
        return False
    return True


def test_a_close_always_gets_in(rigs: Callable[..., Rig]) -> None:
    gate = Gate(1)
    rig = rigs(FakeModel("xy", on_forward=gate), replace(PLAIN, user_queue_bytes=1000, queue_bytes=1000))
    rig.open("a")
    reply = rig.ask(1)
    assert gate.reached.wait(30.0)
    rig.engine.close_document(open_document(rig, "", "long", "x" * 2000))
    gate.open.set()
    assert reply.result
    wait_until(lambda: rig.engine.stats()["num_documents"] == 1)
