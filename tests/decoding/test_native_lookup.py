"""The compiled lookup: whatever a pool has been through, the same drafts as Python's, to the bit."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from forelook.compiled import Compiled, compilers
from forelook.decoding.drafting.draft import Draft, DraftOrigin
from forelook.decoding.ngrams import pool as pool_module
from forelook.decoding.ngrams.index import BORDER, HEAD_SCAN, MAX_MATCH, MAX_REACH, IndexState, NgramIndex
from forelook.decoding.ngrams.native import library
from forelook.decoding.ngrams.native.functions import MAX_PLACES
from forelook.decoding.ngrams.native.library import load_lookup, lookup_in, native_lookup
from forelook.decoding.ngrams.native.lookup import NativeLookup
from forelook.decoding.ngrams.pool import NgramPool, PoolState
from forelook.errors import ConfigError

from tests.compilers import compiler_of, program

AVAILABLE = native_lookup()
needs_lookup = pytest.mark.skipif(AVAILABLE.functions is None, reason=f"no compiled lookup: {AVAILABLE.reason}")


@pytest.mark.skipif(sys.platform == "win32" or not compilers(), reason="no C compiler for the lookup here")
def test_a_compiler_makes_a_lookup_that_is_right() -> None:
    """A wrong one is refused and Python looks up: the other tests would only be skipped."""
    assert AVAILABLE.functions is not None, AVAILABLE.reason


LOW, HIGH = 7, 7 ^ (1 << 16) ^ 1  # both enter a key as the same sixteen bits
VOCABULARIES: list[list[int]] = [
    [0, 1],
    [0, 1, 2, 3],
    list(range(40)),
    list(range(2000)),
    [LOW, HIGH, 65535, 65536, 70000, 2**31 - 1, 1],
    [65535, 65535, 65535, 131071, 5],
    [-2, -3, -70000, -(2**31), 4],
    [BORDER, -3, 2, 3, 65535],
]


def native_of(pool: NgramPool) -> NativeLookup:
    assert pool._lookup is not None
    return pool._lookup


def drafts(pool: NgramPool, lookup: NativeLookup | None, context: Sequence[int], **asked: object) -> list[Draft]:
    """What a pool proposes by one of the implementations."""
    own, pool._lookup = pool._lookup, lookup
    try:
        return pool.propose(context, **asked)  # type: ignore[arg-type]
    finally:
        pool._lookup = own


def assert_same(pool: NgramPool, context: Sequence[int], **asked: object) -> int:
    """Both implementations propose the same; how many drafts."""
    expected = drafts(pool, None, context, **asked)
    found = drafts(pool, native_of(pool), context, **asked)
    assert found == expected, (context, asked)
    assert [type(value) for draft in found for value in (*draft.token_ids, *draft.shares)] == [
        type(value) for draft in expected for value in (*draft.token_ids, *draft.shares)
    ]
    return len(found)


class History:
    """A pool that random changes happen to; thresholds are small, so that few tokens sort, merge and go stale."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.vocabulary = VOCABULARIES[seed % len(VOCABULARIES)]
        self.head = self.random.choice([1, 5, 64, 1000, 4096])
        self.stale = self.random.choice([50, 1 << 16])
        self.max_tokens = self.random.choice([300, 3000, 100_000])
        self.pool = NgramPool(self.max_tokens, head_tokens=self.head, stale_tokens=self.stale)
        self.texts: list[list[int]] = [[self.vocabulary[0]]]
        self.num_drafts = 0

    def text(self, longest: int) -> list[int]:
        """Random, or like an earlier one, which makes long matches."""
        length = self.random.randint(0, longest)
        if self.random.random() < 0.5:
            return self.random.choices(self.vocabulary, k=length)
        ids = list(self.random.choice(self.texts))[:length]
        for _ in range(self.random.randint(0, 3)):
            if ids:
                ids[self.random.randrange(len(ids))] = self.random.choice(self.vocabulary)
        return ids * self.random.randint(1, 3)

    def change(self) -> None:
        pool, pick = self.pool, self.random
        keys = pool.document_keys()
        kind = pick.random()
        if kind < 0.35 or not keys:
            ids = self.text(pick.choice([30, 300, 2000]))
            self.texts = [*self.texts[-20:], ids or [self.vocabulary[0]]]
            pool.set_document(f"{pick.randrange(12)}", ids)
        elif kind < 0.6:
            key = pick.choice(keys)
            length = pool.num_tokens_of(key)
            start = pick.choice([length, pick.randint(0, length)])
            pool.replace_tokens(key, start, pick.randint(start, min(length, start + 6)), self.text(8))
        elif kind < 0.65:
            pool.remove_document(pick.choice(keys))
        elif kind < 0.7:
            pool.set_weight(pick.choice(keys), pick.choice([0.0, 0.3, 1.0, 2.0, 17.5]))
        elif kind < 0.72:
            pool.drop_stale()
        elif kind < 0.74:
            pool.credit(pick.choice(self.texts)[:40])
        elif kind < 0.77:
            self.pool = NgramPool.load(pool.dump(), self.max_tokens, head_tokens=self.head, stale_tokens=self.stale)
        elif kind < 0.79:
            pool.settle()
        else:
            for _ in range(pick.randint(1, 30)):
                pool.step()

    def look_up(self) -> None:
        pick = self.random
        if pick.random() < 0.7:
            ids = pick.choice(self.texts)
            end = pick.randint(0, len(ids))
            context = ids[max(0, end - pick.randint(0, 2 * MAX_MATCH)) : end]
        else:
            context = pick.choices(self.vocabulary, k=pick.randint(0, 5))
        self.num_drafts += assert_same(
            self.pool,
            context,
            max_candidates=pick.choice([0, 1, 2, 3, 8, 100]),
            max_length=pick.choice([-1, 0, 1, 2, 5, 15, MAX_REACH, 1000]),
            without=pick.choice([None, *self.pool.document_keys()]),
            origin=pick.choice(list(DraftOrigin)),
        )


@needs_lookup
@pytest.mark.parametrize("seed", range(48))
def test_any_history_drafts_the_same(seed: int) -> None:
    history = History(seed)
    for _ in range(150):
        history.change()
        for _ in range(4):
            history.look_up()
    assert history.num_drafts > 10


@needs_lookup
def test_every_number_of_drafts_and_of_tokens_is_the_same() -> None:
    generator = np.random.default_rng(0)
    pool = NgramPool(head_tokens=64)
    for number in range(30):
        pool.set_document(number, generator.integers(0, 3, 200))
        pool.step()
    pool.set_weight(3, 40.0)
    for max_candidates in range(1, 14):
        for max_length in range(1, MAX_REACH + 2):
            for length in (1, 2, 3, 4, 5, 16, 20):
                context = generator.integers(0, 3, length).tolist()
                assert_same(pool, context, max_candidates=max_candidates, max_length=max_length)


@needs_lookup
@pytest.mark.parametrize("size", [3, 60])
def test_places_are_the_same_for_every_limit_and_reach(size: int) -> None:
    generator = np.random.default_rng(size)
    pool = NgramPool(head_tokens=64)
    for number, length in enumerate([30_000, 2400, 200, 50]):
        pool.settle()
        pool.set_document(number, generator.integers(0, size, length))
    index, lookup = pool._index, native_of(pool)
    assert len(index.segments) > 1
    assert index.num_unsorted > 0
    for limit in range(1, MAX_PLACES + 1):
        for reach in (0, 1, 7, MAX_REACH):
            context = generator.integers(0, size, int(generator.integers(0, 20))).tolist()
            for owner in (0, 2):
                expected = index.find(context, limit=limit, reach=reach, without=owner)
                assert lookup.find(context, limit=limit, reach=reach, without=owner) == expected
    with pytest.raises(ConfigError, match="limit, reach"):
        lookup.find([1], limit=MAX_PLACES + 1, reach=1)
    with pytest.raises(ConfigError, match="limit, reach"):
        lookup.find([1], limit=1, reach=MAX_REACH + 1)


@needs_lookup
def test_equal_places_and_equal_tokens_keep_the_order_of_pythons() -> None:
    pool = NgramPool()
    for number in range(20):  # the same weight of each, so that only the order decides
        pool.set_document(number, [1, 2, 3, number % 7, number % 3, number % 2] * 2)
    for document in pool._documents.values():
        document.stamp = 0
    for settled in (False, True):
        for max_candidates in (1, 4, 12):
            assert assert_same(pool, [1, 2, 3], max_candidates=max_candidates, max_length=6) >= min(max_candidates, 4)
        if not settled:
            pool.settle()


@needs_lookup
@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("spread", [1, 3])
def test_more_unsorted_places_than_are_compared(stale: bool, spread: int) -> None:
    generator = np.random.default_rng(spread)
    pool = NgramPool(head_tokens=4096)
    for number in range(8):
        pool.set_document("only" if stale else number, generator.integers(0, spread, 3 * HEAD_SCAN))
    for length in (1, 2, 3, 16):
        for _ in range(10):
            context = generator.integers(0, spread, length).tolist()
            assert_same(pool, context, max_candidates=8, max_length=15)


@needs_lookup
def test_growth_of_log_and_segments_between_lookups() -> None:
    generator = np.random.default_rng(0)
    pool = NgramPool(1 << 20, head_tokens=256)
    lookup = native_of(pool)
    logs, tables = set(), set()
    for number in range(150):
        pool.set_document(number, generator.integers(0, 30, 600))
        context = pool.tokens(number)[100:116].tolist()
        assert assert_same(pool, context, max_candidates=4, max_length=8)
        for _ in range(4):
            pool.step()
            assert_same(pool, context, max_candidates=4, max_length=8)
        logs.add(lookup._struct.tokens)
        tables.add(lookup._struct.num_segments)
    assert len(logs) > 4
    assert len(tables) > 4


@needs_lookup
def test_a_rebuilt_index_is_looked_up_at_once() -> None:
    pool = NgramPool(head_tokens=16, stale_tokens=100)
    pool.set_document("a", list(range(400)))
    for token in range(60):
        pool.replace_tokens("a", 200, 201, [token])
        before = native_of(pool)
        pool.settle()
        assert (native_of(pool) is before) == (before._index is pool._index)
        (draft,) = pool.propose(list(range(190, 200)), max_candidates=1, max_length=2)
        assert draft.token_ids == (token, 201)
    pool.clear()
    assert pool.propose([198, 199], max_candidates=1, max_length=2) == []


@needs_lookup
@pytest.mark.parametrize("seed", range(40))
def test_any_arrays_that_a_restore_accepts(seed: int) -> None:
    """Sound checksums, and contents that no pool has written: entries of no document, overlaps, any tokens."""
    generator = np.random.default_rng(seed)
    vocabulary = np.array(VOCABULARIES[seed % len(VOCABULARIES)], dtype=np.int32)
    length = int(generator.integers(MAX_MATCH, 600))
    tokens = generator.choice(vocabulary, length)
    sorted_length = int(generator.integers(MAX_MATCH, length + 2))
    keys = NgramIndex.load(IndexState(tokens, length + 1, []), [])._keys(np.arange(length + 1))
    segments = []
    for _ in range(int(generator.integers(0, 30))):
        positions = generator.integers(MAX_MATCH, max(sorted_length, MAX_MATCH + 1), int(generator.integers(0, 200)))
        positions = positions[positions < sorted_length]
        segments.append(positions[keys[positions].argsort(kind="stable")].astype(np.int32))
    starts = generator.integers(MAX_MATCH, length + 1, 20)
    ends = np.minimum(starts + generator.integers(0, 200, 20), length)
    pieces = np.stack([generator.integers(0, 3, 20), starts, ends - starts], axis=1).astype(np.int32)
    weights = generator.choice([0.0, 0.5, 1.0, 2.0, 1e6], 3).tolist()
    state = PoolState(["a", "b", "c"], weights, pieces, IndexState(tokens, sorted_length, segments))
    pool = NgramPool.load(state, 1 << 20, head_tokens=int(generator.choice([1, 50, 4096])))
    for _ in range(60):
        end = int(generator.integers(0, length))
        context = tokens[max(0, end - int(generator.integers(0, 20))) : end].tolist()
        assert_same(pool, context, max_candidates=8, max_length=int(generator.integers(1, 40)), without="b")


def test_a_weight_that_has_no_order_is_not_restored() -> None:
    pool = NgramPool()
    pool.set_document("a", [1, 2, 3])
    for weight in (float("nan"), float("inf"), -1.0):
        state = pool.dump()
        state.weights[0] = weight
        with pytest.raises(ValueError, match="weight"):
            NgramPool.load(state, 100)


@needs_lookup
def test_pools_of_several_threads_at_once() -> None:
    failures: list[BaseException] = []

    def run(seed: int) -> None:
        try:
            history = History(seed)
            for _ in range(40):
                history.change()
                history.look_up()
        except BaseException as error:  # noqa: BLE001 - the test reports it
            failures.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(100, 106)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@needs_lookup
def test_credit_is_the_same() -> None:
    weights = []
    for is_native in (True, False):
        generator = np.random.default_rng(0)
        pool = NgramPool()
        for number in range(20):
            pool.set_document(number, generator.integers(0, 30, 400))
        if not is_native:
            pool._lookup = None
        for number in range(0, 20, 3):
            pool.credit(pool.tokens(number)[10 * number :][:50].tolist())
        weights.append([document.weight for document in pool._documents.values()])
    assert weights[0] == weights[1]
    assert len(set(weights[0])) > 1


def test_without_compiled_functions_python_looks_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "native_lookup", lambda: Compiled(None, "no C compiler was found"))
    pool = NgramPool()
    assert not pool.is_compiled
    pool.set_document("a", [1, 2, 3, 4, 5])
    assert pool.propose([1, 2, 3], max_candidates=1, max_length=2)[0].token_ids == (4, 5)
    pool.clear()
    assert lookup_in(pool._index) is None


def test_windows_has_pythons_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.sys, "platform", "win32")
    assert native_lookup.__wrapped__().functions is None


def test_a_compiler_that_fails_leaves_pythons_lookup(tmp_path: Path) -> None:
    failing = program(tmp_path, "failing", "exit 1")
    found = load_lookup(tmp_path / "kept", [failing])
    assert found.functions is None
    assert "failing" in found.reason


@needs_lookup
@pytest.mark.parametrize(
    "change",
    [
        ("found[HEAD_SCAN - wanted + --left]", "found[HEAD_SCAN - left--]"),  # another order of places
        ("weight += place->factor", "weight -= place->factor"),
        ("return sizeof(Lookup)", "return 1"),
    ],
)
def test_functions_that_return_something_else_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: tuple[str, str]
) -> None:
    if not (found := compilers()):
        pytest.skip("no compiler")
    text = library._SOURCE.path.read_text()
    assert change[0] in text
    defines = "\n".join(f"#define {flag[2:].replace('=', ' ')}" for flag in library._SOURCE.flags if flag[:2] == "-D")
    wrong = compiler_of(tmp_path, found[0][0], f"{defines}\n{text.replace(*change)}")
    assert load_lookup(tmp_path / "kept", [wrong]).functions is None
    assert "cannot load" in caplog.text or "computes something else than it should" in caplog.text


def test_pools_use_the_lookup_of_this_machine() -> None:
    assert pool_module.lookup_in is lookup_in
    assert NgramPool().is_compiled == (AVAILABLE.functions is not None)
