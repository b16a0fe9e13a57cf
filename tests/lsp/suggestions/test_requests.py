"""Requests for suggestions and reports of their outcomes, through the server."""

from __future__ import annotations

import pytest
from bench.lsp_client import LspClient, StdioServer
from forelook_lsp.suggestions.pacing import Pace

from tests.lsp.conftest import URI
from tests.lsp.fake_backend import FakeBackend


@pytest.mark.parametrize(("is_cut", "num_asked"), [(True, 2), (False, 1)])
async def test_the_rest_of_a_cut_suggestion_is_asked_for(
    editor: LspClient, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch, is_cut: bool, num_asked: int
) -> None:
    monkeypatch.setattr(Pace, "is_slow", lambda *_: False)  # however busy the machine is: a slow device shows the stub
    await editor.open(URI, "x = ")
    backend.is_cut, backend.script = is_cut, lambda _text, _params: "first"
    assert len(await editor.complete(URI, 0, 4)) == 1
    await editor.type_text(URI, 2, 0, 4, "f")
    backend.script = lambda _text, _params: "irst(second)"
    (item,) = await editor.complete(URI, 0, 5)
    assert len(backend.completions) == num_asked
    assert item["insertText"] == ("x = first(second)" if num_asked == 2 else "x = first")


async def test_what_the_user_did_reaches_the_backend(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: "(x)" if text == "f" else "more"
    await editor.open(URI, "f")
    await editor.complete(URI, 0, 1)
    await editor.type_text(URI, 2, 0, 1, "(x)")
    await editor.complete(URI, 0, 4)
    await backend.wait_until(lambda: len(backend.events) == 3)
    assert [(event.kind.value, event.num_chars, event.text) for event in backend.events] == [
        ("shown", 3, None),
        ("accepted", 3, "(x)"),
        ("shown", 4, None),
    ]
    assert backend.events[0].language_id == "python"
    assert [event.first_use for event in backend.events] == [False, True, False]


async def test_copilots_client_says_itself_what_it_has_shown(server: StdioServer, backend: FakeBackend) -> None:
    backend.script = lambda text, params: f"({len(text)})"
    editor = server.client
    await editor.initialize(options={"editorPluginInfo": {"name": "copilot.el", "version": "1"}})
    await editor.wait_for_status("ready")
    await editor.open(URI, "f")
    (former,) = await editor.complete(URI, 0, 1)
    await editor.type_text(URI, 2, 0, 1, "oo")
    (item,) = await editor.complete(URI, 0, 3)
    await editor.notify("textDocument/didShowCompletion", {"item": former})
    await editor.notify("textDocument/didShowCompletion", {"item": item})
    await backend.wait_until(lambda: len(backend.events) == 1)
    await editor.type_text(URI, 3, 0, 3, "(3)")
    await backend.wait_until(lambda: len(backend.events) == 2)
    assert [(event.kind.value, event.num_chars) for event in backend.events] == [("shown", 3), ("accepted", 3)]


async def test_copilots_words_about_suggestions_are_understood(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: "(x) 🙂 y"
    await editor.open(URI, "f")
    (item,) = await editor.complete(URI, 0, 1)
    await editor.notify("textDocument/didShowCompletion", {"item": item})
    await editor.notify("textDocument/didPartiallyAcceptCompletion", {"item": item, "acceptedLength": 7})
    await editor.type_text(URI, 2, 0, 1, "(x) 🙂")
    await backend.wait_until(lambda: len(backend.events) == 2)
    assert [(event.kind.value, event.text) for event in backend.events] == [
        ("shown", None),
        ("accepted_word", "(x) 🙂"),
    ]
    await editor.notify("textDocument/didPartiallyAcceptCompletion", {"item": {}})
    await editor.notify("textDocument/didShowCompletion", None)
    await editor.complete(URI, 0, 7)
