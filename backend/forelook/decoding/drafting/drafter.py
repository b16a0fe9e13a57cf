"""What the decode loop asks of whoever decides a step's drafts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from forelook.decoding.drafting.tree import DraftTree
from forelook.decoding.limits import TokenConstraint
from forelook.decoding.lookahead.window import LookaheadWindow
from forelook.decoding.stats import DecodingStats
from forelook.decoding.verification import Verified


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What a step verifies besides the tokens it must run: a draft tree, and a lookahead window or none."""

    tree: DraftTree
    window: LookaheadWindow | None = None


@dataclass(frozen=True, slots=True)
class StepState:
    """What a drafter is told about the step to plan.

    Attributes:
        generated: all output so far; the drafter does not change it.
        num_cached: committed tokens.
        num_pending: tokens the step runs in any case.
        max_depth: most draft tokens in a row that could still be accepted.
        max_tokens: most tail tokens, drafts and window together, that fit.
        constraint: which tokens may come next, while one applies.
    """

    generated: list[int]
    num_cached: int
    num_pending: int
    max_depth: int
    max_tokens: int
    constraint: TokenConstraint | None


class Drafter(Protocol):
    """Decides each step's drafts and learns from its outcome."""

    def plan(self, state: StepState) -> StepPlan:
        """Choose the drafts of the next step."""
        ...

    def learn(self, plan: StepPlan, verified: Verified, argmax: list[int], stats: DecodingStats) -> None:
        """Take in what the step yielded; ``argmax`` belongs to the layout's logit rows."""
        ...


class NoDrafts:
    """A drafter for plain steps, as a prefill ends with."""

    def plan(self, state: StepState) -> StepPlan:
        """No drafts."""
        del state
        return StepPlan(DraftTree())

    def learn(self, plan: StepPlan, verified: Verified, argmax: list[int], stats: DecodingStats) -> None:
        """There is nothing to learn."""
