"""No holder of a token takes the connections of the others."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from forelook.config import ServerConfig
from forelook.local.access import AccessPolicy
from websockets.exceptions import InvalidStatus

from tests.server.harness import Client, running

GREEDY, OTHER = "g" * 64, "o" * 64
POLICY = AccessPolicy(tokens=(GREEDY, OTHER))


@pytest.mark.parametrize("in_use", [False, True])
async def test_61_connections_of_one_token_do_not_lock_the_others_out(tmp_path: Path, in_use: bool) -> None:
    config = ServerConfig(idle_timeout_s=None)
    async with running(tmp_path, config, POLICY, tcp=True) as server, contextlib.AsyncExitStack() as stack:

        async def connect(token: str) -> Client:
            websocket = await stack.enter_async_context(server.websocket({"Authorization": f"Bearer {token}"}))
            client = Client(websocket)
            await client.hello()
            return client

        others = [await connect(OTHER)]
        for number in range(61):
            with contextlib.suppress(InvalidStatus):
                greedy = await connect(GREEDY)
                if in_use:
                    await greedy.open("x", uri=f"file:///{number}")
                    await greedy.result("status")
        others += [await connect(OTHER) for _ in range(10)]
        for number, client in enumerate(others):
            await client.open("ab", uri=f"file:///{number}")
            assert await client.complete(uri=f"file:///{number}") == "2@0"
        await asyncio.gather(*(client.close() for client in others))
