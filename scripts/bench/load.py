"""Typists at a human's pace against one address: how long a key waits for its answer, by how many there are."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from forelook.errors import ForelookError
from websockets.exceptions import WebSocketException

from bench.load_clients import Address, Editor, Reply, connected
from bench.results import REPOSITORY
from bench.summary import rounded_percentile
from bench.traces import Edit, Session, folder_sessions, gaps_s

FIRST_PAUSE_S = 0.5  # between opening a file and the first key; chosen, not measured
RECONNECT_EVERY_S = 0.3  # chosen, not measured
RECONNECT_TIMEOUT_S = 60.0  # chosen, not measured


@dataclass(slots=True)
class Key:
    """One key of a typist.

    Attributes:
        gap_s: time since the key before.
        at_s: when it was due, since the start of the run.
        latency_ms: from the key to the answer; ``None`` unless there was one.
        reply: what became of its request; ``None`` while the visible suggestion goes on with the key, as then nothing
            is asked.
        is_in_time: whether the answer came before the next key.
    """

    gap_s: float
    at_s: float
    latency_ms: float | None = None
    reply: Reply | None = None
    is_in_time: bool = False


@dataclass
class Typed:
    """What one typist did.

    Attributes:
        keys: in order, those after the warm-up.
        connections: how often it connected.
        outages_ms: how long it had no connection, each time it was lost.
        lags_ms: how late this program pressed each key: where this is large, it measures itself.
    """

    keys: list[Key] = field(default_factory=list)
    connections: int = 0
    outages_ms: list[float] = field(default_factory=list)
    lags_ms: list[float] = field(default_factory=list)


def sessions_of(number: int, folder: Path = REPOSITORY / "backend", per_typist: int = 6) -> list[Session]:
    """The files of one typist, in an order of its own."""
    sessions = _all_sessions(folder)
    first = number * per_typist % max(1, len(sessions))
    return [sessions[(first + place) % len(sessions)] for place in range(min(per_typist, len(sessions)))]


@cache
def _all_sessions(folder: Path) -> tuple[Session, ...]:
    return tuple(folder_sessions(folder, 10_000))


class Typist:
    """Types one file after the other, each in the same workspace.

    Args:
        number: of the typist, which is the user too.
        sessions: files and edits.
        reconnects: whether each file is typed on a connection of its own.
        waits: whether a key waits for the answer to the one before; nobody types so, but then every answer is seen.
    """

    def __init__(
        self,
        address: Address,
        number: int,
        sessions: Sequence[Session],
        *,
        reconnects: bool = False,
        waits: bool = False,
    ) -> None:
        self._address = address
        self._number = number
        self._sessions = sessions
        self._reconnects = reconnects
        self._waits = waits
        # The same path for all users, who are apart by their keys; typists of one user have different ones.
        self._workspace = f"file:///team/project-{number // max(1, len(address.keys))}"
        self._asks: set[asyncio.Task[None]] = set()
        self._visible = ""
        self._num_keys = 0
        self._editor: Editor | None = None
        self.typed = Typed()

    async def run(self, started_s: float, warm_s: float, ends_s: float) -> None:
        """Type from now to ``ends_s``; what was typed before ``warm_s`` does not count. Times of ``perf_counter``."""
        due_s = time.perf_counter() + 0.1 * (self._number % 10)  # not all at once
        try:
            for round_, session in ((n, s) for n in itertools.count() for s in self._sessions):
                if self._editor is None or self._reconnects:
                    await self._leave()
                    self._editor = await self._connect()
                uri = f"{self._workspace}/{self._number}-{round_}-{session.name}"
                await self._editor.open(uri, session.language_id, session.text)
                self._visible = ""
                due_s = max(due_s, time.perf_counter()) + FIRST_PAUSE_S
                text = session.text
                for edit, gap_s in zip(session.edits, gaps_s(session, "human", 0.0), strict=False):
                    due_s += gap_s
                    if due_s >= ends_s:
                        return
                    # The next key does not wait for anything: a slow server does not make its typist slow.
                    await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                    text = text[: edit.start] + edit.text + text[edit.end :]
                    key = Key(gap_s, due_s - started_s)
                    lag_ms = (time.perf_counter() - due_s) * 1e3
                    await self._press(key, edit, text, uri, session.language_id)
                    if self._waits:
                        await asyncio.gather(*self._asks)
                        due_s = max(due_s, time.perf_counter())
                    if due_s >= warm_s:
                        self.typed.keys.append(key)
                        self.typed.lags_ms.append(lag_ms)
        finally:
            await self._leave()

    async def _press(self, key: Key, edit: Edit, text: str, uri: str, language_id: str) -> None:
        assert self._editor is not None
        try:
            await self._editor.change(edit, text)
        except (OSError, WebSocketException):
            self._editor = await self._connect_again(uri, language_id, text)
        self._num_keys += 1
        if self._visible.startswith(edit.text) and len(self._visible) > len(edit.text):
            self._visible = self._visible[len(edit.text) :]
            return
        self._visible = ""
        task = asyncio.create_task(self._ask(self._editor, text, edit.start + len(edit.text), key))
        self._asks.add(task)
        task.add_done_callback(self._asks.discard)

    async def _connect(self) -> Editor:
        editor = await connected(self._address, self._number, self._workspace)
        self.typed.connections += 1
        return editor

    async def _connect_again(self, uri: str, language_id: str, text: str) -> Editor:
        """Connect after a loss, as the language server does, and send the document again."""
        lost_s = time.perf_counter()
        editor: Editor | None = None
        while editor is None:
            with contextlib.suppress(OSError, ForelookError, WebSocketException):
                editor = await self._connect()
                await editor.open(uri, language_id, text)
                break
            editor = None
            if time.perf_counter() - lost_s > RECONNECT_TIMEOUT_S:
                raise TimeoutError(f"no connection for {RECONNECT_TIMEOUT_S:g} s")
            await asyncio.sleep(RECONNECT_EVERY_S)
        self.typed.outages_ms.append((time.perf_counter() - lost_s) * 1e3)
        return editor

    async def _leave(self) -> None:
        await asyncio.gather(*self._asks, return_exceptions=True)
        if self._editor is not None:
            with contextlib.suppress(OSError, WebSocketException):
                await self._editor.close()
        self._editor = None

    async def _ask(self, editor: Editor, text: str, offset: int, key: Key) -> None:
        place, started_s = self._num_keys, time.perf_counter()
        try:
            reply = await editor.ask(text, offset)
        except (OSError, WebSocketException):
            reply = Reply("failed")
        key.reply = reply
        if reply.outcome == "answered":
            key.latency_ms = (time.perf_counter() - started_s) * 1e3
            key.is_in_time = place == self._num_keys
            if key.is_in_time:
                self._visible = reply.text


async def type_together(
    address: Address,
    num_typists: int,
    seconds: float,
    *,
    warmup_s: float = 5.0,
    reconnects: bool = False,
    waits: bool = False,
    first: int = 0,
    sessions: Callable[[int], Sequence[Session]] = sessions_of,
) -> list[Typed]:
    """Let some typists work at the same time, and return what each did.

    Args:
        address: of the server or cluster.
        num_typists: of whom each has a key, in turn.
        seconds: that count.
        warmup_s: before them.
        reconnects: whether each file is typed on a connection of its own.
        waits: whether a key waits for the answer to the one before.
        first: number of the first typist.
        sessions: the files of each typist, by its number.
    """
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * num_typists + 8))  # one HTTP request each
    typists = [
        Typist(address, number, sessions(number), reconnects=reconnects, waits=waits)
        for number in range(first, first + num_typists)
    ]
    started_s = time.perf_counter()
    warm_s = started_s + warmup_s
    await asyncio.gather(*(typist.run(started_s, warm_s, warm_s + seconds) for typist in typists))
    return [typist.typed for typist in typists]


def summary(typed: Sequence[Typed]) -> dict[str, Any]:
    """The figures of one run: see the executable's docstring for what they mean."""
    keys = [key for one in typed for key in one.keys]
    asked = [key for key in keys if key.reply is not None]
    answered = [key for key in asked if key.latency_ms is not None]
    latencies = [key.latency_ms for key in answered if key.latency_ms is not None]
    replies = [key.reply for key in answered if key.reply is not None]
    suggestions = sum(bool(reply.text) for reply in replies)
    forwards = sum(reply.forwards for reply in replies)
    outages = [outage for one in typed for outage in one.outages_ms]
    outcomes = Counter(key.reply.outcome for key in asked if key.reply is not None)
    return {
        "typists": len(typed),
        "keys": len(keys),
        "requests": len(asked),
        "outcomes": dict(outcomes),
        "p50_ms": rounded_percentile(latencies, 50),
        "p95_ms": rounded_percentile(latencies, 95),
        "service_p50_ms": rounded_percentile([reply.service_ms for reply in replies], 50),
        "queue_p95_ms": rounded_percentile([reply.queue_ms for reply in replies], 95),
        "in_time_share": _share(sum(key.is_in_time for key in answered), len(asked)),
        "forwards_per_suggestion": round(forwards / suggestions, 2) if forwards and suggestions else None,
        "outages": len(outages),
        "longest_outage_ms": round(max(outages), 1) if outages else None,
        "client_lag_p95_ms": rounded_percentile([lag for one in typed for lag in one.lags_ms], 95),
        "fairness": fairness(typed),
        "stickiness": stickiness(typed),
    }


def fairness(typed: Sequence[Typed]) -> dict[str, float | None]:
    """Jain's index of the typists' mean latencies (1 is equal, 1/N all for one), and the worst p95 to the median."""
    each = [[key.latency_ms for key in one.keys if key.latency_ms is not None] for one in typed]
    each = [latencies for latencies in each if latencies]
    if not each:
        return {"jain": None, "worst_p95_ratio": None}
    means = [fmean(latencies) for latencies in each]
    p95 = sorted(rounded_percentile(latencies, 95) or 0.0 for latencies in each)
    return {
        "jain": round(sum(means) ** 2 / (len(means) * sum(mean**2 for mean in means)), 4),
        "worst_p95_ratio": round(p95[-1] / p95[len(p95) // 2], 2) if p95[len(p95) // 2] else None,
    }


def stickiness(typed: Sequence[Typed]) -> dict[str, Any]:
    """How many answers came from their workspace's own replica, which is the one that answered it most often."""
    own = total = 0
    loads: Counter[str] = Counter()
    for one in typed:
        replicas = Counter(key.reply.replica for key in one.keys if key.reply is not None and key.reply.replica)
        own += max(replicas.values(), default=0)
        total += sum(replicas.values())
        loads.update(replicas)
    return {
        "own_replica_share": _share(own, total),
        "replicas": len(loads),
        "busiest_share": _share(max(loads.values(), default=0), total),
        "connections": sum(one.connections for one in typed),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def device_shares(before: Mapping[str, Any], after: Mapping[str, Any], seconds: float) -> dict[str, float | None]:
    """The busy share of the device and forwards per suggestion, those of canceled requests included.

    Args:
        before: the engine's statistics.
        after: the same, later.
        seconds: between them.
    """
    worked = {kind: after["worked_ms"][kind] - before["worked_ms"][kind] for kind in ("requests", "ahead")}
    counts = {name: after[name] - before[name] for name in ("forwards", "cancelled_forwards", "suggestions")}
    spent = counts["forwards"] + counts["cancelled_forwards"]
    return {
        "busy_share": round(worked["requests"] / 1e3 / seconds, 4),
        "ahead_share": round(worked["ahead"] / 1e3 / seconds, 4),
        "all_forwards_per_suggestion": round(spent / counts["suggestions"], 2) if counts["suggestions"] else None,
    }
