"""Watches the keys of a team while the server runs: revoked ones end connections, and usage is counted and saved."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from forelook.failures import log_failure
from forelook.local.usage_ledger import UsageLedger, usage_path_of
from forelook.local.user_keys import KeyRing
from forelook.server.engine import Engine
from forelook.server.metrics import ServerMetrics
from forelook.server.quotas import Quotas

_CHECK_EVERY_S = 1.0  # chosen, not measured: a revoked key ends within seconds, and a check is one stat
_SAVE_EVERY_S = 5.0  # chosen, not measured
_ACTIVE_S = 60.0  # chosen, not measured: longer than any request runs


class KeyKeeper:
    """See the module. Used on one event loop.

    Args:
        keys: the users' keys; their usage is kept next to their file.
        get_engine: the engine, ``None`` while it is being built.
        metrics_of: what the server counts for a user.
    """

    def __init__(
        self, keys: KeyRing, get_engine: Callable[[], Engine | None], metrics_of: Callable[[str], ServerMetrics]
    ) -> None:
        self._keys = keys
        self._get_engine = get_engine
        self._metrics_of = metrics_of
        self._ledger = UsageLedger(usage_path_of(keys.path))
        self.quotas = Quotas(keys, self._ledger)
        self._revoked: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start watching."""
        if self._tasks:  # who serves the application may start it a second time
            return
        self._tasks = [
            # Apart, as a folder that does not answer must not hold up the other.
            asyncio.create_task(self._repeat(_CHECK_EVERY_S, self._check, "the check of the keys")),
            asyncio.create_task(self._repeat(_SAVE_EVERY_S, self._save, "saving the usage")),
        ]

    async def stop(self) -> None:
        """Stop watching and save."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._count()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._save(), _SAVE_EVERY_S)

    def revoked(self, principal: str) -> asyncio.Event:
        """Set once a user's key is no longer valid."""
        event = self._revoked.setdefault(principal, asyncio.Event())
        if self._keys.has_ended(principal):
            event.set()
        return event

    async def _repeat(self, every_s: float, work: Callable[[], Coroutine[Any, Any, None]], title: str) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - edge: the next round tries again
                log_failure(title, error)

    async def _check(self) -> None:
        self._count()
        await asyncio.to_thread(self._keys.refresh)  # the file may be on a slow disk
        for principal, event in tuple(self._revoked.items()):
            if self._keys.has_ended(principal):
                event.set()
                del self._revoked[principal]

    async def _save(self) -> None:
        await asyncio.to_thread(self._ledger.save)

    def _count(self) -> None:
        engine = self._get_engine()
        if engine is None:
            return
        for principal in self.quotas.active(_ACTIVE_S):
            stats: Mapping[str, Any] = engine.stats(principal)
            costs = {
                "answers": self._metrics_of(principal).num_answers,
                "used": stats.get("usage", {}).get("used", 0),
                "tokens": stats.get("prefill_tokens", 0) + stats.get("generated_tokens", 0),
            }
            self.quotas.charge(principal, costs)
