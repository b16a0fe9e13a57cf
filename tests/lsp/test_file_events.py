"""File events: which are asked for, and what a burst of them costs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import psutil
import pytest
from bench.lsp_client import LspClient, StdioServer
from forelook.languages import ID_BY_SUFFIX
from forelook_lsp import file_events, window
from forelook_lsp.file_events import FileEvents
from forelook_lsp.indexing import Indexing
from forelook_lsp.workspace_files import WorkspaceFiles

from tests.lsp.conftest import execute
from tests.lsp.fake_backend import FakeBackend
from tests.lsp.servers import stdio_server_in_a_thread
from tests.lsp.test_workspace_files import PROGRESS, git, write

CREATED, CHANGED, DELETED = 1, 2, 3
WATCHES = {"workspace": {"didChangeWatchedFiles": {"dynamicRegistration": True}}}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    write(root, {f"app/f{number}.py": f"x = {number}\n" for number in range(20)})
    (root / ".gitignore").write_text("node_modules/\nbuild/\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    return root


@pytest.fixture
async def editor(server: StdioServer, backend: FakeBackend, project: Path) -> LspClient:
    client = server.client
    await client.initialize(folder=project, capabilities=PROGRESS)
    await client.wait_for_status("ready")
    await client.wait_until(lambda: scans_ended(client) == 1)
    return client


def scans_ended(editor: LspClient) -> int:
    shown = [params["value"] for params in editor.params_of("$/progress")]
    return sum(value["kind"] == "end" and value["message"].endswith("files") for value in shown)


async def report(editor: LspClient, kind: int, *paths: Path) -> None:
    changes = [{"uri": path.as_uri(), "type": kind} for path in paths]
    await editor.notify("workspace/didChangeWatchedFiles", {"changes": changes})


async def quiet(editor: LspClient) -> None:
    """Wait until the events so far were passed on."""
    await asyncio.sleep(file_events.QUIET_S + 0.5)
    await execute(editor, "forelook.stats")


def cpu_s(server: StdioServer) -> float:
    times = psutil.Process(server.process.pid).cpu_times()
    return float(times.user + times.system)


async def test_ignore_files_below_excluded_folders_cost_next_to_nothing(
    server: StdioServer, editor: LspClient, backend: FakeBackend, project: Path
) -> None:
    names = [f"node_modules/p{number}/.gitignore" for number in range(40)]
    names += [f"build/p{number}/.gitignore" for number in range(10)]
    write(project, dict.fromkeys(names, "*\n"))
    # An open document makes the server look at the ignore files around it.
    await editor.open((project / "build/p1/out.py").as_uri(), "a")
    await editor.complete((project / "build/p1/out.py").as_uri(), 0, 1)
    num_keeps, before_s = backend.methods.count("workspace/keep"), cpu_s(server)
    for name in names:
        await report(editor, CREATED, project / name)
        await asyncio.sleep(0.01)
    (project / "build/p1/.gitignore").write_text("!*\n")
    await report(editor, CHANGED, project / "build/p1/.gitignore")
    await quiet(editor)
    assert cpu_s(server) - before_s < 0.3
    assert scans_ended(editor) == 1
    assert backend.methods.count("workspace/keep") == num_keeps


async def test_many_ignore_files_that_matter_cause_one_scan(
    editor: LspClient, backend: FakeBackend, project: Path
) -> None:
    names = [f"app/p{number}/.gitignore" for number in range(50)]
    write(project, dict.fromkeys(names, "*\n"))
    for name in names:
        (project / name).with_name("f.py").write_text("x = 1\n")
    git(project, "add", "-f", "app")
    (project / "app/.forelookignore").write_text("f1.py\n")
    for name in names:
        await report(editor, CREATED, project / name)
    await report(editor, CREATED, project / "app/.forelookignore")
    await quiet(editor)
    await editor.wait_until(lambda: scans_ended(editor) > 1)
    await backend.wait_until(lambda: "app/f1.py" in backend.forgotten)
    assert scans_ended(editor) == 2


async def test_a_deleted_ignore_file_that_excluded_itself_matters(
    editor: LspClient, backend: FakeBackend, project: Path
) -> None:
    ignore_file, uri = project / "app/own/.gitignore", (project / "app/own/new.py").as_uri()
    write(project, {"app/own/.gitignore": "*\n"})
    await editor.open(uri, "a")
    assert await editor.complete(uri, 0, 1) == []
    ignore_file.unlink()
    await report(editor, DELETED, ignore_file)
    await backend.wait_until(lambda: uri in backend.connections[0].texts)


async def test_what_git_excludes_for_this_clone_is_followed(
    editor: LspClient, backend: FakeBackend, project: Path
) -> None:
    uri = (project / "app/new.py").as_uri()
    await editor.open(uri, "a")
    assert len(await editor.complete(uri, 0, 1)) == 1
    (project / ".git/info/exclude").write_text("new.py\n")
    await report(editor, CHANGED, project / ".git/info/exclude")
    await backend.wait_until(lambda: uri not in backend.connections[0].texts)


async def test_a_file_that_git_has_begun_to_track_is_learned_from(
    editor: LspClient, backend: FakeBackend, project: Path
) -> None:
    write(project, {"app/new.py": "new = 1\n"})
    await report(editor, CREATED, project / "app/new.py")
    await quiet(editor)
    assert "app/new.py" not in backend.files
    git(project, "add", ".")
    await report(editor, CHANGED, project / ".git/index")
    await backend.wait_until(lambda: backend.files.get("app/new.py") == "new = 1\n")


def watched(editor: LspClient) -> list[dict[str, Any]]:
    registered = [one for params in editor.params_of("client/registerCapability") for one in params["registrations"]]
    return [
        watcher
        for one in registered
        if one["method"] == "workspace/didChangeWatchedFiles"
        for watcher in one["registerOptions"]["watchers"]
    ]


@pytest.fixture
async def unstarted(
    environment: dict[str, str], backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[LspClient]:
    monkeypatch.setattr(window, "LOOK_AGAIN_S", 0.0)
    async with stdio_server_in_a_thread(environment) as client:
        yield client


async def introduce(client: LspClient, name: str, folder: Path) -> None:
    params = {"processId": None, "rootUri": folder.as_uri(), "capabilities": WATCHES, "clientInfo": {"name": name}}
    await client.request("initialize", params)
    await client.notify("initialized", {})
    await client.wait_for_status("ready")


async def test_only_code_ignore_files_and_deletions_are_watched(unstarted: LspClient, project: Path) -> None:
    await introduce(unstarted, "Visual Studio Code", project)
    await unstarted.wait_until(lambda: bool(watched(unstarted)))
    found = {watcher["globPattern"]: watcher.get("kind") for watcher in watched(unstarted)}
    suffixes = "**/*{" + ",".join(sorted(ID_BY_SUFFIX)) + "}"
    assert found == {
        suffixes: None,
        "**/.{git,forelook}ignore": None,
        "**/.git/{index,info/exclude}": None,
        "**/*": 4,  # deletions
    }


@pytest.mark.parametrize("name", ["Eglot", "emacs"])
async def test_an_editor_that_would_watch_each_folder_is_not_asked_and_changes_are_found_all_the_same(
    unstarted: LspClient, backend: FakeBackend, project: Path, name: str
) -> None:
    await introduce(unstarted, name, project)
    await backend.wait_until(lambda: "app/f7.py" in backend.files)
    (project / "app/f7.py").write_text("x = 'changed'\n")
    (project / "app/f8.py").unlink()
    await unstarted.open((project / "app/f1.py").as_uri(), "a")
    await backend.wait_until(lambda: backend.files["app/f7.py"] == "x = 'changed'\n")
    await backend.wait_until(lambda: "app/f8.py" in backend.forgotten)
    (project / ".forelookignore").write_text("f9.py\n")
    saved = {"textDocument": {"uri": (project / "app/f1.py").as_uri()}}
    await unstarted.notify("textDocument/didSave", saved)
    await backend.wait_until(lambda: "app/f9.py" in backend.forgotten)
    assert watched(unstarted) == []


async def test_events_are_passed_on_once_they_pause_but_not_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_events, "QUIET_S", 0.05)
    monkeypatch.setattr(file_events, "MAX_WAIT_S", 0.3)
    passed: list[tuple[list[Path], list[Path]]] = []

    async def apply(changed: Any, deleted: Any) -> None:
        passed.append((changed, deleted))

    events = FileEvents(apply)
    events.add([Path("a"), Path("b")], [Path("a")])
    events.add([], [Path("b")])
    assert passed == []
    await asyncio.sleep(0.2)
    assert passed == [([Path("a")], [Path("b")])]
    monkeypatch.setattr(file_events, "QUIET_S", 60.0)  # they do not pause, however long this process has to
    started_s = time.monotonic()
    while len(passed) == 1:
        events.add([Path("c")], [])
        await asyncio.sleep(0.01)
    assert 0.2 < time.monotonic() - started_s < 30.0


async def test_a_look_that_is_asked_for_during_another_follows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    num_looks = 0

    def since_listing(_: WorkspaceFiles) -> tuple[list[Path], list[str]]:
        nonlocal num_looks
        num_looks += 1
        begun.set()
        assert go_on.wait(30.0)
        return [], []

    monkeypatch.setattr(WorkspaceFiles, "since_listing", since_listing)
    indexing = Indexing(MagicMock(), MagicMock())
    indexing.set_folders({"w": tmp_path}, ())
    indexing.look_again()
    looking = indexing._looking
    assert looking is not None
    assert await asyncio.to_thread(begun.wait, 30.0)
    indexing.look_again()
    go_on.set()
    await looking
    assert num_looks == 2
