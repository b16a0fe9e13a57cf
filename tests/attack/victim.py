"""Real processes to attack, and what the kernel says about them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from forelook.commands.client import BackendClient, connected
from forelook.errors import PositionError
from forelook.local.endpoint import Endpoint, discover
from forelook.local.identity import BackendIdentity, UserPaths
from forelook.local.spawn import open_log
from forelook.protocol import messages

IDENTITY = BackendIdentity(device="cpu")
PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has of the kernel's."""

    rss_mib: float
    num_descriptors: int
    num_threads: int


class Victim:
    """A backend as `forelook serve` runs it, with a home of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        settings: object = None,
        arguments: tuple[str, ...] = (),
        max_descriptors: int | None = None,
        program: tuple[str, ...] = ("-m", "forelook"),
    ) -> None:
        self.folder = folder
        self._program = program
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG", "VIRTUAL_ENV") if name in os.environ},
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder / "r"),  # short: see tests/lsp/conftest.py
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        self.paths = UserPaths.from_environment(self.environment, folder, os.getuid())
        self._settings = {"device": "cpu", **(settings if isinstance(settings, dict) else {})}
        self._arguments = arguments
        self._max_descriptors = max_descriptors
        self.announced: dict[str, object] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Endpoint:
        """Start, and wait until it listens."""
        limit = "" if self._max_descriptors is None else f"ulimit -n {self._max_descriptors}; "
        arguments = ["serve", "--announce", "--config", json.dumps(self._settings), *self._arguments]
        command = [sys.executable, *self._program, *arguments]
        with open_log(self.paths) as log:
            self.process = subprocess.Popen(
                ["sh", "-c", f'{limit}exec "$@"', "sh", *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environment,
                cwd=self.folder,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert b"listening" in line, (line, self.log()[-2000:])
        self.process.stdout.close()
        self.announced = json.loads(line)
        endpoint = discover(IDENTITY, self.paths)
        assert endpoint is not None
        self.endpoint = endpoint
        return endpoint

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def log(self) -> str:
        """What it logged so far."""
        return self.paths.log_path.read_text(encoding="utf-8", errors="replace")

    def usage(self) -> Usage:
        """What it has now."""
        assert self.process is not None
        return usage_of(self.process.pid)


def usage_of(pid: int) -> Usage:
    """What a process has of the kernel's now."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    rss_mib = int(status["VmRSS"].split()[0]) / 1024
    return Usage(rss_mib, len(list(Path(f"/proc/{pid}/fd").iterdir())), int(status["Threads"]))


@contextlib.contextmanager
def victim(folder: Path, *, settings: object = None, max_descriptors: int | None = None) -> Iterator[Victim]:
    """A running backend."""
    one = Victim(folder, settings=settings, max_descriptors=max_descriptors)
    one.start()
    try:
        yield one
    finally:
        one.stop()


class Window:
    """One editor window's connection to a backend, with its own idea of its documents."""

    def __init__(self, client: BackendClient, workspace: str) -> None:
        self.client = client
        self.workspace = workspace
        self.texts: dict[str, str] = {}
        self._versions: dict[str, int] = {}

    def open(self, name: str, text: str) -> None:
        uri = f"{self.workspace}/{name}"
        self.texts[uri], self._versions[uri] = text, 1
        params = messages.DocumentOpenParams(self.workspace, uri, "python", 1, text)
        self.client.notify(messages.DOCUMENT_OPEN, params)

    def close(self, name: str) -> None:
        uri = f"{self.workspace}/{name}"
        del self.texts[uri]
        self.client.notify(messages.DOCUMENT_CLOSE, messages.DocumentCloseParams(uri))

    def edit(self, name: str, start: int, end: int, text: str) -> None:
        uri = f"{self.workspace}/{name}"
        former = self.texts[uri]
        self.texts[uri] = former[:start] + text + former[end:]
        self._versions[uri] += 1
        change = messages.TextChange(start, end, text)
        params = messages.DocumentChangeParams(uri, self._versions[uri], (change,))
        self.client.notify(messages.DOCUMENT_CHANGE, params)

    def complete(self, name: str, offset: int) -> messages.CompletionResult:
        uri = f"{self.workspace}/{name}"
        params = messages.CompletionParams(uri, self._versions[uri], offset, deadline_ms=2_000)
        return self.client.call(messages.COMPLETION, params, PATIENCE_S)

    def has_the_same_mirror(self, name: str) -> bool:
        """Whether the backend's document has the version and length of this one: its end is in it, one more is not."""
        uri = f"{self.workspace}/{name}"
        end = len(self.texts[uri])
        self.complete(name, end)
        try:
            self.complete(name, end + 1)
        except PositionError:
            return True
        return False


@contextlib.contextmanager
def window(endpoint: Endpoint, workspace: str = "file:///attacked") -> Iterator[Window]:
    """A window whose backend is ready."""
    with connected(endpoint) as client:
        client.wait_until_ready(PATIENCE_S)
        yield Window(client, workspace)


def until(condition: Callable[[], bool], seconds: float = 30.0, *, every_s: float = 0.02) -> bool:
    """Poll; returns whether it came true in time."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(every_s)
    return True
