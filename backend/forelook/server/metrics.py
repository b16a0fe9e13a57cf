"""Counts and latencies of the server; never document text."""

from __future__ import annotations

import time
from collections import Counter, deque

from forelook.percentiles import PERCENTILES, percentile

MAX_SAMPLES = 4_096  # chosen, not measured


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
        result: dict[str, float] = {"count": self._num_total}
        for percent in PERCENTILES:
            value = percentile(self._samples_ms, percent)
            if value is not None:
                result[f"p{percent}_ms"] = round(value, 3)
        return result


class ServerMetrics:
    """What one server has done since it started."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        self.num_connections = 0
        self.num_connections_total = 0
        self.num_refused_connections = 0
        self.num_internal_errors = 0
        self.messages_by_method: Counter[str] = Counter()
        self.errors_by_code: Counter[int] = Counter()
        self.completions_by_outcome: Counter[str] = Counter()
        self.completion_latency = LatencyWindow()

    def to_json(self) -> dict[str, object]:
        """All metrics as JSON."""
        return {
            "uptime_s": round(time.monotonic() - self._started_s, 1),
            "num_connections": self.num_connections,
            "num_connections_total": self.num_connections_total,
            "num_refused_connections": self.num_refused_connections,
            "num_internal_errors": self.num_internal_errors,
            "messages_by_method": dict(self.messages_by_method),
            "errors_by_code": {str(code): count for code, count in self.errors_by_code.items()},
            "completions_by_outcome": dict(self.completions_by_outcome),
            "completion_latency": self.completion_latency.summary(),
        }
