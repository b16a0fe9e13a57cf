"""What a client may expect of an answer."""

from __future__ import annotations

import pytest
from bench.lsp_client import LspClient, ResponseError, completion_params, range_of

from tests.lsp.conformance.rows import (
    INVALID_PARAMS,
    Connected,
    Row,
    Rows,
)
from tests.lsp.conftest import URI
from tests.lsp.fake_backend import FakeBackend

row = Rows()


# --- Answers -------------------------------------------------------------------------------------------------


@row("the server offers inline completion, incremental sync and its commands")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    capabilities = editor.capabilities
    assert capabilities["inlineCompletionProvider"] in (True, {})
    assert capabilities["textDocumentSync"]["change"] == 2
    assert capabilities["textDocumentSync"]["openClose"] is True
    assert "notebookDocumentSync" not in capabilities or capabilities["notebookDocumentSync"]["notebookSelector"]
    assert set(capabilities["executeCommandProvider"]["commands"]) >= {"forelook.toggle", "forelook.stats"}
    assert "completionProvider" not in capabilities


@row("no suggestion is an empty list of items, never null")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: []
    await editor.open(URI, "a")
    result = await editor.request("textDocument/inlineCompletion", completion_params(URI, 0, 1))
    assert result == {"items": []}


@row("an item has an explicit range within the cursor's line and begins with what stands there")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: "urn 1\n    # more"
    await editor.open(URI, "def f():\n    ret\nx")
    (item,) = await editor.complete(URI, 1, 7)
    assert item["range"] == range_of(1, 0, 1, 7)
    assert item["insertText"] == "    return 1\n    # more"


@row("an item that replaces closers keeps its range within the line")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: "1)"
    backend.num_replaced = 1
    await editor.open(URI, "f()\nx")
    (item,) = await editor.complete(URI, 0, 2)
    assert item["range"] == range_of(0, 0, 0, 3)
    assert item["insertText"] == "f(1)"


@row("an item's command names the suggestion that was accepted")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a")
    (item,) = await editor.complete(URI, 0, 1)
    command = item["command"]
    assert command["command"] in editor.capabilities["executeCommandProvider"]["commands"]
    assert await editor.request("workspace/executeCommand", command) is None
    await backend.wait_until(lambda: [event.kind.value for event in backend.events] == ["shown", "accepted"])


@row("whatever line ends the backend sends, an item has line feeds only")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: "b\r\nc\rd\ne"
    await editor.open(URI, "a")
    (item,) = await editor.complete(URI, 0, 1)
    assert item["insertText"] == "ab\nc\nd\ne"


@row("line ends before the cursor stay out of an item")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: "2"
    await editor.open(URI, "a = 1\r\nb = \r\nc = 3\r\n")
    (item,) = await editor.complete(URI, 1, 4)
    assert item["range"] == range_of(1, 0, 1, 4)
    assert item["insertText"] == "b = 2"
    assert backend.completions[0].offset == 11


@row("a backend's suggestion that would change typed text is not passed on")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "abc\ndef")
    await editor.complete(URI, 0, 1)
    backend.num_replaced = 4  # beyond the line's end
    assert await editor.complete(URI, 0, 2) == []


# --- Trigger kinds ---------------------------------------------------------------------------------------------


def _trigger_row(kind: int | None, expected: str) -> None:
    @row(f"trigger kind {kind} is taken as {expected}")
    async def _(editor: LspClient, backend: FakeBackend) -> None:
        await editor.open(URI, "a")
        await editor.complete(URI, 0, 1, trigger=kind)
        assert backend.completions[0].trigger.value == expected
        assert (backend.completions[0].num_suggestions > 1) == (expected == "invoked")


for _kind, _expected in ((0, "invoked"), (1, "invoked"), (2, "automatic"), (None, "automatic")):
    _trigger_row(_kind, _expected)


@row("an unknown trigger kind is refused, and the server goes on")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a")
    with pytest.raises(ResponseError) as caught:
        await editor.complete(URI, 0, 1, trigger=7)
    assert caught.value.code == INVALID_PARAMS
    assert len(await editor.complete(URI, 0, 1)) == 1


@row("asking by a command gives several different suggestions")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: ["1", "2", "2", "3"]
    await editor.open(URI, "a = ")
    items = await editor.complete(URI, 0, 4, trigger=1)
    assert [item["insertText"] for item in items] == ["a = 1", "a = 2"]


# --- The popup -------------------------------------------------------------------------------------------------


@row("with a popup open an item extends its selection over the same range")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda text, params: "rmat(x)"
    await editor.open(URI, "a = fo")
    selected = {"range": range_of(0, 4, 0, 6), "text": "format"}
    (item,) = await editor.complete(URI, 0, 6, selected=selected)
    assert (item["insertText"], item["range"]) == ("format(x)", range_of(0, 4, 0, 6))
    asked = backend.completions[0].selected
    assert asked is not None
    assert (asked.start, asked.end, asked.text) == (4, 6, "format")
    fold = {"range": range_of(0, 4, 0, 6), "text": "fold"}
    assert await editor.complete(URI, 0, 6, selected=fold) == []


@pytest.mark.parametrize(("transport", "found"), row.params())
async def test_conformance(transport: str, found: Row, connected: Connected, backend: FakeBackend) -> None:
    await found.run(transport, connected, backend)
