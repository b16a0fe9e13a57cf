"""File events of an editor, passed on together once they pause: one command can cause thousands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

QUIET_S = 0.3  # chosen, not measured
MAX_WAIT_S = 3.0  # chosen, not measured

Apply = Callable[[Sequence[Path], Sequence[Path]], Awaitable[None]]


class FileEvents:
    """Collects the events of one window."""

    def __init__(self, apply: Apply) -> None:
        """Create an instance.

        Args:
            apply: called with the paths that were created or changed and those that were deleted.
        """
        self._apply = apply
        self._is_deleted: dict[Path, bool] = {}
        self._first_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def add(self, changed: Iterable[Path], deleted: Iterable[Path]) -> None:
        """Add events; the last one of a path counts."""
        self._is_deleted.update(dict.fromkeys(deleted, True))
        self._is_deleted.update(dict.fromkeys(changed, False))
        if not self._is_deleted:
            return
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        if self._timer is None:
            self._first_s = now_s
        else:
            self._timer.cancel()
        self._timer = loop.call_at(min(now_s + QUIET_S, self._first_s + MAX_WAIT_S), self._pass_on)

    def close(self) -> None:
        """Drop what waits."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _pass_on(self) -> None:
        events, self._is_deleted, self._timer = self._is_deleted, {}, None
        self._task = asyncio.get_running_loop().create_task(self._apply_after(self._task, events))

    async def _apply_after(self, former: asyncio.Task[None] | None, is_deleted: dict[Path, bool]) -> None:
        if former is not None:
            await asyncio.wait([former])
        changed = [path for path, deleted in is_deleted.items() if not deleted]
        await self._apply(changed, [path for path, deleted in is_deleted.items() if deleted])
