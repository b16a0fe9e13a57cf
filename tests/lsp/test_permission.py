"""Which documents may be sent, however they are named, and to whose pool they belong."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from bench.lsp_client import LspClient
from forelook_lsp.indexing import NO_WORKSPACE, Indexing
from forelook_lsp.workspace_files import WorkspaceFiles

from tests.lsp.conftest import execute
from tests.lsp.fake_backend import FakeBackend
from tests.lsp.test_workspace_files import git, write

ENV = "its name matches the secrets list"
SECRETS_LIST = "its name is on the secrets list"
IGNORED = "listed in .gitignore"


def commit(root: Path) -> None:
    git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a worktree, a submodule, a nested repository and tracked files that patterns match."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home/.config"))
    write(tmp_path, {"home/.gitconfig": f"[core]\n\texcludesFile = {tmp_path}/everywhere\n", "everywhere": "*.mine\n"})
    part, main = tmp_path / "part", tmp_path / "main"
    write(part, {"inside.py": "inside = 1\n", ".gitignore": "*.out\n"})
    git(part, "init", "-q")
    git(part, "add", ".")
    commit(part)
    write(
        main,
        {
            ".gitignore": "bin/\nvendor/\n*.log\n",
            "a.py": "a = 1\n",
            "bin/tool.py": "tool = 1\n",
            "bin/other.py": "other = 1\n",
            "vendor/nested/own.py": "own = 1\n",
        },
    )
    git(main, "init", "-q")
    git(main, "add", ".")
    git(main, "add", "-f", "bin/tool.py")
    git(main, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(part), "sub")
    commit(main)
    git(main, "worktree", "add", "-q", str(tmp_path / "tree"))
    git(main / "vendor/nested", "init", "-q")
    git(main / "vendor/nested", "add", ".")
    for exclude in (".git/info/exclude", ".git/modules/sub/info/exclude"):
        (main / exclude).write_text("*.excluded\n")
    (tmp_path / "link").symlink_to(main)
    (tmp_path / "other-link").symlink_to(main)
    return tmp_path


def indexing_of(*folders: Path) -> Indexing:
    unused: Any = None
    made = Indexing(unused, unused)
    made.set_folders({folder.as_uri(): folder for folder in folders}, ())
    return made


def reason(world: Path, name: str, folder: str | None = "main") -> str:
    uri = name if ":" in name else (world / name).as_uri()
    folders = () if folder is None else (world / folder,)
    return indexing_of(*folders).judge(uri.replace("$", quote(str(world))), "x = 1\n").withheld


def git_uri(path: str) -> str:
    return f"git:{path}?{quote(json.dumps({'path': path, 'ref': '~'}))}"


@pytest.mark.parametrize("folder", ["main", None])
@pytest.mark.parametrize(
    "uri",
    [
        "untitled:.env",
        "untitled:/home/ada/.env",
        "untitled:%2Eenv",
        "vscode-vfs://github/owner/name/.env",
        "vscode-remote://ssh-remote%2Bhost/home/ada/.ssh/id_rsa",
        "git:/home/ada/name/.env",
        git_uri("/home/ada/name/.env.local"),
        "gitlens:/home/ada/name/.env.production",
        "fugitive:///home/ada/name/.git//0/.env",
        "zipfile:///a.zip::certs/server.pem",
        "file:///elsewhere/.aws/credentials",
        "FILE:///elsewhere/.env",
        "/elsewhere/.env",
        "C:\\Users\\ada\\.env",
    ],
)
def test_a_secrets_name_counts_in_any_uri(world: Path, uri: str, folder: str | None) -> None:
    assert reason(world, uri, folder) in (ENV, SECRETS_LIST)


@pytest.mark.parametrize("uri", ["untitled:Untitled-1", "vscode-vfs://github/owner/name/a.py", git_uri("/w/a.py")])
def test_other_documents_without_a_file_are_sent(world: Path, uri: str) -> None:
    assert reason(world, uri) == ""


@pytest.mark.parametrize(
    ("name", "folder", "expected"),
    [
        ("main/a.log", "main", IGNORED),
        ("main/a.log", None, IGNORED),  # no folder open
        ("link/a.log", "main", IGNORED),  # file and folder named through different links
        ("main/a.log", "link", IGNORED),
        ("other-link/a.log", "link", IGNORED),
        ("link/a.py", "other-link", ""),
        (git_uri("$/main/a.log"), "main", IGNORED),
        ("tree/a.log", None, IGNORED),
        ("main/a.excluded", "main", IGNORED),
        ("tree/a.excluded", "tree", IGNORED),  # info/exclude of a worktree is the repository's
        ("main/sub/a.excluded", "main", IGNORED),  # a submodule has one of its own
        ("main/sub/a.out", "main", IGNORED),
        ("main/sub/inside.py", "main", ""),
        ("main/a.mine", "main", IGNORED),  # core.excludesFile of the user
        ("main/bin/tool.py", "main", ""),  # tracked
        ("main/bin/other.py", "main", IGNORED),
        ("main/vendor/nested/own.py", "main", ""),  # its own repository's
        ("main/vendor/nested/new.py", "main", ""),
        ("main/vendor/b.py", "main", IGNORED),
    ],
)
def test_what_git_ignores_is_not_sent_and_what_it_does_not_is(
    world: Path, name: str, folder: str | None, expected: str
) -> None:
    assert reason(world, name, folder) == expected


def test_submodules_and_tracked_files_that_a_pattern_matches_are_learned_from(world: Path) -> None:
    files = WorkspaceFiles(world / "main", ())
    found = {files.key_of(path) for path in files.ranked([], threading.Event())}
    assert found == {".gitignore", ".gitmodules", "a.py", "bin/tool.py", "sub/.gitignore", "sub/inside.py"}


def test_a_pool_belongs_to_a_repository_or_an_open_folder_and_any_other_is_not_kept_on_disk(world: Path) -> None:
    alone = world / "alone" / "note.py"
    write(world, {"alone/note.py": "x = 1\n"})
    judged = indexing_of(world / "main")

    def workspace(path: Path | str) -> str:
        return judged.judge(path if isinstance(path, str) else path.as_uri(), "").workspace

    main = (world / "main").as_uri()
    assert workspace(world / "main/a.py") == workspace(world / "main/sub/inside.py") == main
    assert workspace(world / "link/a.py") == main
    assert workspace(world / "tree/a.py") == (world / "tree").as_uri()
    assert workspace(world / "part/inside.py") == (world / "part").as_uri()
    assert workspace(alone) == alone.parent.as_uri().removeprefix("file:")
    assert indexing_of().judge("untitled:Untitled-1", "").workspace == NO_WORKSPACE


async def test_no_text_of_them_leaves(editor: LspClient, backend: FakeBackend, world: Path) -> None:
    uris = ["untitled:.env", "vscode-vfs://github/o/r/.env", git_uri("/w/.env"), (world / "other-link/a.log").as_uri()]
    for uri in uris:
        await editor.open(uri, "KEY = 1\n")
        assert await editor.complete(uri, 0, 3) == []
        assert (await execute(editor, "forelook.status"))["message"]
    assert backend.methods.count("document/open") == 0
    assert os.fspath(world) not in str(backend.connections[0].texts)
