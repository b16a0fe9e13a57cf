"""Connections without a token are few and short-lived, whatever they send."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from forelook.local import listener as listener_module
from forelook.local.listener import GuardedListener


class Peer(asyncio.Protocol):
    """The server's side of a connection."""

    def __init__(self, open_peers: set[Peer]) -> None:
        self._open_peers = open_peers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.address = transport.get_extra_info("peername")
        self._open_peers.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._open_peers.discard(self)


class Served:
    def __init__(self, listener: GuardedListener, peers: set[Peer]) -> None:
        self.listener, self.peers = listener, peers

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.listener.getsockname()[:2])

    async def authenticated(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.connect()
        address = writer.get_extra_info("sockname")
        await self.until(lambda: any(peer.transport.get_extra_info("peername") == address for peer in self.peers))
        self.listener.authenticated(address)
        return reader, writer

    async def until(self, condition: object) -> None:
        async with asyncio.timeout(10) if hasattr(asyncio, "timeout") else contextlib.nullcontext():
            while not condition():  # type: ignore[operator]  # noqa: ASYNC110 - of many kinds
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(max_opening: int = 4, timeout_s: float = 30.0) -> AsyncIterator[Served]:
    listener = GuardedListener.bind_to("127.0.0.1", 0)
    listener.max_opening, listener.opening_timeout_s = max_opening, timeout_s
    peers: set[Peer] = set()
    server = await asyncio.get_running_loop().create_server(lambda: Peer(peers), sock=listener, backlog=8)
    try:
        yield Served(listener, peers)
    finally:
        server.close()
        for peer in tuple(peers):
            peer.transport.abort()  # type: ignore[attr-defined]


def descriptors() -> list[int]:
    return [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]


async def test_a_connection_without_a_token_ends_in_time_even_if_it_sends() -> None:
    async with serving(timeout_s=1.0) as served:
        reader, writer = await served.connect()
        for _ in range(3):
            writer.write(b"G")
            await asyncio.sleep(0.05)
        assert await asyncio.wait_for(reader.read(), 10.0) == b""
        await served.until(lambda: not served.peers)


async def test_authenticated_connections_stay_and_do_not_count() -> None:
    async with serving(max_opening=4, timeout_s=2.0) as served:  # authenticated within, on a busy machine too
        kept = [await served.authenticated() for _ in range(10)]
        flood = [await served.connect() for _ in range(50)]
        await served.until(lambda: len(served.peers) <= 14)
        await asyncio.sleep(2.2)
        await served.until(lambda: len(served.peers) == 10)
        assert not any(reader.at_eof() for reader, _ in kept)
        assert all([await asyncio.wait_for(reader.read(), 5.0) == b"" for reader, _ in flood])


async def test_the_newest_of_too_many_connections_is_kept() -> None:
    async with serving(max_opening=2) as served:
        streams = [await served.connect() for _ in range(3)]
        first, second, third = [reader for reader, _ in streams]
        assert await asyncio.wait_for(first.read(), 5.0) == b""
        await asyncio.sleep(0.05)
        assert not second.at_eof()
        assert not third.at_eof()


async def test_connections_that_ended_by_themselves_leave_room() -> None:
    async with serving(max_opening=2) as served:
        for _ in range(6):
            _, writer = await served.connect()
            writer.close()
            await served.until(lambda: not served.peers)
        streams = [await served.connect() for _ in range(2)]
        await asyncio.sleep(0.05)
        assert not any(reader.at_eof() for reader, _ in streams)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
async def test_a_flood_within_turns_of_the_loop_holds_few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    accept, flood, counts = GuardedListener.accept, [], []

    def counted(listener: GuardedListener) -> object:
        accepted = accept(listener)
        counts.append(len(descriptors()) - before - len(flood))
        return accepted

    async with serving(max_opening=4) as served:
        monkeypatch.setattr(GuardedListener, "accept", counted)
        before = len(descriptors())
        for _ in range(20):  # the backlog is full each time that the loop takes from it
            for _ in range(8):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(served.listener.getsockname()[:2])
                flood.append(one)
            await asyncio.sleep(0)
        await served.until(lambda: len(served.peers) <= 4)
        for one in flood:
            one.close()
    assert len(counts) > 8
    assert 4 < max(counts) <= 2 * 4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the open files of this process")
async def test_without_a_descriptor_the_oldest_makes_room_and_no_traceback_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    import resource

    async with serving(max_opening=64) as served:
        kept = await served.authenticated()
        waiting = [await served.connect() for _ in range(3)]
        await served.until(lambda: len(served.peers) == 4)
        former = resource.getrlimit(resource.RLIMIT_NOFILE)
        newcomer = socket.socket()
        newcomer.setblocking(False)
        holes = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + 1, former[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    holes.append(socket.socket())
            await asyncio.get_running_loop().sock_connect(newcomer, served.listener.getsockname()[:2])
            assert await asyncio.wait_for(waiting[0][0].read(), 5.0) == b""
            await served.until(lambda: newcomer.getsockname() in [peer.address for peer in served.peers])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, former)
            newcomer.close()
            for hole in holes:
                hole.close()
        assert not any(reader.at_eof() for reader, _ in (kept, waiting[2]))
        assert "no descriptor is left" in caplog.text
        assert "Traceback" not in caplog.text
        assert "out of system resource" not in caplog.text


async def test_a_transport_that_never_closes_does_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "_CLOSING_S", 0.1)
    async with serving(max_opening=2) as served:
        streams = [await served.connect() for _ in range(2)]
        await served.until(lambda: len(served.peers) == 2)
        for peer in served.peers:
            peer.transport.pause_reading()  # type: ignore[attr-defined]  # a paused one does not read its end
        streams += [await served.connect() for _ in range(4)]
        await served.until(lambda: len(served.peers) == 4)
        newest = streams[-1][1].get_extra_info("sockname")
        await served.until(lambda: newest in [peer.address for peer in served.peers])
        assert not streams[-1][0].at_eof()


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="the platform names its options otherwise")
async def test_the_kernel_looks_for_peers_that_are_gone() -> None:
    async with serving() as served:
        streams = await served.connect()
        await served.until(lambda: served.peers)
        (peer,) = served.peers
        connection = peer.transport.get_extra_info("socket")
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
        streams[1].close()
