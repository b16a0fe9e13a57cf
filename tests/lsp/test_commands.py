"""The commands of ``workspace/executeCommand``: one table, from which all else follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bench.lsp_client import LspClient, ResponseError, StdioServer, stdio_server
from forelook_lsp import server
from forelook_lsp.commands import COMMANDS, Command
from forelook_lsp.window import EditorWindow

from tests.lsp.conftest import URI, execute, last_status
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
        statistics = await execute(editor, "forelook.stats")
        assert statistics["window"]["outcomes"] == {"shown": 1}
        assert statistics["window"]["answers"] == {"new": 1}
        assert statistics["backend"]["engine"] == {"num_requests": 1}
        assert (await execute(editor, "forelook.poolStats"))["workspaces"][tmp_path.as_uri()] == {"num_tokens": 1234}
        assert await execute(editor, "forelook.clearPool") == {"workspaces": [tmp_path.as_uri()]}
        assert "pool/clear" in backend.methods


async def test_a_command_without_a_backend_says_so_without_a_traceback(editor: LspClient, backend: FakeBackend) -> None:
    await backend.stop()
    await editor.wait_until(lambda: last_status(editor)["state"] in ("error", "starting"))
    assert "error" in (await execute(editor, "forelook.stats"))["backend"]
    await editor.open(URI, "a")
    with pytest.raises(ResponseError) as caught:
        await execute(editor, "forelook.clearPool")
    assert "the backend is not connected" in caught.value.message
    assert caught.value.data is None


async def test_restarting_the_backend_ends_it_and_connects_to_the_next(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a")
    assert await execute(editor, "forelook.restartBackend") is None
    assert "shutdown" in backend.methods
    await backend.wait_until(lambda: backend.methods.count("hello") == 2)
    await editor.wait_for_status("ready")
    assert len(await editor.complete(URI, 0, 1)) == 1
