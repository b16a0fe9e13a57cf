"""What the editor tests share: polling, a scripted server with its record, and a terminal to look at."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

TIMEOUT_S = 20.0
SCRIPTED_LSP = Path(__file__).with_name("scripted_lsp.py")


def poll(probe: Callable[[], T], what: str | Callable[[], str], timeout_s: float = TIMEOUT_S) -> T:
    """The first truthy value of ``probe``; fails with what was awaited and the last value seen."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            awaited = what if isinstance(what, str) else what()
            raise AssertionError(f"waited {timeout_s:.0f} s for {awaited}; last seen: {value!r}")
        time.sleep(0.02)


class Script:
    """A scripted language server: its command line, and the messages it got."""

    def __init__(self, folder: Path, **script: Any) -> None:
        self._script = folder / "script.json"
        self._record = folder / "record.jsonl"
        self._record.touch()
        self.rewrite(**script)
        self.command = [sys.executable, str(SCRIPTED_LSP), str(self._script), str(self._record)]

    def rewrite(self, **script: Any) -> None:
        """Another script, for the next start of the server."""
        self._script.write_text(json.dumps(script))

    def all(self) -> list[dict[str, Any]]:
        """Everything received so far, in its order."""
        # The last line may still be half written.
        lines = [line for line in self._record.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [json.loads(line) for line in lines]

    def messages(self, method: str) -> list[dict[str, Any]]:
        """Everything received under a method so far."""
        return [entry for entry in self.all() if entry["method"] == method]

    def wait_for(self, method: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until at least ``count`` messages of a method have come."""

        def enough() -> list[dict[str, Any]]:
            found = self.messages(method)
            return found if len(found) >= count else []

        return poll(enough, f"{count} × {method}")

    def accepted(self) -> list[int]:
        """Numbers of the items whose command was run."""
        commands = self.messages("workspace/executeCommand")
        return [
            entry["params"]["arguments"][0] for entry in commands if entry["params"]["command"] == "forelook.accept"
        ]


class Terminal:
    """A program in a tmux window of its own, as a person sees it."""

    def __init__(self, command: list[str], env: dict[str, str], columns: int = 80, rows: int = 24) -> None:
        self._folder = tempfile.mkdtemp(prefix="forelook-")  # a socket's path must be short
        self._socket = Path(self._folder) / "tmux"
        settings = [f"{name}={value}" for name, value in env.items()]
        self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), "env", *settings, *command
        )

    def _tmux(self, *args: str) -> str:
        done = subprocess.run(
            ["tmux", "-u", "-S", str(self._socket), *args], check=True, capture_output=True, text=True, timeout=30
        )
        return done.stdout

    def type(self, text: str) -> None:
        """Type characters as they are."""
        self._tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names, such as ``Tab`` or ``Escape``."""
        self._tmux("send-keys", *keys)

    def screen(self) -> str:
        """The visible text."""
        return self._tmux("capture-pane", "-p")

    def cursor(self) -> tuple[int, int]:
        """Row and column of the terminal's cursor, from zero."""
        row, column = self._tmux("display-message", "-p", "#{cursor_y} #{cursor_x}").split()
        return int(row), int(column)

    def wait_for(self, text: str) -> str:
        """Wait until a text is on the screen, and give the screen."""
        seen = ""

        def probe() -> str:
            nonlocal seen
            seen = self.screen()
            return seen if text in seen else ""

        try:
            return poll(probe, f"{text!r} on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen:\n{seen}") from None

    def wait_until_shown(self, lines: list[str], visible: Callable[[str], list[str]]) -> None:
        """Wait until just these lines are on the screen: a program may draw them in several parts."""
        poll(lambda: visible(self.screen()) == lines, lambda: f"{lines} on the screen; the screen:\n{self.screen()}")

    def wait_until_gone(self, text: str) -> str:
        """Wait until a text is on the screen no longer, and give the screen."""
        return poll(lambda: screen if text not in (screen := self.screen()) else "", f"{text!r} to leave the screen")

    def close(self) -> None:
        """End the program and the tmux server that holds it."""
        subprocess.run(["tmux", "-S", str(self._socket), "kill-server"], check=False, capture_output=True, timeout=30)
        shutil.rmtree(self._folder, ignore_errors=True)
