"""Counts and latencies of the server; never document text."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque

from forelook.percentiles import PERCENTILES, percentile

MAX_SAMPLES = 4_096  # chosen, not measured
EDITOR = "editor"
"""The interface of the editor protocol."""
ACCESS, CONNECTIONS, LIMITS = "access", "connections", "limits"
"""Reasons of a rejection, next to the names of quotas: no valid key, too many connections, too much at a time."""
BUCKETS_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds of the histograms; chosen, not measured: fine where a person notices."""


class LatencyWindow:
    """Percentiles of the latest samples."""

    def __init__(self) -> None:
        self._samples_ms: deque[float] = deque(maxlen=MAX_SAMPLES)
        self._num_total = 0

    def add(self, latency_ms: float) -> None:
        """Add one sample."""
        self._samples_ms.append(latency_ms)
        self._num_total += 1

    def summary(self) -> dict[str, float]:
        """The number of all samples, and percentiles once there are samples."""
        values = {percent: percentile(self._samples_ms, percent) for percent in PERCENTILES}
        known = {f"p{percent}_ms": round(value, 3) for percent, value in values.items() if value is not None}
        return {"count": self._num_total, **known}


class Histogram:
    """How many samples were at most so long, as Prometheus wants it.

    Attributes:
        counts: per bucket of ``BUCKETS_S``, not cumulative; the last one is of longer samples.
    """

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Add one sample."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds


class ServerMetrics:
    """What one server has done since it started, for one user or for all.

    Args:
        total: counts everything too, for all users.
    """

    def __init__(self, total: ServerMetrics | None = None) -> None:
        self._total = total
        self._started_s = time.monotonic()
        self.num_connections = 0
        self.num_connections_total = 0
        self.num_refused_connections = 0
        self.num_internal_errors = 0
        self._messages_by_method: Counter[str] = Counter()
        self._errors_by_code: Counter[int] = Counter()
        self._completions_by_outcome: Counter[str] = Counter()
        self._completion_latency = LatencyWindow()
        self.requests: Counter[str] = Counter()  # by interface
        self.answers: Counter[tuple[str, str]] = Counter()  # by interface and outcome
        self.rejections: Counter[str] = Counter()  # by reason
        self.latencies: dict[str, Histogram] = {}  # of answers, by interface

    def connected(self) -> None:
        """Count a connection that was admitted."""
        for metrics in self._and_total():
            metrics.num_connections += 1
            metrics.num_connections_total += 1

    def disconnected(self) -> None:
        """Count the end of a connection."""
        for metrics in self._and_total():
            metrics.num_connections -= 1

    def refused(self) -> None:
        """Count a connection over the limit."""
        for metrics in self._and_total():
            metrics.num_refused_connections += 1
        self.rejected(CONNECTIONS)

    def message(self, method: str) -> None:
        """Count a message."""
        for metrics in self._and_total():
            metrics._messages_by_method[method] += 1  # noqa: SLF001 - of the same class

    def error(self, code: int) -> None:
        """Count an error that was answered or reported."""
        for metrics in self._and_total():
            metrics._errors_by_code[code] += 1  # noqa: SLF001 - of the same class

    def internal_error(self) -> None:
        """Count an unexpected error."""
        for metrics in self._and_total():
            metrics.num_internal_errors += 1

    def completion(self, outcome: str, latency_ms: float | None = None) -> None:
        """Count an answered completion, and its latency if it has a result."""
        for metrics in self._and_total():
            metrics._completions_by_outcome[outcome] += 1  # noqa: SLF001 - of the same class
            if latency_ms is not None:
                metrics._completion_latency.add(latency_ms)  # noqa: SLF001 - of the same class
        self.answered(EDITOR, outcome, None if latency_ms is None else latency_ms / 1e3)

    def requested(self, interface: str) -> None:
        """Count a request for text."""
        for metrics in self._and_total():
            metrics.requests[interface] += 1

    def answered(self, interface: str, outcome: str, seconds: float | None = None) -> None:
        """Count an answer, and its time if it has a result."""
        for metrics in self._and_total():
            metrics.answers[interface, outcome] += 1
            if seconds is not None:
                metrics.latencies.setdefault(interface, Histogram()).add(seconds)

    @property
    def num_answers(self) -> int:
        """Answers with a result, empty ones too."""
        return sum(sum(histogram.counts) for histogram in self.latencies.values())

    def rejected(self, reason: str) -> None:
        """Count what was refused without trying: ``reason`` is one of few."""
        for metrics in self._and_total():
            metrics.rejections[reason] += 1

    def _and_total(self) -> tuple[ServerMetrics, ...]:
        return (self,) if self._total is None else (self, self._total)

    @property
    def uptime_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_s

    def to_json(self) -> dict[str, object]:
        """All metrics as JSON."""
        return {
            "uptime_s": round(self.uptime_s, 1),
            "num_connections": self.num_connections,
            "num_connections_total": self.num_connections_total,
            "num_refused_connections": self.num_refused_connections,
            "num_internal_errors": self.num_internal_errors,
            "messages_by_method": dict(self._messages_by_method),
            "errors_by_code": {str(code): count for code, count in self._errors_by_code.items()},
            "completions_by_outcome": dict(self._completions_by_outcome),
            "completion_latency": self._completion_latency.summary(),
            "rejections_by_reason": dict(self.rejections),
        }
