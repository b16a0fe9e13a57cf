"""From a keystroke to ghost text through every real part: language server, backend, model. Nothing is faked."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bench.lsp_client import LspClient, stdio_server
from forelook.model.loading import STARTER_MODEL_PATH

from tests.e2e.user import CURSOR, SOURCE, damaged_copy, forelook, ghost_text

pytestmark = pytest.mark.slow

# Slow machines run these tests too: what is tested is the text, not the time, nor how sure a small model is of it.
OPTIONS = {"deadlineMs": 60_000, "confidence": "off"}


@pytest.fixture
async def editor(home: dict[str, str]) -> AsyncIterator[LspClient]:
    async with stdio_server(home) as server:
        await server.client.initialize(options=OPTIONS)
        await server.client.wait_for_status("ready")
        yield server.client


def backend_pid(environment: dict[str, str]) -> int:
    (status,) = json.loads(forelook(environment, "status", "--json").stdout)
    return int(status["pid"])


async def test_an_unfinished_line_gets_a_real_continuation(editor: LspClient) -> None:
    await editor.open("file:///w/points.py", SOURCE)
    (item,) = await editor.complete("file:///w/points.py", *CURSOR)
    ghost = ghost_text(SOURCE, CURSOR, item)
    # What stands inside the brackets is the weights' affair; the form of the four lines above is not.
    assert re.fullmatch(r"Point\(self\.x.*, .*self\.y.*\)", ghost), ghost


async def test_another_text_before_the_cursor_gets_another_answer(editor: LspClient) -> None:
    other = SOURCE.replace("Point", "Vector").replace(".x", ".left")
    await editor.open("file:///w/points.py", SOURCE)
    (first,) = await editor.complete("file:///w/points.py", *CURSOR)
    await editor.change("file:///w/points.py", 2, {"text": other})
    (second,) = await editor.complete("file:///w/points.py", *CURSOR)
    assert "Point" in first["insertText"]
    assert "Vector" in second["insertText"]
    assert "left" in second["insertText"]


async def test_a_notebooks_cell_is_completed_as_if_the_notebook_were_a_file(editor: LspClient) -> None:
    cells = ["vscode-notebook-cell:/w/n.ipynb#" + name for name in "abc"]
    texts = [
        "def compute_shipping_fee(weight, distance):\n    return 3 * weight + 0.1 * distance\n",
        "%%bash\nls",
        "weight, distance = 3, 120\nfee = compute_s",
    ]
    items = [{"uri": uri, "languageId": "python", "version": 1, "text": texts[at]} for at, uri in enumerate(cells)]
    notebook = {
        "uri": "file:///w/n.ipynb",
        "notebookType": "jupyter-notebook",
        "version": 1,
        "cells": [{"kind": 2, "document": uri} for uri in cells],
    }
    await editor.notify("notebookDocument/didOpen", {"notebookDocument": notebook, "cellTextDocuments": items})
    (in_cell,) = await editor.complete(cells[2], 1, 15)
    closed = {"notebookDocument": {"uri": "file:///w/n.ipynb"}, "cellTextDocuments": [{"uri": uri} for uri in cells]}
    await editor.notify("notebookDocument/didClose", closed)  # else it would be context of the file
    await editor.open("file:///w/file.py", f"{texts[0]}\n{texts[2]}")
    (in_file,) = await editor.complete("file:///w/file.py", 4, 15)
    assert in_cell["insertText"] == in_file["insertText"]
    assert in_cell["insertText"].startswith("fee = compute_shipping_fee(")
    assert in_cell["range"]["start"] == {"line": 1, "character": 0}


async def test_the_shell_gives_the_same_text_as_the_editor(
    editor: LspClient, home: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "points.py"
    path.write_text(SOURCE)
    await editor.open(path.as_uri(), SOURCE)
    (item,) = await editor.complete(path.as_uri(), *CURSOR)
    shell = forelook(home, "complete", str(path), "--at", f"{CURSOR[0] + 1}:{CURSOR[1] + 1}", "--json")
    assert shell.returncode == 0, shell.stderr
    assert ghost_text(SOURCE, CURSOR, item).startswith(json.loads(shell.stdout)["suggestions"][0]["text"][:20])


async def test_what_the_model_is_unsure_of_is_shown_on_request_only(home: dict[str, str]) -> None:
    uri, text = "file:///w/points.py", "import os\n\n\ndef main(arguments):\n    first = "
    async with stdio_server(home) as server:
        editor = server.client
        await editor.initialize(options={**OPTIONS, "confidence": 0.999})
        await editor.wait_for_status("ready")
        await editor.open(uri, text)
        assert await editor.complete(uri, 4, 12) == []
        told = "forelook/status"
        await editor.wait_until(lambda: any(each["message"].startswith("unsure: ") for each in editor.params_of(told)))
        languages: dict[str, object] = {}
        while not languages:  # the backend counts when its engine has the time
            statistics = await editor.request("workspace/executeCommand", {"command": "forelook.stats"})
            languages = statistics["backend"]["engine"]["usage"]["languages"]
        assert statistics["window"]["outcomes"] == {"withheld": 1}
        assert languages["python"] == {"withheld": 1}
        assert len(await editor.complete(uri, 4, 12, trigger=1)) >= 1
        await editor.notify("workspace/didChangeConfiguration", {"settings": {"forelook": OPTIONS}})
        (item,) = await editor.complete(uri, 4, 12)
        assert ghost_text(text, (4, 12), item).strip()


async def test_typing_what_is_suggested_needs_no_forward(editor: LspClient) -> None:
    await editor.open("file:///w/points.py", SOURCE)
    (item,) = await editor.complete("file:///w/points.py", *CURSOR)
    ghost = ghost_text(SOURCE, CURSOR, item)
    before = await forwards(editor)
    line, column = CURSOR
    for index, character in enumerate(ghost[:8]):
        await editor.type_text("file:///w/points.py", 2 + index, line, column + index, character)
        (rest,) = await editor.complete("file:///w/points.py", line, column + index + 1)
        typed = SOURCE + ghost[: index + 1]
        assert ghost_text(typed, (line, column + index + 1), rest) == ghost[index + 1 :]
    assert await forwards(editor) == before


async def forwards(editor: LspClient) -> int:
    answer = await editor.request("workspace/executeCommand", {"command": "forelook.stats", "arguments": []})
    return int(answer["backend"]["engine"]["forwards"])


async def test_a_killed_backend_is_replaced_and_knows_the_documents(editor: LspClient, home: dict[str, str]) -> None:
    await editor.open("file:///w/points.py", SOURCE)
    (before,) = await editor.complete("file:///w/points.py", *CURSOR)
    os.kill(backend_pid(home), signal.SIGKILL)
    await wait_for_restart(editor, "ready", len(editor.received))
    await editor.type_text("file:///w/points.py", 2, *CURSOR, "P")
    (after,) = await editor.complete("file:///w/points.py", CURSOR[0], CURSOR[1] + 1)
    assert ghost_text(SOURCE + "P", (CURSOR[0], CURSOR[1] + 1), after) == ghost_text(SOURCE, CURSOR, before)[1:]


async def wait_for_restart(editor: LspClient, state: str, num_seen: int, timeout_s: float = 120.0) -> dict[str, Any]:
    """Wait until a backend has gone and another one's last status is a state, however briefly the first one was told.

    ``num_seen`` messages came before.
    """

    def told() -> list[dict[str, Any]]:
        return [each["params"] for each in editor.received[num_seen:] if each["method"] == "forelook/status"]

    def is_there() -> bool:
        return any(each["state"] in ("starting", "loading") for each in told()) and told()[-1]["state"] == state

    await editor.wait_until(is_there, timeout_s)
    return told()[-1]


async def test_a_model_that_is_not_there_is_told_once_until_a_restart_finds_it(home: dict[str, str]) -> None:
    model = Path(home["HOME"]) / "model"
    async with stdio_server(home) as server:
        editor = server.client
        await editor.initialize(options={**OPTIONS, "model": str(model)})
        status = await editor.wait_for_status("error", timeout_s=120)
        assert str(model) in status["message"]
        restart = {"command": "forelook.restartBackend", "arguments": []}
        num_seen = len(editor.received)
        await editor.request("workspace/executeCommand", restart)
        await wait_for_restart(editor, "error", num_seen)
        said = [params for params in editor.params_of("window/logMessage") if str(model) in params["message"]]
        assert len(said) == 1
        shutil.copytree(STARTER_MODEL_PATH, model)
        await editor.request("workspace/executeCommand", restart)
        await editor.wait_for_status("ready", timeout_s=120)
        await editor.open("file:///w/points.py", SOURCE)
        (item,) = await editor.complete("file:///w/points.py", *CURSOR)
        assert "Point" in item["insertText"]


async def test_a_model_that_is_replaced_or_deleted_is_noticed_while_the_editor_is_open(home: dict[str, str]) -> None:
    model = Path(home["HOME"]) / "model"
    shutil.copytree(STARTER_MODEL_PATH, model)
    async with stdio_server(home) as server:
        editor = server.client
        await editor.initialize(options={**OPTIONS, "model": str(model)})
        await editor.wait_for_status("ready", timeout_s=120)
        first = backend_pid(home)
        await editor.open("file:///w/points.py", SOURCE)
        shutil.copy(model / "model.safetensors", model / "new")
        (model / "new").replace(model / "model.safetensors")
        await asyncio.sleep(2.2)  # until the file counts as written
        num_seen = len(editor.received)
        await editor.type_text("file:///w/points.py", 2, *CURSOR, "P")
        await wait_for_restart(editor, "ready", num_seen)
        assert backend_pid(home) != first
        (item,) = await editor.complete("file:///w/points.py", CURSOR[0], CURSOR[1] + 1)
        assert "oint" in item["insertText"]
        shutil.rmtree(model)
        await asyncio.sleep(1.1)  # files are looked at once per second
        await editor.type_text("file:///w/points.py", 3, CURSOR[0], CURSOR[1] + 1, "o")
        status = await editor.wait_for_status("error", timeout_s=120)
        assert str(model) in status["message"]
        assert await editor.complete("file:///w/points.py", CURSOR[0], CURSOR[1] + 2) == []


async def test_two_windows_share_one_backend(editor: LspClient, home: dict[str, str]) -> None:
    pid = backend_pid(home)
    async with stdio_server(home) as other:
        await other.client.initialize(options=OPTIONS)
        await other.client.wait_for_status("ready")
        await other.client.open("file:///w/points.py", SOURCE)
        await editor.open("file:///w/points.py", SOURCE.replace("Point", "Vector"))
        theirs, ours = await asyncio.gather(
            other.client.complete("file:///w/points.py", *CURSOR), editor.complete("file:///w/points.py", *CURSOR)
        )
        assert "Point" in theirs[0]["insertText"]
        assert "Vector" in ours[0]["insertText"]
    assert backend_pid(home) == pid


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00\x00",
        "x" * 20_000,
        "a = '\ud800'\n",
        "\u05d0\u05d1 = 1\r\n\x0c\u2028\r\n\tif ",
        "value = compute(1)\n" * 280_000,  # 5 MB
    ],
    ids=["empty", "nul", "one long line", "lone surrogate", "right-to-left and odd breaks", "five megabytes"],
)
async def test_odd_documents_get_an_answer_and_leave_the_server_serving(editor: LspClient, text: str) -> None:
    await editor.open("file:///w/odd.py", text)
    await editor.complete("file:///w/odd.py", 0, 0)
    last = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    await editor.complete("file:///w/odd.py", len(last) - 1, len(last[-1]))
    await editor.open("file:///w/points.py", SOURCE)
    (item,) = await editor.complete("file:///w/points.py", *CURSOR)
    assert "Point" in item["insertText"]


@pytest.mark.parametrize(
    ("content", "at", "expected"),
    [
        (b"x = 1\n", "9:1", "9"),
        (b"x = 1\n", "1:99", "99"),
        (b"\xff\xfe\x00bad", "1:1", "UTF-8"),
    ],
    ids=["line outside", "column outside", "not UTF-8"],
)
def test_the_shell_names_what_is_wrong(
    home: dict[str, str], tmp_path: Path, content: bytes, at: str, expected: str
) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(content)
    result = forelook(home, "complete", str(path), "--at", at, "--no-backend")
    assert result.returncode != 0
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_the_shell_names_an_unknown_model_and_the_way_out(home: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("x = ")
    missing = tmp_path / "no-such-model"
    result = forelook(home, "complete", str(path), "--at", "1:5", "--no-backend", "--model", str(missing))
    assert result.returncode != 0
    assert "no-such-model" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("config.json", '"model_type": "llama"', '"model_type": "gpt2"', "gpt2"),
        ("tokenizer.json", "<SUF>", "<WHAT>", "--left-to-right"),
    ],
    ids=["another architecture", "no sentinels"],
)
def test_a_model_that_cannot_serve_is_refused_with_the_way_out(
    home: dict[str, str], repository: Path, tmp_path: Path, name: str, old: str, new: str, expected: str
) -> None:
    model = damaged_copy(repository, tmp_path, name, old, new)
    path = tmp_path / "a.py"
    path.write_text("x = ")
    result = forelook(home, "complete", str(path), "--at", "1:5", "--no-backend", "--model", str(model))
    assert result.returncode == 4, result.stderr
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
