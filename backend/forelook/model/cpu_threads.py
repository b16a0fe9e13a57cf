"""How many CPU threads a forward uses: as many as there are free cores, and one when a team does not pay.

A forward of a small model joins its threads some forty times a millisecond. When another program takes one core, every
join waits for the thread that is not scheduled: measured with two busy programs on two cores, a step of 16 tokens took
110 ms on two threads and 4 ms on one. So cores that others are using stay theirs, where the system tells (Linux does,
for about 3 µs), and everywhere a team has to keep beating the single thread that it replaces.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_SLOWER = 1.5
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 8.0


class ThreadGovernor:
    """Chooses the number of threads per forward from how long forwards took.

    Args:
        max_threads: of a team, torch's current setting by default; with one there is nothing to choose.
        free_cores: how many cores no other program is using now, this thread's own included; ``None`` if unknown.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        max_threads: int | None = None,
        *,
        free_cores: Callable[[], int | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_threads = torch.get_num_threads() if max_threads is None else max_threads
        self._free_cores = _free_cores if free_cores is None else free_cores
        self._clock = clock
        self._single_s: dict[tuple[int, int], float] = {}
        self._pause_s = _FIRST_PAUSE_S
        self._paused_until = -float("inf")

    @contextmanager
    def forward(self, num_tokens: int, prefix_length: int) -> Iterator[None]:
        """Run one forward with the chosen number of torch's threads, and learn how long it took."""
        num_threads = self.choose(num_tokens, prefix_length)
        start_s = time.perf_counter()
        torch.set_num_threads(num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(self._max_threads)
        self.observe(num_tokens, prefix_length, num_threads, time.perf_counter() - start_s)

    def choose(self, num_tokens: int, prefix_length: int) -> int:
        """Threads for a forward of that many tokens over that long a prefix.

        The first forward of a size is a single thread's: a team is measured against it.
        """
        if self._max_threads == 1 or _size(num_tokens, prefix_length) not in self._single_s:
            return 1
        if self._clock() < self._paused_until:
            return 1
        free = self._free_cores()
        return self._max_threads if free is None else max(1, min(free, self._max_threads))

    def observe(self, num_tokens: int, prefix_length: int, num_threads: int, elapsed_s: float) -> None:
        """Learn how long a forward took."""
        size = _size(num_tokens, prefix_length)
        single_s = self._single_s.get(size)
        if num_threads == 1:
            self._single_s[size] = elapsed_s if single_s is None else min(single_s, elapsed_s)
        elif single_s is None or elapsed_s <= _SLOWER * single_s:
            self._pause_s = _FIRST_PAUSE_S
        else:
            self._paused_until = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


def _size(num_tokens: int, prefix_length: int) -> tuple[int, int]:
    """Forwards that take about equally long: tokens and prefix rounded up to powers of two."""
    return (num_tokens - 1).bit_length(), prefix_length.bit_length()


def _free_cores() -> int | None:
    """Cores without a runnable thread of others, from Linux's count of runnable threads, which includes this one."""
    try:
        descriptor = os.open("/proc/loadavg", os.O_RDONLY)
        try:
            runnable, _, _ = os.read(descriptor, 64).split()[3].partition(b"/")
        finally:
            os.close(descriptor)
        return (os.cpu_count() or 1) - int(runnable) + 1
    except (OSError, IndexError, ValueError):
        return None
