"""What the model says after tokens is asked while nobody waits, and no request ever waits for it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from forelook.completion.engine import learning as learning_module
from forelook.completion.engine import model_state
from forelook.completion.engine.drafting import Drafting
from forelook.completion.engine.learning import SLICE_S, SuccessorLearning
from forelook.decoding.drafting.draft import ID_BITS, pair_of
from forelook.decoding.drafting.sources.successors import PairTable, SuccessorSeeds
from forelook.decoding.layout import IntArray, StepLayout
from forelook.errors import InsufficientMemoryError
from forelook.model.successor_file import read_successors, write_successors
from forelook.protocol.messages import EngineState

from tests.completion.engine_rig import WORKSPACE, B, Reply, Rig, wait_until
from tests.completion.fake_model import FakeModel
from tests.fakes import ByteTokenizer

TEXT, TARGET = "zyx = \n", "zyx = compute(1)\n"
CURSOR = 6
VOCAB = ByteTokenizer().vocab_size
Started = tuple[Rig, SuccessorLearning]


def is_slice(layout: StepLayout) -> bool:
    """Whether a forward asks about single tokens: none of them sees another."""
    return layout.visibility is not None and bool((layout.positions == 1).all())


def new_learning(**options: object) -> SuccessorLearning:
    return SuccessorLearning(SuccessorSeeds(VOCAB), [ByteTokenizer.START], **options)  # type: ignore[arg-type]


@pytest.fixture
def start(rigs: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeModel], Started]:
    """Starts an engine that learns nothing before it is told that its users have been quiet for long enough."""
    monkeypatch.setattr(model_state, "QUIET_S", 1e6)

    def start(model: FakeModel) -> Started:
        learning = new_learning(clock=lambda: 0.0)
        rig = rigs(model, make_drafting=lambda _model: Drafting(learning=learning))
        rig.open(TEXT)
        wait_until(lambda: rig.engine.pool_stats(WORKSPACE)["num_tokens"] == len(TEXT))
        return rig, learning

    return start


def learn(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_state, "QUIET_S", 0.01)
    rig.engine._inbox.command(lambda: None)  # which wakes the engine


def test_the_first_request_is_answered_while_nothing_is_learned(
    start: Callable[[FakeModel], Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, learning = start(FakeModel(TARGET))
    assert rig.ask(CURSOR).texts == ["compute(1)"]
    assert not any(map(is_slice, rig.model.forwards))
    assert not learning.seeds.is_known.any()
    learn(rig, monkeypatch)
    wait_until(lambda: bool(learning.seeds.is_known.all()))
    assert rig.ask(CURSOR).texts == ["compute(1)"]


def test_tokens_of_open_documents_come_first_and_learning_ends(
    start: Callable[[FakeModel], Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, learning = start(FakeModel(TARGET))
    learn(rig, monkeypatch)
    wait_until(lambda: not learning.has_work and rig.engine.status.message == "")
    asked = [token for layout in rig.model.forwards if is_slice(layout) for token in layout.token_ids.tolist()]
    assert set(asked[: len(set(TEXT))]) == set(TEXT.encode())
    assert sorted(asked) == list(range(VOCAB)), "each token once"
    told = [(status.state, status.message) for status in rig.statuses if status.progress is not None]
    assert (EngineState.READY, "learning in idle time; requests come first") in told
    shares = [status.progress for status in rig.statuses if "learning" in status.message]
    assert shares == sorted(shares)


def test_a_request_waits_for_one_slice_at_most(
    start: Callable[[FakeModel], Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    replies: list[Reply] = []

    def ask_within_a_slice(layout: StepLayout) -> None:
        if is_slice(layout) and not replies:
            replies.append(rig.ask(CURSOR))

    rig, learning = start(FakeModel(TARGET, on_forward=ask_within_a_slice))
    learn(rig, monkeypatch)
    wait_until(lambda: bool(replies))
    assert replies[0].texts == ["compute(1)"]
    first = next(place for place, layout in enumerate(rig.model.forwards) if is_slice(layout))
    assert not is_slice(rig.model.forwards[first + 1]), "the request came next"
    wait_until(lambda: bool(learning.seeds.is_known.all()))


def test_new_text_is_asked_about_too(start: Callable[[FakeModel], Started], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_module, "_FIRST_IDS", 0)
    rig, learning = start(FakeModel(TARGET))
    learn(rig, monkeypatch)
    wait_until(lambda: set(np.flatnonzero(learning.seeds.is_known).tolist()) == set(TEXT.encode()))
    wait_until(lambda: not learning.has_work)
    rig.open("{}", B)
    wait_until(lambda: bool(learning.seeds.is_known[ord("{")]))


# --- slices, without an engine


class Clock:
    """Advances by what a forward takes."""

    def __init__(self, seconds_per_token: float) -> None:
        self.now = 0.0
        self.model = FakeModel(on_forward=self._run)
        self.seconds_per_token = seconds_per_token

    def _run(self, layout: StepLayout) -> None:
        self.now += self.seconds_per_token * len(layout)

    def __call__(self) -> float:
        return self.now

    @property
    def slices(self) -> list[int]:
        return [len(layout) for layout in self.model.forwards if is_slice(layout)]


def no_uses(vocab_size: int) -> IntArray:
    return np.zeros(vocab_size, dtype=np.int64)


def test_slices_are_as_large_as_their_time_allows() -> None:
    clock = Clock(SLICE_S / 20)
    learning = new_learning(clock=clock)
    while learning.run_slice(clock.model, no_uses):
        pass
    assert clock.slices[:5] == [1, 2, 4, 8, 16]
    assert max(clock.slices) == 16
    assert sum(clock.slices) == VOCAB


def test_a_model_whose_steps_are_long_is_asked_little() -> None:
    clock = Clock(5 * SLICE_S)
    learning = new_learning(clock=clock)
    while learning.run_slice(clock.model, no_uses):
        pass
    assert clock.slices == [1, 1, 1]
    assert not learning.has_work


def test_one_slow_slice_does_not_end_learning() -> None:
    clock = Clock(5 * SLICE_S)
    learning = new_learning(clock=clock)
    assert learning.run_slice(clock.model, no_uses)
    clock.seconds_per_token = SLICE_S / 20
    while learning.run_slice(clock.model, no_uses):
        pass
    assert sum(clock.slices) == VOCAB


def test_learning_takes_a_bounded_time_of_each_process() -> None:
    clock = Clock(SLICE_S)
    learning = new_learning(clock=clock)
    learning.seeds = SuccessorSeeds(VOCAB)
    learning._left_s = 10 * SLICE_S
    while learning.run_slice(clock.model, no_uses):
        pass
    assert sum(clock.slices) == 10


def test_likely_pairs_are_asked_about_once_the_single_tokens_are_known() -> None:
    learning, model = new_learning(clock=lambda: 0.0), FakeModel()
    while learning.run_slice(model, no_uses):  # type: ignore[arg-type]
        pass
    assert not learning.has_work
    pairs = [divmod(pair, 1 << ID_BITS) for pair in learning.seeds.pairs.tolist()]
    likely = {
        (first, second)
        for first in range(VOCAB)
        for second, probability in learning.seeds.of(first)
        if probability >= learning_module._MIN_SECOND
    }
    assert set(pairs) == likely != set()
    assert len(pairs) == len(likely), "each pair once"
    single = [number for number, layout in enumerate(model.forwards) if is_slice(layout)]
    assert max(single) < len(model.forwards) - 1
    assert max(map(len, model.forwards)) <= 256
    again, second = SuccessorLearning(learning.seeds, [ByteTokenizer.START]), FakeModel()
    while again.run_slice(second, no_uses):  # type: ignore[arg-type]
        pass
    assert not second.forwards


def known_seeds() -> SuccessorSeeds:
    """Every single token is known; two of its eight successors are likely."""
    seeds = SuccessorSeeds(VOCAB)
    successors = np.tile(np.arange(8), (VOCAB, 1))
    seeds.add(np.arange(VOCAB), successors, np.full((VOCAB, 8), [0.5, 0.3, *[0.01] * 6]))
    return seeds


def test_pairs_of_the_text_come_first_and_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_module, "_MAX_PAIRS", 6)
    learning = SuccessorLearning(known_seeds(), [ByteTokenizer.START], clock=lambda: 0.0)
    in_use = [pair_of(9, 70), pair_of(30, 5), pair_of(9, 71)]
    while learning.run_slice(FakeModel(), no_uses, lambda: np.array(in_use)):  # type: ignore[arg-type]
        pass
    assert learning.seeds.pairs.tolist()[:3] == [pair_of(9, 70), pair_of(9, 71), pair_of(30, 5)]
    assert 6 <= len(learning.seeds.pairs) < 6 + 256
    assert not learning.has_work


def test_a_slice_of_pairs_is_no_longer_than_one_of_tokens() -> None:
    clock = Clock(SLICE_S / 10)
    learning = SuccessorLearning(known_seeds(), [ByteTokenizer.START], clock=clock)
    many = np.array([pair_of(9, second) for second in range(100)])
    while learning.run_slice(clock.model, no_uses, lambda: many):  # type: ignore[arg-type]
        pass
    assert set(many.tolist()) <= set(learning.seeds.pairs.tolist())
    assert 8 <= max(map(len, clock.model.forwards)) <= 16


def test_pairs_of_the_text_are_never_written(tmp_path: Path) -> None:
    learning = SuccessorLearning(known_seeds(), [ByteTokenizer.START], tmp_path / "s.npz", clock=lambda: 0.0)
    while learning.run_slice(FakeModel(), no_uses, lambda: np.array([pair_of(9, 70)])):  # type: ignore[arg-type]
        pass
    assert pair_of(9, 70) in learning.seeds.pairs
    assert not learning.has_unsaved
    learning.seeds.add([9], np.full((1, 8), 3), np.full((1, 8), 0.1))
    write_successors(tmp_path / "s.npz", learning.seeds)
    again = read_successors(tmp_path / "s.npz", VOCAB)
    assert again is not None
    assert again.num_pairs == 0


def test_no_pair_that_is_known_is_asked_about_again() -> None:
    learning = SuccessorLearning(known_seeds(), [ByteTokenizer.START], clock=lambda: 0.0)
    published = [pair_of(first, second) for first in range(VOCAB) for second in (0, 1) if first != 9]
    ones = np.ones(len(published))
    learning.seeds.published = PairTable(np.array(published), ones.astype(int), ones.astype(int), ones)
    while learning.run_slice(FakeModel(), no_uses, lambda: np.array([pair_of(30, 1), pair_of(9, 1)])):  # type: ignore[arg-type]
        pass
    assert sorted(learning.seeds.pairs.tolist()) == [pair_of(9, 0), pair_of(9, 1)]


def test_the_tokens_and_pairs_of_open_documents_are_asked_about(
    start: Callable[[FakeModel], Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_module, "_FIRST_IDS", 0)
    rig, learning = start(FakeModel(TARGET))
    learn(rig, monkeypatch)
    expected = {pair_of(*pair) for pair in itertools.pairwise(TEXT.encode())}
    # nothing waits any more while the last questions are still asked
    wait_until(lambda: not learning.has_work and learning.seeds.num_pairs >= len(expected))
    assert set(learning.seeds.pairs.tolist()) == expected


@pytest.mark.parametrize(("bos", "before"), [(ByteTokenizer.START, [ByteTokenizer.START]), (None, [ord("\n")])])
def test_no_token_is_asked_about_without_one_before_it(bos: int | None, before: list[int]) -> None:
    model = FakeModel()
    model.config = SimpleNamespace(bos_token_id=bos, vocab_size=VOCAB)  # type: ignore[attr-defined]
    learning = SuccessorLearning.of(model, None)  # type: ignore[arg-type]
    assert learning.run_slice(model, no_uses)  # type: ignore[arg-type]
    assert model.forwards[0].token_ids.tolist() == before
    assert model.sequences[0].cached_ids == before


def test_out_of_memory_ends_learning_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_layout: StepLayout) -> None:
        raise InsufficientMemoryError("out of memory: a step of 1 tokens; choose a smaller model")

    learning = new_learning()
    with caplog.at_level(logging.WARNING):
        assert not learning.run_slice(FakeModel(on_forward=fail), no_uses)
    assert not learning.has_work
    assert len(caplog.records) == 1


def test_what_was_learned_is_there_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    learning = new_learning(path=path)
    assert not learning.has_unsaved
    learning.run_slice(FakeModel(), no_uses)
    assert learning.has_unsaved
    learning.save()
    assert not learning.has_unsaved
    assert path.exists()
