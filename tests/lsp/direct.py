"""A language server without a transport, and an editor's end of its connection."""

from __future__ import annotations

import json
from typing import Any

from forelook.errors import BackendUnreachableError
from forelook_lsp.server import ForelookServer


class Wire:
    """An editor's end of the connection."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []

    def write(self, data: bytes) -> None:
        self.answers.append(json.loads(data))


def find(*_: object) -> Any:
    raise BackendUnreachableError("none in this test")


def start() -> tuple[ForelookServer, Wire]:
    server, wire = ForelookServer(find), Wire()
    server.protocol.set_writer(wire, include_headers=False)  # type: ignore[arg-type]
    receive(server, {"id": 0, "method": "initialize", "params": {"capabilities": {}, "processId": None}})
    receive(server, {"method": "initialized", "params": {}})
    return server, wire


def receive(server: ForelookServer, message: dict[str, Any]) -> None:
    server.protocol.receive(json.dumps({"jsonrpc": "2.0", **message}))


def open_document(server: ForelookServer, uri: str, text: str) -> None:
    document = {"uri": uri, "languageId": "python", "version": 1, "text": text}
    receive(server, {"method": "textDocument/didOpen", "params": {"textDocument": document}})
