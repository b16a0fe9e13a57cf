"""Second choices of verified rows: asked for where a step is long enough to pay for them, and then drafted."""

from __future__ import annotations

import pytest
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.costs import StepCosts
from forelook.decoding.drafting.drafter import StepRows, StepState
from forelook.decoding.drafting.sources.successors import NUM_CHOICES, ending_of
from forelook.decoding.drafting.tree_drafter import DraftMemory, TreeDrafter
from forelook.decoding.likeliest import Likeliest
from forelook.decoding.limits import Limits
from forelook.decoding.loop import decode
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.decoding.verification import Verified

from tests.fakes import RandomTransformer

STATE = StepState([], 0, 1, 8, 32, None)


def drafter_of(plain_step_s: float, memory: DraftMemory | None = None, prompt: tuple[int, ...] = (1, 2)) -> TreeDrafter:
    # a guess of one in a hundred pays for its token, a token of the lookahead window does not
    costs = StepCosts((1, 33), (plain_step_s, 1.32 * plain_step_s), (0.0, 0.0))
    budget = StepBudget(costs, max_draft_tokens=8, seconds_per_draft=0.0)
    return TreeDrafter(DecodeRequest(list(prompt), Limits(8)), RandomTransformer(1), budget=budget, memory=memory)


@pytest.mark.parametrize(
    ("plain_step_s", "num_choices"), [(0.003, 1), (0.0079, 1), (0.008, NUM_CHOICES), (0.5, NUM_CHOICES)]
)
def test_a_long_step_asks_for_second_choices_and_a_short_one_does_not(plain_step_s: float, num_choices: int) -> None:
    drafter = drafter_of(plain_step_s)
    drafter.plan(STATE)
    assert drafter.num_choices == num_choices
    assert NUM_CHOICES == 4


def test_a_second_choice_that_was_learned_is_a_sibling_draft() -> None:
    memory = DraftMemory()
    first = drafter_of(0.01, memory)
    plan = first.plan(STATE)
    assert len(plan.tree) == 0, "nothing is known yet"
    said = Likeliest((20, 21, 22, 23), (0.5, 0.3, 0.15, 0.05))
    first.learn(plan, Verified([20], [], None), StepRows([20], {0: said}), DecodingStats(), 0.01)
    again = drafter_of(0.01, memory).plan(STATE)
    siblings = {token for token, parent in zip(again.tree.token_ids, again.tree.parents, strict=True) if parent == 0}
    assert {20, 21} <= siblings


@pytest.mark.parametrize(("plain_step_s", "learns"), [(0.003, False), (0.01, True)])
def test_the_loop_gives_a_long_steps_second_choices_to_later_requests(plain_step_s: float, learns: bool) -> None:
    memory = DraftMemory()
    prompt = [3, 1, 4, 1, 5]
    model = RandomTransformer(1, sharpness=1.0)
    list(decode(DecodeRequest(prompt, Limits(8)), model, drafter_of(plain_step_s, memory, tuple(prompt))))
    assert (len(memory.successors.successors(ending_of(prompt))) > 1) == learns
