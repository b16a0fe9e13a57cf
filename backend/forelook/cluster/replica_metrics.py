"""The metrics of all replicas of an application, whichever of them is asked.

A scrape reaches any replica. So each keeps its figures on the shared folder, and answers with those of all, each with
the label ``replica``. Without the folder the answer has its own figures only.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from forelook.failures import log_failure
from forelook.local.files import make_private_dir, read_regular_file, write_atomically

_KEEP_EVERY_S = 10.0  # chosen, not measured: as often as Prometheus asks
_FRESH_S = 35.0
"""Older figures are of a replica that has ended. Chosen, not measured: three times as long, and some delay."""
_MAX_BYTES = 2**20  # chosen, not measured: a hundred times the usual
_SUFFIX = ".prom"

logger = logging.getLogger("forelook.cluster")


class ReplicaMetrics:
    """The files of one replica and its neighbors.

    Args:
        folder: of the application's metrics, on the shared folder.
        name: of this replica.
        own: its figures, as Prometheus reads them.
        clock: seconds since 1970, as the files' times.
    """

    def __init__(
        self, folder: Path, name: str, own: Callable[[], Awaitable[str]], clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._name = name
        self._own = own
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._disk = threading.Lock()  # a write goes on in its thread though the task that waits for it is cancelled
        self._is_removed = False

    def start(self) -> None:
        """Keep the figures on the folder from now on."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Remove them."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await asyncio.to_thread(self._remove)

    async def keep(self) -> None:
        """Write the figures once."""
        text = await self._own()
        await asyncio.to_thread(self._write, text)

    async def all(self) -> str:
        """The figures of all replicas."""
        own = await self._own()
        others = await asyncio.to_thread(self._read_others)
        return merged({**others, self._name: own})

    async def _run(self) -> None:
        while True:
            try:
                await self.keep()
            except Exception as error:  # noqa: BLE001 - edge: the folder may be away, and the next round tries again
                log_failure("keeping the metrics", error)
            await asyncio.sleep(_KEEP_EVERY_S)

    def _write(self, text: str) -> None:
        with self._disk:
            if not self._is_removed:
                make_private_dir(self._folder)
                write_atomically(self._folder / f"{self._name}{_SUFFIX}", text)

    def _remove(self) -> None:
        try:
            with self._disk:
                self._is_removed = True
                (self._folder / f"{self._name}{_SUFFIX}").unlink(missing_ok=True)
        except OSError as error:
            logger.warning("cannot remove the metrics of this replica: %s", error.strerror or type(error).__name__)

    def _read_others(self) -> dict[str, str]:
        found: dict[str, str] = {}
        try:
            paths = sorted(self._folder.glob(f"*{_SUFFIX}"))
        except OSError:
            return found
        for path in paths:
            if path.stem == self._name:
                continue
            try:
                if self._clock() - path.stat().st_mtime <= _FRESH_S:
                    found[path.stem] = read_regular_file(path, _MAX_BYTES).decode()
            except (OSError, UnicodeDecodeError):
                continue  # it has just ended
        return found


def merged(texts: Mapping[str, str]) -> str:
    """One text of several replicas' figures: the samples of a metric together, with the label ``replica``."""
    headers: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for replica, text in sorted(texts.items()):
        metric = ""
        for line in text.splitlines():
            if line.startswith("# HELP "):
                metric = line.split(" ", 3)[2]
                headers.setdefault(metric, [line])
            elif line.startswith("# TYPE "):
                if line not in headers[metric]:
                    headers[metric].append(line)
            elif line:
                samples.setdefault(metric, []).append(_labeled(line, replica))
    lines = [line for metric, header in headers.items() for line in (*header, *samples.get(metric, ()))]
    return "\n".join(lines) + "\n"


def _labeled(sample: str, replica: str) -> str:
    """A sample with one more label; a value has no space and no brace."""
    described, _, value = sample.rpartition(" ")
    name, brace, labels = described.partition("{")
    return f'{name}{{replica="{replica}"{"," + labels if brace else "}"} {value}'
