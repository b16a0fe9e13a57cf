"""Forelook's drafter: one tree of all sources' guesses, as large as the measured step costs make worthwhile."""

from __future__ import annotations

from collections.abc import Sequence

from forelook.decoding.drafting.backoff import DraftBackoff
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.calibration import Calibrations
from forelook.decoding.drafting.draft import DraftOrigin, DraftSource
from forelook.decoding.drafting.drafter import StepPlan, StepRows, StepState
from forelook.decoding.drafting.sources.prompt import PromptSource
from forelook.decoding.drafting.sources.successors import (
    NUM_CHOICES,
    SuccessorSeeds,
    SuccessorTable,
    ending_of,
    ending_then,
)
from forelook.decoding.drafting.tree import CandidateTree, DraftTree, Selection
from forelook.decoding.layout import StepModel
from forelook.decoding.lookahead.filler import WindowFiller, unknown_yields
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.decoding.verification import Verified

# Measured: docs/decisions.md, "Second choices of short steps".
_MIN_STEP_FOR_CHOICES_S = 0.008

# Limits per source and step. Measured: docs/decisions.md, "The constants of drafting lie on a plateau".
_MAX_CANDIDATES = 8
_MAX_LENGTH = 24

_SEED_TOKENS = 256  # of the context, for the first window; chosen, not measured


class DraftMemory:
    """What drafting has learned of a model and its user; the caller keeps it across requests.

    Attributes:
        calibrations: acceptance per origin, match length and share.
        successors: the model's own choices after the same tokens.
        window_yields: accepted tokens per window token, by n-gram size.

    Args:
        seeds: successors of single tokens.
        calibrations: existing ones to continue; new by default.
    """

    def __init__(self, seeds: SuccessorSeeds | None = None, calibrations: Calibrations | None = None) -> None:
        self.calibrations = Calibrations() if calibrations is None else calibrations
        self.successors = SuccessorTable(seeds)
        self.window_yields = unknown_yields()


class TreeDrafter:
    """Plans steps from all sources and learns from the outcomes.

    Args:
        request: its context and boundary tokens.
        model: only its tail sizes are read.
        sources: asked in this order, after the prompt and the output; equal guesses merge.
        budget: how many drafts a step may carry; a common shape of step costs by default.
        memory: what earlier requests to this model taught; kept up to date. Empty by default.
    """

    recipe = None  # sources, calibrations and memory are this process's own

    def __init__(
        self,
        request: DecodeRequest,
        model: StepModel,
        *,
        sources: Sequence[DraftSource] = (),
        budget: StepBudget | None = None,
        memory: DraftMemory | None = None,
    ) -> None:
        context, boundary_ids = request.draft_context, request.boundary_ids
        memory = DraftMemory() if memory is None else memory
        own = PromptSource(context, request.after)
        self._filler = WindowFiller(
            [token for token in context[-_SEED_TOKENS:] if token not in boundary_ids], memory.window_yields
        )
        self._sources = [own, *sources, self._filler]
        self._context = list(context)
        self._budget = StepBudget() if budget is None else budget
        self._memory = memory
        self._calibration = memory.calibrations.of(request.is_infilling)
        self._tail_sizes = model.tail_sizes
        self._boundary_ids = boundary_ids
        self._ending = ending_of(self._context)
        self._present = own.vocabulary
        self._state: StepState | None = None
        self._candidates: CandidateTree | None = None
        self._selection: Selection | None = None
        self._backoff = DraftBackoff()
        self._cost = 0.0
        self._plain_step_s = 0.0

    @property
    def num_choices(self) -> int:
        """Several where a step is long enough for them: they take some 0.1 ms per accepted token."""
        return NUM_CHOICES if self._plain_step_s >= _MIN_STEP_FOR_CHOICES_S else 1

    def plan(self, state: StepState) -> StepPlan:
        """The tree of most tokens per second; empty if drafts are not worth their cost."""
        self._candidates = self._selection = None
        self._state = state
        max_nodes = min(self._budget.max_draft_tokens, state.max_tokens)
        if max_nodes == 0 or state.max_depth == 0 or self._backoff.is_plain():
            self._filler.drop_window()
            return StepPlan(DraftTree())
        curve = self._budget.curve(state.num_cached, state.num_pending, self._tail_sizes)
        self._plain_step_s = curve.seconds[0]
        candidates = self._candidates = CandidateTree(self._calibration, state.max_depth, curve.floor)
        # One more than can be chosen: it calibrates the guess after the last accepted one.
        max_length = min(state.max_depth, _MAX_LENGTH, curve.most_drafts + 1)
        for source in self._sources:
            for draft in source.propose(self._context, max_candidates=_MAX_CANDIDATES, max_length=max_length):
                candidates.add(draft)
        is_allowed = None
        constraint = state.constraint
        if constraint is not None:

            def is_allowed(path: list[int], token: int) -> bool:
                allowed = constraint.allowed_ids([*state.generated, *path])
                return allowed is None or token in allowed

        selection = self._selection = candidates.select(
            curve,
            max_nodes,
            ending=self._ending,
            successors=self._memory.successors,
            present=self._present,
            is_allowed=is_allowed,
        )
        num_drafts = len(selection.tree)
        expected = 1.0 + sum(selection.probabilities)
        window = self._filler.fill(curve, num_drafts, expected, state.max_tokens - num_drafts)
        num_more = num_drafts + (0 if window is None else len(window))
        self._cost = (curve.seconds[num_more] + self._budget.seconds_per_plan) / curve.seconds[0] - 1.0
        return StepPlan(selection.tree, window)

    def learn(self, plan: StepPlan, verified: Verified, rows: StepRows, stats: DecodingStats, forward_s: float) -> None:
        """Calibrate costs and drafts, learn the model's choices, extend the sources."""
        tree = plan.tree
        if self._state is not None and stats.num_steps > 1:  # the first step of a request finds cold caches
            num_window = 0 if plan.window is None else len(plan.window)
            num_tokens = self._state.num_pending + len(tree) + num_window
            self._budget.observe(num_tokens, self._state.num_cached, forward_s, self._tail_sizes)
        if self._candidates is not None and self._selection is not None:
            self._candidates.learn(verified.token_ids)
            self._backoff.observe(len(verified.node_path), self._cost)
            origins = [self._calibration.origin(cell) for cell in self._selection.cells]
            accepted_origins = [origins[node - 1] for node in verified.node_path]
            for origin in accepted_origins:
                stats.count_accepted(origin)
            hits = accepted_origins.count(DraftOrigin.LOOKAHEAD)
            self._filler.learn(plan.window, self._context, rows.argmax[len(tree) + 1 :], len(verified.token_ids), hits)
        self._learn_successors(tree, rows)
        accepted = verified.token_ids
        self._context += accepted
        self._present.update(accepted)
        for token in accepted:
            self._ending = ending_then(self._ending, token)
        for source in self._sources:
            source.extend(accepted)

    def _learn_successors(self, tree: DraftTree, rows: StepRows) -> None:
        endings = [self._ending] if self._selection is None else self._selection.endings
        learn, boundaries = self._memory.successors.learn, self._boundary_ids
        for node, (ending, best) in enumerate(zip(endings, rows.argmax[: len(tree) + 1], strict=True)):
            if best in boundaries:
                continue
            said = rows.likeliest.get(node)
            if said is None:
                learn(ending, (best,), (1.0,))
            elif boundaries.isdisjoint(said.token_ids):
                learn(ending, said.token_ids, said.shares)
            else:
                pairs = zip(said.token_ids, said.shares, strict=True)
                learn(ending, *zip(*[pair for pair in pairs if pair[0] not in boundaries], strict=True))
