"""How many drafts of a step are worth their cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from forelook.decoding.drafting.costs import COMMON_COSTS, StepCostEstimate, StepCosts, size_run
from forelook.errors import ConfigError

_DRIFT = 0.03  # chosen, not measured: curves are computed again once a cost has changed by this share


class StepBudget:
    """Chooses how many drafts a step verifies: the n that maximizes (1 + E[accepted]) / t(T).

    Args:
        costs: an estimate, which every step then corrects, or fixed ones; by default a common shape.
        max_draft_tokens: maximum number of draft tokens per step; 0 makes every step a plain one.
        seconds_per_draft: host time per draft node outside the forward. The default is chosen, not measured.
        seconds_per_plan: host time to look for drafts and to learn from them, likewise.
    """

    def __init__(
        self,
        costs: StepCosts | StepCostEstimate = COMMON_COSTS,
        *,
        max_draft_tokens: int = 48,
        seconds_per_draft: float = 3e-6,
        seconds_per_plan: float = 2e-4,
    ) -> None:
        if max_draft_tokens < 0:
            raise ConfigError("max_draft_tokens", max_draft_tokens, "0 or more")
        self._estimate = costs if isinstance(costs, StepCostEstimate) else None
        self.costs = costs.costs if isinstance(costs, StepCostEstimate) else costs
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

    def observe(
        self, num_tokens: int, num_cached: int, seconds: float, tail_sizes: Sequence[int] | None = None
    ) -> None:
        """Correct the costs by a step that took ``seconds`` for a tail of ``num_tokens``, pending ones included."""
        if self._estimate is None:
            return
        self._estimate.observe(size_run(num_tokens, tail_sizes), num_cached, seconds)
        if self._estimate.drift > _DRIFT:
            self.costs = self._estimate.costs
            self._curves.clear()


@dataclass(frozen=True, slots=True)
class CostCurve:
    """Costs of a step by its number of drafts.

    Attributes:
        seconds: [n+1] cost with 0 … n drafts.
        slopes: [n+1] the least cost per further draft, over all larger numbers.
        most_drafts: more than so many cannot pay, not even if every one were accepted.
    """

    seconds: list[float]
    slopes: list[float]
    most_drafts: int

    @classmethod
    def of(cls, seconds: list[float]) -> CostCurve:
        """The curve with its slopes."""
        slopes = [
            min(((later - cost) / step for step, later in enumerate(seconds[size + 1 :], start=1)), default=math.inf)
            for size, cost in enumerate(seconds)
        ]
        # Drafts are chosen best first, so the rate of any others rises at most as that of certain ones does.
        most_drafts = max(range(len(seconds)), key=lambda size: (1 + size) / seconds[size])
        return cls(seconds, slopes, most_drafts)

    @property
    def floor(self) -> float:
        """Acceptance probability below which no draft can pay; the least value, 0.01, is chosen, not measured."""
        return max(0.01, min(self.slopes) / self.seconds[0])
