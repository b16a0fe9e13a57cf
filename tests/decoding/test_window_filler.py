"""The window filler: W and N follow the step's costs and what windows have brought."""

from __future__ import annotations

import pytest
from forelook.decoding.drafting.budget import CostCurve
from forelook.decoding.lookahead.filler import WindowFiller, unknown_yields

FLAT = CostCurve.of([1.0 + 0.0005 * size for size in range(65)])
STEEP = CostCurve.of([1.0 + 0.1 * size for size in range(65)])


def test_a_window_is_opened_where_tokens_cost_little_and_not_where_they_cost_much() -> None:
    assert WindowFiller([1, 2, 3], unknown_yields()).fill(FLAT, 4, 2.0, 64) is not None
    assert WindowFiller([1, 2, 3], unknown_yields()).fill(STEEP, 4, 2.0, 64) is None


@pytest.mark.parametrize("ngram_size", [3, 4, 5])
def test_the_n_that_has_brought_most_is_chosen(ngram_size: int) -> None:
    gains = unknown_yields()
    gains[ngram_size].observe(2000, 100)
    window = WindowFiller([1, 2, 3], gains).fill(FLAT, 4, 2.0, 64)
    assert window is not None
    assert window.ngram_size == ngram_size


def test_w_stays_below_a_jump_of_the_costs() -> None:
    jumping = CostCurve.of([1.0 if size <= 20 else 3.0 for size in range(65)])
    window = WindowFiller([1, 2, 3], unknown_yields()).fill(jumping, 4, 2.0, 64)
    assert window is not None
    assert 12 <= len(window) <= 16


@pytest.mark.parametrize("room", [0, 1, 2, 3, 7, 20, 64])
def test_a_window_never_exceeds_the_room(room: int) -> None:
    window = WindowFiller([1, 2, 3], unknown_yields()).fill(FLAT, 4, 2.0, room)
    assert window is None or 0 < len(window) <= room


def test_an_open_window_keeps_its_shape_and_its_ngrams_become_drafts() -> None:
    filler = WindowFiller([1, 2, 3], unknown_yields())
    window = filler.fill(FLAT, 4, 2.0, 64)
    assert window is not None
    shape = (window.window_size, window.ngram_size)
    filler.learn(window, [9], list(range(40, 40 + window.window_size)), 1, 0)
    again = filler.fill(FLAT, 4, 2.0, 64)
    assert again is window
    assert (again.window_size, again.ngram_size) == shape
    [draft] = filler.propose([9], max_candidates=4, max_length=8)
    assert draft.token_ids[-1] == 40
    assert len(draft.token_ids) == window.ngram_size - 1


def test_what_brought_nothing_is_given_up() -> None:
    gains = unknown_yields()
    filler = WindowFiller([1, 2, 3], gains)
    for _ in range(2000):
        window = filler.fill(FLAT, 4, 2.0, 64)
        if window is None:
            break
        filler.learn(window, [9], [5] * window.window_size, 1, 0)
    else:
        pytest.fail("a window that never brought a token is still run")
