"""How much each key may ask at a time, so that none of them takes the server's memory or attention from the others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from forelook.config import ServerConfig
from forelook.server.http.fields import HttpError


@dataclass(slots=True)
class _Usage:
    """What one key does: its requests and their bytes, and how many more it may send at once."""

    num_requests: int
    num_bytes: int
    allowance: float
    counted_s: float


class KeyLimits:
    """Counts the requests of each key.

    Args:
        config: the limits.
        clock: monotonic seconds.
    """

    def __init__(self, config: ServerConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._usage: dict[str, _Usage] = {}  # as many as there are keys

    @contextlib.contextmanager
    def admitting(self, principal: str) -> Iterator[_Usage]:
        """Count a request while the context lasts.

        Raises:
            HttpError: the key asks for too much; with the time after which to ask again.
        """
        config, now_s = self._config, self._clock()
        usage = self._usage.setdefault(principal, _Usage(0, 0, float(config.http_burst), now_s))
        usage.allowance += (now_s - usage.counted_s) * config.http_rate
        usage.allowance, usage.counted_s = min(usage.allowance, float(config.http_burst)), now_s
        if usage.num_requests >= config.http_max_pending:
            message = f"{config.http_max_pending} requests of this key wait already; send fewer at a time"
            raise HttpError(429, message, retry_after_s=1.0)
        if usage.allowance < 1.0:
            message = f"this key sends more than {config.http_rate:g} requests per second; send fewer"
            raise HttpError(429, message, retry_after_s=(1.0 - usage.allowance) / config.http_rate)
        usage.allowance -= 1.0
        usage.num_requests += 1
        try:
            yield usage
        finally:
            usage.num_requests -= 1

    @contextlib.contextmanager
    def holding(self, usage: _Usage, num_bytes: int) -> Iterator[None]:
        """Count the bytes of a request while the context lasts.

        Raises:
            HttpError: the requests of the key take too much memory.
        """
        if usage.num_bytes + num_bytes > self._config.http_max_waiting_bytes:
            message = f"the waiting requests of this key exceed {self._config.http_max_waiting_bytes} bytes"
            raise HttpError(429, f"{message}; send fewer at a time", retry_after_s=1.0)
        usage.num_bytes += num_bytes
        try:
            yield
        finally:
            usage.num_bytes -= num_bytes
