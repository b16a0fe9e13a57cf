"""Warm-up, stable, decay, over a budget of running time instead of steps.

How many steps fit is not known when a run starts on a shared machine, so progress is measured as it is made: each step
moves it on by the time it took, as a share of what is left. A pause does not count, and with a time of day to be done
by, what is left shrinks with the clock.
"""

from __future__ import annotations

import statistics
from collections import deque
from typing import Any

_SLOWEST = 4.0


class Schedule:
    """Learning rate scale from 0 to 1 by progress.

    Args:
        budget_s: running time of the whole run.
        warmup_steps: steps of linear warm-up.
        decay_share: last share of the run, in which the scale falls linearly to ``final``.
        final: scale at the end.
    """

    def __init__(
        self, budget_s: float, *, warmup_steps: int = 40, decay_share: float = 0.45, final: float = 0.02
    ) -> None:
        self._budget_s = budget_s
        self._warmup_steps = warmup_steps
        self._decay_share = decay_share
        self._final = final
        self._recent: deque[float] = deque(maxlen=31)
        self.progress = 0.0
        self.running_s = 0.0
        self.num_steps = 0

    @property
    def is_done(self) -> bool:
        """Whether the budget is used up."""
        return self.progress >= 1.0

    @property
    def scale(self) -> float:
        """Of the learning rates, for the next step."""
        warm = min(1.0, (self.num_steps + 1) / self._warmup_steps)
        left = (1.0 - self.progress) / self._decay_share
        return warm * max(self._final, min(1.0, left))

    def count(self, step_s: float, *, clock_left_s: float | None = None) -> None:
        """Note a step that took ``step_s``; time of a pause within it is left out.

        Args:
            step_s: by the clock.
            clock_left_s: until the time of day at which the run must end.
        """
        if self._recent:
            step_s = min(step_s, _SLOWEST * statistics.median(self._recent))
        self._recent.append(step_s)
        self.running_s += step_s
        self.num_steps += 1
        left_s = self._budget_s * (1.0 - self.progress)
        if clock_left_s is not None:
            left_s = min(left_s, clock_left_s + step_s)
        share = 1.0 if left_s <= step_s else step_s / left_s
        self.progress = min(1.0, self.progress + share * (1.0 - self.progress))

    def count_step(self, total_steps: int) -> None:
        """Note a step of a run that is measured in steps, so that it can be repeated exactly."""
        self.num_steps += 1
        self.progress = min(1.0, self.num_steps / total_steps)

    def state_dict(self) -> dict[str, Any]:
        """State of the run."""
        return {"progress": self.progress, "running_s": self.running_s, "num_steps": self.num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.progress, self.running_s, self.num_steps = state["progress"], state["running_s"], state["num_steps"]
