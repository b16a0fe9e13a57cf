"""The commands of ``workspace/executeCommand``: one table, from which all else follows."""

from __future__ import annotations

from typing import Any

import pytest
from forelook_lsp import server
from forelook_lsp.commands import COMMANDS, Command
from forelook_lsp.window import EditorWindow

from tests.lsp.fake_backend import FakeBackend
from tests.lsp.servers import stdio_server_in_a_thread


async def test_a_row_is_all_that_a_new_command_needs(
    environment: dict[str, str], backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def count(window: EditorWindow, *arguments: Any) -> dict[str, Any]:
        return {"documents": len(window.mirror.documents), "arguments": list(arguments)}

    row = Command("forelook.countDocuments", "Count Documents", count, "anything", "the number of open documents")
    monkeypatch.setattr(server, "COMMANDS", (*COMMANDS, row))
    async with stdio_server_in_a_thread(environment) as editor:
        await editor.initialize(options={"commandSuffix": ".w1"})
        await editor.open("file:///a.py", "a")
        name = "forelook.countDocuments.w1"
        assert name in editor.capabilities["executeCommandProvider"]["commands"]
        answer = await editor.request("workspace/executeCommand", {"command": name, "arguments": [1, "x"]})
        assert answer == {"documents": 1, "arguments": [1, "x"]}


def test_every_command_has_a_name_of_its_own_and_words_for_people() -> None:
    assert len({row.name for row in COMMANDS}) == len(COMMANDS)
    for row in COMMANDS:
        assert row.name.startswith("forelook.")
        assert row.title
        assert row.text
