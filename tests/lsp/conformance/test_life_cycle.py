"""The life cycle of LSP, and messages that are not LSP."""

from __future__ import annotations

import pytest
from bench.lsp_client import LspClient, ResponseError, completion_params, stdio_server

from tests.lsp.conformance.rows import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    NOT_INITIALIZED,
    PARSE_ERROR,
    Connected,
    Row,
    Rows,
)
from tests.lsp.conftest import URI
from tests.lsp.fake_backend import FakeBackend
from tests.lsp.servers import WebsocketAddress

row = Rows()


# --- Life cycle and nonsense ---------------------------------------------------------------------------------------


@row("a request before initialize is refused, and a notification is dropped", None)
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a")
    for method in ("textDocument/inlineCompletion", "shutdown", "no/such"):
        with pytest.raises(ResponseError) as caught:
            await editor.request(method, {})
        assert caught.value.code == NOT_INITIALIZED
    await editor.initialize()
    await editor.wait_for_status("ready")
    assert await editor.complete(URI, 0, 1) == []


@row("a second initialize, and a request after shutdown, are refused")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    with pytest.raises(ResponseError) as caught:
        await editor.request("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
    assert caught.value.code == INVALID_REQUEST
    assert await editor.request("shutdown") is None
    with pytest.raises(ResponseError) as caught:
        await editor.request("textDocument/inlineCompletion", completion_params(URI, 0, 0))
    assert caught.value.code == INVALID_REQUEST


@row("messages that are no messages are answered with an error, and the server goes on")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    for message, code in (
        ("{", PARSE_ERROR),
        ("[]", INVALID_REQUEST),
        ('{"id": 900, "method": "x"}', INVALID_REQUEST),
        ('{"jsonrpc": "2.0", "id": 901, "method": 3}', INVALID_REQUEST),
        ('{"jsonrpc": "2.0", "id": 902, "method": "no/such/method", "params": {}}', METHOD_NOT_FOUND),
        ('{"jsonrpc": "2.0", "id": 903, "method": "textDocument/inlineCompletion"}', INVALID_PARAMS),
        ('{"jsonrpc": "2.0", "id": 904, "method": "textDocument/inlineCompletion", "params": {}}', INVALID_PARAMS),
        (
            '{"jsonrpc": "2.0", "id": 905, "method": "workspace/executeCommand", "params": {"command": "no.such"}}',
            INVALID_PARAMS,
        ),
    ):
        before = len(editor.orphans)
        await editor.send(message)
        await editor.wait_until(lambda before=before: len(editor.orphans) > before)  # type: ignore[misc]
        error = editor.orphans[-1]["error"]
        assert error["code"] == code, message
        assert "Traceback" not in str(error)
    await editor.send('{"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": {"textDocument": 3}}')
    await editor.send('{"jsonrpc": "2.0", "method": "$/something", "params": null}')
    await editor.send('{"jsonrpc": "2.0", "id": 17, "result": null}')
    await editor.open(URI, "a")
    assert len(await editor.complete(URI, 0, 1)) == 1


@pytest.mark.parametrize(("transport", "found"), row.params())
async def test_conformance(transport: str, found: Row, connected: Connected, backend: FakeBackend) -> None:
    await found.run(transport, connected, backend)


# --- The end -------------------------------------------------------------------------------------------------

ENDINGS: dict[str, tuple[bool, tuple[str, ...], int]] = {
    "exit after shutdown": (True, ("shutdown", "exit"), 0),
    "exit after shutdown was said twice": (True, ("shutdown", "shutdown", "exit"), 0),
    "exit without shutdown": (True, ("exit",), 1),
    "exit before initialize": (False, ("exit",), 1),
    "no exit: the editor goes away": (True, (), 1),
}


async def _say_goodbye(editor: LspClient, introduced: bool, words: tuple[str, ...]) -> None:
    if introduced:
        await editor.initialize()
        await editor.wait_for_status("ready")
    for number, word in enumerate(words):
        if word == "exit":
            await editor.notify("exit")
        elif number == 0:
            assert await editor.request(word) is None
        else:
            with pytest.raises(ResponseError) as caught:
                await editor.request(word)
            assert caught.value.code == INVALID_REQUEST


@pytest.mark.parametrize(("introduced", "words", "code"), ENDINGS.values(), ids=ENDINGS)
async def test_over_stdio_the_process_ends_with_the_code_of_lsp(
    introduced: bool, words: tuple[str, ...], code: int, environment: dict[str, str], backend: FakeBackend
) -> None:
    async with stdio_server(environment) as server:
        await _say_goodbye(server.client, introduced, words)
        if not words:
            server.close_stdin()
        assert await server.wait() == code
    assert b"Traceback" not in server.errors
    assert "shutdown" not in backend.methods, "the backend is for other windows too"


@pytest.mark.parametrize(("introduced", "words", "code"), ENDINGS.values(), ids=ENDINGS)
async def test_over_websocket_only_the_connection_ends(
    introduced: bool, words: tuple[str, ...], code: int, listening: WebsocketAddress, backend: FakeBackend
) -> None:
    async with listening.connect() as staying:
        await staying.client.initialize()
        await staying.client.wait_for_status("ready")
        async with listening.connect() as leaving:
            await _say_goodbye(leaving.client, introduced, words)
            if not words:
                leaving.websocket.transport.abort()
            await leaving.wait_closed()
            assert leaving.websocket.close_code == (1000 if words else 1006)
        await staying.client.open(URI, "a")
        assert len(await staying.client.complete(URI, 0, 1)) == 1
