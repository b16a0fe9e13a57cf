"""What drafting knows about a model on this device: what a step costs, and the model's own successors."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.sources.successors import SuccessorSeeds
from forelook.decoding.loop import DecodeLoop, decode
from forelook.model.loading import LoadedModel
from forelook.model.step_costs import measured_budget, step_costs, successor_seeds

logger = logging.getLogger(__name__)
_BUSY_SHARE = 0.75  # of the processors; chosen, not measured


@dataclass(frozen=True, slots=True)
class Drafting:
    """Measured once per model and device.

    Attributes:
        budget: how many drafts a step may carry; ``None`` for a common shape of step costs.
        seeds: the model's successors of each single token; ``None`` to start without.
        loop: runs the decode steps, in this process alone or together with other ranks.
    """

    budget: StepBudget | None = None
    seeds: SuccessorSeeds | None = None
    loop: DecodeLoop = decode


def measure_drafting(model: LoadedModel, cache_dir: Path | None) -> Drafting:
    """Read stored measurements, or measure: one or two seconds at a model's first start on a device.

    On a busy machine step costs are left for a later start, because the load of other programs would distort them.

    Args:
        model: just loaded, idle.
        cache_dir: folder of the stored measurements; ``None`` to measure each time.
    """
    try:
        return _measure(model, cache_dir)
    except OSError as error:
        # A full disk or a read-only folder costs a second at the next start, not the model.
        logger.warning("cannot store measurements in %s: %s", cache_dir, error.strerror or error)
        return _measure(model, None)


def _measure(model: LoadedModel, cache_dir: Path | None) -> Drafting:
    sequence = model.new_sequence()
    name, device, dtype = model.fingerprint, model.device, model.dtype
    may_measure = not _is_busy()
    costs = step_costs(
        sequence, cache_dir=cache_dir, fingerprint=name, device=device, dtype=dtype, may_measure=may_measure
    )
    if costs is None:
        logger.info("step costs not measured: the machine is busy")
    start = model.config.bos_token_id
    seeds = successor_seeds(sequence, [] if start is None else [start], cache_dir=cache_dir, fingerprint=name)
    return Drafting(None if costs is None else measured_budget(costs, device), seeds)


def _is_busy() -> bool:
    if not hasattr(os, "getloadavg"):
        return False
    return os.getloadavg()[0] > _BUSY_SHARE * (os.cpu_count() or 1)
