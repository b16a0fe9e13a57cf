"""What the engine has done since it started: counts and times, never document text."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque

from forelook.percentiles import PERCENTILES, percentile
from forelook.protocol.messages import CompletionResult, RequestStats

_NUM_LATENCIES = 512  # chosen, not measured
COUNTS = (
    "requests",
    "superseded",
    "cancelled",
    "failed",
    "answered_ahead",
    "suggestions",
    "forwards",
    "cancelled_forwards",
    "background_forwards",
    "decode_steps",
    "prompt_tokens",
    "prefill_tokens",
    "generated_tokens",
    "drafted_tokens",
    "accepted_tokens",
    "prewarmed_tokens",
    "speculations",
)
_COSTS = ("forwards", "prompt_tokens", "prefill_tokens", "generated_tokens")  # of an answered or a cancelled request
# Where the time of answered requests was spent; the rest of ``total`` is the stop rule and clean-up.
PARTS = ("queue", "prompt", "prefill", "decode", "total")
WORK = ("requests", "ahead")
"""What the engine's thread works on: requests, and forwards in the pauses, which requests pre-empt."""


class EngineMetrics:
    """Counts by name, and the latencies of the latest requests.

    Written by the engine's thread and, when a request is submitted, by the caller's; read by any thread.

    Args:
        total: counts everything too, for all users.
    """

    def __init__(self, total: EngineMetrics | None = None) -> None:
        self._total = total
        self._lock = threading.Lock()  # to read a count and write the sum is two steps
        self._counts: Counter[str] = Counter()
        self._spent_ms: Counter[str] = Counter()
        self._worked_ms: defaultdict[str, float] = defaultdict(float)
        self._latencies_ms: deque[float] = deque(maxlen=_NUM_LATENCIES)

    def add(self, name: str, count: int = 1) -> None:
        """Add to one of ``COUNTS``."""
        with self._lock:
            self._counts[name] += count
        if self._total is not None:
            self._total.add(name, count)

    def add_work(self, kind: str, seconds: float) -> None:
        """Add time that was spent on one kind of ``WORK``."""
        with self._lock:
            self._worked_ms[kind] += seconds * 1e3
        if self._total is not None:
            self._total.add_work(kind, seconds)

    def add_result(self, result: CompletionResult) -> None:
        """Add the cost of an answered request."""
        stats = result.stats
        with self._lock:
            self._latencies_ms.append(stats.total_ms)
            for part in PARTS:
                self._spent_ms[part] += getattr(stats, f"{part}_ms")
            self._counts.update(suggestions=len(result.suggestions), decode_steps=stats.num_steps)
            self._add_cost(stats, *_COSTS, "drafted_tokens", "accepted_tokens")
        if self._total is not None:
            self._total.add_result(result)

    def add_cancelled(self, stats: RequestStats) -> None:
        """Add the cost of a cancelled request."""
        with self._lock:
            self._counts.update(cancelled_forwards=stats.num_forwards)
            self._add_cost(stats, *_COSTS)
        if self._total is not None:
            self._total.add_cancelled(stats)

    def _add_cost(self, stats: RequestStats, *names: str) -> None:
        for name in names:
            self._counts[name] += getattr(stats, f"num_{name}")

    def to_dict(self) -> dict[str, object]:
        """All counts, percentiles of the latency and the time spent per part, in milliseconds."""
        latencies_ms = list(self._latencies_ms)  # a snapshot: the engine's thread appends
        percentiles = {
            f"p{percent}": None if (value := percentile(latencies_ms, percent)) is None else round(value, 3)
            for percent in PERCENTILES
        }
        spent = {part: round(self._spent_ms[part], 3) for part in PARTS}
        worked = {kind: round(self._worked_ms[kind], 3) for kind in WORK}
        return {
            "latency_ms": percentiles,
            "spent_ms": spent,
            "worked_ms": worked,
            **{name: self._counts[name] for name in COUNTS},
        }
