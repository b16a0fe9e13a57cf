"""Rank 0 of lookahead parallelism: each rank has a full replica and computes part of every step.

Ranks exchange token ids only. Rank 0 leads: it alone knows the deadline, the constraint and the cancel flag. A drafter
with a recipe is a function of the prompt and the outcomes, so every rank runs its own; rank 0 sends the plans of any
other drafter. Source: Fu et al., arXiv 2402.02057, section 3.4.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import asdict

from forelook.decoding.drafting.costs import StepCosts
from forelook.decoding.drafting.drafter import Drafter
from forelook.decoding.layout import StepModel
from forelook.decoding.loop import decode
from forelook.decoding.parallel.exchange import RankSteps
from forelook.decoding.parallel.group import RankGroup
from forelook.decoding.parallel.messages import DISMISS, LOAD, UNLOAD, RequestMessage, recipe_to_json, report_ints
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats


class ParallelDecoder:
    """Rank 0's side of a group: its ``decode`` replaces ``loop.decode``. One request at a time.

    Args:
        group: rank 0 of it; the other ranks run ``follow``.
    """

    def __init__(self, group: RankGroup) -> None:
        self._group = group
        self._num_requests = 0
        self._num_sequences = 0
        self._sequences: weakref.WeakKeyDictionary[StepModel, int] = weakref.WeakKeyDictionary()

    def decode(
        self, request: DecodeRequest, model: StepModel, drafter: Drafter, stats: DecodingStats | None = None
    ) -> Iterator[list[int]]:
        """Generate as ``loop.decode`` does, in less time per step; the arguments are the same.

        Yields:
            The tokens each step accepted, its bonus token included; never an empty list.

        Raises:
            DecodingError: the prompt is empty or too long, or another rank's forward failed.
            RankLostError: a rank died or hangs. The group is unusable; the model's cache is unchanged.
        """
        self._num_requests += 1
        message = RequestMessage(
            number=self._num_requests,
            sequence=self._sequence_number(model),
            live_sequences=list(self._sequences.values()),
            max_positions=model.max_positions,
            prompt_ids=list(request.prompt_ids),
            max_new_tokens=request.limits.max_new_tokens,
            stop_token_ids=sorted(request.limits.stop_token_ids),
            boundary_ids=sorted(request.boundary_ids),
            sampling=asdict(request.sampling),
            prefill_chunk=request.prefill_chunk,
            is_constrained=request.constraint is not None,
            is_scored=request.is_scored,
            recipe=recipe_to_json(drafter.recipe),
            report_ints=report_ints(drafter.recipe),
        )
        steps = RankSteps(self._group, message)
        with steps:
            yield from decode(request, model, drafter, stats, partition=steps)

    def unload(self) -> None:
        """Make the other ranks free weights and caches. They load again with ``load`` or the next request.

        Raises:
            RankLostError: a rank died or hangs.
        """
        self._sequences.clear()
        self._group.send(UNLOAD)

    def load(self) -> None:
        """Make the other ranks load; returns at once, as this rank has its own weights to load meanwhile.

        Raises:
            RankLostError: a rank died or hangs.
        """
        self._group.send(LOAD)

    def wait_until_loaded(self, weights: str, timeout_s: float) -> None:
        """Wait until the other ranks have loaded after ``load``.

        Args:
            weights: names this rank's weights.
            timeout_s: how long to wait.

        Raises:
            RankLostError: a rank died, perhaps because it could not load, did not load in time, or has other weights.
        """
        self._group.compare_weights(weights, timeout_s=timeout_s)

    def dismiss(self) -> None:
        """End the other ranks' ``follow``."""
        self._group.send(DISMISS)

    def _sequence_number(self, model: StepModel) -> int:
        number = self._sequences.get(model)
        if number is None:
            self._num_sequences += 1
            number = self._sequences[model] = self._num_sequences
        return number


def shared_costs(costs: StepCosts, num_ranks: int) -> StepCosts:
    """Costs of a step whose tokens beyond the first are split across ranks."""
    sizes = tuple(1 + (size - 1) * num_ranks for size in costs.sizes)
    return StepCosts(sizes, costs.seconds, costs.seconds_per_cached)
