"""Real editors with the real language server, the real backend and the starter model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.editors.emacs_rig import Emacs
from tests.editors.nvim_rig import Neovim, environment, need_neovim
from tests.editors.rig import poll

pytestmark = pytest.mark.slow

SCRIPTS = Path(sys.executable).parent
LSP = str(SCRIPTS / "forelook-lsp")
BACKEND = str(SCRIPTS / "forelook")

BEFORE = """def add(first, second):
    return first + second


def subtract(first, second):
    return first - second


# 🙂é multiply
def multiply(first, second):
    return first *"""

START_S = 60.0


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home of its own, in which the editors share one backend as on a user's machine."""
    if not Path(LSP).exists() or not Path(BACKEND).exists():
        pytest.skip("needs forelook and forelook-lsp beside the interpreter (pip install -e .)")
    folder = Path(tempfile.mkdtemp(prefix="fl-"))  # a socket's path must be short
    yield folder
    subprocess.run([BACKEND, "stop"], check=True, capture_output=True, env=environment(folder), timeout=60)
    shutil.rmtree(folder)


def backend_pids(home: Path) -> list[int]:
    """Process ids of the running backends, as a user would find them."""
    done = subprocess.run(
        [BACKEND, "status"], check=False, capture_output=True, text=True, env=environment(home), timeout=60
    )
    return [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("pid:")]


def complain(screen: str) -> str:
    return f"a suggestion of the starter model: {screen}"


@pytest.fixture(params=["nvim", "nvim-0.12"])
def neovim(request: pytest.FixtureRequest, tmp_path: Path, home: Path) -> Iterator[Neovim]:
    program = need_neovim(request.param)
    settings = {"deadlineMs": 10000, "confidence": "off"}
    editor = Neovim(program, tmp_path, [LSP, "--log-level", "warning"], home=home, server=settings)
    yield editor
    editor.close()


def suggestion(neovim: Neovim) -> str:
    return neovim.ghost("forelook") or neovim.ghost("nvim.lsp.inline_completion")


def status(neovim: Neovim) -> dict[str, str]:
    return neovim.lua("return require('forelook').status()")


def test_neovim_shows_and_takes_what_the_model_suggests(neovim: Neovim) -> None:
    neovim.open("a.py", BEFORE + "\n")
    poll(lambda: status(neovim)["state"] == "ready", lambda: f"a loaded model; {status(neovim)}", START_S)
    neovim.append(" ", row=len(BEFORE.split("\n")) - 1)
    ghost = poll(lambda: suggestion(neovim), lambda: complain(neovim.rpc.command_output("Forelook status")), START_S)
    neovim.keys("<Tab>")
    neovim.wait_for_lines(*(BEFORE + " " + ghost).split("\n"))
    assert neovim.lua("return require('forelook').why_not()") is None
    # Statistics come back through the server from the backend.
    neovim.lua("vim.cmd('Forelook stats')")
    poll(lambda: neovim.lines()[0] == "Forelook: statistics" and len(neovim.lines()) > 3, "the statistics")


def test_neovim_heals_after_the_backend_was_killed(neovim: Neovim, home: Path) -> None:
    neovim.open("b.py", BEFORE + "\n")
    poll(lambda: status(neovim)["state"] == "ready", lambda: f"a loaded model; {status(neovim)}", START_S)
    first = backend_pids(home)
    assert len(first) == 1, "all editors of a user share one backend"
    os.kill(first[0], signal.SIGKILL)
    poll(lambda: [pid for pid in backend_pids(home) if pid != first[0]], "another backend", START_S)
    poll(lambda: status(neovim)["state"] == "ready", lambda: f"a loaded model again; {status(neovim)}", START_S)
    neovim.append(" ", row=len(BEFORE.split("\n")) - 1)
    poll(lambda: suggestion(neovim), lambda: complain(neovim.rpc.command_output("Forelook status")), START_S)


def test_neovim_and_server_agree_on_the_text_after_many_edits(neovim: Neovim, home: Path) -> None:
    neovim.open("c.py", "")
    poll(lambda: status(neovim)["state"] == "ready", lambda: f"a loaded model; {status(neovim)}", START_S)
    neovim.rpc.command("setlocal indentexpr= noautoindent")
    for line in BEFORE.split("\n"):
        neovim.keys("o" + line.replace("<", "<lt>") + "<Esc>")
    neovim.keys('gg"_ddGA ')
    neovim.wait_for_lines(*(BEFORE + " ").split("\n"))
    ghost = poll(lambda: suggestion(neovim), lambda: complain(neovim.rpc.command_output("Forelook status")), START_S)
    # The shell's path to the same backend is given the text itself; the editor's server had to follow the edits.
    path = neovim.folder / "same.py"
    path.write_text(BEFORE + " ")
    lines = (BEFORE + " ").split("\n")
    done = subprocess.run(
        [BACKEND, "complete", str(path), "--at", f"{len(lines)}:{len(lines[-1]) + 1}"],
        check=True,
        capture_output=True,
        text=True,
        env=environment(home),
        timeout=120,
    )
    assert done.stdout.split("\n")[0].strip()[:4] == ghost.split("\n")[0].strip()[:4], json.dumps([done.stdout, ghost])


def test_emacs_shows_and_takes_what_the_model_suggests(tmp_path: Path, home: Path, need_tmux: None) -> None:
    settings = '(setq forelook-settings (quote (:deadlineMs 10000 :confidence "off")))'
    editor = Emacs(tmp_path, [LSP, "--log-level", "warning"], settings, home=home)
    try:
        editor.open("a.py", BEFORE + "\n")
        # Before the server's first word the mode line is as empty as when the model is ready.
        state = '(or (plist-get (cdar forelook--status) :state) "")'
        poll(lambda: editor.eval(state) == "ready", lambda: f"a loaded model; {editor.eval(state)}", START_S)
        editor.goto(len(BEFORE))
        editor.type(" ")
        ghost = poll(lambda: editor.state()["ghost"], lambda: complain(editor.terminal.screen()), START_S)
        editor.press("Tab")
        editor.wait_for_text(f"{BEFORE} {ghost}\n")
        editor.run("(forelook-stats)")
        editor.terminal.wait_for("forelook statistics")
    finally:
        editor.close()
