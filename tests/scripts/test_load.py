"""The load test: typists against a real server, its figures, and the simulation that sizes a cluster."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from bench.load import Key, Typed, Typist, device_shares, fairness, sessions_of, stickiness, summary, type_together
from bench.load_clients import Address, Reply, SocketEditor
from bench.load_simulation import (
    Cost,
    Recording,
    Simulation,
    Step,
    alone_in_time_share,
    replicas_needed,
    simulated,
)
from bench.traces import Session, typed
from forelook.finish_reason import FinishReason
from forelook.local.access import AccessPolicy
from forelook.local.user_keys import KeyRing, issue_key
from forelook.protocol.messages import CompletionParams, CompletionResult, RequestStats, Suggestion

from tests.completion.fake_model import FakeModel
from tests.server.harness import running
from tests.server.http.harness import KEY, http_running

TEXT = "value = compute(3)\n"


def sessions(number: int) -> list[Session]:
    return [Session(f"{number}.py", "python", "x = 1\n", typed(6, TEXT))]


async def test_typists_measure_a_server_over_the_editor_protocol(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = tuple(issue_key(path, f"user-{number}") for number in range(3))
    async with running(tmp_path, policy=AccessPolicy(keys=KeyRing(path)), tcp=True) as server:
        await server.made.wait()

        def answer(request: CompletionParams, text: str) -> CompletionResult:
            rest = (("x = 1\n" + TEXT)[request.offset :])[:5]
            suggestion = Suggestion(rest, request.offset, request.offset)
            stats = RequestStats(total_ms=9.0, queue_ms=2.0, num_forwards=3)
            assert text.startswith("x = 1\n")
            return CompletionResult((suggestion,) if rest else (), FinishReason.STOP_TOKEN, stats=stats)

        server.engine.answer = answer
        assert isinstance(server.address, tuple)
        address = Address(f"ws://{server.address[0]}:{server.address[1]}", keys)
        run = await type_together(address, 3, 3.0, warmup_s=0.2, sessions=sessions)
    figures = summary(run)
    assert figures["typists"] == 3
    assert figures["outcomes"].keys() == {"answered"}
    assert 0 < figures["requests"] < figures["keys"], "a key that goes on with the suggestion asks nothing"
    # The key after an answer that came late asks, too.
    assert 0 < figures["requests"] * figures["in_time_share"] <= figures["keys"] / 3
    assert 0 < figures["p50_ms"] <= figures["p95_ms"] < 10_000
    assert (figures["service_p50_ms"], figures["queue_p95_ms"], figures["forwards_per_suggestion"]) == (7.0, 2.0, 3.0)
    assert figures["stickiness"] == {
        "own_replica_share": 1.0, "replicas": 1, "busiest_share": 1.0, "connections": 3,
    }  # fmt: skip
    assert figures["fairness"]["jain"] > 0.3


async def test_a_typist_who_is_cut_off_connects_again(tmp_path: Path) -> None:
    async with running(tmp_path, tcp=True) as server:
        assert isinstance(server.address, tuple)
        typist = Typist(Address(f"ws://{server.address[0]}:{server.address[1]}"), 0, sessions(0))
        now_s = time.perf_counter()
        task = asyncio.create_task(typist.run(now_s, now_s, now_s + 3.0))
        await asyncio.sleep(1.2)
        assert isinstance(typist._editor, SocketEditor)
        typist._editor._websocket.transport.abort()
        await task
    figures = summary([typist.typed])
    assert (figures["outages"], typist.typed.connections) == (1, 2)
    assert figures["longest_outage_ms"] < 10_000
    assert typist.typed.keys[-1].reply is not None
    assert typist.typed.keys[-1].reply.outcome == "answered", "its document is open again"


async def test_typists_measure_a_server_over_http(tmp_path: Path) -> None:
    async with http_running(tmp_path, model=FakeModel(TEXT * 3)) as server:
        address = Address(server.url, (KEY,))
        run = await type_together(address, 2, 2.0, warmup_s=0.2, sessions=sessions)
    figures = summary(run)
    assert figures["outcomes"].get("answered", 0) > 3
    assert figures["outcomes"].keys() <= {"answered", "superseded"}
    assert figures["stickiness"]["own_replica_share"] is None, "this server does not say which replica it is"


def test_what_was_refused_or_superseded_has_no_latency() -> None:
    keys = [
        Key(0.1, 0.0, 10.0, Reply("answered", "text", "a", 5.0, 1.0, 4), is_in_time=True),
        Key(0.1, 0.1, 30.0, Reply("answered", "", "b", 5.0, 1.0, 2)),
        Key(0.1, 0.2, None, Reply("superseded", replica="a")),
        Key(0.1, 0.3),
    ]
    figures = summary([Typed(keys, 1)])
    assert (figures["keys"], figures["requests"]) == (4, 3)
    assert (figures["p50_ms"], figures["p95_ms"]) == (10.0, 30.0)
    assert figures["in_time_share"] == round(1 / 3, 4)
    assert figures["forwards_per_suggestion"] == 6.0, "forwards of empty answers were spent too"
    assert figures["stickiness"]["own_replica_share"] == round(2 / 3, 4)
    assert summary([Typed()])["p50_ms"] is None


def of(*latencies_ms: float, replica: str = "a") -> Typed:
    return Typed([Key(0.1, 0.0, ms, Reply("answered", "x", replica)) for ms in latencies_ms])


def test_fairness_is_one_for_equals_and_falls_with_the_worst() -> None:
    assert fairness([of(10, 10), of(10)]) == {"jain": 1.0, "worst_p95_ratio": 1.0}
    unfair = fairness([of(10), of(10), of(100)])
    assert unfair == {"jain": round(120**2 / (3 * (100 + 100 + 10_000)), 4), "worst_p95_ratio": 10.0}
    assert fairness([Typed()]) == {"jain": None, "worst_p95_ratio": None}


def test_each_workspace_has_its_own_replica() -> None:
    found = stickiness([of(1, 1, 1), of(1, replica="b")])
    assert (found["own_replica_share"], found["replicas"], found["busiest_share"]) == (1.0, 2, 0.75)


def test_the_device_is_busy_with_all_requests_those_without_an_answer_too() -> None:
    before = {"worked_ms": {"requests": 0.0, "ahead": 0.0}, "forwards": 0, "cancelled_forwards": 0, "suggestions": 0}
    after = {"worked_ms": {"requests": 500.0, "ahead": 100.0}, "forwards": 6, "cancelled_forwards": 4, "suggestions": 5}
    assert device_shares(before, after, 2.0) == {
        "busy_share": 0.25, "ahead_share": 0.05, "all_forwards_per_suggestion": 2.0,
    }  # fmt: skip


def test_typists_have_files_of_their_own(repository: Path) -> None:
    first, second = (sessions_of(number, repository / "backend") for number in range(2))
    assert len(first) == len(second) == 6
    assert not {session.name for session in first} & {session.name for session in second}


# --- the simulation


def steady(gap_s: float, service_s: float, *, forwards: int = 1, beside_s: float = 0.0) -> Recording:
    """A typist with a key per ``gap_s``, each of which asks."""
    return Recording((tuple(Step(gap_s, asks=True) for _ in range(10)),), ((Cost(service_s, beside_s, forwards),),))


def test_alone_a_typist_waits_for_the_device_only() -> None:
    found = simulated(steady(0.2, 0.05, beside_s=0.002), 1, 1)
    assert found["p50_ms"] == found["p95_ms"] == pytest.approx(52.0)
    assert found["in_time_share"] == pytest.approx(1.0, abs=0.01)
    assert found["busy_share"] == pytest.approx(0.25, abs=0.01)
    assert found["superseded_share"] == 0.0


def test_an_answer_that_takes_longer_than_a_key_is_superseded_at_its_next_forward() -> None:
    found = simulated(steady(0.2, 0.5, forwards=5), 1, 1)
    assert found["p50_ms"] is None or found["p50_ms"] == 0.0
    assert found["superseded_share"] == pytest.approx(1.0, abs=0.02)
    assert found["busy_share"] == pytest.approx(1.0, abs=0.02), "a canceled request has used the device"


def test_typists_of_one_replica_wait_for_each_other_and_those_of_two_do_not() -> None:
    alone = simulated(steady(0.2, 0.05), 1, 1)["p95_ms"]
    together = simulated(steady(0.2, 0.05), 3, 1)
    assert together["busy_share"] == pytest.approx(0.75, abs=0.03)
    assert together["p95_ms"] > 1.5 * alone
    spread = Simulation(steady(0.2, 0.05), 40, 40, seed=1).run()
    assert spread["busiest_share"] > 1.5 * spread["busy_share"], "a hash does not spread evenly"


def test_a_key_that_would_have_asked_nothing_asks_while_its_answer_is_late() -> None:
    steps = (Step(0.2, asks=True), Step(0.2, asks=False))
    quick = Simulation(Recording((steps,), ((Cost(0.05, 0.0, 1),),)), 1, 1).run()
    late = Simulation(Recording((steps,), ((Cost(0.5, 0.0, 10),),)), 1, 1).run()
    assert late["requests"] == pytest.approx(2 * quick["requests"], rel=0.05)


def test_more_typists_need_more_replicas_and_a_faster_device_fewer() -> None:
    recording = steady(0.2, 0.04)
    sizes = [replicas_needed(recording, number, in_time_share=0.9, seconds=10.0) for number in (1, 8, 40)]
    counts = [0 if size is None else size["replicas"] for size in sizes]
    assert counts[0] == 1
    assert 2 <= counts[1] <= 8
    assert counts[2] > 2 * counts[1]
    fast = replicas_needed(recording.faster(10), 40, in_time_share=0.9, seconds=10.0)
    assert fast is not None
    assert fast["replicas"] < counts[2] / 3
    assert replicas_needed(steady(0.2, 0.5, forwards=5), 4, in_time_share=0.9, most=8, seconds=5.0) is None


def test_each_typist_keeps_to_the_recording_of_one() -> None:
    """Whoever asks often has costly answers: the mean of all costs would say that the device is busy for too long."""
    often = steady(0.2, 0.1)
    seldom = Recording((tuple(Step(0.2, asks=number == 0) for number in range(10)),), ((Cost(0.01, 0.0, 1),),))
    both = Recording(often.steps + seldom.steps, often.costs + seldom.costs)
    assert simulated(both, 1, 1)["busy_share"] == pytest.approx(0.5, abs=0.02), "the first typist is the first one"
    assert Simulation(both, 2, 1, 30.0).run()["busy_share"] == pytest.approx(0.505, abs=0.03)
    assert alone_in_time_share(both) == pytest.approx(1.0, abs=0.01)
    late = Recording(both.steps, (((Cost(1.0, 0.0, 1)),), both.costs[1]))
    assert alone_in_time_share(late) == pytest.approx(0.5, abs=0.02)


async def test_typists_are_recorded_one_after_the_other(tmp_path: Path) -> None:
    async with running(tmp_path, tcp=True) as server:
        assert isinstance(server.address, tuple)
        address = Address(f"ws://{server.address[0]}:{server.address[1]}")
        started = []

        def files_of(number: int) -> list[Session]:
            started.append(number)
            return sessions(number)

        for number in (0, 5):
            await type_together(address, 1, 0.5, warmup_s=0.0, waits=True, first=number, sessions=files_of)
    assert started == [0, 5]


def test_chance_is_that_of_the_seed() -> None:
    recording = steady(0.2, 0.04)
    assert Simulation(recording, 9, 2, seed=3).run() == Simulation(recording, 9, 2, seed=3).run()
    assert Simulation(recording, 9, 2, seed=3).run() != Simulation(recording, 9, 2, seed=4).run()


def test_a_recording_keeps_costs_apart_from_waits() -> None:
    keys = [Key(0.3, 0.0, 20.0, Reply("answered", "x", "a", 15.0, 2.0, 3)), Key(0.1, 0.3)]
    recording = Recording.of([Typed(keys)])
    assert recording.steps == ((Step(0.3, asks=True), Step(0.1, asks=False)),)
    assert recording.costs == ((Cost(0.015, pytest.approx(0.005), 3),),)
    assert recording.faster(3).costs == ((Cost(pytest.approx(0.005), pytest.approx(0.005), 3),),)
    with pytest.raises(ValueError, match="no request"):
        Recording.of([Typed([Key(0.1, 0.0)])])
