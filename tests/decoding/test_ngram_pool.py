"""The n-gram pool against a naive one: the same places after any history of inserts, edits, evictions and restores."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from forelook.decoding.drafting.draft import DraftOrigin, pair_of
from forelook.decoding.ngrams.index import BORDER, MAX_MATCH, MAX_REACH
from forelook.decoding.ngrams.pool import NgramPool
from forelook.errors import ConfigError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

REACH = MAX_REACH
Place = tuple[int, tuple[int, ...]]  # match length, continuation


class NaivePool:
    """Documents as lists; a lookup compares the context with every position of every document."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.documents: dict[str, list[int]] = {}  # touched longest ago first

    def set(self, key: str, ids: list[int]) -> None:
        self.documents.pop(key, None)
        self.documents[key] = list(ids)
        self._evict(key)

    def replace(self, key: str, start: int, end: int, ids: list[int]) -> None:
        document = self.documents.pop(key)
        self.documents[key] = document[:start] + ids + document[end:]
        self._evict(key)

    def _evict(self, kept: str) -> None:
        for key in list(self.documents):
            if key != kept and self.num_tokens > self.max_tokens:
                del self.documents[key]
        excess = self.num_tokens - self.max_tokens
        if excess > 0:
            del self.documents[kept][:excess]

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.documents.values()))

    def places(self, context: list[int], without: str = "") -> Counter[Place]:
        found: Counter[Place] = Counter()
        for key, ids in self.documents.items():
            if key == without:
                continue
            for end in range(1, len(ids)):
                match = 0
                while match < min(end, len(context), MAX_MATCH) and ids[end - 1 - match] == context[-1 - match]:
                    match += 1
                if match:
                    found[match, tuple(ids[end : end + REACH])] += 1
        # beside a long match, short ones are not worth a lookup's time
        least = 1 + max((match for match, _ in found), default=0) // 8
        return Counter({place: count for place, count in found.items() if place[0] >= least})


def places_of(pool: NgramPool, context: list[int], without: str = "") -> Counter[Place]:
    places = pool.places(context, reach=REACH, without=without, limit=100_000)
    found: Counter[Place] = Counter()
    for match, row in zip(places.match_lengths, places.continuations, strict=True):
        length = row.index(BORDER) if BORDER in row else len(row)
        if length:
            found[match, tuple(row[:length])] += 1
    return found


KEYS = st.sampled_from(["a", "b", "c"])
# long enough that an edit's surroundings end inside the document, of few tokens so that places match by chance
TOKENS = st.builds(
    lambda seed, length: random.Random(seed).choices(range(4), k=length), st.integers(0, 99), st.integers(0, 150)
)


class PoolMachine(RuleBasedStateMachine):
    """Any history. Thresholds are small, so that few tokens already sort, merge, go stale and are evicted."""

    @initialize(max_tokens=st.sampled_from([60, 200, 5000]), head=st.sampled_from([1, 5, 1000]))
    def make(self, max_tokens: int, head: int) -> None:
        self.thresholds = {"head_tokens": head, "stale_tokens": 50}
        self.pool = NgramPool(max_tokens, **self.thresholds)
        self.naive = NaivePool(max_tokens)

    @rule(key=KEYS, ids=TOKENS)
    def set_document(self, key: str, ids: list[int]) -> None:
        self.pool.set_document(key, ids)
        self.naive.set(key, ids)

    @rule(key=KEYS, ids=st.lists(st.integers(0, 3), max_size=8), data=st.data())
    def replace_tokens(self, key: str, ids: list[int], data: st.DataObject) -> None:
        if key not in self.naive.documents:
            return
        length = len(self.naive.documents[key])
        start = data.draw(st.integers(0, length))
        end = data.draw(st.integers(start, min(length, start + 6)))
        self.pool.replace_tokens(key, start, end, ids)
        self.naive.replace(key, start, end, ids)

    @rule(key=KEYS, ids=st.lists(st.integers(0, 3), max_size=5))
    def append_tokens(self, key: str, ids: list[int]) -> None:
        if key in self.naive.documents:
            end = len(self.naive.documents[key])
            self.pool.replace_tokens(key, end, end, ids)
            self.naive.replace(key, end, end, ids)

    @rule(key=KEYS)
    def remove_document(self, key: str) -> None:
        self.pool.remove_document(key)
        self.naive.documents.pop(key, None)

    @rule(steps=st.integers(1, 30))
    def work(self, steps: int) -> None:
        for _ in range(steps):
            self.pool.step()

    @rule()
    def restore(self) -> None:
        self.pool = NgramPool.load(self.pool.dump(), self.naive.max_tokens, **self.thresholds)

    @invariant()
    def same_documents(self) -> None:
        assert self.pool.num_tokens == self.naive.num_tokens
        assert self.pool.document_keys() == list(self.naive.documents)
        for key, ids in self.naive.documents.items():
            assert self.pool.tokens(key).tolist() == ids

    @rule(context=st.lists(st.integers(0, 4), min_size=1, max_size=20), document=KEYS)
    def same_places(self, context: list[int], document: str) -> None:
        while self.pool.has_work and not self.is_scannable():
            self.pool.step()
        assert places_of(self.pool, context, document) == self.naive.places(context, document)

    @rule(document=KEYS, step=st.integers(1, 9))
    def same_places_after_text_of_its_own(self, document: str, step: int) -> None:
        for ids in list(self.naive.documents.values()):
            for end in range(step, len(ids), 9):
                self.same_places(ids[max(0, end - 20) : end], document)

    def is_scannable(self) -> bool:
        """Only the newest tokens are scanned; older ones must have been sorted to be found."""
        return self.pool.num_unsorted <= 2 * self.thresholds["head_tokens"]


PoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestAnyHistory = PoolMachine.TestCase


def pool_of(*documents: list[int], **thresholds: int) -> NgramPool:
    pool = NgramPool(**thresholds)
    for number, ids in enumerate(documents):
        pool.set_document(f"document {number}", ids)
    pool.settle()
    return pool


@pytest.mark.parametrize("ids", [[], [1, 2, 3]])
def test_every_context_around_an_edit_finds_what_the_naive_pool_finds(ids: list[int]) -> None:
    text = random.Random(3).choices(range(4), k=200)
    pool, naive = pool_of(text, head_tokens=1000), NaivePool(1000)
    naive.set("document 0", text)
    pool.replace_tokens("document 0", 100, 102, ids)
    naive.replace("document 0", 100, 102, ids)
    current = naive.documents["document 0"]
    for end in range(1, len(current) + 1):
        context = current[max(0, end - 20) : end]
        assert places_of(pool, context) == naive.places(context)


def test_stale_text_that_is_not_sorted_yet_crowds_out_nothing() -> None:
    text = random.Random(0).choices(range(4), k=60)
    pool, naive = NgramPool(1000, head_tokens=1000), NaivePool(1000)
    for _ in range(15):  # the same document over and over: only its last text counts
        pool.set_document("a", text)
    naive.set("a", text)
    for end in range(1, len(text) + 1):
        context = text[max(0, end - 20) : end]
        assert places_of(pool, context) == naive.places(context)


CONTEXT = [101, 102, 103, 104, 105, 106, 107, 108]
"""Long enough for one place that matches all of it to be believed."""


def test_longest_match_comes_first() -> None:
    short = [*CONTEXT[3:], 50, 51]
    long = [*CONTEXT, 60, 61]
    for documents in ((short, long), (long, short)):
        drafts = pool_of(*documents).propose(CONTEXT, max_candidates=2, max_length=4)
        assert [draft.token_ids for draft in drafts] == [(60, 61), (50, 51)]
        assert drafts[0].shares[0] > drafts[1].shares[0]


def test_continuations_that_agree_share_a_draft_and_its_shares_count_them() -> None:
    pool = pool_of(*([*CONTEXT, *ends] for ends in ([7, 8], [7, 9], [7, 8], [5])))
    drafts = pool.propose(CONTEXT, max_candidates=4, max_length=4)
    shares = {draft.token_ids: draft.shares for draft in drafts}
    assert set(shares) == {(7, 8), (7, 9), (5,)}
    assert drafts[0].token_ids == (7, 8)
    assert shares[7, 8][0] == shares[7, 9][0] == pytest.approx(3 * shares[5,][0], rel=0.3)
    assert shares[7, 8][1] == pytest.approx(2 * shares[7, 9][1], rel=0.3)
    assert sum(shares[path][1] for path in [(7, 8), (7, 9)]) <= 1


def test_drafts_are_as_long_as_asked_and_no_longer_than_their_document() -> None:
    pool = pool_of([*CONTEXT, *range(200, 240)])
    assert pool.propose(CONTEXT, max_candidates=1, max_length=5)[0].token_ids == tuple(range(200, 205))
    assert pool.propose(CONTEXT, max_candidates=1, max_length=1000)[0].token_ids == tuple(range(200, 200 + MAX_REACH))
    near_end = [*CONTEXT, *range(200, 238)]
    assert pool.propose(near_end, max_candidates=1, max_length=5)[0].token_ids == (238, 239)
    assert pool.propose([239], max_candidates=1, max_length=5) == []
    assert pool.propose([], max_candidates=1, max_length=5) == []
    assert pool.propose(CONTEXT, max_candidates=0, max_length=5) == []


def test_a_document_touched_lately_outweighs_an_older_one() -> None:
    pool = pool_of([5, 6, 10], [5, 6, 20], [1], [2], [3])
    pool.replace_tokens("document 0", 3, 3, [0])
    assert pool.propose([5, 6], max_candidates=1, max_length=1)[0].token_ids == (10,)
    pool.replace_tokens("document 1", 3, 3, [0])
    assert pool.propose([5, 6], max_candidates=1, max_length=1)[0].token_ids == (20,)


def test_a_weightier_document_wins_and_keeps_its_weight_over_a_restore() -> None:
    pool = pool_of([5, 6, 10], [5, 6, 20])
    pool.set_weight("document 0", 4.0)
    for _ in range(2):
        assert pool.propose([5, 6], max_candidates=1, max_length=1)[0].token_ids == (10,)
        pool = NgramPool.load(pool.dump(), 1000)


def test_ngrams_across_an_edit_are_found_and_the_old_ones_are_gone() -> None:
    pool = pool_of(list(range(100, 600)), head_tokens=128)
    pool.replace_tokens("document 0", 250, 252, [7, 8, 9])
    for settled in (False, True):
        before = list(range(340, 350))
        assert pool.propose(before, max_candidates=5, max_length=6)[0].token_ids == (7, 8, 9, 352, 353, 354)
        across = [*before, 7, 8, 9, 352]
        assert pool.propose(across, max_candidates=1, max_length=3)[0].token_ids == (353, 354, 355)
        assert pool.propose([350], max_candidates=1, max_length=3) == []
        assert pool.propose([351], max_candidates=1, max_length=3) == []
        if not settled:
            pool.settle()


def test_typing_at_the_end_does_not_grow_the_log_by_more_than_the_text() -> None:
    pool = pool_of([1, 2, 3])
    before = pool.num_logged
    for token in range(500):
        pool.replace_tokens("document 0", 3 + token, 3 + token, [token])
    assert pool.num_logged == before + 500


def test_stale_tokens_are_dropped_once_there_are_many() -> None:
    pool = pool_of(list(range(1000)), stale_tokens=500)
    for token in range(300):
        pool.replace_tokens("document 0", 500, 501, [token])
    pool.settle()
    assert pool.num_logged < 2000
    assert pool.tokens("document 0").tolist() == [*range(500), 299, *range(501, 1000)]
    assert pool.propose(list(range(490, 500)), max_candidates=1, max_length=3)[0].token_ids == (299, 501, 502)


def test_an_edit_while_stale_tokens_are_dropped_is_not_lost() -> None:
    for num_steps in range(40):
        pool = pool_of(list(range(300)), list(range(1000, 1300)), [9], stale_tokens=300, head_tokens=16)
        for token in range(20):
            pool.replace_tokens("document 0", 150, 151, [token])
        for _ in range(num_steps):
            pool.step()
        pool.replace_tokens("document 1", 100, 200, [5, 6])
        pool.remove_document("document 2")
        pool.set_document("new", [70, 71, 72])
        pool.settle()
        assert pool.tokens("document 1").tolist() == [*range(1000, 1100), 5, 6, *range(1200, 1300)]
        across = [*range(1090, 1100), 5]
        assert pool.propose(across, max_candidates=1, max_length=2)[0].token_ids == (6, 1200)
        assert pool.propose([70], max_candidates=1, max_length=1)[0].token_ids == (71,)
        assert pool.propose([1150], max_candidates=1, max_length=2) == []
        assert "document 2" not in pool


def test_tokens_beyond_sixteen_bits_are_told_apart() -> None:
    low, high = 7, 7 ^ (1 << 16) ^ 1  # both enter a key as the same sixteen bits
    pool = pool_of([low, 100], [high, 200])
    assert pool.propose([low], max_candidates=5, max_length=1)[0].token_ids == (100,)
    assert [draft.token_ids for draft in pool.propose([high], max_candidates=5, max_length=1)] == [(200,)]


def test_the_best_match_is_found_among_many_places() -> None:
    generator = np.random.default_rng(0)
    ids = generator.integers(0, 5, 20_000)
    ids[12_344:12_361] = [2] + [1] * MAX_MATCH
    ids[12_361:12_364] = (4, 3, 2)
    pool = pool_of(ids.tolist())
    found = pool.places([1] * MAX_MATCH, reach=3)
    best = max(range(len(found.match_lengths)), key=found.match_lengths.__getitem__)
    assert found.match_lengths[best] == MAX_MATCH
    assert found.continuations[best] == [4, 3, 2]


def test_lookups_search_few_segments_while_much_waits_to_be_sorted() -> None:
    generator = np.random.default_rng(0)
    pool = NgramPool(head_tokens=64)
    for number in range(200):
        pool.set_document(number, generator.integers(0, 500, 300))
    assert pool.is_behind
    most = 0
    while pool.step():
        most = max(most, len(pool.dump().index.segments))
    assert 4 < most <= 10
    assert not pool.is_behind
    assert pool.num_unsorted <= 64


def test_memory_stays_within_forty_bytes_per_token() -> None:
    generator = np.random.default_rng(0)
    pool = NgramPool()
    for number in range(100):
        pool.set_document(number, generator.integers(0, 8000, 3000))
        pool.settle()
        assert pool.nbytes <= 40 * max(pool.num_tokens, 20_000)


def test_a_pool_never_holds_more_than_its_bound() -> None:
    pool = NgramPool(100)
    for number in range(30):
        pool.set_document(number, [number] * 30)
        assert pool.num_tokens <= 100
    assert pool.document_keys() == [27, 28, 29]
    pool.set_document("large", list(range(150)))
    assert pool.tokens("large").tolist() == list(range(50, 150))


def test_a_document_left_out_does_not_draft() -> None:
    pool = pool_of([1, 2, 3])
    (draft,) = pool.propose([1], max_candidates=1, max_length=2)
    assert draft.origin is DraftOrigin.WORKSPACE
    assert pool.propose([1], max_candidates=1, max_length=2, without="document 0") == []


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match="max_tokens"):
        NgramPool(0)
    pool = pool_of([1, 2, 3])
    with pytest.raises(ConfigError, match=r"0\.\.3"):
        pool.replace_tokens("document 0", 2, 4, [])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_dump_whose_parts_do_not_fit_is_refused(data: st.DataObject) -> None:
    pool = pool_of(list(range(50)), list(range(20, 60)), head_tokens=8)
    state = pool.dump()
    kind = data.draw(st.sampled_from(["pieces", "positions", "weights"]))
    if kind == "pieces":
        state.pieces[data.draw(st.integers(0, len(state.pieces) - 1)), data.draw(st.integers(0, 1))] += 1000
    elif kind == "positions":
        segment = state.index.segments[0]
        segment[data.draw(st.integers(0, len(segment) - 1))] = data.draw(st.sampled_from([0, -5, 10_000]))
    else:
        state.weights.pop()
    with pytest.raises(ValueError, match=r"outside|no document|differ|sorted"):
        NgramPool.load(state, 1000, head_tokens=8)


def test_documents_that_accepted_text_stands_in_weigh_more_up_to_double() -> None:
    pool = NgramPool()
    pool.set_document("taken", [1, 2, 3, 4, 5, 6, 7, 8, 9])
    pool.set_document("other", [1, 2, 3, 40, 50, 60, 70, 80, 90])
    pool.settle()

    def factors() -> dict[int, float]:
        places = pool.places([1, 2, 3], reach=1)
        return {row[0]: factor for row, factor in zip(places.continuations, places.factors, strict=True)}

    before = factors()
    pool.credit([1, 2, 3, 4, 5, 6])
    once = factors()
    assert once[4] > before[4]
    assert once[40] == before[40]
    for _ in range(200):
        pool.credit([1, 2, 3, 4, 5, 6])
    assert before[4] * 1.9 < factors()[4] <= before[4] * 2.0


def test_text_that_stands_nowhere_or_is_too_short_credits_nobody() -> None:
    pool = NgramPool()
    pool.set_document("a", [1, 2, 3, 4, 5, 6])
    before = pool.places([1, 2, 3], reach=1).factors
    for ids in ([], [1], [1, 2, 3], [7, 8, 9, 10, 11], [1, 2, 3, 9, 9, 9]):
        pool.credit(ids)
    assert pool.places([1, 2, 3], reach=1).factors == before


def test_pairs_of_neighbors_are_counted_without_borders_and_from_the_newest_tokens() -> None:
    pool = NgramPool()
    pool.set_document("a", [5, 6, 5, 6])
    pool.set_document("b", [6, 6])
    pairs, counts = pool.pair_counts(1000)
    assert dict(zip(pairs.tolist(), counts.tolist(), strict=True)) == {
        pair_of(5, 6): 2,
        pair_of(6, 5): 1,
        pair_of(6, 6): 1,
    }
    newest, _ = pool.pair_counts(3)
    assert pair_of(6, 5) not in newest.tolist()
    assert [len(part) for part in NgramPool().pair_counts(10)] == [0, 0]
