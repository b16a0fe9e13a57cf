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
from pathlib import Path

import torch

_SLOWER = 1.5
_FAR_SLOWER = 4.0
_STRIKES = 3
"""A forward of a team that is so much slower than a single thread's is a strike, a far slower one is three at once.

One slow forward is no proof: a pause for each kept 118 of 150 plain steps in a row on one thread, on a machine with
nothing else to do.
"""

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 8.0
_SPIN_S = 0.005
"""How long a team's other threads spin after a forward, as OpenMP runtimes do by default, before they sleep."""


class ThreadGovernor:
    """Chooses the number of threads per forward from how long forwards took.

    Args:
        max_threads: of a team, torch's current setting by default; with one there is nothing to choose.
        count_runnable: how many threads of the machine run or want to, this one included; ``None`` if unknown.
        count_own: how many of them are this process's.
        num_cores: of the machine.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        max_threads: int | None = None,
        *,
        count_runnable: Callable[[], int | None] | None = None,
        count_own: Callable[[], int] | None = None,
        num_cores: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_threads = torch.get_num_threads() if max_threads is None else max_threads
        self._count_runnable = _count_runnable if count_runnable is None else count_runnable
        self._count_own = _count_own if count_own is None else count_own
        self._num_cores = (os.cpu_count() or 1) if num_cores is None else num_cores
        self._clock = clock
        self._single_s: dict[tuple[int, int], float] = {}
        self._pause_s = _FIRST_PAUSE_S
        self._paused_until = -float("inf")
        self._team_ended_s = -float("inf")
        self._strikes = 0

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
        runnable = self._count_runnable()
        if runnable is None:
            return self._max_threads
        others = 0
        if runnable > 1:
            # A team's other threads still spin after a forward: they are not somebody else's.
            is_spinning = self._clock() - self._team_ended_s < _SPIN_S
            others = max(0, runnable - (self._max_threads if is_spinning else self._count_own()))
        return max(1, min(self._num_cores - others, self._max_threads))

    def observe(self, num_tokens: int, prefix_length: int, num_threads: int, elapsed_s: float) -> None:
        """Learn how long a forward took."""
        size = _size(num_tokens, prefix_length)
        single_s = self._single_s.get(size)
        is_awake = True
        if num_threads > 1:
            is_awake = self._clock() - elapsed_s - self._team_ended_s < _SPIN_S
            self._team_ended_s = self._clock()
        if num_threads == 1:
            self._single_s[size] = elapsed_s if single_s is None else min(single_s, elapsed_s)
        elif single_s is None or elapsed_s <= _SLOWER * single_s:
            self._strikes = 0
            self._pause_s = _FIRST_PAUSE_S
        elif is_awake:  # the first forward after a rest wakes the team's threads, which takes milliseconds
            self._strikes += _STRIKES if elapsed_s > _FAR_SLOWER * single_s else 1
            if self._strikes >= _STRIKES:
                self._strikes = 0
                self._paused_until = self._clock() + self._pause_s
                self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


def _size(num_tokens: int, prefix_length: int) -> tuple[int, int]:
    """Forwards that take about equally long: tokens and prefix rounded up to powers of two."""
    return (num_tokens - 1).bit_length(), prefix_length.bit_length()


def _count_runnable() -> int | None:
    """Linux's count of runnable threads, for about a microsecond."""
    try:
        descriptor = os.open("/proc/loadavg", os.O_RDONLY)
        try:
            runnable, _, _ = os.read(descriptor, 64).split()[3].partition(b"/")
        finally:
            os.close(descriptor)
        return int(runnable)
    except (OSError, IndexError, ValueError):
        return None


def _count_own() -> int:
    """Runnable threads of this process, at least the calling one; some microseconds per thread."""
    count = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            state = (task / "stat").read_bytes().rpartition(b")")[2].split()[0]
        except OSError:
            continue  # it has just ended
        count += state == b"R"
    return max(1, count)
