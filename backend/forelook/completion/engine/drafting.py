"""What is known about a model on this device: what steps and prompts cost, and the model's own successors."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from forelook.completion.engine.learning import SuccessorLearning
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.costs import StepCostEstimate, StepCosts
from forelook.decoding.drafting.sources.successors import SuccessorSeeds
from forelook.decoding.loop import DecodeLoop, decode
from forelook.decoding.prefill import PrefillSpeed
from forelook.model.loading import LoadedModel
from forelook.model.prefill_speed import PREFILL_SPEED, estimated_prefill
from forelook.model.step_costs import MAX_DRAFTS_ON_CPU, STEP_COSTS, estimated_costs

logger = logging.getLogger(__name__)

_SAVED_DRIFT = 0.1  # chosen, not measured: a prefill speed that has changed by less is not saved again


@dataclass(slots=True)
class Drafting:
    """What drafting knows about a model; it grows with every step and in idle time.

    Attributes:
        budget: how many drafts a step may carry; ``None`` for a common shape of step costs.
        learning: the model's successors of single tokens; ``None`` to do without.
        loop: runs the decode steps, in this process alone or together with other ranks.
        costs_path: file of the step costs; ``None`` keeps them in memory.
        saved_costs: what is in that file.
        prefill: how fast prompts run; ``None`` if unknown.
        prefill_path: its file; ``None`` keeps it in memory.
        saved_prefill: the tokens per second in that file.
    """

    budget: StepBudget | None = None
    learning: SuccessorLearning | None = None
    loop: DecodeLoop = decode
    costs_path: Path | None = None
    saved_costs: StepCosts | None = None
    prefill: PrefillSpeed | None = None
    prefill_path: Path | None = None
    saved_prefill: float = 0.0

    @property
    def seeds(self) -> SuccessorSeeds | None:
        """The model's successors of single tokens, as far as they are known."""
        return None if self.learning is None else self.learning.seeds

    @property
    def has_unsaved(self) -> bool:
        """Whether ``save`` has something to write."""
        return self._has_new_costs or self._has_new_prefill or (self.learning is not None and self.learning.has_unsaved)

    @property
    def _has_new_costs(self) -> bool:
        return self.costs_path is not None and self.budget is not None and self.budget.costs != self.saved_costs

    @property
    def _has_new_prefill(self) -> bool:
        if self.prefill_path is None or self.prefill is None:
            return False
        return abs(self.prefill.tokens_per_s - self.saved_prefill) > _SAVED_DRIFT * self.saved_prefill

    def save(self) -> None:
        """Keep what was learned for the next start. Where that fails, it is not tried again."""
        try:
            if self._has_new_costs and self.costs_path is not None and self.budget is not None:
                STEP_COSTS.write(self.costs_path, self.budget.costs)
                self.saved_costs = self.budget.costs
            if self._has_new_prefill and self.prefill_path is not None and self.prefill is not None:
                PREFILL_SPEED.write(self.prefill_path, self.prefill.tokens_per_s)
                self.saved_prefill = self.prefill.tokens_per_s
            if self.learning is not None:
                self.learning.save()
        except OSError as error:
            logger.warning("what drafting learned is not kept for the next start: %s", error.strerror or error)
            self.costs_path = self.prefill_path = None
            if self.learning is not None:
                self.learning.path = None


def restore_drafting(model: LoadedModel, cache_dir: Path | None) -> Drafting:
    """Begin with what earlier processes learned of a model on this device, or else with an estimate.

    Args:
        model: just loaded.
        cache_dir: folder of what is kept; ``None`` to keep nothing.
    """
    of_model = model.fingerprint, model.device, model.dtype
    path = None if cache_dir is None else STEP_COSTS.path(cache_dir, *of_model)
    saved = None if path is None else STEP_COSTS.read(path)
    costs = StepCostEstimate(saved or estimated_costs(model.weights), is_measured=saved is not None)
    budget = StepBudget(costs, max_draft_tokens=MAX_DRAFTS_ON_CPU) if model.device.type == "cpu" else StepBudget(costs)
    speed_path = None if cache_dir is None else PREFILL_SPEED.path(cache_dir, *of_model)
    speed = None if speed_path is None else PREFILL_SPEED.read(speed_path)
    prefill = PrefillSpeed(speed or estimated_prefill(model.weights), is_measured=speed is not None)
    return Drafting(
        budget,
        SuccessorLearning.of(model, cache_dir),
        costs_path=path,
        saved_costs=budget.costs,
        prefill=prefill,
        prefill_path=speed_path,
        saved_prefill=prefill.tokens_per_s,
    )
