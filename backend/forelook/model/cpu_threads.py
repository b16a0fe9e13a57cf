"""Chooses how many CPU threads a forward uses: as many as there are idle cores, or one if more are slower.

A forward of a small model joins its threads about 40 times per millisecond. If another program occupies a core, every
join waits for the thread that is not scheduled. Measured with two busy programs on two cores: a step of 16 tokens took
110 ms on two threads and 4 ms on one. So a forward does not use cores that other programs use, where the system reports
that (Linux does, in about 3 µs), and several threads must keep beating the single thread that they replace.
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
"""Several threads that are this many times slower than one are a strike, far slower ones are three strikes.

One slow forward proves nothing. Measured on an idle machine: with a pause after each, 118 of 150 consecutive steps ran
on one thread.
"""

_MAX_REFERENCE_TOKENS = 16
"""Longer forwards have a reference only if a single thread happened to run one. Chosen, not measured."""

# Pauses between attempts with several threads. Chosen, not measured.
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 8.0
_SPIN_S = 0.005
"""How long idle OpenMP threads spin after a forward before they sleep, by the runtimes' defaults."""


class ThreadGovernor:
    """Chooses the number of threads per forward from measured durations.

    Args:
        max_threads: torch's current setting by default; with 1 there is nothing to choose.
        count_runnable: number of runnable threads of the machine, including this one; ``None`` if unknown.
        count_own: how many of them belong to this process.
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
        """Run one forward with the chosen number of torch threads, and record its duration."""
        num_threads = self.choose(num_tokens, prefix_length)
        start_s = time.perf_counter()
        torch.set_num_threads(num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(self._max_threads)
        self.observe(num_tokens, prefix_length, num_threads, time.perf_counter() - start_s)

    def choose(self, num_tokens: int, prefix_length: int) -> int:
        """Number of threads for a forward of ``num_tokens`` after a prefix.

        The first step of each size uses one thread, as the reference; a prefill does not, which would take seconds.
        """
        has_reference = num_tokens > _MAX_REFERENCE_TOKENS or _size(num_tokens, prefix_length) in self._single_s
        if self._max_threads == 1 or not has_reference:
            return 1
        if self._clock() < self._paused_until:
            return 1
        runnable = self._count_runnable()
        if runnable is None:
            return self._max_threads
        others = 0
        if runnable > 1:
            # Our own threads still spin after a forward; do not count them as other programs'.
            is_spinning = self._clock() - self._team_ended_s < _SPIN_S
            others = max(0, runnable - (self._max_threads if is_spinning else self._count_own()))
        return max(1, min(self._num_cores - others, self._max_threads))

    def observe(self, num_tokens: int, prefix_length: int, num_threads: int, elapsed_s: float) -> None:
        """Record the duration of a forward."""
        size = _size(num_tokens, prefix_length)
        single_s = self._single_s.get(size)
        is_awake = True
        if num_threads > 1:
            is_awake = self._clock() - elapsed_s - self._team_ended_s < _SPIN_S
            self._team_ended_s = self._clock()
        if num_threads == 1:
            self._single_s[size] = elapsed_s if single_s is None else min(single_s, elapsed_s)
        elif single_s is None:
            pass  # nothing to compare with
        elif elapsed_s <= _SLOWER * single_s:
            self._strikes = 0
            self._pause_s = _FIRST_PAUSE_S
        elif is_awake:  # after an idle period a forward first wakes its threads, which takes milliseconds
            self._strikes += _STRIKES if elapsed_s > _FAR_SLOWER * single_s else 1
            if self._strikes >= _STRIKES:
                self._strikes = 0
                self._paused_until = self._clock() + self._pause_s
                self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


def _size(num_tokens: int, prefix_length: int) -> tuple[int, int]:
    """A class of forwards with similar durations: tokens and prefix rounded up to powers of two."""
    return (num_tokens - 1).bit_length(), prefix_length.bit_length()


def _count_runnable() -> int | None:
    """Number of runnable threads from Linux, in about a microsecond; ``None`` elsewhere."""
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
    """Number of runnable threads of this process, at least 1; takes a few microseconds per thread."""
    count = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            state = (task / "stat").read_bytes().rpartition(b")")[2].split()[0]
        except OSError:
            continue  # the thread has ended
        count += state == b"R"
    return max(1, count)
