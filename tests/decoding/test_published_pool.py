"""The published pool against a list per key."""

from __future__ import annotations

import pytest
from forelook.decoding.lookahead.published_pool import PublishedPool
from forelook.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st


@given(
    size=st.integers(2, 4),
    most=st.integers(0, 4),
    text=st.lists(st.integers(0, 3), max_size=60),
)
def test_pool_keeps_the_newest_of_each_key_and_evicts_the_oldest(size, most, text):
    pool = PublishedPool(size, most)
    naive: dict[int, list[tuple[int, ...]]] = {}
    for start in range(len(text) - size + 1):
        ngram = text[start : start + size]
        pool.insert(ngram)
        known = naive.setdefault(ngram[0], [])
        if tuple(ngram[1:]) in known:
            known.remove(tuple(ngram[1:]))
        known.append(tuple(ngram[1:]))
        naive[ngram[0]] = known[-most:] if most else []
    for key in range(4):
        assert pool.candidates(key) == naive.get(key, [])[::-1]


@given(
    size=st.integers(2, 4),
    text=st.lists(st.integers(0, 5), max_size=60),
    boundaries=st.frozensets(st.integers(0, 5), max_size=2),
)
def test_no_ngram_of_a_text_crosses_a_boundary(size, text, boundaries):
    pool, naive = PublishedPool(size, 1000), PublishedPool(size, 1000)
    pool.insert_text(text, boundaries)
    for start in range(len(text) - size + 1):
        if not boundaries & set(text[start : start + size]):
            naive.insert(text[start : start + size])
    for key in range(6):
        assert pool.candidates(key) == naive.candidates(key)


def test_an_ngram_of_another_size_is_refused():
    with pytest.raises(ConfigError, match="ngram_size = 3"):
        PublishedPool(3, 5).insert([1, 2])
