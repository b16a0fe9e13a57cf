"""A cancelled answer ends, however close the cancellation comes to the end of a send."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from forelook.server.http import exchange as exchange_module
from forelook.server.http.exchange import ClientGoneError, Exchange
from starlette.types import Message

SCOPE = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}


async def _receive() -> Message:
    return {"type": "http.request", "body": b"{}", "more_body": False}


def _exchange(send: Any) -> Exchange:
    return Exchange(SCOPE, _receive, send, max_bytes=100, timeout_s=1.0)


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancellation_at_any_turn_of_the_loop_ends_the_stream(turns: int) -> None:
    """One that came as a send ended was once dropped: the model then wrote to its limit for nobody."""
    is_written = asyncio.Event()

    async def send(_message: Message) -> None:
        await is_written.wait()

    async def stream() -> None:
        while True:
            await _exchange(send).piece(b"text")
            await asyncio.sleep(0)

    streaming = asyncio.create_task(stream())
    await asyncio.sleep(0.01)
    is_written.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    streaming.cancel()
    await asyncio.wait({streaming}, timeout=10.0)
    was_cancelled = streaming.cancelled()
    while not streaming.done():  # so that a failure is one, and no test that hangs
        streaming.cancel()
        await asyncio.wait({streaming}, timeout=0.01)
    assert was_cancelled


async def test_a_client_that_does_not_read_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "_SEND_TIMEOUT_S", 0.01)

    async def never(_message: Message) -> None:
        await asyncio.Event().wait()

    with pytest.raises(ClientGoneError):
        await _exchange(never).piece(b"text")
