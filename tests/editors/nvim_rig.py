"""Drives a real Neovim over its own RPC, with the plugin loaded as a plain package."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.editors.rig import Script, poll

REPOSITORY = Path(__file__).resolve().parents[2]
PLUGIN = REPOSITORY / "lsp" / "editors" / "nvim"

GHOST = """
local marks = vim.api.nvim_buf_get_extmarks(0, vim.api.nvim_create_namespace(...), 0, -1, { details = true })
local seen = {}
for _, mark in ipairs(marks) do
  local function flat(chunks)
    local text = ''
    for _, chunk in ipairs(chunks or {}) do text = text .. chunk[1] end
    return text
  end
  local lines = {}
  for _, line in ipairs(mark[4].virt_lines or {}) do table.insert(lines, flat(line)) end
  table.insert(seen, {
    row = mark[2], col = mark[3], text = flat(mark[4].virt_text), lines = lines, pos = mark[4].virt_text_pos or '',
  })
end
return seen
"""


def environment(home: Path) -> dict[str, str]:
    """An environment in which no configuration of the user is read and nothing is written beside ``home``."""
    home.mkdir(exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "TERM", "TMPDIR") if name in os.environ}
    xdg = {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
    runtime = home / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    xdg["XDG_RUNTIME_DIR"] = str(runtime)
    return {**kept, **xdg, "HOME": str(home), "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"}


def write_init(folder: Path, command: list[str], prelude: str = "", **options: Any) -> Path:
    """An init file that loads the plugin from this checkout with these options, after ``prelude``."""
    options = {"cmd": command, "root_markers": ["workspace-root"], **options}
    init = folder / "init.lua"
    init.write_text(
        f"vim.opt.runtimepath:prepend([[{PLUGIN}]])\n"
        "vim.o.swapfile = false\nvim.o.shadafile = 'NONE'\nvim.o.autoindent = false\n"
        f"{prelude}\n"
        f"require('forelook').setup(vim.json.decode([=[{json.dumps(options)}]=]))\n"
    )
    return init


def attach(program: str, init: Path, env: dict[str, str]) -> Any:
    """A headless Neovim with this init file and this environment only, as pynvim gives it."""
    pynvim = pytest.importorskip("pynvim", reason="needs pynvim (pip install pynvim) to drive Neovim")
    argv = ["env", "-i", *(f"{name}={value}" for name, value in env.items()), program]
    return pynvim.attach("child", argv=[*argv, "--embed", "--headless", "-u", str(init), "-n", "-i", "NONE"])


class Neovim:
    """One headless Neovim with one file open."""

    def __init__(
        self, program: str, folder: Path, command: list[str], home: Path | None = None, **options: Any
    ) -> None:
        self.folder = folder
        init = write_init(folder, command, **options)
        self.rpc = attach(program, init, environment(home or folder / "home"))
        # Embedded and without a window of its own, Neovim still has a screen size to lay text out on.
        self.rpc.command("set columns=80 lines=24")

    def close(self) -> None:
        """End it, whatever it is doing."""
        try:
            self.rpc.command("qall!")
        except (OSError, EOFError):
            pass  # it closes the channel before it answers
        finally:
            self.rpc.close()

    def lua(self, code: str, *args: Any) -> Any:
        return self.rpc.exec_lua(code, *args)

    def open(self, name: str, text: str | bytes) -> Path:
        """Write a file, open it, and wait until the server can be asked."""
        path = self.folder / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        self.rpc.command(f"edit {path}")
        poll(self.attached, "the server to attach to the buffer")
        return path

    def attached(self) -> bool:
        return self.lua("return require('forelook.client').get(vim.api.nvim_get_current_buf()) ~= nil")

    def keys(self, keys: str) -> None:
        """Type keys in Neovim's notation."""
        self.rpc.input(keys)

    def mode(self) -> str:
        return self.rpc.api.get_mode()["mode"]

    def at(self, row: int, col: int) -> None:
        """Put the cursor (0-based row, byte column) in insert mode."""
        self.lua("vim.cmd('startinsert')")
        poll(lambda: self.mode() == "i", "insert mode")
        self.lua("vim.api.nvim_win_set_cursor(0, { ... })", row + 1, col)

    def append(self, text: str = "", row: int = 0) -> None:
        """Insert mode at the end of a line, then type."""
        self.rpc.api.win_set_cursor(0, (row + 1, 0))
        self.keys("A" + text.replace("<", "<lt>"))
        poll(lambda: self.mode() == "i", "insert mode")

    def sync(self) -> None:
        """Wait for an answer of the server to something of no interest; everything it sent before is then handled."""
        self.lua("vim.lsp.buf_request_sync(0, 'workspace/executeCommand', { command = 'sync' }, 20000)")

    def lines(self) -> list[str]:
        return list(self.rpc.api.buf_get_lines(0, 0, -1, True))

    def cursor(self) -> tuple[int, int]:
        row, col = self.rpc.api.win_get_cursor(0)
        return row - 1, col

    def marks(self, namespace: str = "forelook") -> list[dict[str, Any]]:
        return self.lua(GHOST, namespace)

    def ghost(self, namespace: str = "forelook") -> str:
        """The virtual text on screen, first lines first."""
        marks = self.marks(namespace)
        return "\n".join(["".join(mark["text"] for mark in marks), *(line for mark in marks for line in mark["lines"])])

    def wait_for_ghost(self, text: str, namespace: str = "forelook") -> None:
        poll(lambda: self.ghost(namespace) == text, lambda: f"ghost text {text!r}; it is {self.ghost(namespace)!r}")

    def wait_for_no_ghost(self, namespace: str = "forelook") -> None:
        poll(lambda: not self.marks(namespace), "the ghost text to go")

    def wait_for_lines(self, *lines: str) -> None:
        poll(lambda: self.lines() == list(lines), lambda: f"buffer {list(lines)!r}; it is {self.lines()!r}")


def need_neovim(name: str) -> str:
    """Path of a Neovim, or the test is skipped."""
    program = shutil.which(name)
    if program is None:
        how = "apt-get install neovim" if name == "nvim" else "tests/editors/fetch_neovim.sh puts one into a folder"
        pytest.skip(f"needs {name} on PATH ({how})")
    return program


__all__ = ["Neovim", "Script", "environment", "need_neovim", "write_init"]
