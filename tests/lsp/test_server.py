"""The language server as a whole: its process, its settings, and the completion popup."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from bench.lsp_client import StdioServer, range_of, stdio_server
from forelook_lsp import server as server_module

from tests.lsp.conftest import URI, execute
from tests.lsp.direct import open_document, start
from tests.lsp.fake_backend import FakeBackend
from tests.lsp.servers import stdio_server_in_a_thread


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
        await execute(server.client, "forelook.stats")
        await server.client.request("shutdown")
        await server.client.notify("exit")
        await server.wait()
    imported = set(re.findall(r"\|\s*([\w.]+)\s*$", server.errors.decode(), re.MULTILINE))
    assert {"lsprotocol.types", "forelook_lsp.server", "forelook.local.endpoint", "websockets"} <= imported
    heavy = {"torch", "numpy", "transformers", "tokenizers", "safetensors", "tree_sitter", "starlette", "uvicorn"}
    assert {name.partition(".")[0] for name in imported} & heavy == set()
    assert not {name for name in imported if name.startswith(("forelook.model", "forelook.decoding"))}


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


async def test_settings_are_pulled_from_an_editor_that_can_be_asked(
    environment: dict[str, str], backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CONFIGURATION_TIMEOUT_S", 60.0)  # the machine may be busy
    async with stdio_server_in_a_thread(environment) as editor:
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
        editor.configuration = {"enable": False}
        await editor.notify("workspace/didChangeConfiguration", {"settings": None})
        assert await editor.complete(URI, 0, 1) == [], "a request waits for the settings that it follows"


async def test_a_language_or_everything_can_be_switched_off(server: StdioServer, backend: FakeBackend) -> None:
    editor = server.client
    await editor.initialize(options={"languages": {"markdown": False}})
    await editor.wait_for_status("ready")
    await editor.open(URI, "a")
    await editor.open(URI + ".md", "a", language_id="markdown")
    assert await editor.complete(URI + ".md", 0, 1) == []
    assert await execute(editor, "forelook.toggle", "python") == {"enabled": False, "language": "python"}
    assert await editor.complete(URI, 0, 1) == []
    assert await execute(editor, "forelook.toggle", "python") == {"enabled": True, "language": "python"}
    assert len(await editor.complete(URI, 0, 1)) == 1
    assert await execute(editor, "forelook.toggle") == {"enabled": False, "language": None}
    assert await editor.complete(URI, 0, 1) == []
    await editor.wait_for_status("paused")
    await execute(editor, "forelook.toggle")
    await editor.wait_for_status("ready")
    assert backend.completions[0].uri == URI
    await execute(editor, "forelook.toggle")
    assert await execute(editor, "forelook.toggle", "python") == {"enabled": True, "language": "python"}
    await editor.wait_for_status("ready")
    assert len(await editor.complete(URI, 0, 1)) == 1
    await execute(editor, "forelook.toggle")
    await editor.notify("workspace/didChangeConfiguration", {"settings": {"enable": False}})
    await editor.notify("workspace/didChangeConfiguration", {"settings": {"enable": True}})
    await editor.wait_for_status("ready")


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


async def test_a_request_that_waited_for_its_documents_verdict_does_not_supersede_a_later_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, _ = start()
    window = server.window
    open_document(server, URI, "a")
    waits = [asyncio.Event(), asyncio.Event()]
    waiting = iter(waits)

    async def judged(_: str) -> None:
        await next(waiting).wait()

    monkeypatch.setattr(window.documents, "judged", judged)
    first = asyncio.create_task(window.suggest(URI, 0, 1, invoked=False))
    await asyncio.sleep(0)
    second = asyncio.create_task(window.suggest(URI, 0, 1, invoked=False))
    await asyncio.sleep(0)
    for event, task in ((waits[1], second), (waits[0], first)):
        event.set()
        await asyncio.wait([task])
    assert first.cancelled()
    assert second.result() == ()  # there is no backend
    await window.close()


async def test_a_cursor_that_rests_is_passed_on_in_code_points_and_nonsense_is_not(
    server: StdioServer, backend: FakeBackend
) -> None:
    editor = server.client
    await editor.initialize(encodings=["utf-16"])
    await editor.wait_for_status("ready")
    await editor.open(URI, "x = 1\ny = '\U0001f600' + z\n")
    await editor.complete(URI, 0, 5)

    async def move(**params: object) -> None:
        await editor.notify("forelook/didMoveCursor", params)

    document = {"uri": URI}
    await move(textDocument=document, position={"line": 1, "character": 8})
    for position in ({"line": -1, "character": 0}, {"line": 9, "character": 0}, {"line": "1", "character": 0}, 7):
        await move(textDocument=document, position=position)
    await move(textDocument={"uri": "file:///unknown.py"}, position={"line": 0, "character": 0})
    await move()
    await move(textDocument=document, position={"line": 0, "character": 5})
    await editor.complete(URI, 0, 5)
    await backend.wait_until(lambda: len(backend.cursors) >= 2)  # what is known already does not ask the backend
    assert backend.cursors == [(URI, 13), (URI, 5)]
