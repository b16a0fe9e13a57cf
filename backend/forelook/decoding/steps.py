"""Which part of each decode step this process computes: all of it, or a rank's part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from forelook.decoding.drafting.drafter import Drafter, StepPlan, StepState
from forelook.decoding.drafting.tree import DraftTree
from forelook.decoding.layout import WindowTail
from forelook.decoding.limits import Limits
from forelook.decoding.verification import Verified
from forelook.finish_reason import FinishReason


class StepPart(Protocol):
    """What this process runs of a step besides the pending tokens."""

    @property
    def tree(self) -> DraftTree:
        """Draft tokens to verify."""
        ...

    @property
    def window(self) -> WindowTail | None:
        """A lookahead window, or some columns of one."""
        ...


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What a whole step yielded.

    Attributes:
        verified: output tokens, and the accepted nodes of the whole plan.
        argmax: of every logit row of the whole plan, in the order of its layout.
        own_path: the accepted nodes of the part that this process ran.
    """

    verified: Verified
    argmax: list[int]
    own_path: list[int]


class Partition(Protocol):
    """Which part of each step this process runs, and how all parts become one outcome.

    The methods are called in the order of the loop. On several ranks they are collective: each rank calls the same.
    """

    def begin(self, drafts_on_prompt: bool) -> bool:
        """Start a request; returns whether the end of the prompt carries drafts, which all ranks must agree on."""
        ...

    def interrupted(self, limits: Limits, *, in_prefill: bool = False) -> FinishReason | None:
        """The reason not to start another forward, if there is one."""
        ...

    def plan(self, drafter: Drafter, state: StepState) -> StepPlan:
        """The whole step's plan."""
        ...

    def part(self, plan: StepPlan) -> StepPart:
        """What this process runs of it."""
        ...

    def join(self, plan: StepPlan, walked: Verified, argmax: list[int], *, is_constrained: bool) -> StepOutcome:
        """The whole step's outcome.

        Args:
            plan: of the whole step.
            walked: what this process verified of its part.
            argmax: of the logit rows of this process's part.
            is_constrained: whether the next step still has a token constraint.
        """
        ...


class WholeSteps:
    """The partition of a process that decodes alone: every step is its own."""

    def begin(self, drafts_on_prompt: bool) -> bool:
        """No other rank has to agree."""
        return drafts_on_prompt

    def interrupted(self, limits: Limits, *, in_prefill: bool = False) -> FinishReason | None:
        """Deadline and cancel flag."""
        del in_prefill
        return limits.interrupted()

    def plan(self, drafter: Drafter, state: StepState) -> StepPlan:
        """The drafter's plan."""
        return drafter.plan(state)

    def part(self, plan: StepPlan) -> StepPart:
        """All of it."""
        return plan

    def join(self, plan: StepPlan, walked: Verified, argmax: list[int], *, is_constrained: bool) -> StepOutcome:
        """What was verified is the outcome."""
        del plan, is_constrained
        return StepOutcome(walked, argmax, walked.node_path)


WHOLE_STEPS = WholeSteps()
