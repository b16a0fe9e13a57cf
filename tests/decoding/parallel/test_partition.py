"""Which rank computes what: everything once, but the shared row, and every rank can run its part."""

from __future__ import annotations

import pytest
from forelook.decoding.drafting.drafter import StepPlan
from forelook.decoding.drafting.tree import DraftTree
from forelook.decoding.layout import lay_out
from forelook.decoding.lookahead.window import LookaheadWindow
from forelook.decoding.parallel.partition import join_argmax, partition_plan
from hypothesis import given
from hypothesis import strategies as st

from tests.decoding.parallel.plans import plans
from tests.fakes import check_layout


@given(plans(), st.integers(1, 5), st.booleans())
def test_a_partition_covers_every_draft_and_column_and_every_rank_can_run_its_part(plan, num_ranks, first_rank_drafts):
    parts = partition_plan(plan, num_ranks, 1 if first_rank_drafts else None)
    assert len(parts) == num_ranks
    for part in parts:
        # the fake's own check: every row sees one token per position before it
        check_layout(lay_out([1, 2], 3, part.tree.token_ids, part.tree.parents, part.window), 3, 8, 256)
        for node, token, parent in zip(part.nodes, part.tree.token_ids, part.tree.parents, strict=True):
            assert token == plan.tree.token_ids[node - 1]
            assert plan.tree.parents[node - 1] == (part.nodes[parent - 1] if parent else 0)
    leaves = {node for node in range(1, len(plan.tree) + 1) if not plan.tree.children[node]}
    owners = [rank for rank, part in enumerate(parts) for node in part.nodes if node in leaves]
    assert len(owners) == len(leaves), "a leaf is run once"
    assert not (first_rank_drafts and set(owners) - {0})
    if plan.window is not None:
        last_row = [cell for part in parts if part.window for cell in part.window.last_row]
        assert last_row == list(range(plan.window.num_last_row))
    # a row's argmax finds its way back: say which row of the whole step it was
    size = 1 + len(plan.tree)
    said = [
        [0, *part.nodes, *(size + cell for cell in (part.window.last_row if part.window else ()))] for part in parts
    ]
    assert [len(rows) for rows in said] == [part.num_rows for part in parts]
    num_last_row = 0 if plan.window is None else plan.window.num_last_row
    assert join_argmax(plan, parts, said) == list(range(size + num_last_row))


def full_plan(window_size: int, ngram_size: int, num_candidates: int) -> StepPlan:
    tree = DraftTree()
    for candidate in range(num_candidates):
        tree.add_path([100 + candidate, *range(1, ngram_size - 1)])
    return StepPlan(tree, LookaheadWindow(window_size, ngram_size, [9]))


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
@pytest.mark.parametrize(("size", "ngram_size"), [(15, 5), (10, 5), (7, 4)])
def test_tokens_per_rank_fall_as_one_over_ranks_plus_the_shared_row(num_ranks, size, ngram_size):
    plan = full_plan(size, ngram_size, size)
    parts = partition_plan(plan, num_ranks)
    whole = len(plan.tree) + len(plan.window)
    assert whole + 1 == 2 * size * (ngram_size - 1)
    shared_row = size - 1
    branch = ngram_size - 1
    for part in parts:
        assert part.num_tokens <= (whole - shared_row) / num_ranks + shared_row + branch
    # row 0 counts once per rank, and a rank runs no more of it than its columns see
    assert sum(part.num_tokens for part in parts) <= whole + (num_ranks - 1) * shared_row
