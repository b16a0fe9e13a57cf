"""What a step of T tokens costs, and how many drafts are worth it."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from forelook.errors import ConfigError

_COMMON_SHAPE = ((1, 1.0), (8, 1.08), (16, 1.25), (32, 1.7), (64, 2.7), (128, 4.8))
"""Relative cost before anything is measured: flat while weights dominate, then linear. Chosen, not measured."""


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Measured seconds of a step by its tail size, and what each cached token adds.

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
        curve = []
        for tokens in range(max_tokens + 1):
            size = max(tokens, 1)
            if tail_sizes is not None and size <= tail_sizes[-1]:
                size = tail_sizes[bisect.bisect_left(tail_sizes, size)]
            curve.append(self._at(size, raw))
        return curve

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


class StepBudget:
    """Chooses how many drafts a step verifies: the n that maximizes (1 + E[accepted]) / t(T).

    Args:
        costs: measured on the device; a common shape by default.
        max_draft_tokens: maximum number of draft tokens per step; 0 makes every step a plain one.
        seconds_per_draft: host time per draft node outside the forward. The default is chosen, not measured.
        seconds_per_plan: host time to look for drafts and to learn from them, likewise.
    """

    def __init__(
        self,
        costs: StepCosts = COMMON_COSTS,
        *,
        max_draft_tokens: int = 48,
        seconds_per_draft: float = 3e-6,
        seconds_per_plan: float = 2e-4,
    ) -> None:
        if max_draft_tokens < 0:
            raise ConfigError("max_draft_tokens", max_draft_tokens, "0 or more")
        self.costs = costs
        self.max_draft_tokens = max_draft_tokens
        self.seconds_per_plan = seconds_per_plan
        self._seconds_per_draft = seconds_per_draft
        self._curves: dict[tuple[int, int], CostCurve] = {}

    def curve(self, num_cached: int, num_pending: int, tail_sizes: Sequence[int] | None = None) -> CostCurve:
        """Costs of steps with 0 … ``max_draft_tokens`` drafts besides the pending tokens."""
        key = (num_cached // 256, num_pending)
        curve = self._curves.get(key)
        if curve is None:
            whole = self.costs.curve(key[0] * 256, num_pending + self.max_draft_tokens, tail_sizes)
            curve = CostCurve.of(
                [cost + index * self._seconds_per_draft for index, cost in enumerate(whole[num_pending:])]
            )
            if len(self._curves) > 64:
                self._curves.clear()
            self._curves[key] = curve
        return curve


@dataclass(frozen=True, slots=True)
class CostCurve:
    """Costs of a step by its number of drafts.

    Attributes:
        seconds: [n+1] cost with 0 … n drafts.
        slopes: [n+1] the least cost per further draft, over all larger numbers.
    """

    seconds: list[float]
    slopes: list[float]

    @classmethod
    def of(cls, seconds: list[float]) -> CostCurve:
        """The curve with its slopes."""
        slopes = [
            min(((later - cost) / step for step, later in enumerate(seconds[size + 1 :], start=1)), default=math.inf)
            for size, cost in enumerate(seconds)
        ]
        return cls(seconds, slopes)

    @property
    def floor(self) -> float:
        """Acceptance probability below which no draft can pay; the least value, 0.01, is chosen, not measured."""
        return max(0.01, min(self.slopes) / self.seconds[0])
