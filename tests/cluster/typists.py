"""People who type: real editor windows of the language server, without an editor."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forelook.errors import BackendUnreachableError, ForelookError
from forelook.local.endpoint import Endpoint
from forelook.protocol import messages
from forelook_lsp.window import EditorWindow

PAUSE_S = 0.15
WORDS = ("total", "width", "height", "index", "result", "value", "name", "count", "first", "second")


class Progress:
    """A progress bar that nobody sees."""

    def report(self, share: float | None, message: str) -> None: ...

    def end(self, message: str) -> None: ...


class Editor:
    """Shows nothing."""

    def show_status(self, snapshot: object) -> None: ...

    def show_progress(self, title: str) -> Progress:
        return Progress()

    def log(self, message: str, *, is_error: bool) -> None: ...

    def tell(self, message: str) -> None: ...


@dataclass
class Record:
    """What happened to one typist.

    Attributes:
        connected, lost, moved: times in monotonic seconds.
        pids: the replicas that answered ``hello``.
        answered: times of answers of the backend.
        failed: times of requests that a lost connection ended.
    """

    connected: list[float] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)


class RecordingWindow(EditorWindow):
    """A window that notes what its connection does."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(Editor(), lambda _config: endpoint)
        self.record = Record()
        ask = self.backend.request

        def request(method: Any, params: Any, *, request_id: int | None = None) -> asyncio.Future[Any]:
            future = ask(method, params, request_id=request_id)
            if method is messages.COMPLETION:
                future.add_done_callback(self._note)
            return future

        self.backend.request = request  # type: ignore[method-assign]

    def _note(self, done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            return
        times = self.record.failed if isinstance(done.exception(), BackendUnreachableError) else self.record.answered
        times.append(time.monotonic())

    def backend_connected(self, hello: messages.HelloResult) -> None:
        self.record.connected.append(time.monotonic())
        self.record.pids.append(hello.pid)
        super().backend_connected(hello)

    def backend_moved(self, hello: messages.HelloResult) -> None:
        self.record.moved.append(time.monotonic())
        super().backend_moved(hello)

    def backend_lost(self, error: ForelookError | None) -> None:
        self.record.lost.append(time.monotonic())
        super().backend_lost(error)


class Typist:
    """Types endless code into one document of a workspace, and asks after each key, as an editor does.

    Args:
        number: which of the typists.
        folder: of the workspace.
        endpoint: of the cluster.
    """

    def __init__(self, number: int, folder: Path, endpoint: Endpoint) -> None:
        self.folder = folder / f"project_{number}"
        self.folder.mkdir()
        self.uri = (self.folder / "work.py").as_uri()
        self.window = RecordingWindow(endpoint)
        self.window.configure({"deadlineMs": 5000, "delayMs": 0, "indexWorkspace": False, "modelOffer": False})
        self.window.set_folders([self.folder.as_uri()])
        self._keys = _keys(number)
        self._line, self._character, self._version = 0, 0, 1
        self.text = ""
        self.probing = True
        self._is_typing = True
        self._task: asyncio.Task[None] | None = None

    @property
    def record(self) -> Record:
        return self.window.record

    def start(self) -> None:
        self.window.documents.open(self.uri, "python", 1, "")
        self.window.start()
        self._task = asyncio.create_task(self._type())

    async def _type(self) -> None:
        while self._is_typing:
            await self.press(next(self._keys))
            await asyncio.sleep(PAUSE_S)

    async def press(self, key: str) -> None:
        self._version += 1
        where = (self._line, self._character, self._line, self._character)
        self.window.documents.change(self.uri, self._version, [(*where, key)])
        self.text += key
        self._line, self._character = (self._line + 1, 0) if key == "\n" else (self._line, self._character + 1)
        with contextlib.suppress(asyncio.CancelledError):
            await self.window.suggest(self.uri, self._line, self._character, invoked=False)

    async def stop_typing(self) -> None:
        self._is_typing = False
        assert self._task is not None
        await self._task

    async def asked_directly(self) -> str:
        """What the backend suggests for its own copy of the document, at the end of this one."""
        document = self.window.mirror.documents[self.uri]
        params = messages.CompletionParams(
            self.uri, document.version, len(self.text), trigger=messages.TriggerKind.INVOKED, deadline_ms=20_000
        )
        result = await self.window.backend.request(messages.COMPLETION, params)
        return result.suggestions[0].text if result.suggestions else ""

    async def answer_s(self) -> float:
        """Ask the backend for its status, and again while there is no connection; when it has answered."""
        while True:
            with contextlib.suppress(BackendUnreachableError):
                await self.window.backend.request(messages.STATUS, messages.Empty())
                return time.monotonic()
            await asyncio.sleep(0.02)

    async def longest_gap(self) -> float:
        """The longest time between two answers of the backend, until ``probing`` ends."""
        longest, last_s = 0.0, time.monotonic()
        while self.probing:
            await asyncio.sleep(0.05)
            answered_s = await self.answer_s()
            longest, last_s = max(longest, answered_s - last_s), answered_s
        return longest

    async def close(self) -> None:
        await self.window.close()


def _keys(number: int) -> Iterator[str]:
    """Functions whose names are this typist's alone."""
    function = 0
    while True:
        function += 1
        first, second = (WORDS[(number + step * function) % len(WORDS)] for step in (1, 3))
        yield from f"def {first}_of_{number}({first}, {second}_{number}):\n"
        yield from f"    {first} = {first} + {second}_{number}\n    return {first}\n\n"
