"""Messages on their way to one client."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from forelook.local.outbox import Outbox


class Client:
    """Receives while its gate is open."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.gate = asyncio.Event()

    async def send(self, text: str) -> None:
        await self.gate.wait()
        self.received.append(text)


async def test_messages_arrive_in_order_and_of_a_series_only_the_newest() -> None:
    client, sent = Client(), []
    outbox = Outbox(client.send)
    outbox.post("1", on_sent=lambda: sent.append("1"))
    outbox.post("loading 10 %", series="status")
    outbox.post("2")
    outbox.post("loading 20 %", series="status")
    running = asyncio.create_task(outbox.run())
    client.gate.set()
    await outbox.flush()
    assert client.received == ["1", "loading 20 %", "2"]
    assert sent == ["1"]
    running.cancel()


async def test_a_client_that_does_not_read_overflows_and_is_sent_nothing_more() -> None:
    client = Client()
    outbox = Outbox(client.send, max_waiting_chars=10)
    running = asyncio.create_task(outbox.run())
    outbox.post("x" * 10)
    assert not outbox.overflowed.is_set()
    outbox.post("y")
    assert outbox.overflowed.is_set()
    client.gate.set()
    await outbox.flush()
    assert client.received == ["x" * 10]
    running.cancel()


async def test_what_was_sent_makes_room() -> None:
    client = Client()
    client.gate.set()
    outbox = Outbox(client.send, max_waiting_chars=10)
    running = asyncio.create_task(outbox.run())
    for _ in range(5):
        outbox.post("x" * 10)
        await outbox.flush()
    assert not outbox.overflowed.is_set()
    assert len(client.received) == 5
    running.cancel()


async def test_flushing_ends_when_sending_fails() -> None:
    async def fail(text: str) -> None:
        del text
        raise ConnectionResetError

    outbox = Outbox(fail)
    outbox.post("1")
    outbox.post("2")
    running = asyncio.create_task(outbox.run())
    await asyncio.wait_for(outbox.flush(), 5)
    with pytest.raises(ConnectionResetError):
        await running


async def test_flushing_ends_when_the_sender_is_cancelled() -> None:
    outbox = Outbox(Client().send)
    running = asyncio.create_task(outbox.run())
    outbox.post("never sent")
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait_for(outbox.flush(), 5)
    with contextlib.suppress(asyncio.CancelledError):
        await running
