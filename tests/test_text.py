"""Common ends of sequences, and the size of texts."""

from __future__ import annotations

import pytest
from forelook.text import common_prefix, common_suffix, utf8_size_above
from hypothesis import given
from hypothesis import strategies as st

IDS = st.lists(st.integers(0, 2), max_size=40)
TEXTS = st.text("ab\n", max_size=40)


@given(IDS, IDS, IDS)
def test_the_common_prefix_is_the_longest(shared: list[int], left: list[int], right: list[int]) -> None:
    left, right = shared + left, shared + right
    length = common_prefix(left, right)
    assert left[:length] == right[:length]
    assert length == min(len(left), len(right)) or left[length] != right[length]


@given(TEXTS, TEXTS, TEXTS)
def test_the_common_suffix_is_the_prefix_read_backwards(shared: str, left: str, right: str) -> None:
    left, right = left + shared, right + shared
    assert common_suffix(left, right) == common_prefix(left[::-1], right[::-1])


def test_bytes_and_texts_are_compared_too() -> None:
    assert (common_prefix(b"abc", b"abd"), common_suffix("xbc", "abc")) == (2, 2)
    assert (common_prefix("", "a"), common_suffix("", "a")) == (0, 0)


@pytest.mark.parametrize("text", ["", "abc", "\u00e9\u00e9", "\u6f22", "\U0001f642\U0001f642", "\ud800"])
def test_the_size_is_reported_from_one_byte_above_the_limit(text: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    assert utf8_size_above(text, size) is None
    if size:
        assert utf8_size_above(text, size - 1) == size
