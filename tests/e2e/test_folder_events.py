"""One event for a whole folder, as editors send it, reaches the pool of the real backend."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from bench.lsp_client import LspClient, stdio_server

pytestmark = pytest.mark.slow

CREATED, DELETED = 1, 3
NUM_FILES = 5
SETTLE_S = 60.0


def write_files(folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    for number in range(NUM_FILES):
        lines = [f"def {name}_{number}_{line}(a, b):\n    return {name}(a, {line}) + b\n" for line in range(40)]
        (folder / f"{name}{number}.py").write_text("\n".join(lines))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    write_files(root / "kept", "kept")
    write_files(root / "moving" / "deep", "moving")
    return root


@pytest.fixture
async def editor(home: dict[str, str], project: Path) -> AsyncIterator[LspClient]:
    async with stdio_server(home) as server:
        await server.client.initialize(folder=project)
        await server.client.wait_for_status("ready")
        yield server.client


async def settled(editor: LspClient, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The pool, once nothing waits to be indexed and the condition is true."""
    for _ in range(int(SETTLE_S / 0.1)):
        answer = await editor.request("workspace/executeCommand", {"command": "forelook.poolStats", "arguments": []})
        (stats,) = (stats for name, stats in answer["workspaces"].items() if name.endswith("/project"))
        if stats.get("num_waiting") == 0 and condition(stats):
            return stats
        await asyncio.sleep(0.1)
    pytest.fail(f"the pool stays {stats}")


async def files_changed(editor: LspClient, *events: tuple[Path, int]) -> None:
    changes = [{"uri": path.as_uri(), "type": kind} for path, kind in events]
    await editor.notify("workspace/didChangeWatchedFiles", {"changes": changes})


async def both_folders(editor: LspClient) -> dict[str, Any]:
    return await settled(editor, lambda stats: stats["num_documents"] == 2 * NUM_FILES)


async def test_the_tokens_of_a_deleted_folder_are_gone_and_open_files_go_with_it(
    editor: LspClient, project: Path
) -> None:
    full = await both_folders(editor)
    paths = sorted((project / "moving" / "deep").iterdir())
    for path in paths[:2]:
        await editor.open(path.as_uri(), path.read_text())
    await settled(editor, lambda stats: stats["num_open"] == 2)
    shutil.rmtree(project / "moving")
    await files_changed(editor, (project / "moving", DELETED))
    rest = await settled(editor, lambda stats: stats["num_documents"] == NUM_FILES)
    for path in paths[:2]:
        await editor.close(path.as_uri())
    closed = await settled(editor, lambda stats: stats["num_open"] == 0 and stats["num_documents"] == NUM_FILES)
    assert rest["num_tokens"] == closed["num_tokens"] < 0.6 * full["num_tokens"]


async def test_the_files_of_renamed_and_created_folders_are_known_under_their_names(
    editor: LspClient, project: Path
) -> None:
    full = await both_folders(editor)

    async def rename(old: Path, new: Path, *events: tuple[Path, int]) -> None:
        await asyncio.to_thread(old.rename, new)
        if events:
            await files_changed(editor, *events)
        else:
            renaming = {"oldUri": old.as_uri(), "newUri": new.as_uri()}
            await editor.notify("workspace/didRenameFiles", {"files": [renaming]})
        await both_folders(editor)  # the answer to a request: the events have been read
        await asyncio.sleep(1.0)  # longer than others are waited for
        assert (await both_folders(editor))["num_tokens"] == full["num_tokens"]

    names = [project / name for name in ("moving", "second", "third", "fourth")]
    await rename(names[0], names[1])
    await rename(names[1], names[2], (names[1], DELETED), (names[2], CREATED))
    await rename(names[2], names[3], (names[2], DELETED))  # what is left of a rename where only deletions are watched
    await files_changed(editor, (names[3] / "deep", DELETED))
    await settled(editor, lambda stats: stats["num_documents"] == NUM_FILES)

    write_files(project / "new" / "deep", "new")
    write_files(project / "node_modules" / "new", "dependency")
    created = [{"uri": (project / name).as_uri()} for name in ("new", "node_modules")]
    await editor.notify("workspace/didCreateFiles", {"files": created})
    await settled(editor, lambda stats: stats["num_documents"] == 2 * NUM_FILES)


async def test_only_the_pools_of_projects_are_kept_on_disk(editor: LspClient, project: Path) -> None:
    full = await both_folders(editor)
    write_files(project.parent / "alone", "alone")
    path = project.parent / "alone" / "alone0.py"
    await editor.open(path.as_uri(), path.read_text())
    await editor.complete(path.as_uri(), 0, 0)
    answer = await editor.request("workspace/executeCommand", {"command": "forelook.poolStats", "arguments": []})
    (alone,) = (stats for name, stats in answer["workspaces"].items() if name.endswith("/alone"))
    assert full["cache_path"]
    assert alone["cache_path"] == ""
    assert alone["num_open"] == 1
