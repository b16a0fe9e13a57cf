"""Fixtures of the editor tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.editors.emacs_rig import Emacs
from tests.editors.nvim_rig import Neovim, need_neovim
from tests.editors.rig import Script


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., Script]:
    """Makes the scripted server of a test."""
    return lambda **script: Script(tmp_path, **script)


@pytest.fixture(params=["nvim", "nvim-0.12"])
def own_neovim(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Neovim]]:
    """Starts a Neovim in which the plugin draws by itself: the system's, and 0.12 where it is on PATH."""
    program = need_neovim(request.param)
    started: list[Neovim] = []

    def start(script: Script, **options: Any) -> Neovim:
        started.append(Neovim(program, tmp_path, script.command, renderer="own", **options))
        return started[-1]

    yield start
    for neovim in started:
        neovim.close()


@pytest.fixture
def native_neovim(tmp_path: Path) -> Iterator[Callable[..., Neovim]]:
    """Starts a Neovim whose own inline completion asks and draws."""
    program = need_neovim("nvim-0.12")
    started: list[Neovim] = []

    def start(script: Script, **options: Any) -> Neovim:
        started.append(Neovim(program, tmp_path, script.command, **options))
        return started[-1]

    yield start
    for neovim in started:
        neovim.close()


@pytest.fixture(scope="session")
def need_tmux() -> None:
    """Skips where there is no terminal to look at."""
    if shutil.which("tmux") is None:
        pytest.skip("needs tmux on PATH (apt-get install tmux)")


@pytest.fixture
def emacs(tmp_path: Path, need_tmux: None) -> Iterator[Callable[..., Emacs]]:
    """Starts an Emacs in a terminal."""
    started: list[Emacs] = []

    def start(script: Script, settings: str = "") -> Emacs:
        started.append(Emacs(tmp_path, script.command, settings))
        return started[-1]

    yield start
    for editor in started:
        editor.close()
