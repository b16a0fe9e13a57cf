"""Rows of conformance: one case each, run over stdio and over websocket."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from bench.lsp_client import LspClient

from tests.lsp.fake_backend import FakeBackend

CANCELLED = -32800
INVALID_REQUEST = -32600
INVALID_PARAMS = -32602
METHOD_NOT_FOUND = -32601
NOT_INITIALIZED = -32002
PARSE_ERROR = -32700

Case = Callable[[LspClient, FakeBackend], Awaitable[None]]
Connected = Callable[[str], contextlib.AbstractAsyncContextManager[LspClient]]


@dataclass(frozen=True)
class Row:
    """One case, and the params of its editor's ``initialize``; ``None`` means that there is none."""

    case: Case
    initialize: dict[str, Any] | None

    async def run(self, transport: str, connected: Connected, backend: FakeBackend) -> None:
        async with connected(transport) as editor:
            if self.initialize is not None:
                await editor.initialize(**self.initialize)
                await editor.wait_for_status("ready")
            await self.case(editor, backend)


class Rows:
    """The rows of one module; an instance is the decorator that adds one."""

    def __init__(self) -> None:
        self._by_name: dict[str, Row] = {}

    def __call__(self, name: str, initialize: dict[str, Any] | None = {}) -> Callable[[Case], Case]:  # noqa: B006 - never changed
        def add(case: Case) -> Case:
            assert name not in self._by_name
            self._by_name[name] = Row(case, initialize)
            return case

        return add

    def params(self) -> list[Any]:
        return [
            pytest.param(transport, row, id=f"{transport}: {name}")
            for transport in ("stdio", "websocket")
            for name, row in self._by_name.items()
        ]
