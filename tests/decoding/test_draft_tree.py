"""The draft tree against naive selection, and its calibration against counted outcomes."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from forelook.decoding.drafting.budget import CostCurve
from forelook.decoding.drafting.calibration import AcceptanceCalibration, Calibrations
from forelook.decoding.drafting.draft import Draft, DraftOrigin
from forelook.decoding.drafting.sources.successors import SuccessorTable, ending_of
from forelook.decoding.drafting.tree import CandidateTree, DraftTree
from forelook.decoding.drafting.tree_drafter import DraftMemory
from forelook.decoding.limits import Limits
from forelook.decoding.request import DecodeRequest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decoding.streams import drafted
from tests.fakes import RandomTransformer

origins = st.sampled_from([DraftOrigin.PROMPT, DraftOrigin.WORKSPACE, DraftOrigin.PREVIOUS_SUGGESTION])


@st.composite
def drafts(draw):
    ids = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=6)))
    shares = tuple(draw(st.floats(0.01, 1.0)) for _ in ids)
    return Draft(ids, shares, draw(st.integers(0, 20)), draw(origins))


def naive_paths(guesses: list[Draft], calibration: AcceptanceCalibration, max_depth: int) -> dict[tuple, float]:
    """Every path → probability: at each node the best calibrated guess per token, all of them together at most one."""
    best: dict[tuple, float] = {}
    for guess in guesses:
        for depth, cell in enumerate(list(calibration.cells_of(guess))[:max_depth]):
            path = guess.token_ids[: depth + 1]
            best[path] = max(best.get(path, 0.0), calibration.probabilities[cell])
    result: dict[tuple, float] = {(): 1.0}
    for depth in range(1, max_depth + 1):
        for parent in [path for path in result if len(path) == depth - 1]:
            left = 1.0
            siblings = [path for path in best if len(path) == depth and path[:-1] == parent]
            for path in sorted(siblings, key=lambda path: -best[path]):
                conditional = min(best[path], left)
                result[path] = result[parent] * conditional
                left -= conditional
    del result[()]
    return result


def paths_of(tree: DraftTree) -> list[tuple]:
    paths: list[tuple] = [()]
    for token, parent in zip(tree.token_ids, tree.parents, strict=True):
        paths.append((*paths[parent], token))
    return paths[1:]


@settings(max_examples=200, deadline=None)
@given(
    guesses=st.lists(drafts(), max_size=6),
    slope=st.sampled_from([0.001, 0.05, 0.3, 2.0]),
    step_size=st.sampled_from([1, 4]),
    max_nodes=st.integers(0, 30),
    max_depth=st.integers(1, 6),
)
def test_selection_maximises_tokens_per_second_over_the_likeliest_paths(
    guesses, slope, step_size, max_nodes, max_depth
):
    calibration = AcceptanceCalibration()
    seconds = [1.0 + slope * ((size + step_size - 1) // step_size * step_size) for size in range(31)]
    candidates = CandidateTree(calibration, max_depth, floor=0.0)
    for guess in guesses:
        candidates.add(guess)
    selection = candidates.select(CostCurve.of(seconds), max_nodes)
    naive = sorted(naive_paths(guesses, calibration, max_depth).values(), reverse=True)[:max_nodes]
    rates = [(1 + sum(naive[:size])) / seconds[size] for size in range(min(len(naive), 30) + 1)]
    chosen = len(selection.tree)
    assert chosen == len(selection.probabilities) == len(selection.cells)
    assert (1 + sum(selection.probabilities)) / seconds[chosen] == pytest.approx(max(rates))
    assert selection.probabilities == pytest.approx(naive[:chosen])
    assert len(set(paths_of(selection.tree))) == chosen, "equal guesses must merge"
    assert all(len(path) <= max_depth for path in paths_of(selection.tree))


@settings(max_examples=200, deadline=None)
@given(
    guesses=st.lists(drafts(), max_size=6),
    steps=st.lists(st.floats(0.0, 0.9), min_size=1, max_size=12),
    max_nodes=st.integers(1, 12),
)
def test_no_draft_longer_than_the_most_that_could_pay_is_ever_chosen(guesses, steps, max_nodes):
    curve = CostCurve.of(list(itertools.accumulate(steps, initial=1.0)))

    def selection(max_length: int) -> tuple[list[tuple], list[float]]:
        candidates = CandidateTree(AcceptanceCalibration(), 12, floor=0.0)
        for guess in guesses:
            short = replace(guess, token_ids=guess.token_ids[:max_length], shares=guess.shares[:max_length])
            candidates.add(short)
        found = candidates.select(curve, max_nodes)
        return paths_of(found.tree), found.probabilities

    assert selection(max(1, curve.most_drafts)) == selection(12)


def test_the_most_drafts_that_could_pay_end_where_certain_ones_do_not():
    assert CostCurve.of([1.0, 1.1, 1.2, 2.4, 2.5]).most_drafts == 2
    assert CostCurve.of([1.0, 2.0, 3.0]).most_drafts == 0
    assert CostCurve.of([1.0, 1.0, 1.0]).most_drafts == 2


def test_drafts_not_worth_their_cost_leave_a_plain_step():
    candidates = CandidateTree(AcceptanceCalibration(), 8, floor=0.0)
    candidates.add(Draft((1, 2, 3), (0.2, 0.2, 0.2), 1, DraftOrigin.PROMPT))
    assert len(candidates.select(CostCurve.of([1.0, 1.5, 2.0, 2.5]), 8).tree) == 0
    assert len(candidates.select(CostCurve.of([1.0, 1.001, 1.002, 1.003]), 8).tree) > 0


def test_selection_looks_past_a_step_in_the_cost():
    """Nodes are free up to the next supported tail size, so four weak ones may pay where one does not."""
    candidates = CandidateTree(AcceptanceCalibration(), 8, floor=0.0)
    for token in range(4):
        candidates.add(Draft((token,), (0.3,), 1, DraftOrigin.PROMPT))
    selection = candidates.select(CostCurve.of([1.0, 1.3, 1.3, 1.3, 1.3]), 4)
    assert len(selection.tree) == 4
    assert selection.probabilities[0] < 0.3


def test_drafts_the_constraint_excludes_are_left_out_with_all_below_them():
    candidates = CandidateTree(AcceptanceCalibration(), 8, floor=0.0)
    candidates.add(Draft((1, 2), (1.0, 1.0), 9, DraftOrigin.PROMPT))
    candidates.add(Draft((5, 6), (0.5, 1.0), 9, DraftOrigin.PROMPT))
    curve = CostCurve.of([1.0 + 1e-6 * size for size in range(9)])
    tree = candidates.select(curve, 8, is_allowed=lambda path, token: bool(path) or token == 5).tree
    assert paths_of(tree) == [(5,), (5, 6)]


def test_successors_extend_drafts_and_the_empty_tree():
    table = SuccessorTable()
    for _ in range(3):
        table.learn(ending_of([7, 8, 9]), (1,), (1.0,))
        table.learn(ending_of([8, 9, 1]), (2,), (1.0,))
    candidates = CandidateTree(AcceptanceCalibration(), 2, floor=0.0)
    curve = CostCurve.of([1.0 + 1e-6 * size for size in range(9)])
    tree = candidates.select(curve, 8, ending=ending_of([7, 8, 9]), successors=table).tree
    assert paths_of(tree) == [(1,), (1, 2)]


@settings(max_examples=100, deadline=None)
@given(guesses=st.lists(drafts(), max_size=5), target=st.lists(st.integers(0, 4), max_size=7))
def test_learning_judges_exactly_the_guesses_whose_parent_was_accepted(guesses, target):
    calibration = AcceptanceCalibration()
    candidates = CandidateTree(calibration, 10, floor=0.0)
    for guess in guesses:
        candidates.add(guess)
    judged: dict[tuple, set[int]] = {}
    for guess in guesses:
        for depth, cell in enumerate(calibration.cells_of(guess)):
            if list(guess.token_ids[:depth]) == target[:depth] and depth < len(target):
                judged.setdefault(guess.token_ids[: depth + 1], set()).add(cell)
    expected = AcceptanceCalibration()
    for path in sorted(judged):
        for cell in judged[path]:
            expected.observe(cell, path[-1] == target[len(path) - 1])
    candidates.learn(target)
    assert calibration.probabilities == pytest.approx(expected.probabilities)


def test_calibration_converges_to_the_observed_rate_and_follows_a_change():
    calibration = AcceptanceCalibration()
    cell = calibration.cell(DraftOrigin.WORKSPACE, 4, 0.6)
    chooser = random.Random(0)
    for rate in (0.85, 0.2):
        for _ in range(3000):
            calibration.observe(cell, chooser.random() < rate)
        assert calibration.probabilities[cell] == pytest.approx(rate, abs=0.08)
    assert calibration.origin(cell) is DraftOrigin.WORKSPACE


def test_a_longer_match_and_a_larger_share_are_trusted_more_from_the_start():
    calibration = AcceptanceCalibration()
    for origin in (DraftOrigin.PROMPT, DraftOrigin.OUTPUT, DraftOrigin.WORKSPACE):
        by_share = [calibration.probabilities[calibration.cell(origin, 3, share / 8)] for share in range(9)]
        assert by_share == sorted(by_share)
        by_match = [calibration.probabilities[calibration.cell(origin, match, 0.95)] for match in range(1, 5)]
        assert by_match == sorted(by_match)


@pytest.mark.parametrize("is_infilling", [False, True])
def test_gaps_and_continuations_are_calibrated_apart(is_infilling):
    memory, untouched = DraftMemory(), Calibrations()
    prompt = [1, 2, 3, 1, 2, 3, 1, 2]
    request = DecodeRequest(prompt, Limits(12), after=[5, 6], is_infilling=is_infilling)
    list(drafted(request, RandomTransformer(3), memory=memory))
    for kind in (False, True):
        same = memory.calibrations.of(kind).probabilities == untouched.of(kind).probabilities
        assert same == (kind != is_infilling)


@given(paths=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), max_size=6), kept=st.integers(0, 30))
def test_keeping_the_first_nodes_leaves_a_consistent_trie(paths, kept):
    tree = DraftTree()
    for path in paths:
        tree.add_path(path)
    before = paths_of(tree)
    tree.keep_first(kept)
    assert paths_of(tree) == before[:kept]
    assert len(tree.children) == len(tree) + 1
    rebuilt = {(parent, token): child for parent, kids in enumerate(tree.children) for token, child in kids.items()}
    expected = {
        (parent, token): node
        for node, (token, parent) in enumerate(zip(tree.token_ids, tree.parents, strict=True), start=1)
    }
    assert rebuilt == expected
