"""Values of the editor that cannot be keys end no connection, and random messages get no internal error."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from forelook_lsp.server import ForelookServer

from tests.lsp.direct import Wire, open_document, receive, start

IDS: list[Any] = [[], {}, [1], {"a": []}, 1.5, True, None, 10**4200, -(10**30), "x" * 100_000, "\ud800", [[[]]]]
VALUES: list[Any] = [
    *IDS,
    0,
    -1,
    2**31,
    2**63,
    "",
    "a",
    "file://[",
    "file:///%00",
    "file:///\ud800",
    {"line": -1},
    1e308,
]
METHODS = [
    "textDocument/didOpen", "textDocument/didChange", "textDocument/didClose", "textDocument/didSave",
    "textDocument/inlineCompletion", "textDocument/completion", "textDocument/didShowCompletion",
    "textDocument/didPartiallyAcceptCompletion", "workspace/didChangeConfiguration", "workspace/executeCommand",
    "workspace/didChangeWatchedFiles", "workspace/didChangeWorkspaceFolders", "notebookDocument/didOpen",
    "notebookDocument/didChange", "notebookDocument/didClose", "$/cancelRequest", "$/setTrace", "unknown/method",
    "window/workDoneProgress/cancel",
]  # fmt: skip
FIELDS = [
    "textDocument", "uri", "languageId", "version", "text", "position", "line", "character", "contentChanges", "range",
    "start", "end", "context", "triggerKind", "command", "arguments", "changes", "type", "event", "added", "removed",
    "settings", "item", "id", "notebookDocument", "cellTextDocuments", "cells", "acceptedLength", "token", "value",
    "selectedCompletionInfo", "name",
]  # fmt: skip


def assert_lives(server: ForelookServer, wire: Wire, request_id: str) -> None:
    uri = f"file:///{request_id}.py"
    open_document(server, uri, "a\n")
    assert server.window.mirror.documents[uri].text == "a\n"
    receive(server, {"id": request_id, "method": "workspace/executeCommand", "params": {"command": "no.such"}})
    assert any(answer.get("id") == request_id for answer in wire.answers)


@pytest.mark.parametrize("value", IDS, ids=range(len(IDS)))
def test_an_id_that_cannot_be_a_key_is_ignored(value: Any) -> None:
    async def attack() -> None:
        server, wire = start()
        receive(server, {"method": "$/cancelRequest", "params": {"id": value}})
        receive(server, {"method": "$/cancelRequest", "params": value})
        receive(server, {"id": value, "result": None})
        receive(server, {"id": value, "error": {"code": 1, "message": "x"}})
        receive(server, {"id": value, "method": "textDocument/inlineCompletion", "params": {}})
        assert_lives(server, wire, "last")
        server.window.suggestions.close()

    asyncio.run(attack())


def random_value(chance: random.Random, depth: int) -> Any:
    if depth == 0 or chance.random() < 0.4:
        return chance.choice(VALUES)
    if chance.random() < 0.3:
        return [random_value(chance, depth - 1) for _ in range(chance.randrange(3))]
    return {name: random_value(chance, depth - 1) for name in chance.sample(FIELDS, 4)}


def test_hundreds_of_random_messages_cause_no_internal_error() -> None:
    async def attack() -> None:
        server, wire = start()
        chance = random.Random(14)
        for number in range(400):
            message: dict[str, Any] = {"method": chance.choice(METHODS), "params": random_value(chance, 4)}
            if chance.random() < 0.5:
                message["id"] = chance.choice([number, f"r{number}", *IDS])
            if chance.random() < 0.1:
                message = {"id": message.get("id"), chance.choice(["result", "error"]): message["params"]}
            receive(server, message)
            if number % 100 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        internal = [answer for answer in wire.answers if answer.get("error", {}).get("code") == -32603]
        assert not internal, internal[:3]
        assert_lives(server, wire, "last")
        server.window.suggestions.close()

    asyncio.run(attack())
