"""Drafting as others published it, against naive versions of their rules."""

from __future__ import annotations

import pytest
from bench.rivals import (
    SEPARATOR,
    Corpus,
    RecyclingTable,
    Row,
    SuffixDecoding,
    TokenRecycling,
    recycling_shape,
)
from hypothesis import given, settings
from hypothesis import strategies as st

tokens = st.integers(0, 3)


def naive_places(text: list[int], pattern: list[int]) -> list[int]:
    """Last tokens of all occurrences but the one that ends the text."""
    size = len(pattern)
    return [end for end in range(size - 1, len(text) - 1) if text[end - size + 1 : end + 1] == pattern]


@settings(deadline=None)
@given(text=st.lists(tokens, min_size=1, max_size=40), more=st.lists(tokens, max_size=20), depth=st.integers(1, 6))
def test_nested_places_are_those_of_each_end_of_the_context(text, more, depth):
    corpus = Corpus([text])
    corpus.extend(more)
    whole = text + more
    found = corpus.nested(whole, depth)
    longest = {tuple(sorted(places.tolist())): length for length, places in found}
    expected: dict[tuple[int, ...], int] = {}
    for length in range(1, min(depth, len(whole)) + 1):
        places = naive_places(whole, whole[-length:])
        if places:
            expected[tuple(places)] = length
    assert longest == expected


def test_the_suffix_tree_with_the_largest_sum_of_frequencies_is_drafted() -> None:
    # after "1 2": 3 twice and 5 once; after "2" alone also 7
    text = [1, 2, 3, 4, SEPARATOR, 1, 2, 3, 4, SEPARATOR, 1, 2, 5, SEPARATOR, 9, 2, 7, SEPARATOR, 1, 2]
    method = SuffixDecoding(text, (), factor=2.0, max_depth=8, budget=15, room=8)
    tree = method.draft()
    assert tree.token_ids[:2] == [3, 4], "best first: 2/3, then 2/3 × 1"
    assert set(tree.children[0]) == {3, 5}
    assert len(tree) <= 4
    method.learn([5], ())
    assert len(method.draft()) == 0, "nothing followed there"


def test_a_hidden_text_of_a_corpus_is_not_found() -> None:
    corpus = Corpus([[1, 2, 3], [1, 2, 4]])
    assert sorted(corpus.following(corpus.places(2))) == [3, 4]
    corpus.hide(1)
    assert sorted(corpus.following(corpus.places(2))) == [3]
    corpus.hide(None)
    assert sorted(corpus.following(corpus.places(2))) == [3, 4]


@pytest.mark.parametrize("budget", [1, 15, 80])
def test_recycling_fills_a_static_tree_from_its_table(budget: int) -> None:
    shape = recycling_shape(budget)
    assert len(set(shape)) == budget
    assert all(path[:-1] in shape for path in shape if len(path) > 1)
    table = RecyclingTable()
    method = TokenRecycling([1, 2, 1, 3, 1], table, shape)
    tree = method.draft()
    assert tree.token_ids[0] == 3, "the latest successor first"
    assert budget == 1 or set(tree.children[0]) == {3, 2}
    method.learn([3, 8], [Row(0, (3, 6)), Row(1, (8,))])
    assert table.of(1)[:3] == [3, 6, 2]
    assert table.of(3)[0] == 8
    assert TokenRecycling([1], table, shape).draft().token_ids[0] == 3, "the table outlives requests"
