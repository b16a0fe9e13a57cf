"""Documents: what is sent to the backend, and what happens when it refuses one."""

from __future__ import annotations

from bench.lsp_client import LspClient, range_of
from forelook.protocol import jsonrpc, messages

from tests.lsp.conftest import URI, execute
from tests.lsp.fake_backend import LIMITS, FakeBackend


async def test_a_document_the_backend_refuses_gets_no_suggestions_and_the_status_says_why(
    editor: LspClient, backend: FakeBackend
) -> None:
    await editor.open(URI, "a")
    await backend.wait_until(lambda: URI in backend.connections[0].texts)
    refused = messages.NotificationErrorParams("document/open", -32044, "the document is too long", URI)
    await backend.connections[0].websocket.send(jsonrpc.encode_notification(messages.NOTIFICATION_ERROR, refused))
    await execute(editor, "forelook.stats")  # answered after the refusal was read
    assert await editor.complete(URI, 0, 1) == []
    assert (await execute(editor, "forelook.status"))["message"] == "the document is too long"


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
    assert "longer than 8388608 bytes" in (await execute(editor, "forelook.status"))["message"]
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
