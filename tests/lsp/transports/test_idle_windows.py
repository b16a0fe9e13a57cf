"""When all connections are taken, the window that is idle for longest makes room, and none that is in use."""

from __future__ import annotations

import contextlib
import json

import pytest
from forelook_lsp.transports import websocket
from forelook_lsp.transports.websocket import Listen
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.lsp.direct import find

TOKEN = "t" * 64
INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"capabilities": {}, "processId": None}}


@pytest.mark.parametrize(("idle_s", "is_idle"), [(0.0, True), (60.0, False)])
async def test_the_oldest_idle_window_makes_room(monkeypatch: pytest.MonkeyPatch, idle_s: float, is_idle: bool) -> None:
    monkeypatch.setattr(websocket, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(websocket, "IDLE_CONNECTION_S", idle_s)
    async with websocket.listening(find, Listen("127.0.0.1", 0, TOKEN)) as server, contextlib.AsyncExitStack() as stack:
        port = server.sockets[0].getsockname()[1]

        async def window() -> ClientConnection:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            opening = connect(f"ws://127.0.0.1:{port}", additional_headers=headers, proxy=None)
            return await stack.enter_async_context(opening)

        async def answers(one: ClientConnection) -> None:
            await one.send(json.dumps(INITIALIZE))
            while json.loads(await one.recv()).get("id") != 1:
                pass

        first, second = await window(), await window()
        await answers(second)
        await answers(first)
        if is_idle:
            third = await window()
            await second.wait_closed()
            await answers(third)
        else:
            with pytest.raises(InvalidStatus):
                await window()
        await first.ping()
