"""Real processes in a folder whose files are named like modules that they import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULES = ("argparse", "asyncio", "json", "logging", "queue", "token", "signal", "pygls", "websockets", "rich", "torch")
COMMANDS = ("forelook", "forelook_lsp")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in MODULES:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the project ran')\n")
    return tmp_path


def run(project: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, *command], cwd=project, env=env, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("module", COMMANDS)
@pytest.mark.parametrize("python_path", ["", ".", f"{os.pathsep}/nowhere"])
def test_a_projects_files_are_not_imported(project: Path, module: str, python_path: str) -> None:
    done = run(project, "-m", module, "--help", PYTHONPATH=python_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: forelook" in done.stdout


@pytest.mark.parametrize("module", COMMANDS)
def test_what_the_commands_import_later_is_not_the_projects_either(project: Path, module: str) -> None:
    arguments = ["doctor", "--json"] if module == "forelook" else ["--websocket", "nowhere"]
    done = run(project, "-m", module, *arguments, HOME=str(project / "home"), PYTHONPATH=".")
    assert "the project ran" not in done.stdout + done.stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs Python 3.11 for PYTHONSAFEPATH")
@pytest.mark.parametrize("module", COMMANDS)
def test_as_editors_start_it_even_a_file_named_types_does_no_harm(project: Path, module: str) -> None:
    (project / "types.py").write_text("raise SystemExit('the project ran')\n")
    done = run(project, "-m", module, "--version", PYTHONSAFEPATH="1", PYTHONPATH="")
    assert (done.returncode, done.stderr) == (0, "")


def test_forelook_itself_may_be_in_the_working_folder(repository: Path) -> None:
    done = run(repository / "backend", "-m", "forelook", "--version", PYTHONPATH=".")
    assert (done.returncode, done.stderr) == (0, "")
