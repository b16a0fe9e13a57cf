"""Requests without a document: caches, drafts and turns. The device's forwards are counted, not timed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from forelook.completion.engine import generations
from forelook.completion.engine.drafting import Drafting
from forelook.completion.engine.engine import CompletionEngine
from forelook.completion.engine.request_texts import http_workspace
from forelook.config import EngineConfig
from forelook.decoding.layout import StepLayout
from forelook.errors import ContextOverflowError, DecodingError, ForelookError, ModelError, RequestCancelledError
from forelook.finish_reason import FinishReason
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.protocol.generation import GenerationParams, GenerationResult, InfillPrompt, PromptFile, RawPrompt
from forelook.protocol.messages import CompletionParams

from tests.completion.engine_rig import TIMEOUT_S, Gate, Rig, wait_until
from tests.completion.fake_model import FakeModel, SteadySpeed

TARGET = "".join(f"value_{number} = compute({number})\n" for number in range(60))
CONFIG = EngineConfig(prewarm=False, speculate=False, deadline_ms=20_000)


@dataclass
class Generated:
    """Where a generation's callbacks end up."""

    pieces: list[str] = field(default_factory=list)
    outcomes: list[GenerationResult | ForelookError] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    num_forwards: int = 0
    on_finish: Callable[[], None] = lambda: None

    def finish(self, outcome: GenerationResult | ForelookError) -> None:
        self.outcomes.append(outcome)
        self.on_finish()
        self.done.set()

    @property
    def outcome(self) -> GenerationResult | ForelookError:
        assert self.done.wait(TIMEOUT_S), "no answer"
        assert len(self.outcomes) == 1, "answered more than once"
        return self.outcomes[0]

    @property
    def result(self) -> GenerationResult:
        outcome = self.outcome
        assert isinstance(outcome, GenerationResult), outcome
        assert "".join(self.pieces) == outcome.text, "the pieces are the text"
        return outcome


def start(rig: Rig, params: GenerationParams, user: str = "") -> Generated:
    reply = Generated()
    reply.on_finish = lambda: setattr(reply, "num_forwards", len(rig.model.forwards))
    reply.handle = rig.engine.generate(user, params, reply.pieces.append, reply.finish)  # type: ignore[attr-defined]
    return reply


def finished(reply: Generated) -> None:
    assert reply.result.stats.num_prompt_tokens > 0


def infill(length: int, num_tokens: int = 20, **options: object) -> GenerationParams:
    return GenerationParams(InfillPrompt(TARGET[:length], ""), num_tokens, **options)  # type: ignore[arg-type]


@pytest.fixture
def equal_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step costs its user the same: one that is interrupted says nothing about whose turn it is."""
    ticks = itertools.count()
    monkeypatch.setattr(generations, "time", SimpleNamespace(perf_counter=lambda: next(ticks) * 0.1))


@pytest.fixture
def rig(rigs: Callable[..., Rig]) -> Rig:
    return rigs(FakeModel(TARGET), CONFIG)


def test_the_output_continues_the_prompt_and_comes_in_pieces(rig: Rig) -> None:
    result = start(rig, infill(300, 70)).result
    assert result.text == TARGET[300:370]
    assert result.finish_reason is FinishReason.MAX_TOKENS
    assert result.stats.num_generated_tokens == 70
    assert result.stats.num_steps < 35, "drafts come from the prompt"


def test_drafts_change_the_cost_and_never_the_text(rigs: Callable[..., Rig]) -> None:
    plain = rigs(FakeModel(TARGET), EngineConfig(autoregressive=True, prewarm=False))
    drafting = rigs(FakeModel(TARGET), CONFIG)
    for length in (50, 301, 777):
        params = infill(length, 64)
        assert start(plain, params).result.text == start(drafting, params).result.text == TARGET[length:][:64]


def test_text_at_the_cursor_follows_the_prompt_so_that_a_keystroke_runs_one_token(rig: Rig) -> None:
    def ask(middle: str) -> GenerationResult:
        return start(rig, GenerationParams(InfillPrompt(TARGET[:300], "", middle), 5)).result

    ask("")
    for count in range(1, 6):
        result = ask(TARGET[300 : 300 + count])
        assert result.text == TARGET[300 + count : 305 + count]
        assert result.stats.num_prefill_tokens <= 2


def test_warming_runs_the_prompt_and_the_request_then_runs_hardly_any(rig: Rig) -> None:
    warmed = start(rig, infill(900, 0)).result
    assert (warmed.text, warmed.stats.num_generated_tokens) == ("", 0)
    assert warmed.num_cached_tokens >= 900
    num_forwards = len(rig.model.forwards)
    result = start(rig, infill(900, 5)).result
    assert result.text == TARGET[900:905]
    assert result.stats.num_prefill_tokens <= 16
    assert sum(len(layout) for layout in rig.model.forwards[num_forwards:]) < 60


def test_warming_again_costs_nothing(rig: Rig) -> None:
    finished(start(rig, infill(900, 0)))
    num_forwards = len(rig.model.forwards)
    finished(start(rig, infill(900, 0)))
    assert len(rig.model.forwards) == num_forwards


def test_a_request_does_not_wait_for_its_users_warming(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=1)
    rig = rigs(FakeModel(TARGET, on_forward=gate), CONFIG)
    warming = start(rig, infill(1_000, 0))
    assert gate.reached.wait(TIMEOUT_S)
    request = start(rig, infill(300, 5))
    gate.open.set()
    assert request.result.text == TARGET[300:305]
    assert warming.result.num_cached_tokens < 1_000


def test_the_longest_cached_prefix_of_any_earlier_prompt_serves(rig: Rig) -> None:
    other = "".join(f"other_{number}()\n" for number in range(60))
    finished(start(rig, infill(800, 2)))
    finished(start(rig, GenerationParams(InfillPrompt(other, ""), 2)))
    assert start(rig, infill(820, 2)).result.stats.num_reused_tokens >= 800
    assert start(rig, GenerationParams(InfillPrompt(other + "x", ""), 2)).result.stats.num_reused_tokens >= len(other)


def test_documents_and_requests_of_one_user_share_their_caches(rig: Rig) -> None:
    rig.open(TARGET[:600])
    assert rig.ask(600).result.stats.num_reused_tokens == 0
    assert start(rig, infill(600, 3)).result.stats.num_reused_tokens >= 600


@pytest.mark.parametrize("num_before", [1, 3])
def test_a_cancelled_request_stops_the_device_within_a_step(rigs: Callable[..., Rig], num_before: int) -> None:
    gate = Gate(at=num_before)
    rig = rigs(FakeModel(TARGET, on_forward=gate), CONFIG)
    reply = start(rig, infill(1_000, 400))
    assert gate.reached.wait(TIMEOUT_S)
    reply.handle.cancel()  # type: ignore[attr-defined]
    num_forwards = len(rig.model.forwards)
    gate.open.set()
    assert isinstance(reply.outcome, RequestCancelledError)
    assert len(rig.model.forwards) == num_forwards, "the forward that ran was the last one"
    assert start(rig, infill(300, 5)).result.text == TARGET[300:305]


def test_drafts_come_from_the_files_of_the_request(rig: Rig) -> None:
    """The model says what nothing but the file has."""
    model = rig.model
    model.target = "import b\n" + "".join(f"q{number * 7919 % 1000}z({number})" for number in range(30))
    prompt = InfillPrompt("import b\n", "")
    with_file = InfillPrompt("import b\n", "", files=(PromptFile("b.py", model.target[4:] + "\n"),))
    without = start(rig, GenerationParams(prompt, 100), "a").result
    having = start(rig, GenerationParams(with_file, 100), "b").result
    assert having.stats.num_steps < without.stats.num_steps


def test_what_one_user_sends_changes_nothing_that_another_can_measure(rigs: Callable[..., Rig]) -> None:
    def counts(result: GenerationResult) -> tuple[object, ...]:
        stats = result.stats
        return result.text, stats.num_steps, stats.num_drafted_tokens, stats.num_reused_tokens, stats.accepted_by_origin

    texts = [infill(300, 50), infill(500, 50), infill(301, 50)]
    alone = rigs(FakeModel(TARGET), CONFIG)
    expected = [counts(start(alone, params, "b").result) for params in texts]
    shared = rigs(FakeModel(TARGET), CONFIG)
    found = []
    for params in texts:
        for _ in range(3):
            finished(start(shared, params, "a"))
        found.append(counts(start(shared, params, "b").result))
    # The drafter's costs are the device's, so drafts are compared by what came of them.
    assert [each[0] for each in found] == [each[0] for each in expected]
    assert [each[3] for each in found] == [each[3] for each in expected]
    assert "workspace" not in found[0][4], "the other's texts are in no pool of this user"


def test_earlier_requests_of_a_user_teach_the_users_pool(rig: Rig) -> None:
    finished(start(rig, infill(900, 2), "a"))
    wait_until(lambda: int(str(rig.engine.pool_stats(http_workspace("a"))["num_tokens"])) >= 900)
    assert rig.engine.pool_stats(http_workspace("b"))["num_tokens"] == 0


@pytest.mark.usefixtures("equal_steps")
def test_a_user_who_floods_the_engine_delays_others_by_one_forward(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=80)
    rig = rigs(FakeModel(TARGET, on_forward=gate), CONFIG)
    flood = [start(rig, infill(100 + number, 300), "flood") for number in range(30)]
    assert gate.reached.wait(TIMEOUT_S)
    num_before = len(rig.model.forwards)
    polite = [start(rig, infill(200, 30), user) for user in ("a", "b", "c")]
    gate.open.set()
    for reply in polite:
        assert reply.result.text == TARGET[200:230]
    alone = rigs(FakeModel(TARGET), CONFIG)
    for user in ("a", "b", "c"):
        finished(start(alone, infill(200, 30), user))
    num_alone = len(alone.model.forwards)
    assert max(reply.num_forwards for reply in polite) - num_before <= num_alone + 3
    for reply in flood:
        reply.handle.cancel()  # type: ignore[attr-defined]


def test_a_document_comes_before_what_has_none(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=3)
    rig = rigs(FakeModel(TARGET, on_forward=gate), CONFIG)
    long = start(rig, infill(300, 800))
    assert gate.reached.wait(TIMEOUT_S)
    rig.open(TARGET[:400])
    keystroke = rig.ask(400)
    was_first: list[bool] = []
    long.on_finish = lambda: was_first.append(keystroke.done.is_set())
    gate.open.set()
    assert keystroke.texts[0].startswith(TARGET[400:410])
    assert long.result.text == TARGET[300:1100], "the generation is none the worse"
    assert was_first == [True], "the keystroke did not wait for the end of the generation"


def test_documents_of_one_user_do_not_starve_another(rigs: Callable[..., Rig]) -> None:
    """Somebody whose editors ask without end, each about another document."""
    gate = Gate(at=60)
    rig = rigs(FakeModel(TARGET, on_forward=gate), CONFIG)
    asked, answered = [], []

    def ask(number: int) -> None:
        key = DocumentKey(1, f"file:///{number}.py", "flood")
        rig.engine.open_document(WorkspaceKey("flood", "w"), key, "python", 1, TARGET[: 100 + number])
        request = CompletionParams(key.uri, 1, 100 + number)
        asked.append(rig.engine.submit(key, request, lambda _text: None, answered.append))

    for number in range(200):
        ask(number)
    assert gate.reached.wait(TIMEOUT_S)
    polite = start(rig, infill(200, 30), "a")
    num_before: list[int] = []
    polite.on_finish = lambda: num_before.append(len(answered))
    gate.open.set()
    assert polite.result.text == TARGET[200:230]
    assert num_before[0] < 150, "it did not wait for all of them"
    for job in asked:
        job.cancel()


@pytest.mark.usefixtures("equal_steps")
def test_a_long_prompt_makes_way_between_its_parts(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=1)
    rig = rigs(FakeModel(TARGET * 3, on_forward=gate, max_positions=8_192), CONFIG)
    long = start(rig, GenerationParams(RawPrompt((TARGET * 2,)), 5), "a")
    assert gate.reached.wait(TIMEOUT_S)
    short = start(rig, infill(50, 5), "b")
    gate.open.set()
    assert short.result.text == TARGET[50:55]
    assert long.result.stats.num_prompt_tokens >= 2 * len(TARGET)
    assert short.num_forwards < long.num_forwards


@pytest.mark.parametrize("company", ["nobody", "another user", "somebody who types", "the request that was warmed for"])
def test_a_long_prompt_runs_in_parts_as_short_as_whoever_else_may_come_needs(
    rigs: Callable[..., Rig], company: str
) -> None:
    speed = SteadySpeed(2_000)
    shared, own = speed.shared_chunk_size, speed.chunk_size
    assert 2 * shared < own
    rig = rigs(FakeModel(TARGET), CONFIG, make_drafting=lambda _model: Drafting(prefill=speed))
    if company == "another user":
        finished(start(rig, infill(50, 5), "b"))
    elif company == "somebody who types":
        rig.open(TARGET[:50])
        rig.settle(50)
    num_before = len(rig.model.forwards)
    finished(start(rig, infill(900, 0 if company == "the request that was warmed for" else 5), "a"))
    sizes = [len(layout) for layout in rig.model.forwards[num_before:]]
    assert sizes[0] == max(sizes) == (own if company == "nobody" else shared)


def test_a_prompt_in_long_parts_goes_on_in_short_ones_once_another_user_came(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=1)
    speed = SteadySpeed(2_000)
    model = FakeModel(TARGET * 3, on_forward=gate, max_positions=8_192)
    rig = rigs(model, CONFIG, make_drafting=lambda _model: Drafting(prefill=speed))
    long = start(rig, GenerationParams(RawPrompt((TARGET * 2,)), 5), "a")
    assert gate.reached.wait(TIMEOUT_S)
    short = start(rig, infill(50, 5), "b")
    gate.open.set()
    finished(short)
    finished(long)
    sizes = [len(layout) for layout in rig.model.forwards]
    assert sizes[0] == speed.chunk_size
    assert max(sizes[1:]) == speed.shared_chunk_size
    assert sizes.count(speed.shared_chunk_size) > 10


def test_a_prompt_that_leaves_no_room_is_an_error_and_an_empty_one_is_not(rig: Rig) -> None:
    outcome = start(rig, GenerationParams(RawPrompt(("x" * 5_000,)), 5)).outcome
    assert isinstance(outcome, ContextOverflowError)
    assert "x" * 10 not in str(outcome)
    assert start(rig, GenerationParams(RawPrompt(()), 5)).result.finish_reason is FinishReason.EMPTY_PROMPT
    assert start(rig, infill(300, 4_096)).result.finish_reason is FinishReason.STOP_TOKEN


def test_sampling_is_repeated_by_its_seed(rigs: Callable[..., Rig]) -> None:
    def sampled(seed: int, **options: object) -> str:
        rig = rigs(FakeModel(TARGET), CONFIG)
        return start(rig, infill(300, 40, temperature=8.0, seed=seed, **options)).result.text

    assert sampled(1) == sampled(1) != sampled(2)
    assert sampled(1, top_k=1) == TARGET[300:340]
    assert sampled(1, top_p=0.01) == TARGET[300:340]


def test_a_clean_answer_is_what_an_editor_gets(rig: Rig) -> None:
    text = "def f(x):\n    return g(x)\n\n\ndef h():\n    pass\n"
    rig.model.target = text.replace("g(x)", "g(x, 1)") + "\nmore\n"
    cursor = text.index("(x)\n") + 1
    prompt = InfillPrompt(text[: cursor + 1], text[cursor + 1 :])
    raw = start(rig, GenerationParams(prompt, 30)).result
    assert raw.text.startswith(", 1)\n\n\ndef h")
    cleaned = start(rig, GenerationParams(prompt, 30, clean=True, language_id="python")).result
    assert cleaned.text == ", 1", "neither the closer that follows nor the lines below"
    spelled = RawPrompt((f"<PRE><SUF>{text[cursor + 1 :]}<MID>{text[: cursor + 1]}",), may_be_formatted=True)
    assert start(rig, GenerationParams(spelled, 30, clean=True, language_id="python")).result.text == ", 1"


def test_a_failure_ends_one_request_only(rig: Rig) -> None:
    def fail(_layout: StepLayout) -> None:
        rig.model.on_forward = lambda _layout: None
        raise RuntimeError("broken")

    rig.model.on_forward = fail
    outcome = start(rig, infill(300, 5)).outcome
    assert isinstance(outcome, DecodingError)
    assert start(rig, infill(300, 5)).result.text == TARGET[300:305]


def test_closing_answers_everything_that_waits(rigs: Callable[..., Rig]) -> None:
    gate = Gate(at=2)
    rig = rigs(FakeModel(TARGET, on_forward=gate), CONFIG)
    replies = [start(rig, infill(300, 50), user) for user in ("a", "a", "b")]
    assert gate.reached.wait(TIMEOUT_S)
    closing = threading.Thread(target=rig.engine.close)
    closing.start()
    wait_until(lambda: rig.engine._inbox._closing)
    gate.open.set()
    closing.join(TIMEOUT_S)
    assert all(isinstance(reply.outcome, ForelookError) for reply in replies)


def test_without_a_model_the_answer_says_so(rigs: Callable[..., Rig]) -> None:
    engine = CompletionEngine(lambda _progress: FakeModel(TARGET), CONFIG, lambda _status: None)
    reply = Generated()
    engine.generate("", infill(300), reply.pieces.append, reply.finish)
    assert isinstance(reply.outcome, ModelError)
    with pytest.raises(ModelError):
        engine.tokenize("x")
