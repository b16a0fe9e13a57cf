"""The language server beyond the bare protocol: status, settings, commands, and a backend that comes and goes."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench.lsp_client import LspClient, ResponseError, StdioServer, range_of, stdio_server
from forelook.protocol import jsonrpc, messages

from tests.lsp.conftest import URI
from tests.lsp.fake_backend import LIMITS, READY, FakeBackend, fake_backend

LOADING = messages.Status(messages.EngineState.LOADING, 0.25, "reading weights", "scripted", "cpu", "float32")
PROGRESS = {"window": {"workDoneProgress": True}}


def last_status(editor: LspClient) -> dict[str, Any]:
    return editor.params_of("forelook/status")[-1]


async def command(editor: LspClient, name: str, *arguments: object) -> Any:
    return await editor.request("workspace/executeCommand", {"command": name, "arguments": list(arguments)})


# --- Life ----------------------------------------------------------------------------------------------------


async def test_a_stream_that_is_not_lsp_ends_the_server_with_a_word_in_the_log(server: StdioServer) -> None:
    await server.send_bytes(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await server.wait() == 1
    assert b"Content-Length" in server.errors
    assert b"Traceback" not in server.errors


async def test_a_message_that_is_not_utf_8_is_answered_and_the_server_goes_on(
    server: StdioServer, backend: FakeBackend
) -> None:
    await server.client.initialize()
    body = b'{"jsonrpc": "2.0", "id": 7, "method": "\xff\xfe"}'
    await server.send_bytes(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    await server.client.wait_until(lambda: len(server.client.orphans) == 1)
    assert server.client.orphans[0]["error"]["code"] == -32700
    await server.client.wait_for_status("ready")


async def test_neither_torch_nor_numpy_is_ever_imported(environment: dict[str, str], backend: FakeBackend) -> None:
    traced = {**environment, "PYTHONPROFILEIMPORTTIME": "1"}
    async with stdio_server(traced) as server:
        await server.client.initialize(folder=Path(environment["HOME"]))
        await server.client.wait_for_status("ready")
        await server.client.open(URI, "a")
        assert len(await server.client.complete(URI, 0, 1)) == 1
        await command(server.client, "forelook.stats")
        await server.client.request("shutdown")
        await server.client.notify("exit")
        await server.wait()
    imported = set(re.findall(r"\|\s*([\w.]+)\s*$", server.errors.decode(), re.MULTILINE))
    assert {"lsprotocol.types", "forelook_lsp.server", "forelook.local.endpoint", "websockets"} <= imported
    heavy = {"torch", "numpy", "transformers", "tokenizers", "safetensors", "tree_sitter", "starlette", "uvicorn"}
    assert {name.partition(".")[0] for name in imported} & heavy == set()
    assert not {name for name in imported if name.startswith(("forelook.model", "forelook.decoding"))}


# --- Status and progress ---------------------------------------------------------------------------------------


async def test_the_status_follows_the_model_from_loading_to_ready(
    environment: dict[str, str], backend: FakeBackend
) -> None:
    backend.status = LOADING
    async with stdio_server(environment) as server:
        editor = server.client
        await editor.initialize(capabilities=PROGRESS)
        status = await editor.wait_for_status("loading")
        assert (status["progress"], status["message"]) == (0.25, "reading weights")
        await editor.open(URI, "a")
        assert await editor.complete(URI, 0, 1) == []
        await backend.set_status(dataclasses.replace(LOADING, progress=0.75))
        await editor.wait_until(lambda: last_status(editor)["progress"] == 0.75)
        await backend.set_status(READY)
        status = await editor.wait_for_status("ready")
        assert (status["model"], status["device"]) == ("scripted", "cpu")
        assert len(await editor.complete(URI, 0, 1)) == 1
        await editor.wait_until(lambda: last_status(editor)["pool_tokens"] == 1234)
        status = await editor.wait_for_status("ready")
        assert status["tokens_per_step"] == 2.5
        assert status["last_latency_ms"] > 0
        assert status["accept_rate"] == 0.0
        bars = [(p["token"], p["value"]) for p in editor.params_of("$/progress")]
        loading = [value for token, value in bars if token == bars[0][0]]
        assert loading[0]["kind"] == "begin"
        assert loading[-1]["kind"] == "end"
        assert 75 in [value.get("percentage") for value in loading]
        created = [message["params"]["token"] for message in editor.received if "id" in message]
        assert {token for token, _ in bars} <= set(created)


async def test_an_editor_without_progress_bars_is_sent_none(editor: LspClient) -> None:
    assert editor.params_of("$/progress") == []
    assert editor.params_of("window/workDoneProgress/create") == []


async def test_a_model_that_fails_to_load_is_an_error_with_its_remedy(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a")
    await backend.set_status(messages.Status(messages.EngineState.ERROR, None, "model = x is not here: download it"))
    status = await editor.wait_for_status("error")
    assert status["message"] == "model = x is not here: download it"
    said = [params for params in editor.params_of("window/logMessage") if "download it" in params["message"]]
    assert [params["type"] for params in said] == [1], "told once, also where an editor shows no status"
    assert await editor.complete(URI, 0, 1) == []


async def test_a_ready_model_that_is_busy_with_itself_says_so(server: StdioServer, backend: FakeBackend) -> None:
    editor = server.client
    await editor.initialize()
    await editor.open(URI, "a")
    await editor.wait_for_status("ready")
    await backend.set_status(replace(READY, progress=1.0, message="Preparing steps of 8 tokens"))
    await editor.wait_until(lambda: last_status(editor)["message"] == "Preparing steps of 8 tokens")
    assert (last_status(editor)["state"], last_status(editor)["progress"]) == ("ready", 1.0)
    assert len(await editor.complete(URI, 0, 1)) == 1
    await backend.set_status(READY)
    await editor.wait_until(lambda: last_status(editor)["progress"] is None)


@pytest.mark.parametrize(("is_cut", "num_asked"), [(True, 2), (False, 1)])
async def test_the_rest_of_a_cut_suggestion_is_asked_for(
    server: StdioServer, backend: FakeBackend, is_cut: bool, num_asked: int
) -> None:
    editor = server.client
    await editor.initialize()
    await editor.open(URI, "x = ")
    await editor.wait_for_status("ready")
    backend.is_cut, backend.script = is_cut, lambda _text, _params: "first"
    assert len(await editor.complete(URI, 0, 4)) == 1
    await editor.type_text(URI, 2, 0, 4, "f")
    backend.script = lambda _text, _params: "irst(second)"
    (item,) = await editor.complete(URI, 0, 5)
    assert len(backend.completions) == num_asked
    assert item["insertText"] == ("x = first(second)" if num_asked == 2 else "x = first")


async def test_copilots_clients_get_their_own_status_too(server: StdioServer) -> None:
    await server.client.initialize(options={"editorPluginInfo": {"name": "copilot.el", "version": "1"}})
    await server.client.wait_for_status("ready")
    await server.client.wait_until(
        lambda: {"busy": False, "message": "", "kind": "Normal"} in server.client.params_of("didChangeStatus")
    )
    assert server.client.params_of("window/logMessage") == []


async def test_status_notifications_can_be_switched_off(server: StdioServer, backend: FakeBackend) -> None:
    await server.client.initialize(options={"statusNotifications": False})
    await backend.wait_until(lambda: "hello" in backend.methods)
    await server.client.open(URI, "a")
    await backend.wait_until(lambda: bool(backend.connections) and URI in backend.connections[0].texts)
    assert len(await server.client.complete(URI, 0, 1)) == 1
    assert server.client.params_of("forelook/status") == []


# --- A backend that comes and goes -------------------------------------------------------------------------------


async def test_documents_are_opened_again_as_they_are_when_the_backend_comes_back(
    editor: LspClient, backend: FakeBackend
) -> None:
    await editor.open(URI, "a")
    assert len(await editor.complete(URI, 0, 1)) == 1
    await backend.stop()
    await editor.wait_until(lambda: last_status(editor)["state"] in ("error", "starting"))
    assert await editor.complete(URI, 0, 1) == []
    await editor.type_text(URI, 2, 0, 1, "b🙂")
    await editor.open(URI + "2", "other")
    await backend.start()
    await editor.wait_for_status("ready")
    assert len(await editor.complete(URI, 0, 4)) == 1
    assert backend.connections[0].texts == {URI: "ab🙂", URI + "2": "other"}


async def test_a_backend_that_dies_under_a_request_answers_it_with_nothing(
    editor: LspClient, backend: FakeBackend
) -> None:
    backend.hold = asyncio.Event()
    await editor.open(URI, "a")
    _, future = await editor.start_complete(URI, 0, 1)
    await backend.wait_until(lambda: len(backend.completions) == 1)
    await backend.stop()
    assert await asyncio.wait_for(future, 30) == {"items": []}


async def test_with_no_backend_the_editor_is_answered_at_once_and_told_why(environment: dict[str, str]) -> None:
    async with stdio_server(environment) as server:
        await server.client.initialize(options={"backend": {"start": False}})
        status = await server.client.wait_for_status("error")
        assert "forelook serve" in status["message"]
        await server.client.open(URI, "a")
        assert await server.client.complete(URI, 0, 1) == []
        async with fake_backend(environment):
            await server.client.wait_for_status("ready")
            assert len(await server.client.complete(URI, 0, 1)) == 1


async def test_a_backend_that_never_answers_costs_the_editor_a_bounded_time(
    server: StdioServer, backend: FakeBackend
) -> None:
    await server.client.initialize(options={"deadlineMs": 20})
    await server.client.wait_for_status("ready")
    backend.hold = asyncio.Event()
    await server.client.open(URI, "a")
    assert await server.client.complete(URI, 0, 1) == []
    await backend.wait_until(lambda: len(backend.cancelled) == 1)


async def test_a_document_the_backend_refuses_gets_no_suggestions_and_the_status_says_why(
    editor: LspClient, backend: FakeBackend
) -> None:
    await editor.open(URI, "a")
    await backend.wait_until(lambda: URI in backend.connections[0].texts)
    refused = messages.NotificationErrorParams("document/open", -32044, "the document is too long", URI)
    await backend.connections[0].websocket.send(jsonrpc.encode_notification(messages.NOTIFICATION_ERROR, refused))
    await command(editor, "forelook.stats")  # answered after the refusal was read
    assert await editor.complete(URI, 0, 1) == []
    assert (await command(editor, "forelook.status"))["message"] == "the document is too long"


async def test_a_document_whose_change_was_refused_is_opened_again_as_it_is(
    editor: LspClient, backend: FakeBackend
) -> None:
    await editor.open(URI, "a")
    await editor.type_text(URI, 2, 0, 1, "b")
    await backend.wait_until(lambda: backend.connections[0].texts.get(URI) == "ab")
    del backend.connections[0].texts[URI]
    refused = messages.NotificationErrorParams("document/change", -32043, "outside the document", URI)
    await backend.connections[0].websocket.send(jsonrpc.encode_notification(messages.NOTIFICATION_ERROR, refused))
    await backend.wait_until(lambda: backend.connections[0].texts.get(URI) == "ab")
    assert len(await editor.complete(URI, 0, 2)) == 1


async def test_a_document_longer_than_the_backend_takes_is_not_sent_until_it_is_shorter(
    editor: LspClient, backend: FakeBackend
) -> None:
    await editor.open(URI, "é" * (LIMITS.max_document_bytes // 2 + 1))
    assert await editor.complete(URI, 0, 1) == []
    assert "longer than 8388608 bytes" in (await command(editor, "forelook.status"))["message"]
    assert "document/open" not in backend.methods
    await editor.close(URI)
    await editor.open(URI, "é")
    assert len(await editor.complete(URI, 0, 1)) == 1


async def test_a_huge_insertion_is_sent_as_a_new_document(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a")
    await editor.type_text(URI, 2, 0, 1, "x = 1\n" * 300_000)
    assert len(await editor.complete(URI, 300_000, 0)) == 1
    assert backend.methods.count("document/open") == 2
    assert backend.connections[0].versions[URI] == 2


async def test_a_setting_of_the_backend_restarts_it_and_another_model_looks_for_another(
    server: StdioServer, backend: FakeBackend
) -> None:
    editor = server.client
    options = {"backend": {"start": False}}
    await editor.initialize(options=options)
    await editor.wait_for_status("ready")
    await editor.notify("workspace/didChangeConfiguration", {"settings": {"lookahead": {"window": 4}}})
    await backend.wait_until(lambda: backend.methods.count("hello") == 2)
    assert backend.methods.count("shutdown") == 1
    await editor.wait_for_status("ready")
    await editor.notify("workspace/didChangeConfiguration", {"settings": {"model": "/some/where"}})
    status = await editor.wait_for_status("error")
    assert "no backend is running" in status["message"]
    assert backend.methods.count("shutdown") == 1
    assert backend.connections == []


async def test_restarting_the_backend_ends_it_and_connects_to_the_next(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a")
    assert await command(editor, "forelook.restartBackend") is None
    assert "shutdown" in backend.methods
    await backend.wait_until(lambda: backend.methods.count("hello") == 2)
    await editor.wait_for_status("ready")
    assert len(await editor.complete(URI, 0, 1)) == 1


# --- Settings --------------------------------------------------------------------------------------------------


async def test_a_bad_setting_is_named_once_with_its_range_and_the_rest_is_used(
    server: StdioServer, backend: FakeBackend
) -> None:
    editor = server.client
    await editor.initialize(options={"deadlineMs": 0, "maxNewTokens": 7, "tempo": 3})
    await editor.wait_for_status("ready")
    messages = [params["message"] for params in editor.params_of("window/logMessage")]
    assert len(messages) == 2
    assert messages[0].startswith("invalid forelook.deadlineMs: 0 (expected an integer from 1 to 600000")
    assert "forelook.tempo" in messages[1]
    await editor.open(URI, "a")
    await editor.complete(URI, 0, 1)
    assert (backend.completions[0].max_new_tokens, backend.completions[0].deadline_ms) == (7, None)
    await editor.notify("workspace/didChangeConfiguration", {"settings": {"forelook": {"deadlineMs": 50}}})
    await editor.complete(URI, 0, 1)
    await editor.type_text(URI, 2, 0, 1, "(")
    await editor.complete(URI, 0, 2)
    assert backend.completions[-1].deadline_ms == 50
    assert len(editor.params_of("window/logMessage")) == 2


async def test_settings_are_pulled_from_an_editor_that_can_be_asked(server: StdioServer, backend: FakeBackend) -> None:
    editor = server.client
    editor.configuration = {"maxNewTokens": 9}
    dynamic = {"dynamicRegistration": True}
    workspace = {"configuration": True, "didChangeConfiguration": dynamic, "didChangeWatchedFiles": dynamic}
    await editor.initialize(capabilities={"workspace": workspace})
    await editor.wait_for_status("ready")
    (asked,) = editor.params_of("workspace/configuration")
    assert asked["items"] == [{"section": "forelook"}]
    await editor.wait_until(lambda: len(editor.params_of("client/registerCapability")) == 1)
    methods = [item["method"] for item in editor.params_of("client/registerCapability")[0]["registrations"]]
    assert methods == ["workspace/didChangeConfiguration", "workspace/didChangeWatchedFiles"]
    await editor.open(URI, "a")
    await editor.complete(URI, 0, 1)
    assert backend.completions[0].max_new_tokens == 9
    editor.configuration = {"maxNewTokens": 11, "tempo": 3}
    await editor.notify("workspace/didChangeConfiguration", {"settings": None})
    await editor.wait_until(lambda: len(editor.params_of("window/logMessage")) == 1)  # the answer has been taken
    assert len(editor.params_of("workspace/configuration")) == 2
    await editor.complete(URI, 0, 1)
    assert backend.completions[-1].max_new_tokens == 11


async def test_a_language_or_everything_can_be_switched_off(server: StdioServer, backend: FakeBackend) -> None:
    editor = server.client
    await editor.initialize(options={"languages": {"markdown": False}})
    await editor.wait_for_status("ready")
    await editor.open(URI, "a")
    await editor.open(URI + ".md", "a", language_id="markdown")
    assert await editor.complete(URI + ".md", 0, 1) == []
    assert await command(editor, "forelook.toggle", "python") == {"enabled": False, "language": "python"}
    assert await editor.complete(URI, 0, 1) == []
    assert await command(editor, "forelook.toggle", "python") == {"enabled": True, "language": "python"}
    assert len(await editor.complete(URI, 0, 1)) == 1
    assert await command(editor, "forelook.toggle") == {"enabled": False, "language": None}
    assert await editor.complete(URI, 0, 1) == []
    await editor.wait_for_status("paused")
    await command(editor, "forelook.toggle")
    await editor.wait_for_status("ready")
    assert backend.completions[0].uri == URI
    await command(editor, "forelook.toggle")
    assert await command(editor, "forelook.toggle", "python") == {"enabled": True, "language": "python"}
    await editor.wait_for_status("ready")
    assert len(await editor.complete(URI, 0, 1)) == 1
    await command(editor, "forelook.toggle")
    await editor.notify("workspace/didChangeConfiguration", {"settings": {"enable": False}})
    await editor.notify("workspace/didChangeConfiguration", {"settings": {"enable": True}})
    await editor.wait_for_status("ready")


# --- Commands --------------------------------------------------------------------------------------------------


async def test_an_editor_whose_command_names_are_global_can_ask_for_a_suffix(server: StdioServer) -> None:
    await server.client.initialize(options={"commandSuffix": ".w1"})
    await server.client.wait_for_status("ready")
    names = server.client.capabilities["executeCommandProvider"]["commands"]
    assert names
    assert all(name.startswith("forelook.") and name.endswith(".w1") for name in names)
    await server.client.open(URI, "a")
    (item,) = await server.client.complete(URI, 0, 1)
    assert item["command"]["command"] == "forelook.accepted.w1"


async def test_statistics_and_pools_can_be_looked_at_and_cleared(
    environment: dict[str, str], backend: FakeBackend, tmp_path: Path
) -> None:
    async with stdio_server(environment) as server:
        editor = server.client
        await editor.initialize(folder=tmp_path)
        await editor.wait_for_status("ready")
        uri = (tmp_path / "a.py").as_uri()
        await editor.open(uri, "a")
        await editor.complete(uri, 0, 1)
        statistics = await command(editor, "forelook.stats")
        assert statistics["window"]["outcomes"] == {"shown": 1}
        assert statistics["window"]["answers"] == {"new": 1}
        assert statistics["backend"]["engine"] == {"num_requests": 1}
        assert (await command(editor, "forelook.poolStats"))["workspaces"][tmp_path.as_uri()] == {"num_tokens": 1234}
        assert await command(editor, "forelook.clearPool") == {"workspaces": [tmp_path.as_uri()]}
        assert "pool/clear" in backend.methods


async def test_a_command_without_a_backend_says_so_without_a_traceback(editor: LspClient, backend: FakeBackend) -> None:
    await backend.stop()
    await editor.wait_until(lambda: last_status(editor)["state"] in ("error", "starting"))
    assert "error" in (await command(editor, "forelook.stats"))["backend"]
    await editor.open(URI, "a")
    with pytest.raises(ResponseError) as caught:
        await command(editor, "forelook.clearPool")
    assert "the backend is not connected" in caught.value.message
    assert caught.value.data is None


# --- Outcomes ----------------------------------------------------------------------------------------------------


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


# --- Other kinds of document --------------------------------------------------------------------------------------


async def test_a_notebooks_cells_are_documents(editor: LspClient, backend: FakeBackend) -> None:
    notebook = "file:///home/ada/project/n.ipynb"
    cells = [f"vscode-notebook-cell:/home/ada/project/n.ipynb#{name}" for name in "ab"]
    document = {
        "uri": notebook,
        "notebookType": "jupyter-notebook",
        "version": 1,
        "cells": [{"kind": 2, "document": cells[0]}],
    }
    texts = [{"uri": cell, "languageId": "python", "version": 1, "text": "x"} for cell in cells]
    await editor.notify("notebookDocument/didOpen", {"notebookDocument": document, "cellTextDocuments": texts[:1]})
    assert len(await editor.complete(cells[0], 0, 1)) == 1
    structure = {
        "array": {"start": 1, "deleteCount": 0, "cells": [{"kind": 2, "document": cells[1]}]},
        "didOpen": texts[1:],
    }
    changed = {
        "document": {"uri": cells[0], "version": 2},
        "changes": [{"range": range_of(0, 1, 0, 1), "text": "y"}],
    }
    await editor.notify(
        "notebookDocument/didChange",
        {
            "notebookDocument": {"uri": notebook, "version": 2},
            "change": {"cells": {"structure": structure, "textContent": [changed]}},
        },
    )
    assert len(await editor.complete(cells[1], 0, 1)) == 1
    assert backend.connections[0].texts == {cells[0]: "xy", cells[1]: "x"}
    await editor.notify(
        "notebookDocument/didClose",
        {"notebookDocument": {"uri": notebook}, "cellTextDocuments": [{"uri": cell} for cell in cells]},
    )
    assert await editor.complete(cells[0], 0, 1) == []


async def test_an_untitled_document_gets_suggestions(editor: LspClient) -> None:
    await editor.open("untitled:Untitled-1", "a")
    assert len(await editor.complete("untitled:Untitled-1", 0, 1)) == 1


async def test_suggestions_in_the_completion_popup_are_off_unless_asked_for(
    server: StdioServer, backend: FakeBackend
) -> None:
    editor = server.client
    backend.script = lambda text, params: "urn 1"
    await editor.initialize(options={"completionFallback": True})
    await editor.wait_for_status("ready")
    assert editor.capabilities["completionProvider"] is not None
    await editor.open(URI, "  ret")
    position = {"textDocument": {"uri": URI}, "position": {"line": 0, "character": 5}}
    answer = await editor.request("textDocument/completion", position)
    (item,) = answer["items"]
    assert item["label"] == "return 1"
    assert item["textEdit"] == {"range": range_of(0, 0, 0, 5), "newText": "  return 1"}
    assert item["insertTextMode"] == 1


# --- Logs ------------------------------------------------------------------------------------------------------


async def test_no_log_and_no_error_carries_the_users_text(environment: dict[str, str], backend: FakeBackend) -> None:
    secret = "xyzzy_plugh"
    backend.script = lambda text, params: secret
    async with stdio_server(environment, "--log-level", "debug") as server:
        editor = server.client
        await editor.initialize()
        await editor.wait_for_status("ready")
        await editor.open(URI, secret)
        await editor.complete(URI, 0, 3)
        wrong = {"textDocument": {"uri": URI, "version": 2}, "contentChanges": [{"text": secret, "range": secret}]}
        await editor.notify("textDocument/didChange", wrong)
        await editor.notify("textDocument/didOpen", {"textDocument": {"text": secret}})
        for method in ("textDocument/inlineCompletion", "workspace/executeCommand", "no/such"):
            with pytest.raises(ResponseError) as caught:
                await editor.request(method, {"textDocument": secret, "command": 3, "arguments": [secret]})
            assert secret not in str(caught.value)
        await editor.send(json.dumps({"jsonrpc": "2.0", "id": {"a": secret}, "method": "x"}))
        await backend.connections[0].websocket.send(json.dumps({"jsonrpc": "2.0", "method": "status", "x": secret}))
        await editor.type_text(URI, 2, 0, 0, secret)
        await editor.complete(URI, 0, 3)
        for message in editor.received:
            assert secret not in json.dumps(message)
        await editor.request("shutdown")
        await editor.notify("exit")
        assert await server.wait() == 0
    assert server.errors
    assert secret.encode() not in server.errors


async def test_the_log_can_go_to_a_file(environment: dict[str, str], backend: FakeBackend, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "lsp.log"
    async with stdio_server(environment, "--log-file", str(log), "--log-level", "info") as server:
        await server.client.initialize()
        await server.client.wait_for_status("ready")
        await server.client.complete(URI, 0, 0)
        await server.client.request("shutdown")
        await server.client.notify("exit")
        assert await server.wait() == 0
    assert "not open" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.parent.stat().st_mode & 0o077 == 0
    assert server.errors == b""
