"""When to ask the backend: the fixed times, and what is learned about the device and the typist. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

LATENCY_WEIGHT = 0.3  # of the newest value in the mean; chosen, not measured
GAP_WEIGHT = 0.2  # of the newest value in the mean; chosen, not measured
MAX_GAP_S = 1.0  # longer gaps between edits are pauses, not typing; chosen, not measured
PAUSE_IN_GAPS = 1.2  # a gap this much longer than the mean is a pause; chosen, not measured


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in seconds. All but ``delay_s`` and the first patience are chosen, not measured.

    Attributes:
        delay_s: wait before asking the backend; ``None`` adapts to the device and the typist.
        grace_s: how long a request without a query runs on.
        patience_s: maximum wait of a query while the user types.
        invoked_patience_s: maximum wait of a query invoked by a command.
        quick_s: a backend with this mean latency or less is asked without a delay.
        slow_s: a backend with this mean latency or more is asked after a whole typing gap.
        max_delay_s: maximum adaptive delay.
    """

    delay_s: float | None = None
    grace_s: float = 0.3
    patience_s: float = 3.5
    invoked_patience_s: float = 6.0

    quick_s: float = 0.1
    slow_s: float = 0.4
    max_delay_s: float = 0.4


@dataclass(slots=True)
class Pace:
    """Exponential means of the device's latency and the typist's gaps, and counts."""

    latency_s: float | None = None
    gap_s: float = 0.2
    num_asks: int = 0
    num_withdrawn: int = 0
    num_answers: Counter[str] = field(default_factory=Counter)

    def learn_latency(self, seconds: float) -> None:
        """Add the latency of one request to the mean."""
        if self.latency_s is None:
            self.latency_s = seconds
        else:
            self.latency_s = (1 - LATENCY_WEIGHT) * self.latency_s + LATENCY_WEIGHT * seconds

    def learn_gap(self, seconds: float) -> None:
        """Add the gap between two edits to the mean, unless it is a pause."""
        if seconds <= MAX_GAP_S:
            self.gap_s = (1 - GAP_WEIGHT) * self.gap_s + GAP_WEIGHT * seconds

    def delay_s(self, timing: Timing, since_edit_s: float) -> float:
        """Return how long to wait before asking the backend, ``since_edit_s`` after the last edit."""
        if timing.delay_s is not None:
            return timing.delay_s
        if self.latency_s is None or self.latency_s <= timing.quick_s:
            return 0.0
        slowness = min(1.0, (self.latency_s - timing.quick_s) / (timing.slow_s - timing.quick_s))
        # The editor's own delay counts: after a longer gap than usual the typist has paused.
        return max(0.0, min(timing.max_delay_s, slowness * PAUSE_IN_GAPS * self.gap_s - since_edit_s))

    def is_slow(self, timing: Timing) -> bool:
        """Whether the device is slow, or unknown."""
        return self.latency_s is None or self.latency_s > timing.slow_s
