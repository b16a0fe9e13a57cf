"""An LSP client in raw JSON, and the real server as a subprocess: for benchmarks, the demo and the tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import lsp_frames

TIMEOUT_S = 30.0


class ResponseError(Exception):
    """The server answered with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data = error.get("data")


class LspClient:
    """Requests, notifications, and everything the server says, in order."""

    def __init__(self, send: Callable[[str], Any]) -> None:
        self._send = send
        self._next_id = 1
        self._pending: dict[int | str, asyncio.Future[Any]] = {}
        self._arrived = asyncio.Condition()
        self.received: list[dict[str, Any]] = []
        self.orphans: list[dict[str, Any]] = []  # answers with no id
        self.configuration: object = None
        self.capabilities: dict[str, Any] = {}
        self.ended = False

    # --- Sending ---------------------------------------------------------------------------------------------

    async def send(self, message: Mapping[str, Any] | str) -> None:
        result = self._send(message if isinstance(message, str) else json.dumps(message))
        if result is not None:
            await result

    async def notify(self, method: str, params: object = None) -> None:
        await self.send({"jsonrpc": "2.0", "method": method, "params": params})

    async def start_request(self, method: str, params: object = None) -> tuple[int, asyncio.Future[Any]]:
        request_id = self._next_id
        self._next_id += 1
        future = asyncio.get_running_loop().create_future()
        self._pending[request_id] = future
        await self.send({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        return request_id, future

    async def request(self, method: str, params: object = None) -> Any:
        _, future = await self.start_request(method, params)
        return await asyncio.wait_for(future, TIMEOUT_S)

    async def cancel(self, request_id: int) -> None:
        await self.notify("$/cancelRequest", {"id": request_id})

    # --- Receiving -------------------------------------------------------------------------------------------

    async def received_message(self, message: dict[str, Any]) -> None:
        if "method" in message and "id" in message:
            await self.send({"jsonrpc": "2.0", "id": message["id"], "result": self._answer(message)})
        async with self._arrived:
            if "method" in message:
                self.received.append(message)
            elif message.get("id") in self._pending:
                future = self._pending.pop(message["id"])
                if "error" in message:
                    future.set_exception(ResponseError(message["error"]))
                    future.exception()
                else:
                    future.set_result(message["result"])
            else:
                self.orphans.append(message)
            self._arrived.notify_all()

    def _answer(self, message: dict[str, Any]) -> object:
        if message["method"] == "workspace/configuration":
            return [self.configuration for _ in message["params"]["items"]]
        return None

    async def end(self) -> None:
        async with self._arrived:
            self.ended = True
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(ConnectionError("the server closed the connection"))
                    future.exception()
            self._arrived.notify_all()

    async def wait_until(self, condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
        """Wait until ``condition``, checked after every message, is true.

        Raises:
            ConnectionError: the connection ended first.
            TimeoutError: it did not come true in time.
        """
        async with self._arrived:
            await asyncio.wait_for(self._arrived.wait_for(lambda: condition() or self.ended), timeout_s)
        if not condition():
            raise ConnectionError("the connection ended before the awaited condition")

    def params_of(self, method: str) -> list[Any]:
        return [message["params"] for message in self.received if message["method"] == method]

    async def wait_for_status(self, *states: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Wait until the last status is one of ``states`` and return it."""

        def last() -> dict[str, Any]:
            return (self.params_of("forelook/status") or [{}])[-1]

        await self.wait_until(lambda: last().get("state") in states, timeout_s)
        return last()

    # --- What an editor does ---------------------------------------------------------------------------------

    async def initialize(
        self,
        *,
        encodings: list[str] | None = None,
        options: object = None,
        folder: Path | None = None,
        capabilities: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        merged: dict[str, Any] = {**(capabilities or {})}
        if encodings is not None:
            merged["general"] = {"positionEncodings": encodings}
        folders = [{"uri": folder.as_uri(), "name": folder.name}] if folder is not None else None
        result = await self.request(
            "initialize",
            {
                "processId": None,
                "rootUri": folder.as_uri() if folder is not None else None,
                "capabilities": merged,
                # The offer of a larger model would rate the models meanwhile.
                "initializationOptions": {"modelOffer": False, **options} if isinstance(options, dict) else options,
                "workspaceFolders": folders,
            },
        )
        self.capabilities = result["capabilities"]
        await self.notify("initialized", {})
        return result

    async def open(self, uri: str, text: str, *, version: int = 1, language_id: str = "python") -> None:
        document = {"uri": uri, "languageId": language_id, "version": version, "text": text}
        await self.notify("textDocument/didOpen", {"textDocument": document})

    async def change(self, uri: str, version: int, *changes: dict[str, Any]) -> None:
        await self.notify(
            "textDocument/didChange",
            {"textDocument": {"uri": uri, "version": version}, "contentChanges": list(changes)},
        )

    async def type_text(self, uri: str, version: int, line: int, character: int, text: str) -> None:
        await self.change(uri, version, {"range": range_of(line, character, line, character), "text": text})

    async def close(self, uri: str) -> None:
        await self.notify("textDocument/didClose", {"textDocument": {"uri": uri}})

    async def complete(self, uri: str, line: int, character: int, **extra: Any) -> list[dict[str, Any]]:
        result = await self.request("textDocument/inlineCompletion", completion_params(uri, line, character, **extra))
        assert isinstance(result, dict), f"the answer is {result!r}, not a list with items"
        assert isinstance(result["items"], list)
        return result["items"]

    async def start_complete(
        self, uri: str, line: int, character: int, **extra: Any
    ) -> tuple[int, asyncio.Future[Any]]:
        return await self.start_request(
            "textDocument/inlineCompletion", completion_params(uri, line, character, **extra)
        )


def range_of(start_line: int, start: int, end_line: int, end: int) -> dict[str, Any]:
    return {"start": {"line": start_line, "character": start}, "end": {"line": end_line, "character": end}}


def completion_params(
    uri: str,
    line: int,
    character: int,
    *,
    trigger: int | None = 2,
    selected: dict[str, Any] | None = None,
    version: int | None = None,
) -> dict[str, Any]:
    document: dict[str, Any] = {"uri": uri}
    if version is not None:
        document["version"] = version
    params: dict[str, Any] = {"textDocument": document, "position": {"line": line, "character": character}}
    if trigger is not None:
        params["context"] = {"triggerKind": trigger}
        if selected is not None:
            params["context"]["selectedCompletionInfo"] = selected
    return params


class StdioServer:
    """The real server as a subprocess."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdin is not None
        self._stdin = process.stdin
        self.client = LspClient(self._send)
        self.errors = b""
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._read_errors())]

    async def _send(self, message: str) -> None:
        await self.send_bytes(lsp_frames.encode(message))

    async def send_bytes(self, data: bytes) -> None:
        self._stdin.write(data)
        await self._stdin.drain()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(asyncio.IncompleteReadError):
            while (message := await lsp_frames.read_async(self.process.stdout)) is not None:
                await self.client.received_message(message)
        await self.client.end()

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        while chunk := await self.process.stderr.read(65_536):
            self.errors += chunk

    def close_stdin(self) -> None:
        self._stdin.close()

    async def wait(self) -> int:
        code = await asyncio.wait_for(self.process.wait(), TIMEOUT_S)
        await asyncio.gather(*self._tasks)
        return code


async def start_process(
    environment: Mapping[str, str], arguments: Sequence[str], stdin: int | None = None
) -> asyncio.subprocess.Process:
    """Start the language server with pipes for its output."""
    pipe, command = asyncio.subprocess.PIPE, [sys.executable, "-m", "forelook_lsp", *arguments]
    return await asyncio.create_subprocess_exec(
        *command, stdin=stdin, stdout=pipe, stderr=pipe, env=dict(environment), limit=2**26
    )


@contextlib.asynccontextmanager
async def stdio_server(environment: Mapping[str, str], *arguments: str) -> AsyncIterator[StdioServer]:
    process = await start_process(environment, arguments, asyncio.subprocess.PIPE)
    server = StdioServer(process)
    try:
        yield server
    finally:
        if process.returncode is None:
            process.kill()
        await server.wait()
