"""Which cached prompt serves the next one."""

from __future__ import annotations

from forelook.completion.sequences import SequencePool
from forelook.decoding.layout import causal_layout
from forelook.text import common_prefix
from hypothesis import given
from hypothesis import strategies as st

from tests.completion.fake_model import FakeModel, ScriptedSequence


def pool_of(max_bytes: int = 4000) -> SequencePool:
    return SequencePool(FakeModel().new_sequence, max_bytes)


def fill(pool: SequencePool, ids: list[int]) -> ScriptedSequence:
    sequence = pool.take(ids)
    assert isinstance(sequence, ScriptedSequence)
    kept = common_prefix(list(sequence.cached_ids), ids)
    sequence.truncate(kept)
    if ids[kept:]:
        sequence.forward(causal_layout(ids[kept:], kept))
        sequence.commit(range(len(ids) - kept))
    return sequence


def test_the_longest_common_prefix_wins() -> None:
    pool = pool_of()
    one, two = [1] * 200, [2] * 200
    first, second = fill(pool, one), fill(pool, two)
    assert first is not second
    assert pool.take([1] * 200 + [5]) is first
    assert pool.take([2] * 150 + [6] * 60) is second
    assert pool.best_overlap([2] * 150 + [6] * 60) == 150


def test_a_prompt_with_little_in_common_destroys_no_cache() -> None:
    pool = pool_of()
    first = fill(pool, [1] * 300)
    other = fill(pool, [1, 1, 1] + [2] * 300)
    assert other is not first
    assert list(first.cached_ids) == [1] * 300


def test_the_least_recently_used_gives_way_when_memory_is_full() -> None:
    pool = pool_of(max_bytes=2000)
    oldest, newer = fill(pool, [1] * 200), fill(pool, [2] * 200)
    assert pool.take([3] * 200) is oldest
    assert pool.take([2] * 200) is newer
    assert pool.nbytes <= 2000


def test_caches_that_have_grown_over_the_limit_are_dropped_the_least_recently_used_first() -> None:
    pool = pool_of(max_bytes=4000)
    sequences = [fill(pool, [number] * 200) for number in range(3)]
    sequences[1].nbytes = 2500
    assert pool.take([2] * 200) is sequences[2]
    assert pool.take([1] * 200) is sequences[1]
    assert pool.nbytes == 3500
    assert pool.best_overlap([0] * 200) == 0


def test_whether_another_prompt_has_room_beside_the_cached_one() -> None:
    assert pool_of(max_bytes=0).holds_several, "nothing is lost while nothing is cached"
    for max_bytes, expected in ((1999, False), (2000, True)):
        pool = pool_of(max_bytes)
        fill(pool, [1] * 200)
        assert pool.holds_several is expected


def test_one_sequence_is_kept_however_small_the_limit() -> None:
    pool = pool_of(max_bytes=0)
    first = fill(pool, [1] * 200)
    assert fill(pool, [2] * 200) is first
    assert len(pool) == 1


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=120), min_size=1, max_size=12))
def test_taken_sequences_hold_what_they_were_given(prompts: list[list[int]]) -> None:
    pool = pool_of(max_bytes=3000)
    for ids in prompts:
        assert list(fill(pool, ids).cached_ids) == ids
        assert pool.best_overlap(ids) == len(ids)
        assert pool.nbytes <= 3000
