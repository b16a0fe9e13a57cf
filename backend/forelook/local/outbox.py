"""Messages waiting to be sent to one client, in order; of a series only the newest waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

MAX_WAITING_CHARS = 2 * 2**20  # chosen, not measured: many times the longest answer


@dataclass(slots=True)
class _Item:
    text: str
    series: Hashable | None
    on_sent: Callable[[], None] | None


class Outbox:
    """Sends from one task, so that a slow client delays only itself.

    Attributes:
        overflowed: set once more than ``max_waiting_chars`` wait; nothing is queued from then on.

    Args:
        send: sends one message.
        max_waiting_chars: bound for the messages that wait.
    """

    def __init__(self, send: Callable[[str], Awaitable[None]], max_waiting_chars: int = MAX_WAITING_CHARS) -> None:
        self._send = send
        self._max_waiting_chars = max_waiting_chars
        self._items: deque[_Item] = deque()
        self._by_series: dict[Hashable, _Item] = {}
        self._num_waiting_chars = 0
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self.overflowed = asyncio.Event()

    def post(self, text: str, *, series: Hashable | None = None, on_sent: Callable[[], None] | None = None) -> None:
        """Queue one message.

        Args:
            text: the message.
            series: the message replaces one of the same series that still waits.
            on_sent: called once the message has been sent.
        """
        waiting = self._by_series.get(series) if series is not None else None
        self._num_waiting_chars += len(text) - (len(waiting.text) if waiting else 0)
        if self._num_waiting_chars > self._max_waiting_chars:
            self.overflowed.set()
            return
        if waiting is not None:
            waiting.text = text
            return
        item = _Item(text, series, on_sent)
        self._items.append(item)
        if series is not None:
            self._by_series[series] = item
        self._drained.clear()
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled, or until sending fails."""
        try:
            while True:
                while self._items:
                    item = self._items.popleft()
                    if item.series is not None:
                        del self._by_series[item.series]
                    await self._send(item.text)
                    self._num_waiting_chars -= len(item.text)
                    if item.on_sent is not None:
                        item.on_sent()
                self._drained.set()
                self._wake.clear()
                await self._wake.wait()
        finally:
            self._drained.set()  # what still waits is never sent

    async def flush(self) -> None:
        """Wait until every message has been sent, or :meth:`run` has ended."""
        await self._drained.wait()
