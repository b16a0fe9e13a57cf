"""A TCP listener whose unauthenticated connections are few and short-lived.

Any process on the machine, or on the network, can connect before it sends a token. Until then a connection costs one
descriptor, for seconds; it never takes the place of an authenticated one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

logger = logging.getLogger(__name__)

# Chosen, not measured.
OPENING_TIMEOUT_S = 5.0  # from the connection to its accepted opening request
MAX_OPENING = 64
BACKLOG = 64  # asyncio accepts this many before it does anything else
_CLOSING_S = 1.0  # a transport that has not closed by then may never do so, and must not keep others out
_KEEP_ALIVE_S = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15}
_KEEP_ALIVE_PROBES = 4

# What the kernel says when this process, or the machine, has no descriptor or memory for a connection.
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Opening:
    """A connection that has not been authenticated yet."""

    connection: socket.socket
    timer: asyncio.TimerHandle


class GuardedListener(socket.socket):
    """A listening socket for asyncio, which calls ``accept`` on its event loop.

    Attributes:
        opening_timeout_s: time that a connection has to be authenticated.
        max_opening: limit of unauthenticated connections; beyond it the oldest is closed, which in a flood is never
            that of a client that sends its request at once. As many again may be shut down and not closed yet, so
            that connections without a token hold at most twice as many descriptors.
    """

    opening_timeout_s = OPENING_TIMEOUT_S
    max_opening = MAX_OPENING

    def __init__(self, family: int, kind: int, number: int) -> None:
        super().__init__(family, kind, number)
        self._by_peer: dict[_Address, _Opening] = {}  # the oldest first
        self._ending: list[tuple[float, socket.socket]] = []  # until when each counts, though it is not closed

    @classmethod
    def bind_to(cls, host: str, port: int) -> GuardedListener:
        """A listener on ``host``; port 0 chooses a free one.

        Raises:
            OSError: the address cannot be bound.
        """
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = cls(family, kind, number)
        try:
            if sys.platform != "win32":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
        return listener

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection and give it its time.

        Raises:
            BlockingIOError: too many connections are shut down and not closed yet. asyncio closes some and asks again
                in its next turn; until then the new ones wait in the kernel's backlog.
            OSError: as ``socket.accept`` does.
        """
        opening = self._opening()
        now_s = time.monotonic()
        self._ending = [(until_s, one) for until_s, one in self._ending if one.fileno() >= 0 and now_s < until_s]
        if len(self._ending) >= self.max_opening:
            raise BlockingIOError
        try:
            connection, address = super().accept()
        except OSError as error:
            if error.errno not in _OUT_OF_RESOURCES or not (opening or self._ending):
                raise
            # Room can be made: asyncio, left with the error, would log a traceback and accept nobody for a second.
            if not self._ending:
                self._end_oldest("no descriptor is left")
            raise BlockingIOError from error
        _detect_dead_peers(connection)
        while len(opening) >= self.max_opening:
            self._end_oldest(f"{self.max_opening} others are open")
        peer: _Address = address[:2]
        timer = asyncio.get_running_loop().call_later(self.opening_timeout_s, self._expire, peer, connection)
        opening[peer] = _Opening(connection, timer)
        return connection, address

    def authenticated(self, peer: Sequence[object] | None) -> None:
        """The connection from ``peer`` has shown its token: it stays.

        Args:
            peer: host and port; further elements are ignored.
        """
        if peer is not None and (found := self._opening().pop((str(peer[0]), int(str(peer[1]))), None)) is not None:
            found.timer.cancel()

    def _opening(self) -> dict[_Address, _Opening]:
        """The unauthenticated connections that are still open."""
        for peer in [peer for peer, one in self._by_peer.items() if one.connection.fileno() < 0]:
            self._by_peer.pop(peer).timer.cancel()
        return self._by_peer

    def _end_oldest(self, reason: str) -> None:
        oldest, one = next(iter(self._by_peer.items()))
        logger.warning("closed an unauthenticated connection: %s", reason)
        self._end(oldest, one.connection)

    def _expire(self, peer: _Address, connection: socket.socket) -> None:
        if connection.fileno() >= 0:
            logger.warning("closed a connection that was not authenticated within %g s", self.opening_timeout_s)
        self._end(peer, connection)

    def _end(self, peer: _Address, connection: socket.socket) -> None:
        opening = self._opening()
        if (found := opening.get(peer)) is not None and found.connection is connection:
            opening.pop(peer).timer.cancel()
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # its transport reads the end, and closes it
            self._ending.append((time.monotonic() + _CLOSING_S, connection))


def _detect_dead_peers(connection: socket.socket) -> None:
    """Let the kernel end a connection whose other machine is gone."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, seconds in _KEEP_ALIVE_S.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
        if hasattr(socket, "TCP_KEEPCNT"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEP_ALIVE_PROBES)
