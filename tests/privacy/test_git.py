"""Nothing that a repository contains starts a program, whatever its configuration names."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from forelook.privacy import git as closed_git
from forelook.privacy.git import run_git
from forelook.privacy.rules import WorkspacePrivacy

pytestmark = pytest.mark.skipif(shutil.which("git") is None or os.name == "nt", reason="needs git and a shell")

ENVIRONMENT = {
    "PATH": os.environ["PATH"], "HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@a", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@a",
}  # fmt: skip


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, env=ENVIRONMENT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


class Trap:
    """A program that writes down under which name it was started."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.log = folder / "started"
        self.folder = folder

    def program(self, name: str) -> str:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\necho {name} >> {self.log}\nexit 1\n")
        path.chmod(0o755)
        return str(path)

    @property
    def started(self) -> set[str]:
        return set(self.log.read_text().split()) if self.log.exists() else set()


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "trap")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name in ("a.py", "sub/b.py", "other/c.py", "bin/tool.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x = 1\n")
    (folder / ".gitignore").write_text("bin/\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "add", "-f", "bin/tool.py")
    git(folder, "commit", "-q", "-m", "m")
    return folder


def plant_programs(project: Path, trap: Trap) -> None:
    """Every setting of git's documentation whose value is a command."""
    settings = {
        "core.fsmonitor": "fsmonitor", "core.sshCommand": "ssh", "core.gitProxy": "proxy", "core.askPass": "askpass",
        "core.pager": "pager", "core.editor": "editor", "sequence.editor": "sequence",
        "core.alternateRefsCommand": "refs",
        "credential.helper": "credential", "diff.external": "diff", "diff.x.textconv": "textconv",
        "diff.x.command": "command", "merge.x.driver": "merge", "filter.x.clean": "clean", "filter.x.smudge": "smudge",
        "filter.x.process": "process", "gpg.program": "gpg", "gpg.ssh.program": "gpgssh", "gpg.x509.program": "gpgx",
        "pager.ls-files": "pagerls", "pager.config": "pagerconfig", "pager.rev-parse": "pagerrev",
        "uploadpack.packObjectsHook": "pack", "interactive.diffFilter": "filter", "web.browser": "browser",
        "trace2.normalTarget": "trace",
    }  # fmt: skip
    for name, program in settings.items():
        git(project, "config", name, trap.program(program))
    for command in ("ls-files", "config", "rev-parse"):
        git(project, "config", f"alias.{command}", f"!{trap.program('alias-' + command)}")
    for hook in ("post-index-change", "fsmonitor-watchman", "pre-auto-gc", "post-checkout", "reference-transaction"):
        shutil.copy(trap.program(hook), project / ".git" / "hooks" / hook)
    (project / ".gitattributes").write_text("* filter=x diff=x merge=x\n")
    os.utime(project / "a.py", (1, 1))


def plant_promisor(project: Path, trap: Trap, transport: str) -> None:
    """A partial clone with a sparse index whose trees are missing: expanding the index fetches them."""
    tree = git(project, "rev-parse", "HEAD:other")
    git(project, "sparse-checkout", "init", "--cone", "--sparse-index")
    git(project, "sparse-checkout", "set", "sub")
    git(project, "config", "core.repositoryFormatVersion", "1")
    git(project, "config", "extensions.partialClone", "origin")
    git(project, "config", "remote.origin.promisor", "true")
    remote = trap.folder / "remote.git"
    git(trap.folder, "init", "-q", "--bare", str(remote))
    addresses = {
        "uploadpack": str(remote), "file": f"file://{remote}", "ssh": "ssh://localhost.invalid/x",
        "ext": f"ext::{trap.program('ext')} %S", "helper": "evil::x", "vcs": "x",
    }  # fmt: skip
    git(project, "config", "remote.origin.url", addresses[transport])
    git(project, "config", "remote.origin.uploadpack", trap.program("uploadpack"))
    git(project, "config", "core.sshCommand", trap.program("ssh"))
    for name in ("allow", "ext.allow", "file.allow", "ssh.allow", "evil.allow", "git.allow"):
        git(project, "config", f"protocol.{name}", "always")
    if transport == "vcs":
        git(project, "config", "remote.origin.vcs", "evil")
    (project / ".git" / "objects" / tree[:2] / tree[2:]).unlink()


def look_at(project: Path) -> None:
    """Everything that Forelook asks of a repository."""
    privacy = WorkspacePrivacy(project)
    list(privacy.files())
    for name in ("a.py", "bin/tool.py", "bin/new.py", "other/c.py"):
        privacy.reason(project / name)


def test_no_setting_of_a_repository_starts_a_program(project: Path, trap: Trap) -> None:
    plant_programs(project, trap)
    look_at(project)
    assert trap.started == set()
    subprocess.run(["git", "status"], cwd=project, env=ENVIRONMENT, check=False, capture_output=True, timeout=20)
    assert "fsmonitor" in trap.started, "the trap works: git by itself starts the program"
    assert trap.started & {"clean", "process"}


@pytest.mark.parametrize("transport", ["uploadpack", "file", "ssh", "ext"])
def test_a_partial_clones_remote_is_not_asked_for_missing_objects(project: Path, trap: Trap, transport: str) -> None:
    plant_promisor(project, trap, transport)
    look_at(project)
    assert trap.started == set()
    settings = [
        part for setting in closed_git._SETTINGS for part in ("-c", setting) if not setting.startswith("core.ssh")
    ]
    subprocess.run(
        ["git", *settings, "ls-files"], cwd=project, env=ENVIRONMENT, check=False, capture_output=True, timeout=20
    )
    assert trap.started, "the trap works, and settings on the command line alone do not close it"


def test_programs_in_the_folder_and_variables_of_git_are_not_used(
    project: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(trap.program("planted-git"), project / "git")
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GIT_EXEC_PATH", str(trap.folder))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", trap.program("variable"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", trap.program("counted"))
    monkeypatch.setenv("GIT_DIR", str(trap.folder))
    monkeypatch.chdir(project)
    closed_git._program.cache_clear()
    look_at(project)
    assert trap.started == set()
    assert WorkspacePrivacy(project).permits(project / "bin/tool.py"), "git did answer"


def test_a_submodules_and_a_nested_repositorys_settings_start_no_program(project: Path, trap: Trap) -> None:
    inner = project / "inner"
    shutil.copytree(project, inner, ignore=shutil.ignore_patterns("inner"))
    plant_programs(inner, trap)
    git(project, "update-index", "--add", "--cacheinfo", f"160000,{git(inner, 'rev-parse', 'HEAD')},inner")
    look_at(project)
    WorkspacePrivacy(project).reason(inner / "a.py")
    listed = {path.name for path in WorkspacePrivacy(project).files() if inner in path.parents}
    assert "b.py" in listed, "submodules are listed"
    assert trap.started == set()


def test_only_one_function_starts_git(repository: Path) -> None:
    starters = [
        path.name
        for root in ("backend", "lsp")
        for path in (repository / root).rglob("*.py")
        if '"git"' in (text := path.read_text(encoding="utf-8")) and ("Popen" in text or "subprocess.run" in text)
    ]
    assert starters == ["git.py"]


@pytest.fixture
def pipes(project: Path) -> Path:
    for name in ("config", "index"):
        path = project / ".git" / name
        path.unlink()
        os.mkfifo(path)
    return project


def test_git_that_waits_for_a_pipe_is_stopped(pipes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started_s = time.monotonic()
    assert run_git(pipes, "ls-files", timeout_s=0.3) is None
    assert time.monotonic() - started_s < 20, "the pipe has no writer"


def test_output_without_end_is_cut_off(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_git, "MAX_OUTPUT_BYTES", 4)
    assert run_git(project, "ls-files") is None


def test_a_repository_further_up_does_not_answer(project: Path) -> None:
    (project / "sub" / ".git").mkdir()
    assert run_git(project / "sub", "ls-files") is None
    assert run_git(project, "ls-files")
