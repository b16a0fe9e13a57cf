"""What the model says after tokens: asked for directly, or learned from steps that were verified anyway."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.costs import StepCosts
from forelook.decoding.drafting.draft import pair_of
from forelook.decoding.drafting.drafter import StepState
from forelook.decoding.drafting.sources.successors import (
    Ending,
    SuccessorSeeds,
    SuccessorTable,
    ask_pair_successors,
    ask_successors,
    ending_of,
)
from forelook.decoding.drafting.tree_drafter import DraftMemory, TreeDrafter
from forelook.decoding.layout import causal_layout
from forelook.decoding.limits import Limits
from forelook.decoding.request import DecodeRequest
from forelook.errors import ConfigError

from tests.decoding import streams
from tests.fakes import RandomTransformer

FREE = StepBudget(StepCosts((1, 64), (1.0, 1.0), (0.0, 0.0)), seconds_per_draft=0.0)


@pytest.mark.parametrize("start_ids", [[], [3], [3, 4]])
def test_what_follows_each_token_alone_is_asked_in_one_forward(start_ids: list[int]) -> None:
    model = RandomTransformer(2, max_positions=64)
    model.forward(causal_layout([9, 9], 0))
    model.commit(range(2))  # of something else
    for tokens in ([5, 30, 0], [7]):
        successors, probabilities = ask_successors(model, start_ids, tokens)
        assert list(model.cached_ids) == start_ids
        assert len(model.layouts[-1]) == len(tokens)
        for row, token in enumerate(tokens):
            alone = RandomTransformer(2, max_positions=64)
            top = torch.softmax(alone.forward(causal_layout([*start_ids, token], 0))[0], dim=-1).topk(8)
            assert successors[row].tolist() == top.indices.tolist()
            np.testing.assert_allclose(probabilities[row], top.values.numpy(), rtol=1e-5)


@pytest.mark.parametrize("start_ids", [[], [3]])
def test_what_follows_pairs_is_asked_in_one_forward(start_ids: list[int]) -> None:
    model = RandomTransformer(2, max_positions=64)
    groups = [(5, [30, 0, 5]), (7, [1])]
    pairs, successors, probabilities = ask_pair_successors(model, start_ids, groups)
    assert len(model.layouts[-1]) == 6, "each first token once"
    expected = [(first, second) for first, seconds in groups for second in seconds]
    assert pairs.tolist() == [pair_of(*pair) for pair in expected]
    for row, pair in enumerate(expected):
        alone = RandomTransformer(2, max_positions=64)
        top = torch.softmax(alone.forward(causal_layout([*start_ids, *pair], 0))[-1], dim=-1).topk(8)
        assert successors[row].tolist() == top.indices.tolist()
        np.testing.assert_allclose(probabilities[row], top.values.numpy(), rtol=1e-5)


def test_seeds_of_many_pairs_stay_what_they_are_while_more_come() -> None:
    seeds = SuccessorSeeds(1000, num_kept=2)
    for count in (1, 2, 40, 300):
        start = len(seeds.pairs)
        numbers = np.arange(start, start + count)
        seeds.add_pairs(pair_of(3, 0) + numbers, np.stack([numbers, numbers + 1], 1), np.full((count, 2), 0.5))
    assert len(seeds.pairs) == 343
    for number in (0, 1, 2, 42, 43, 342):
        assert seeds.of_pair(pair_of(3, number)) == [(number, 0.5), (number + 1, 0.5)]
    assert seeds.of_pair(pair_of(4, 0)) == []
    with pytest.raises(ConfigError, match=r"successors\.shape"):
        seeds.add_pairs([1], np.array([[7]]), np.array([[0.5]]))


def test_what_the_model_said_after_a_pair_goes_before_what_it_said_after_its_last_token() -> None:
    seeds = SuccessorSeeds(10, num_kept=2)
    seeds.add([3], np.array([[7, 8]]), np.array([[0.5, 0.2]]))
    table = SuccessorTable(seeds)
    pair = ending_of([1, 2, 3])
    assert [token for token, _ in table.successors(pair)] == [7, 8]
    seeds.add_pairs([pair_of(2, 3)], np.array([[9, 7]]), np.array([[0.6, 0.2]]))
    assert [token for token, _ in table.successors(pair)] == [9, 7]
    assert [token for token, _ in table.successors(ending_of([3, 3]))] == [7, 8]
    assert dict(table.successors(pair))[7] != dict(table.successors(ending_of([3, 3])))[7], "calibrated apart"
    table.learn(pair, (4,), (1.0,))
    assert [token for token, _ in table.successors(pair)] == [4, 9, 7]


class RecordingTable(SuccessorTable):
    """Notes what it is taught."""

    def __init__(self) -> None:
        super().__init__()
        self.taught: list[tuple[Ending, int]] = []

    def learn(self, ending: Ending, token_ids: Sequence[int], shares: Sequence[float]) -> None:
        self.taught.append((ending, token_ids[0]))
        super().learn(ending, token_ids, shares)


def test_what_is_learned_from_verified_steps_is_the_models_own_choice() -> None:
    memory = DraftMemory()
    memory.successors = table = RecordingTable()
    prompt = [1, 2, 3, 4, 1, 2, 3]
    model = RandomTransformer(5)
    steps = streams.drafted(DecodeRequest(prompt, Limits(60)), model, memory=memory)
    text = prompt + [token for tokens in steps for token in tokens]
    for end in range(len(prompt), len(text)):
        model.truncate(0)
        choice = int(model.forward(causal_layout(text[:end], 0))[0].argmax())
        assert (ending_of(text[:end]), choice) in table.taught
        assert choice == text[end]
    assert len(table.taught) > 60, "the choices after rejected drafts too"
    assert len(table) > 0


def test_seeds_grow_and_a_table_sees_what_was_added_later() -> None:
    seeds = SuccessorSeeds(10, num_kept=3)
    table = SuccessorTable(seeds)
    assert table.successors(ending_of([3])) == []
    seeds.add([3], np.array([[7, 8, 9]]), np.array([[0.5, 0.2, 0.01]]))
    assert [token for token, _ in table.successors(ending_of([3]))] == [7, 8]
    assert np.flatnonzero(seeds.is_known).tolist() == [3]
    with pytest.raises(ConfigError, match=r"successors\.shape"):
        seeds.add([4], np.array([[7, 8]]), np.array([[0.5, 0.2]]))


def test_the_latest_choices_come_first_then_older_best_ones_and_each_is_named_once() -> None:
    table = SuccessorTable()
    ending = ending_of([7, 8, 9])
    table.learn(ending, (1, 2, 3), (0.6, 0.3, 0.005))
    assert [token for token, _ in table.successors(ending)] == [1, 2], "an improbable choice is no guess"
    table.learn(ending, (4, 1), (0.9, 0.1))
    table.learn(ending, (5,), (1.0,))
    assert [token for token, _ in table.successors(ending)] == [5, 4, 1]
    shorter = ending_of([6, 8, 9])
    assert [token for token, _ in table.successors(shorter)] == [5, 4, 1], "after two tokens"
    cells = dict(table.successors(ending))
    assert cells[5] != dict(table.successors(shorter))[5], "calibrated apart"
    table.learn(shorter, (5, 9), (0.7, 0.3))
    assert [token for token, _ in table.successors(shorter)] == [5, 9, 4, 1]


def test_guesses_that_the_text_has_are_calibrated_apart_and_improbable_ones_need_it() -> None:
    seeds = SuccessorSeeds(10, num_kept=3)
    seeds.add([3], np.array([[7, 8, 9]]), np.array([[0.5, 0.2, 0.01]]))
    table = SuccessorTable(seeds)
    table.learn(ending_of([2, 3]), (4, 5), (0.6, 0.4))
    without = dict(table.successors(ending_of([2, 3])))
    having = dict(table.successors(ending_of([2, 3]), {4, 8, 9}))
    assert list(without) == [4, 5, 7, 8]
    assert list(having) == [4, 5, 7, 8, 9]
    assert {token for token in without if without[token] != having[token]} == {4, 8}


def test_a_requests_drafts_know_which_tokens_its_text_has() -> None:
    """After 5 comes 6 here and never before: a seed that the text has is tried, the same seed elsewhere is not."""

    def num_drafted(after: tuple[int, ...]) -> int:
        seeds = SuccessorSeeds(64, num_kept=1)
        seeds.add([5], np.array([[6]]), np.array([[0.05]]))
        model = RandomTransformer(2)
        drafter = TreeDrafter(
            DecodeRequest([1, 2, 5], Limits(4), after=after), model, budget=FREE, memory=DraftMemory(seeds)
        )
        return len(drafter.plan(StepState([], 0, 3, 3, 60, None)).tree)

    assert num_drafted(()) == 0
    assert num_drafted((6,)) >= 1
