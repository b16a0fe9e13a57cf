"""What a step of T tokens costs on a device: an estimate that every step corrects. Nothing is measured beforehand."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from forelook.errors import ConfigError

_COMMON_SHAPE = ((1, 1.0), (8, 1.08), (16, 1.25), (32, 1.7), (64, 2.7), (128, 4.8))
"""Relative cost before anything is measured: flat while weights dominate, then linear. Chosen, not measured."""


def size_run(num_tokens: int, tail_sizes: Sequence[int] | None) -> int:
    """The size at which a model runs a tail: the next larger of its sizes, where it has some."""
    if tail_sizes is None or num_tokens > tail_sizes[-1]:
        return num_tokens
    return tail_sizes[bisect.bisect_left(tail_sizes, num_tokens)]


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Seconds of a step by its tail size, and what each cached token adds.

    Attributes:
        sizes: [n] tail sizes, ascending, the first one 1.
        seconds: [n] time of a step with that tail on a nearly empty cache.
        seconds_per_cached: [n] added per cached token.
    """

    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    seconds_per_cached: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.sizes or self.sizes[0] != 1 or list(self.sizes) != sorted(set(self.sizes)):
            raise ConfigError("sizes", self.sizes, "ascending and begin with 1")
        if not len(self.sizes) == len(self.seconds) == len(self.seconds_per_cached):
            raise ConfigError("seconds", self.seconds, f"{len(self.sizes)} values, one per size")
        if min(self.seconds) <= 0 or min(self.seconds_per_cached) < 0:
            raise ConfigError("seconds", self.seconds, "above 0, and 0 or more per cached token")

    def curve(self, num_cached: int, max_tokens: int, tail_sizes: Sequence[int] | None = None) -> list[float]:
        """Seconds of a step with 0 (as 1), 1, … ``max_tokens`` tokens; it never falls.

        Between measured sizes it is linear, beyond the last one too; with ``tail_sizes`` a tail costs what the next
        larger of them does.
        """
        raw = [fixed + slope * num_cached for fixed, slope in zip(self.seconds, self.seconds_per_cached, strict=True)]
        for index in range(1, len(raw)):
            raw[index] = max(raw[index], raw[index - 1])
        return [self._at(size_run(max(tokens, 1), tail_sizes), raw) for tokens in range(max_tokens + 1)]

    def _at(self, size: int, raw: list[float]) -> float:
        if len(raw) == 1:
            return raw[0] * size
        right = min(max(bisect.bisect_left(self.sizes, size), 1), len(raw) - 1)
        left = right - 1
        weight = (size - self.sizes[left]) / (self.sizes[right] - self.sizes[left])
        return raw[left] + weight * (raw[right] - raw[left])


COMMON_COSTS = StepCosts(
    tuple(size for size, _ in _COMMON_SHAPE),
    tuple(1e-3 * cost for _, cost in _COMMON_SHAPE),
    tuple(0.0 for _ in _COMMON_SHAPE),
)


# Chosen, not measured; that the estimate converges is tested: tests/decoding/test_costs.py.
_RISE = 0.05  # share of an error by which costs rise, …
_FALL = 0.2  # … and fall: other programs only add time, so the device's own cost is near the lower quartile
_MAX_ERROR = 0.7  # logarithm of a ratio: an interrupted step counts as one of twice its cost
_SHARED = 0.3  # share of a correction that reaches every size: most errors are the device's speed, not one size's
_NEXT = 0.5  # share of the rest that reaches the next size


class StepCostEstimate:
    """Seconds of a step by its size, corrected by each step in proportion to its error.

    The first step scales the whole estimate. A later one corrects the sizes next to its own, and the others less, so
    that sizes that were not tried follow the speed of the device too.

    Args:
        costs: the estimate to start from.
        is_measured: whether it comes from steps of this device.
    """

    def __init__(self, costs: StepCosts, *, is_measured: bool = False) -> None:
        self._start = costs
        self._logs = [0.0] * len(costs.sizes)  # logarithms of the ratios to the start
        self._told = self._logs  # what ``costs`` returned last
        self._num_steps = 1 if is_measured else 0
        self._warm_sizes: set[int] = set()
        places = range(len(costs.sizes))
        self._reach = [[_SHARED + (1.0 - _SHARED) * _NEXT ** abs(a - b) for a in places] for b in places]

    @property
    def costs(self) -> StepCosts:
        """The estimate as it is now."""
        self._told = self._logs
        ratios = [math.exp(log) for log in self._logs]
        scaled = [
            tuple(value * ratio for value, ratio in zip(values, ratios, strict=True))
            for values in (self._start.seconds, self._start.seconds_per_cached)
        ]
        return StepCosts(self._start.sizes, *scaled)

    @property
    def drift(self) -> float:
        """How far any cost is from what ``costs`` was when it was last read, as a logarithm."""
        return max(abs(log - told) for log, told in zip(self._logs, self._told, strict=True))

    def observe(self, num_tokens: int, num_cached: int, seconds: float) -> None:
        """Correct the estimate by a step; the first one of each size only warms up kernels and threads.

        Args:
            num_tokens: size of the step's tail as the model runs it; one beyond the largest known size is ignored.
            num_cached: tokens before it.
            seconds: what its forward took.
        """
        start, logs = self._start, self._logs
        if num_tokens > start.sizes[-1]:
            return
        if num_tokens not in self._warm_sizes:
            self._warm_sizes.add(num_tokens)
            return
        right = bisect.bisect_left(start.sizes, num_tokens)
        left = max(0, right - 1)
        share = 1.0 if left == right else (num_tokens - start.sizes[left]) / (start.sizes[right] - start.sizes[left])
        expected = sum(
            weight * math.exp(logs[place]) * (start.seconds[place] + start.seconds_per_cached[place] * num_cached)
            for place, weight in ((left, 1.0 - share), (right, share))
        )
        error = math.log(seconds / expected)
        if self._num_steps == 0:
            self._logs = [error] * len(logs)
        else:
            error = min(max(error, -_MAX_ERROR), _MAX_ERROR)
            step = error * max(1.0 / (1 + self._num_steps), _RISE if error > 0.0 else _FALL)
            near, far = self._reach[left], self._reach[right]
            self._logs = [
                log + step * ((1.0 - share) * a + share * b) for log, a, b in zip(logs, near, far, strict=True)
            ]
        self._num_steps += 1
