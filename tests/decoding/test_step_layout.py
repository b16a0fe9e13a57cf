"""Positions and visibility, checked by what the model computes with them."""

from __future__ import annotations

import numpy as np
from forelook.decoding.layout import causal_layout, lay_out
from forelook.decoding.lookahead.window import LookaheadWindow
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import RandomTransformer, visibility_of


@st.composite
def trees(draw):
    size = draw(st.integers(0, 12))
    return [draw(st.integers(0, node)) for node in range(size)], [draw(st.integers(0, 31)) for _ in range(size)]


def path_of(parents, tokens, node):
    path = []
    while node:
        path.append(tokens[node - 1])
        node = parents[node - 1]
    return path[::-1]


def window_path(window, row, column):
    """The tokens a window cell continues, by the published rule: row 0 up to its column, then down the column."""
    row_0 = [None, *window.rows[0]]
    path = row_0[1 : column + 1]
    if row == 0:
        return path
    return path + [window.rows[above][column] for above in range(1, row + 1)]


@settings(deadline=None, max_examples=150)
@given(
    weights=st.integers(0, 3),
    committed=st.lists(st.integers(0, 31), max_size=6),
    pending=st.lists(st.integers(0, 31), min_size=1, max_size=4),
    tree=trees(),
    window_size=st.one_of(st.none(), st.integers(1, 4)),
    ngram_size=st.integers(2, 5),
)
def test_every_row_computes_what_a_plain_run_over_its_path_computes(
    weights, committed, pending, tree, window_size, ngram_size
):
    parents, tokens = tree
    model = RandomTransformer(weights)
    if committed:
        model.forward(causal_layout(committed, 0))
        model.commit(range(len(committed)))
    window = None if window_size is None else LookaheadWindow(window_size, ngram_size, list(range(32)), seed=weights)
    layout = lay_out(pending, len(committed), tokens, parents, window)
    logits = model.forward(layout).numpy()

    paths = [path_of(parents, tokens, node) for node in range(len(tokens) + 1)]
    if window is not None:
        last = ngram_size - 2
        columns = range(1, window_size) if last == 0 else range(window_size)
        paths += [window_path(window, last, column) for column in columns]
    assert len(logits) == len(paths)
    plain = RandomTransformer(weights)
    for row, path in zip(logits, paths, strict=True):
        ids = [*committed, *pending, *path]
        np.testing.assert_allclose(row, plain.forward(causal_layout(ids, 0))[0].numpy(), atol=1e-9)


@given(tree=trees(), num_pending=st.integers(1, 3))
def test_a_draft_sees_its_ancestors_and_nothing_else(tree, num_pending):
    parents, tokens = tree
    layout = lay_out([7] * num_pending, 5, tokens, parents)
    visible = visibility_of(layout)
    for node in range(1, len(tokens) + 1):
        seen = set(np.flatnonzero(visible[num_pending - 1 + node]).tolist())
        expected = set(range(num_pending))
        depth, ancestor = 0, node
        while ancestor:
            expected.add(num_pending - 1 + ancestor)
            ancestor = parents[ancestor - 1]
            depth += 1
        assert seen == expected
        assert layout.positions[num_pending - 1 + node] == 5 + num_pending - 1 + depth


def test_a_chain_needs_no_mask():
    assert lay_out([1], 3, [4, 5], [0, 1]).visibility is None
    assert lay_out([1], 3, [4, 5], [0, 0]).visibility is not None


def test_a_plain_step_is_one_causal_token():
    layout = lay_out([9], 4)
    assert layout.token_ids.tolist() == [9]
    assert layout.positions.tolist() == [4]
    assert layout.logit_rows.tolist() == [0]
