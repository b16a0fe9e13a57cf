"""The document mirror: LSP's lines, code points, versions, limits."""

from __future__ import annotations

import re

import pytest
from forelook.budgets import ByteBudget
from forelook.completion.document_store import Document, DocumentStore, apply_changes, model_text, well_formed
from forelook.errors import DocumentTextError, PositionError, StaleDocumentError, UnknownDocumentError
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.protocol.messages import TextChange
from hypothesis import given
from hypothesis import strategies as st

WORKSPACE, KEY = WorkspaceKey("", "w"), DocumentKey(1, "u")
TEXTS = st.text(alphabet="ab \n\r\t\f\v\x85\u2028é🙂\ud800", max_size=60)


def document(text: str) -> Document:
    return Document(WORKSPACE, KEY, "python", 1, text)


@given(TEXTS, st.integers(0, 60))
def test_lines_end_where_lsp_says(text: str, at: int) -> None:
    offset = min(at, len(text))
    breaks = [(match.start(), match.end()) for match in re.finditer("\r\n|\r|\n", text)]
    if any(start < offset < end for start, end in breaks):
        return  # no cursor stands between \r and \n
    start = max((end for _, end in breaks if end <= offset), default=0)
    end = min((begin for begin, _ in breaks if begin >= offset), default=len(text))
    assert document(text).line_start(offset) == start
    assert document(text).line_end(offset) == end


@given(TEXTS, st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70), TEXTS), max_size=5))
def test_changes_apply_one_after_the_other(text: str, edits: list[tuple[int, int, str]]) -> None:
    expected, changes = text, []
    for first, second, inserted in edits:
        start, end = sorted((min(first, len(expected)), min(second, len(expected))))
        changes.append(TextChange(start, end, inserted))
        expected = expected[:start] + inserted + expected[end:]
    assert apply_changes(text, changes) == expected


def test_a_change_outside_is_refused_and_nothing_is_applied() -> None:
    store = DocumentStore(ByteBudget("documents", "close some", 2**30, 2**30))
    store.open(WORKSPACE, KEY, "python", 1, "abc")
    with pytest.raises(PositionError, match=r"changes\[1\]"):
        store.change(KEY, 2, [TextChange(0, 1, "x"), TextChange(2, 9, "y")])
    assert store.get(KEY).text == "abc"
    assert store.get(KEY).version == 1


def test_old_snapshots_stay_as_they_were() -> None:
    store = DocumentStore(ByteBudget("documents", "close some", 2**30, 2**30))
    old = store.open(WORKSPACE, KEY, "python", 1, "abc")
    store.change(KEY, 2, [TextChange(0, 3, "new")])
    assert (old.text, old.version) == ("abc", 1)


def test_versions_only_grow() -> None:
    store = DocumentStore(ByteBudget("documents", "close some", 2**30, 2**30))
    store.open(WORKSPACE, KEY, "python", 3, "abc")
    for version in (2, 3):
        with pytest.raises(StaleDocumentError):
            store.change(KEY, version, [])


def test_opening_again_replaces() -> None:
    store = DocumentStore(ByteBudget("documents", "close some", 2**30, 2**30))
    store.open(WORKSPACE, KEY, "python", 9, "abc")
    store.open(WORKSPACE, KEY, "python", 1, "new")
    assert store.get(KEY).text == "new"


def test_too_large_is_refused_with_the_limit() -> None:
    store = DocumentStore(ByteBudget("documents", "close some", 2**30, 2**30))
    store.open(WORKSPACE, KEY, "python", 1, "x" * 9)
    with pytest.raises(DocumentTextError, match="11 bytes, over the limit of 10"):
        store.change(KEY, 2, [TextChange(0, 0, "é")], max_bytes=10)
    assert store.get(KEY).text == "x" * 9
    assert store.change(KEY, 2, [TextChange(0, 0, "y")], max_bytes=10).text == "y" + "x" * 9


def test_unknown_documents_are_named_as_such() -> None:
    store = DocumentStore(ByteBudget("documents", "close some", 2**30, 2**30))
    for call in (store.get, store.close):
        with pytest.raises(UnknownDocumentError):
            call(KEY)


@pytest.mark.parametrize("offset", [-1, 4])
def test_a_cursor_outside_is_an_error(offset: int) -> None:
    with pytest.raises(PositionError, match="3 characters"):
        document("abc").check_offset(offset)


def test_error_messages_never_hold_text() -> None:
    with pytest.raises(PositionError) as caught:
        document("s3cret").check_offset(99)
    assert "s3cret" not in str(caught.value)


def test_models_see_newlines_and_well_formed_text() -> None:
    assert model_text("a\r\nb\rc\n") == "a\nb\nc\n"
    assert model_text("a\ud800b") == "a�b"
    assert model_text("a\fb\x85c\u2028d\0") == "a\fb\x85c\u2028d\0"
    assert len(well_formed("\udfffx\ud800")) == 3
