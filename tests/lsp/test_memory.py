"""The memory of a real language server: what closed documents took is the system's again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import psutil
from bench.lsp_client import LspClient, StdioServer
from forelook_lsp.launch import backend_finder
from forelook_lsp.server import ForelookServer

from tests.lsp.conftest import URI, execute
from tests.lsp.fake_backend import FakeBackend

NUM_DOCUMENTS = 240
LINE = "def convert_{0}_{1}(value, unit, digits=3):\n    return round(value * FACTORS[unit], digits) + {1}\n\n\n"


async def open_and_close(editor: LspClient, texts: list[str], process: psutil.Process) -> int:
    """Open documents, ask in some, close them; returns the resident memory while all were open."""
    uris = [f"file:///home/ada/project/{number}.py" for number in range(len(texts))]
    for number, (uri, text) in enumerate(zip(uris, texts, strict=True)):
        await editor.open(uri, text)
        if number % 20 == 0:
            await editor.complete(uri, 0, 0)
    await execute(editor, "forelook.stats")
    num_bytes = process.memory_info().rss
    for uri in uris:
        await editor.close(uri)
    await execute(editor, "forelook.stats")
    return int(num_bytes)


async def test_memory_is_returned_after_240_documents_were_closed(server: StdioServer, backend: FakeBackend) -> None:
    editor, process = server.client, psutil.Process(server.process.pid)
    await editor.initialize()
    await editor.wait_for_status("ready")
    texts = ["".join(LINE.format(number, line) for line in range(1000)) for number in range(NUM_DOCUMENTS)]
    await open_and_close(editor, texts[:20], process)  # everything is imported now
    before = process.memory_info().rss
    for _ in range(2):
        peak = await open_and_close(editor, texts, process)
        assert peak > before + 20e6, "the documents were open"
        for _ in range(100):
            await asyncio.sleep(0.2)
            if (after := process.memory_info().rss) < before + 0.3 * (peak - before):
                break
        print(f"{before / 2**20:.0f} MiB, open {peak / 2**20:.0f} MiB, closed {after / 2**20:.0f} MiB")
        assert after < before + 0.3 * (peak - before)


class Nowhere:
    """A stream that keeps nothing."""

    def write(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        pass


async def test_keys_leave_nothing_behind(tmp_path: Path) -> None:
    protocol = ForelookServer(backend_finder({}, tmp_path, None)).protocol
    protocol.set_writer(Nowhere())

    def receive(method: str, params: object, **extra: int) -> None:
        protocol.receive(json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **extra}))

    receive("initialize", {"processId": None, "rootUri": None, "capabilities": {}}, id=1)
    document = {"uri": URI, "version": 1}
    receive("textDocument/didOpen", {"textDocument": {**document, "languageId": "python", "text": "x"}})
    for _ in range(100):
        receive("textDocument/didChange", {"textDocument": document, "contentChanges": [{"text": "y"}]})
    await asyncio.sleep(0)
    assert not protocol._request_futures
