"""Where log lines go: at most so many of a kind, and into files of a limited size.

A peer that has not shown a token can cause a log line per connection; it must not be able to fill the disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from forelook.local.files import open_private, try_lock

if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[IO[str]]
else:
    _StreamHandler = logging.StreamHandler  # Python 3.10 cannot subscript it

# Chosen, not measured.
MAX_LOG_BYTES = 5_000_000  # one former log of this size is kept
MAX_REPEATS = 10  # lines of one kind per period
PERIOD_S = 60.0
_MAX_KINDS = 256


class LogHandler(_StreamHandler):
    """Writes records to a stream.

    Of one kind, which is a logger, a level and a template, a few lines per period are written; the others are counted
    in one line at its end. A stream that is a file is rotated while it is written, also by several processes at once.

    Args:
        stream: where to write, opened for appending.
        path: its name, if it is a file.
        max_bytes: size at which it is rotated.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        stream: IO[str],
        path: Path | None = None,
        *,
        max_bytes: int = MAX_LOG_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stream)
        self._path = path
        self._max_bytes = max_bytes
        self._repeats = _Repeats(clock)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, unless too many of its kind were written; and what is to be said about earlier ones."""
        for summary in self._repeats.over():
            self._write(summary)
        if self._repeats.passes(record):
            self._write(record)

    def close(self) -> None:
        """Write what was counted and not said yet."""
        for summary in self._repeats.over(everything=True):
            self._write(summary)
        super().close()

    def _write(self, record: logging.LogRecord) -> None:
        if self._path is not None:
            # A full disk, a closed stream: writing is tried all the same.
            with contextlib.suppress(OSError, ValueError):
                self._rotate_if_full(self._path)
        super().emit(record)

    def _rotate_if_full(self, path: Path) -> None:
        descriptor = self.stream.fileno()
        own = os.fstat(descriptor)
        if own.st_size <= self._max_bytes:
            return
        lock = try_lock(path.with_name(path.name + ".lock"))
        if lock is None:
            return
        with lock:
            if is_named(path, own):  # otherwise another process has rotated it
                path.replace(path.with_name(path.name + ".1"))
            with open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
                os.dup2(file.fileno(), descriptor, inheritable=False)


def is_named(path: Path, info: os.stat_result) -> bool:
    """Whether ``path`` names the file of which ``info`` is."""
    try:
        return os.path.samestat(path.stat(), info)
    except FileNotFoundError:
        return False


def stderr_handler(path: Path, stream: IO[str]) -> LogHandler:
    """The handler of a process whose standard error may be its log at ``path``."""
    try:
        is_log = is_named(path, os.fstat(stream.fileno()))
    except (OSError, ValueError):
        is_log = False
    return LogHandler(stream, path if is_log else None)


@dataclass(slots=True)
class _Kind:
    """Lines of one kind in the current period."""

    started_s: float
    num_written: int = 0
    num_left_out: int = 0


_KindKey = tuple[str, int, str]


class _Repeats:
    """Counts lines by kind."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kinds: OrderedDict[_KindKey, _Kind] = OrderedDict()  # the oldest period first

    def passes(self, record: logging.LogRecord) -> bool:
        """Count a record; returns whether it is written."""
        key = (record.name, record.levelno, str(record.msg)[:200])
        kind = self._kinds.setdefault(key, _Kind(self._clock()))
        if kind.num_written >= MAX_REPEATS:
            kind.num_left_out += 1
            return False
        kind.num_written += 1
        return True

    def over(self, *, everything: bool = False) -> Iterator[logging.LogRecord]:
        """End periods that are over, or all; yields a line about each kind of which lines were left out."""
        now_s = self._clock()
        while self._kinds:
            key, kind = next(iter(self._kinds.items()))
            if not everything and now_s - kind.started_s < PERIOD_S and len(self._kinds) <= _MAX_KINDS:
                return
            del self._kinds[key]
            if kind.num_left_out:
                name, level, template = key
                message = "repeated %d times in %.0f s: %s"
                arguments = (kind.num_left_out, now_s - kind.started_s, template)
                yield logging.LogRecord(name, level, "", 0, message, arguments, None)
