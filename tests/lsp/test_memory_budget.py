"""Documents have memory per window and per process; what is over it is left out, says so, and comes back."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest
from forelook.budgets import ByteBudget
from forelook_lsp.document_sync import LINE_BYTES
from forelook_lsp.mirror import Document
from forelook_lsp.server import ForelookServer

from tests.lsp.direct import Wire, find, open_document, receive

BIG = "x = 1\n" * 1000
SIZE = len(BIG) + 1000 * LINE_BYTES + 100


def window(budget: ByteBudget) -> ForelookServer:
    server = ForelookServer(find, budget=budget)
    server.protocol.set_writer(Wire(), include_headers=False)  # type: ignore[arg-type]
    receive(server, {"id": 0, "method": "initialize", "params": {"capabilities": {}, "processId": None}})
    return server


def texts(server: ForelookServer) -> dict[str, str]:
    return {uri: document.text for uri, document in server.window.mirror.documents.items()}


def close(server: ForelookServer, uri: str) -> None:
    receive(server, {"method": "textDocument/didClose", "params": {"textDocument": {"uri": uri}}})


def change(server: ForelookServer, uri: str, version: int, *changes: object) -> None:
    params = {"textDocument": {"uri": uri, "version": version}, "contentChanges": changes}
    receive(server, {"method": "textDocument/didChange", "params": params})


def insertion(text: str) -> dict[str, object]:
    start = {"line": 0, "character": 0}
    return {"range": {"start": start, "end": start}, "text": text}


def attack(test: Callable[[ForelookServer, ForelookServer], None], user_bytes: int, total_bytes: int) -> None:
    async def run() -> None:
        budget = ByteBudget("open documents", "close others", user_bytes, total_bytes)
        first, second = window(budget), window(budget)
        test(first, second)
        await first.window.close()
        await second.window.close()
        assert budget.used() == 0

    asyncio.run(run())


def test_a_window_and_the_process_have_a_limit_that_passes() -> None:
    def test(first: ForelookServer, second: ForelookServer) -> None:
        for name in "ab":
            open_document(first, f"file:///{name}", BIG)
        open_document(first, "file:///c", BIG)
        assert texts(first).keys() == {"file:///a", "file:///b"}
        reason = first.window.documents.unmirrored("file:///c")
        assert f"over the limit of {2 * SIZE} for yours; close others" in reason
        open_document(second, "file:///a", BIG)
        open_document(second, "file:///b", BIG)
        assert texts(second).keys() == {"file:///a"}
        assert "for all users'" in second.window.documents.unmirrored("file:///b")
        close(first, "file:///a")
        close(second, "file:///b")
        open_document(second, "file:///b", BIG)
        assert texts(second) == {"file:///a": BIG, "file:///b": BIG}

    attack(test, 2 * SIZE, 3 * SIZE)


def test_a_document_grows_out_of_the_limit_and_comes_back_with_its_whole_text() -> None:
    def test(first: ForelookServer, _: ForelookServer) -> None:
        open_document(first, "file:///a", BIG)
        change(first, "file:///a", 2, insertion("y" * 60_000))
        assert texts(first) == {}
        assert first.window.documents.unmirrored("file:///a")
        change(first, "file:///a", 3, insertion("ignored"))
        assert texts(first) == {}
        change(first, "file:///a", 4, insertion("ignored"), {"text": "whole"})
        assert texts(first) == {"file:///a": "whole"}
        assert first.window.documents.unmirrored("file:///a") == ""
        change(first, "file:///a", 5, insertion("the "))
        assert texts(first) == {"file:///a": "the whole"}

    attack(test, 2 * SIZE, 3 * SIZE)


def test_lines_count_too() -> None:
    def test(first: ForelookServer, _: ForelookServer) -> None:
        open_document(first, "file:///a", "\n" * 3000)
        assert texts(first) == {}

    attack(test, 2 * SIZE, 3 * SIZE)


def test_a_notebook_without_memory_is_left_out() -> None:
    def test(first: ForelookServer, _: ForelookServer) -> None:
        cells = [{"kind": 2, "document": f"file:///n#{number}"} for number in range(3)]
        documents = [{"uri": cell["document"], "languageId": "python", "version": 1, "text": BIG} for cell in cells]
        notebook = {"uri": "file:///n", "notebookType": "jupyter", "version": 1, "cells": cells}
        params = {"notebookDocument": notebook, "cellTextDocuments": documents}
        receive(first, {"method": "notebookDocument/didOpen", "params": params})
        assert texts(first) == {}
        params["cellTextDocuments"], notebook["cells"] = documents[:1], cells[:1]
        receive(first, {"method": "notebookDocument/didOpen", "params": params})
        assert list(texts(first).values()) == [BIG]

    attack(test, 2 * SIZE, 3 * SIZE)


def is_in_memory(uri: str) -> bool:
    return any(isinstance(one, Document) and one.uri == uri for one in gc.get_objects())


async def test_a_document_closed_while_it_is_judged_leaves_nothing() -> None:
    server = window(ByteBudget("open documents", "close others", SIZE, SIZE))
    gc.collect()
    gc.disable()
    try:
        open_document(server, "file:///closed-early", BIG)
        assert is_in_memory("file:///closed-early")
        close(server, "file:///closed-early")
        for _ in range(500):
            await asyncio.sleep(0.01)
            if not is_in_memory("file:///closed-early"):
                break
        else:
            raise AssertionError("the document is still there")
    finally:
        gc.enable()
    await server.window.close()


async def test_a_suggestion_without_a_mirror_says_why(caplog: pytest.LogCaptureFixture) -> None:
    server = window(ByteBudget("open documents", "close others", SIZE, SIZE))
    open_document(server, "file:///a", BIG * 2)
    assert await server.window.suggest("file:///a", 0, 0, invoked=False) == ()
    assert "close others" in server.window.presenter.status.withheld
    assert BIG[:10] not in caplog.text
    await server.window.close()
