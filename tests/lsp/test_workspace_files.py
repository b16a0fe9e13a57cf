"""The workspace's files: which may be read, in what order, and that nothing else ever reaches the backend."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest
from bench.lsp_client import LspClient, StdioServer
from forelook.errors import PrivacyError
from forelook_lsp.workspace_files import OpenFile, WorkspaceFiles, imported_names

from tests.lsp.fake_backend import FakeBackend

PROGRESS = {"window": {"workDoneProgress": True}}


def write(root: Path, files: dict[str, str]) -> None:
    for age, (name, text) in enumerate(files.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))


def git(root: Path, *arguments: str) -> None:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, env=environment)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    write(
        root,
        {
            "README.md": "read me",
            "app/main.py": "from lib.tools import helper\n",
            "app/other.py": "other = 1\n",
            "lib/tools.py": "def helper(): ...\n",
            "lib/old.py": "old = 1\n",
            "lib/scratch.py": "scratch = 1\n",
            ".env": "KEY=hunter2\n",
            "certs/server.pem": "-----BEGIN PRIVATE KEY-----\n",
            "build/out.py": "built = 1\n",
            "private/plan.py": "plan = 1\n",
            "own/mine.py": "mine = 1\n",
            "data.bin": "\0\0",
            ".gitignore": "build/\n",
            ".forelookignore": "private/\n",
        },
    )
    return root


def ranked(root: Path, open_file: str = "app/main.py", globs: tuple[str, ...] = ()) -> list[str]:
    files = WorkspaceFiles(root, globs)
    path = root / open_file
    found = files.ranked([OpenFile(path, path.read_text())], threading.Event())
    return [files.key_of(path) for path in found]


def test_imported_files_come_first_then_neighbours_then_the_same_language(project: Path) -> None:
    found = ranked(project)
    assert found[:4] == ["lib/tools.py", "app/other.py", "lib/old.py", "lib/scratch.py"]
    assert "app/main.py" not in found


def test_a_folder_reached_by_a_link_lists_the_same_files(project: Path) -> None:
    link = project.parent / "link"
    link.symlink_to(project)
    assert ranked(link, globs=("own/",)) == ranked(project, globs=("own/",))
    files = WorkspaceFiles(link, ())
    assert files.read(link / "lib/old.py").path == "lib/old.py"
    assert files.read(link / ".env") is None


def test_withheld_files_are_in_no_list(project: Path) -> None:
    found = set(ranked(project, globs=("own/",)))
    withheld = {".env", "certs/server.pem", "build/out.py", "private/plan.py", "own/mine.py"}
    assert found & withheld == set()
    assert "own/mine.py" in ranked(project)


def test_in_a_repository_only_tracked_files_are_listed(project: Path) -> None:
    git(project, "init", "-q")
    git(project, "add", "-f", ".", ":!lib/scratch.py")
    found = ranked(project)
    assert "lib/old.py" in found
    assert "lib/scratch.py" not in found
    assert ".env" not in found, "tracked, and still a secret"


def test_a_repository_that_tracks_nothing_yet_is_listed_whole(project: Path) -> None:
    git(project, "init", "-q")
    assert "lib/scratch.py" in ranked(project)
    assert "build/out.py" not in ranked(project)


def test_texts_come_in_small_parts_and_stop_when_told(project: Path) -> None:
    write(project, {f"many/f{number}.py": f"x = {number}\n" for number in range(200)})
    files, stop = WorkspaceFiles(project, ()), threading.Event()
    parts = files.read_parts(files.ranked([], stop), stop)
    first = next(parts)
    assert len(first) <= 64
    stop.set()
    assert sum(1 for _ in parts) == 0


def test_what_cannot_be_read_as_text_is_passed_over(project: Path) -> None:
    files = WorkspaceFiles(project, ())
    (project / "latin.py").write_bytes(b"# \xe9\n")
    for name in ("data.bin", "latin.py", "gone.py", ".env", "../outside.py"):
        assert files.read(project / name) is None
    assert files.read(project / "lib/old.py").text == "old = 1\n"


def test_a_pattern_that_cannot_be_understood_is_an_error(project: Path) -> None:
    with pytest.raises(PrivacyError):
        WorkspaceFiles(project, ("a[",))


def test_names_on_import_lines_are_found_in_every_language() -> None:
    text = """
from pkg.mod import thing
import os.path as p
import { a } from './widgets/button'
const x = require("./legacy")
#include "engine/core.h"
use crate::parser::lexer;
using System.Text;
"""
    assert {"mod", "thing", "button", "legacy", "core", "lexer", "Text"} <= imported_names([text])


# --- Through the server ----------------------------------------------------------------------------------------


async def indexed(server: StdioServer, project: Path, **options: object) -> LspClient:
    editor = server.client
    await editor.initialize(folder=project, capabilities=PROGRESS, options=options)
    await editor.wait_for_status("ready")
    return editor


def bars_ended(editor: LspClient) -> int:
    return sum(params["value"]["kind"] == "end" for params in editor.params_of("$/progress"))


async def test_permitted_files_reach_the_backend_with_a_progress_bar(
    server: StdioServer, backend: FakeBackend, project: Path
) -> None:
    editor = await indexed(server, project)
    await editor.wait_until(lambda: any(p["value"].get("message") == "9 files" for p in editor.params_of("$/progress")))
    assert set(backend.files) == {
        "README.md", "app/main.py", "app/other.py", "lib/tools.py", "lib/old.py", "lib/scratch.py", "own/mine.py",
        ".gitignore", ".forelookignore",
    }  # fmt: skip
    assert backend.files["lib/old.py"] == "old = 1\n"
    assert not any("hunter2" in text for text in backend.files.values())


async def test_indexing_can_be_switched_off(server: StdioServer, backend: FakeBackend, project: Path) -> None:
    editor = await indexed(server, project, indexWorkspace=False)
    uri = (project / "app/main.py").as_uri()
    await editor.open(uri, "a")
    assert len(await editor.complete(uri, 0, 1)) == 1
    await editor.close(uri)
    await editor.request("workspace/executeCommand", {"command": "forelook.stats"})
    assert backend.files == {}


@pytest.mark.parametrize("name", [".env", "private/plan.py", "certs/server.pem", "build/out.py", "/elsewhere/id_rsa"])
async def test_a_withheld_document_never_leaves_and_the_status_says_why(
    server: StdioServer, backend: FakeBackend, project: Path, name: str
) -> None:
    editor = await indexed(server, project, indexWorkspace=False)
    uri = (project / name).as_uri()
    await editor.open(uri, "KEY=hunter2")
    await editor.type_text(uri, 2, 0, 0, "x")
    assert await editor.complete(uri, 0, 1) == []
    await editor.close(uri)
    open_uri = (project / "app/other.py").as_uri()
    await editor.open(open_uri, "a")
    assert len(await editor.complete(open_uri, 0, 1)) == 1
    assert [uri for connection in backend.connections for uri in connection.texts] == [open_uri]
    assert backend.methods.count("document/open") == 1


async def test_the_status_says_why_a_document_is_withheld(
    server: StdioServer, backend: FakeBackend, project: Path
) -> None:
    editor = await indexed(server, project)
    uri = (project / "private/plan.py").as_uri()
    await editor.open(uri, "a")
    assert await editor.complete(uri, 0, 1) == []
    status = await editor.request("workspace/executeCommand", {"command": "forelook.status"})
    assert status["message"] == "listed in .forelookignore"


async def test_a_changed_ignore_file_takes_back_what_was_sent(
    server: StdioServer, backend: FakeBackend, project: Path
) -> None:
    editor = await indexed(server, project)
    await editor.wait_until(lambda: bars_ended(editor) >= 1)
    await backend.wait_until(lambda: "lib/old.py" in backend.files)
    uri = (project / "app/other.py").as_uri()
    await editor.open(uri, "a")
    assert len(await editor.complete(uri, 0, 1)) == 1
    (project / ".forelookignore").write_text("private/\nlib/old.py\napp/other.py\n")
    changed = [{"uri": (project / ".forelookignore").as_uri(), "type": 2}]
    await editor.notify("workspace/didChangeWatchedFiles", {"changes": changed})
    await backend.wait_until(lambda: {"lib/old.py", "app/other.py"} <= set(backend.forgotten))
    await backend.wait_until(lambda: uri not in backend.connections[0].texts)
    assert await editor.complete(uri, 0, 1) == []


async def test_an_ignore_file_nobody_understands_withholds_its_folder_and_is_named(
    server: StdioServer, backend: FakeBackend, project: Path
) -> None:
    (project / ".forelookignore").write_text("[\n")
    editor = await indexed(server, project)
    await editor.wait_until(lambda: any("line 1" in p["message"] for p in editor.params_of("window/logMessage")))
    uri = (project / "app/other.py").as_uri()
    await editor.open(uri, "a")
    assert await editor.complete(uri, 0, 1) == []
    assert backend.files == {}


async def test_a_setting_nobody_understands_withholds_everything(
    server: StdioServer, backend: FakeBackend, project: Path
) -> None:
    editor = await indexed(server, project, ignore=["a["])
    uri = (project / "app/other.py").as_uri()
    await editor.open(uri, "a")
    assert await editor.complete(uri, 0, 1) == []
    assert any("forelook.ignore" in params["message"] for params in editor.params_of("window/logMessage"))
    assert backend.files == {}
    assert backend.connections[0].texts == {}


async def test_saved_created_and_deleted_files_are_followed(
    server: StdioServer, backend: FakeBackend, project: Path
) -> None:
    editor = await indexed(server, project)
    await editor.wait_until(lambda: bars_ended(editor) >= 1)
    new, old = project / "lib/new.py", project / "lib/old.py"
    new.write_text("new = 1\n")
    old.unlink()
    changes = [{"uri": new.as_uri(), "type": 1}, {"uri": old.as_uri(), "type": 3}]
    await editor.notify("workspace/didChangeWatchedFiles", {"changes": changes})
    await backend.wait_until(
        lambda: backend.files.get("lib/new.py") == "new = 1\n" and "lib/old.py" in backend.forgotten
    )


async def test_in_a_repository_a_changed_file_is_sent_only_if_it_is_tracked(
    server: StdioServer, backend: FakeBackend, project: Path
) -> None:
    git(project, "init", "-q")
    git(project, "add", "lib/old.py")
    editor = await indexed(server, project)
    await backend.wait_until(lambda: set(backend.files) == {"lib/old.py"})
    await editor.wait_until(lambda: bars_ended(editor) >= 2)
    (project / "lib/old.py").write_text("changed = 1\n")
    names = ("lib/scratch.py", ".env", "lib/old.py")
    changes = [{"uri": (project / name).as_uri(), "type": 2} for name in names]
    await editor.notify("workspace/didChangeWatchedFiles", {"changes": changes})
    await backend.wait_until(lambda: backend.files.get("lib/old.py") == "changed = 1\n")
    assert set(backend.files) == {"lib/old.py"}


async def test_documents_belong_to_the_innermost_folder_of_the_window(
    server: StdioServer, backend: FakeBackend, project: Path
) -> None:
    editor = server.client
    folders = [{"uri": path.as_uri(), "name": path.name} for path in (project, project / "lib")]
    await editor.request(
        "initialize",
        {"processId": None, "rootUri": None, "capabilities": {}, "workspaceFolders": folders},
    )
    await editor.notify("initialized", {})
    await editor.wait_for_status("ready")
    for name in ("lib/old.py", "app/other.py"):
        await editor.open((project / name).as_uri(), "a")
    elsewhere = project.parent / "elsewhere.py"
    await editor.open(elsewhere.as_uri(), "a")
    await backend.wait_until(lambda: len(backend.connections[0].texts) == 3)
    await backend.wait_until(lambda: "old.py" in backend.files and "README.md" in backend.files)
    assert "lib/old.py" not in backend.files, "it is the inner folder's"
    found = backend.connections[0].workspaces
    assert found[(project / "lib/old.py").as_uri()] == (project / "lib").as_uri()
    assert found[(project / "app/other.py").as_uri()] == project.as_uri()
    assert found[elsewhere.as_uri()] == project.parent.as_uri().removeprefix("file:"), "its folder's, not kept on disk"
    event = {"added": [{"uri": project.parent.as_uri(), "name": "p"}], "removed": [folders[1]]}
    await editor.notify("workspace/didChangeWorkspaceFolders", {"event": event})
    await backend.wait_until(lambda: found[elsewhere.as_uri()] == project.parent.as_uri())
    await backend.wait_until(lambda: found[(project / "lib/old.py").as_uri()] == project.as_uri())
