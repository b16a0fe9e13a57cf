"""What the decode loop needs of a drafter: it plans each step and learns from the outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from forelook.decoding.drafting.tree import DraftTree
from forelook.decoding.likeliest import Likeliest
from forelook.decoding.limits import TokenConstraint
from forelook.decoding.lookahead.window import LookaheadWindow
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.decoding.verification import Verified


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What a step verifies besides the tokens it must run: a draft tree, and a lookahead window or none."""

    tree: DraftTree
    window: LookaheadWindow | None = None


@dataclass(frozen=True, slots=True)
class StepState:
    """What a drafter knows of the step to plan.

    Attributes:
        generated: all output so far; the drafter must not change it.
        num_cached: committed tokens.
        num_pending: tokens the step runs in any case.
        max_depth: maximum number of draft tokens in a row that could still be accepted.
        max_tokens: maximum number of tail tokens, drafts and window together.
        constraint: which tokens may come next, while one applies.
    """

    generated: list[int]
    num_cached: int
    num_pending: int
    max_depth: int
    max_tokens: int
    constraint: TokenConstraint | None


@dataclass(frozen=True, slots=True)
class StepRows:
    """What the model said at the rows of a step.

    Attributes:
        argmax: of every logit row of the plan's layout.
        likeliest: the likeliest tokens after node 0 and each accepted draft node; empty where the drafter asked for
            none, or where other ranks ran a part of the step.
    """

    argmax: list[int]
    likeliest: dict[int, Likeliest]


class DrafterRecipe(Protocol):
    """What any rank builds an equal drafter from: a frozen dataclass of numbers, listed in ``parallel.messages``."""

    @property
    def max_logit_rows(self) -> int:
        """Maximum number of logit rows of a step."""
        ...

    def drafter(self, request: DecodeRequest) -> Drafter:
        """A drafter that plans the same steps on every rank."""
        ...


class Drafter(Protocol):
    """Decides each step's drafts and learns from its outcome."""

    @property
    def recipe(self) -> DrafterRecipe | None:
        """How other ranks build this drafter; ``None`` if rank 0 must send its plans."""
        ...

    @property
    def num_choices(self) -> int:
        """How many of the model's likeliest tokens after each accepted node ``learn`` is given; 1 for the argmax."""
        ...

    def plan(self, state: StepState) -> StepPlan:
        """Choose the drafts of the next step."""
        ...

    def learn(self, plan: StepPlan, verified: Verified, rows: StepRows, stats: DecodingStats, forward_s: float) -> None:
        """Learn from a step's outcome.

        Args:
            plan: of the step.
            verified: what it yielded.
            rows: what the model said.
            stats: of the generation; accepted drafts are counted there.
            forward_s: seconds of the step's forward.
        """
        ...


class NoDrafts:
    """A drafter of plain steps."""

    recipe = None
    num_choices = 1

    def plan(self, state: StepState) -> StepPlan:
        """No drafts."""
        del state
        return StepPlan(DraftTree())

    def learn(self, plan: StepPlan, verified: Verified, rows: StepRows, stats: DecodingStats, forward_s: float) -> None:
        """Nothing to learn."""


NO_DRAFTS = NoDrafts()
