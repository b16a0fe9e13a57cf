"""What callers' threads and the engine's thread write at once: the answer of a request, and counts."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from forelook.completion.engine.inbox import GenerationJob, OnGenerated
from forelook.completion.engine.metrics import EngineMetrics
from forelook.errors import DecodingError, ForelookError
from forelook.protocol.generation import GenerationParams, GenerationResult, RawPrompt


def a_request(on_done: OnGenerated) -> GenerationJob:
    params = GenerationParams(RawPrompt(("x",)), 1)
    return GenerationJob(arrived_s=0.0, on_done=on_done, principal="", params=params, on_text=lambda _text: None)


def in_threads(number: int, work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_a_request_is_answered_once_however_many_threads_answer_it() -> None:
    """The engine's thread may fail while it answers, and the caller's thread then answers what it finds waiting."""
    answers: list[object] = []
    start = threading.Barrier(4)

    def on_done(outcome: GenerationResult | ForelookError) -> None:
        time.sleep(0.01)  # the others are there by now
        answers.append(outcome)

    job = a_request(on_done)

    def answer() -> None:
        start.wait(10)
        job.finish(DecodingError("the engine failed"))

    in_threads(4, answer)

    assert len(answers) == 1


def test_a_callback_that_fails_is_not_called_again(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[object] = []

    def on_done(outcome: GenerationResult | ForelookError) -> None:
        calls.append(outcome)
        raise RuntimeError("the client is gone")

    job = a_request(on_done)

    job.finish(DecodingError("one"))
    job.finish(DecodingError("two"))

    assert len(calls) == 1
    assert "a request's callback" in caplog.text


def test_counts_of_several_threads_are_all_counted() -> None:
    """A caller's thread counts what it supersedes while the engine's counts what it answers."""
    both_read = threading.Barrier(2)

    class Slow(Counter[str]):
        def __getitem__(self, name: str) -> int:
            count = super().__getitem__(name)
            with contextlib.suppress(threading.BrokenBarrierError):
                both_read.wait(0.2)  # without a lock both threads come here, and write the same sum
            return count

    metrics = EngineMetrics()
    metrics._counts = Slow()  # the moment between reading and writing

    in_threads(2, lambda: metrics.add("requests"))

    both_read.abort()
    assert metrics.to_dict()["requests"] == 2
