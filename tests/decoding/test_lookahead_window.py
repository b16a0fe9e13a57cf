"""The lookahead window against the published rules, written out naively."""

from __future__ import annotations

import numpy as np
import pytest
from forelook.decoding.lookahead.window import LookaheadWindow
from forelook.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st

sizes = st.tuples(st.integers(1, 6), st.integers(2, 6))


def guesses_by_position(window: LookaheadWindow) -> dict[tuple[int, int], int]:
    """(row, offset from c) → token."""
    found = {(0, column): token for column, token in enumerate(window.rows[0], start=1)}
    for row in range(1, window.ngram_size - 1):
        found.update({(row, row + column): token for column, token in enumerate(window.rows[row])})
    return found


@given(shape=sizes, seed=st.integers(0, 50))
def test_rows_have_the_published_shape_and_offsets(shape, seed):
    window_size, ngram_size = shape
    window = LookaheadWindow(window_size, ngram_size, [3, 4, 5], seed)
    assert len(window.rows) == ngram_size - 1
    assert len(window.rows[0]) == window_size - 1
    assert all(len(row) == window_size for row in window.rows[1:])
    assert len(window) == len(window.token_ids) == (ngram_size - 1) * window_size - 1
    expected = list(range(1, window_size))
    expected += [row + column for row in range(1, ngram_size - 1) for column in range(window_size)]
    assert window.offsets.tolist() == expected


@given(shape=sizes)
def test_visibility_is_row_0_up_to_the_column_and_the_column_above(shape):
    window_size, ngram_size = shape
    window = LookaheadWindow(window_size, ngram_size, [1])
    cells = [(0, column) for column in range(1, window_size)]
    cells += [(row, column) for row in range(1, ngram_size - 1) for column in range(window_size)]
    for index, (row, column) in enumerate(cells):
        for other, (seen_row, seen_column) in enumerate(cells):
            in_row_0 = seen_row == 0 and seen_column <= column
            in_column = 1 <= seen_row <= row and seen_column == column
            assert window.visibility[index, other] == (in_row_0 or in_column)


@given(shape=sizes, seed=st.integers(0, 20))
def test_advance_moves_rows_up_and_drops_the_first_token_of_row_0(shape, seed):
    window_size, ngram_size = shape
    window = LookaheadWindow(window_size, ngram_size, list(range(100, 400)), seed)
    before = guesses_by_position(window)
    new = [1000 + column for column in range(window_size)]
    for column, token in enumerate(new):
        before[ngram_size - 1, ngram_size - 1 + column] = token
    window.advance(new)
    after = guesses_by_position(window)
    assert len(window) == (ngram_size - 1) * window_size - 1
    assert after == {(row, offset): before[row + 1, offset + 1] for row, offset in after}


@given(shape=sizes)
def test_ngrams_stand_at_consecutive_positions(shape):
    window_size, ngram_size = shape
    window = LookaheadWindow(window_size, ngram_size, list(range(100, 400)))
    cells = guesses_by_position(window)
    new = [1000 + column for column in range(window_size)]
    ngrams = window.ngrams(7, new)
    assert len(ngrams) == window_size
    for column, ngram in enumerate(ngrams):
        expected = [7 if column == 0 else cells[0, column]]
        expected += [cells[row, row + column] for row in range(1, ngram_size - 1)]
        assert list(ngram) == [*expected, new[column]]


def test_the_same_seed_gives_the_same_guesses():
    windows = [LookaheadWindow(5, 4, list(range(50)), seed) for seed in (1, 1, 2)]
    assert windows[0].rows == windows[1].rows != windows[2].rows


@pytest.mark.parametrize(
    ("window_size", "ngram_size", "seed_ids", "field"),
    [(0, 3, [1], "window_size"), (2, 1, [1], "ngram_size"), (2, 2, [], "seed_ids")],
)
def test_sizes_outside_their_range_are_named(window_size, ngram_size, seed_ids, field):
    with pytest.raises(ConfigError, match=field):
        LookaheadWindow(window_size, ngram_size, seed_ids)


def test_jacobi_iteration_reaches_the_models_own_continuation():
    """A window that is right about W tokens stays right: the fixed point of the iteration is the greedy output."""
    truth = list(range(200, 300))
    window = LookaheadWindow(4, 3, [1])
    position = 0
    for _ in range(10):
        # a model that is always right about the next position, whatever it sees
        new = [truth[position + 2 + column] for column in range(4)]
        assert np.array_equal(window.ngrams(truth[position], new)[0][-1], truth[position + 2])
        window.advance(new)
        position += 1
    assert window.rows[1] == truth[position + 1 : position + 5]
    assert window.rows[0][:3] == truth[position + 1 : position + 4]
