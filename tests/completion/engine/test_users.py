"""Users of one backend: what one does leaves no trace in anything another can measure."""

from __future__ import annotations

import random
import threading
from dataclasses import fields, replace
from functools import partial

import pytest
from forelook.config import EngineConfig
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.model.loading import LoadedModel
from forelook.protocol.events import EventKind
from forelook.protocol.messages import CompletionEventParams, CompletionParams, RequestStats, TriggerKind
from forelook.workspace.pool import WorkspacePool

from tests.completion.engine_rig import PLAIN, TIMEOUT_S, Reply, Rig, wait_until
from tests.completion.fake_model import FakeModel

TARGET = "".join(f"value_{number} = compute({number})\n" for number in range(60))
DRAFTING = EngineConfig(prewarm=False, deadline_ms=20_000, speculate=False)


class Person:
    """One user of an engine."""

    def __init__(self, rig: Rig, name: str) -> None:
        self.rig, self.name = rig, name
        self.workspace = WorkspaceKey(name, "file:///w")
        self.answers: list[dict[str, object]] = []

    def key(self, number: int = 0) -> DocumentKey:
        return DocumentKey(1, f"file:///w/{number}.py", self.name)

    def open(self, text: str, number: int = 0) -> None:
        self.rig.engine.open_document(self.workspace, self.key(number), "python", 1, text)

    def ask(self, offset: int, number: int = 0) -> dict[str, object]:
        """The counts that an answer carries, and its texts."""
        reply = Reply()
        request = CompletionParams(self.key(number).uri, 1, offset, trigger=TriggerKind.INVOKED)
        self.rig.engine.submit(self.key(number), request, reply.partial.append, reply.finish)
        result = reply.result
        counts = {item.name: getattr(result.stats, item.name) for item in fields(RequestStats)}
        answer = {name: value for name, value in counts.items() if name.startswith(("num_", "tokens_", "accepted_"))}
        self.answers.append({**answer, "texts": reply.texts, "reason": result.finish_reason})
        return self.answers[-1]

    def observe(self) -> dict[str, object]:
        """Everything that the engine tells this user."""
        stats = self.rig.engine.stats(self.name)
        timed = ("latency_ms", "spent_ms", "worked_ms")
        counts = {name: value for name, value in stats.items() if name not in timed}
        return {"answers": self.answers, "stats": counts, "pool": self.rig.engine.pool_stats(self.workspace)}

    def leave(self, number: int = 0) -> None:
        self.rig.engine.close_document(self.key(number))


def session(person: Person, seed: int) -> list[object]:
    """A user's steps, each a function: open, ask, report, close; the same for the same seed."""
    draw = random.Random(seed)
    steps: list[object] = []
    for number in range(12):
        length = draw.randrange(200, len(TARGET))
        text = TARGET[:length] if draw.random() < 0.7 else f"# {draw.random()}\n" * 40
        offset = min(len(text), draw.randrange(100, len(TARGET)))
        steps.append(lambda text=text, number=number: person.open(text, number))
        steps.append(lambda offset=offset, number=number: person.ask(offset, number))
        event = CompletionEventParams("file:///w", "python", EventKind.SHOWN, draw.randrange(50))
        steps.append(lambda event=event: person.rig.engine.record_event(person.workspace, event))
        if draw.random() < 0.3:
            steps.append(lambda number=number: person.leave(number))
            steps.append(lambda text=text, number=number: person.open(text, number))
        steps.append(lambda offset=offset, number=number: person.ask(offset - 1, number))
    return steps


def run(rig: Rig, *people: tuple[Person, int]) -> None:
    """Everybody's steps, in turn."""
    sessions = [iter(session(person, seed)) for person, seed in people]
    while sessions:
        for steps in tuple(sessions):
            step = next(steps, None)
            if step is None:
                sessions.remove(steps)
            else:
                step()  # type: ignore[operator]


def patient_pool(_workspace: WorkspaceKey, model: LoadedModel) -> WorkspacePool:
    """A pool in which a request finds its document, however long that takes."""
    return WorkspacePool(model.tokenizer.encode, catch_up_s=60.0)


def index_all(rig: Rig) -> None:
    """Let the engine's thread index all that waits."""
    done = threading.Event()

    def index() -> None:
        while rig.engine._pools.index():
            pass
        done.set()

    rig.engine._inbox.command(index)
    assert done.wait(TIMEOUT_S)


@pytest.mark.parametrize("config", [replace(DRAFTING, autoregressive=True), DRAFTING], ids=["plain", "drafts"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_others_do_a_user_observes_the_same(config: EngineConfig, seed: int) -> None:
    def observed(*others: int) -> dict[str, object]:
        rig = Rig(FakeModel(TARGET), config, make_pool=patient_pool)
        try:
            alice = Person(rig, "alice")
            run(rig, (alice, seed), *((Person(rig, f"other {other}"), other) for other in others))
            index_all(rig)
            return alice.observe()
        finally:
            rig.engine.close()

    alone = observed()
    assert alone["answers"]
    assert observed(seed, 17, 18) == alone  # one of the others has the very same documents


def test_a_guess_of_another_users_prompt_finds_nothing_cached() -> None:
    rig = Rig(FakeModel(TARGET), PLAIN)
    alice, mallory = Person(rig, "alice"), Person(rig, "mallory")
    alice.open(TARGET)
    alice.ask(len(TARGET))
    assert alice.ask(len(TARGET))["num_reused_tokens"], "the attack has something to find"
    mallory.open(TARGET)
    assert mallory.ask(len(TARGET))["num_reused_tokens"] == 0
    rig.engine.close()


def test_figures_of_a_user_are_the_own_and_those_of_the_owner_everybodys() -> None:
    rig = Rig(FakeModel(TARGET), PLAIN)
    alice, bob, owner = Person(rig, "alice"), Person(rig, "bob"), Person(rig, "")
    for person in (alice, alice, bob):
        person.open(TARGET)
        person.ask(len(TARGET))
    assert [alice.observe()["stats"]["requests"], bob.observe()["stats"]["requests"]] == [2, 1]  # type: ignore[index]
    everything = owner.observe()["stats"]
    assert isinstance(everything, dict)
    assert (everything["requests"], everything["num_documents"], everything["num_cached_prompts"]) == (3, 2, 2)
    rig.engine.close()


def test_memory_of_a_user_who_has_left_is_freed() -> None:
    rig = Rig(FakeModel(TARGET), PLAIN)
    alice, owner = Person(rig, "alice"), Person(rig, "")
    for person in (alice, owner):
        person.open(TARGET)
        person.ask(len(TARGET))
        person.leave()
    wait_until(lambda: rig.engine.stats("alice")["num_cached_prompts"] == 0)
    assert rig.engine.stats("")["num_cached_prompts"] == 1, "the owner's is kept for the next document"
    rig.engine.close()


def test_background_work_of_one_user_does_not_replace_anothers() -> None:
    rig = Rig(FakeModel(TARGET), replace(PLAIN, prewarm=True))
    alice, bob = Person(rig, "alice"), Person(rig, "bob")
    for person in (alice, bob):
        person.open(TARGET)
    for person in (alice, bob):  # both edit before either prefill is due
        rig.engine.change_document(person.key(), 2, ())
        speculation = rig.engine._users.of(person.name).speculation
        rig.engine._inbox.command(partial(speculation.edited, person.key(), 900, 0.0))
    wait_until(lambda: all(rig.engine.stats(person.name)["prewarmed_tokens"] for person in (alice, bob)))
    rig.engine.close()
