"""Out of memory within a step: the request fails, committed state stays correct, and the engine continues."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from forelook.completion.engine.engine import CompletionEngine
from forelook.config import EngineConfig
from forelook.decoding.layout import StepLayout, causal_layout
from forelook.errors import ForelookError, InsufficientMemoryError
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.model.forward.llama import LlamaSequence
from forelook.model.forward.static_step import BucketedSequence, StepSpace
from forelook.model.forward.step_ops import plain_ops
from forelook.model.loading import LoadedModel
from forelook.protocol.messages import CompletionParams, CompletionResult, EngineState, Status

KEY = DocumentKey(1, "file:///a.py")
TIMEOUT_S = 60.0


class Allocator:
    """The border to memory: each step and each layer asks it, and while it is full it says so as torch does."""

    def __init__(self) -> None:
        self.calls_until_full: int | None = None

    def guard(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: object) -> Any:
            if self.calls_until_full is not None:
                self.calls_until_full -= 1
                if self.calls_until_full < 0:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return work(*arguments)

        return guarded


def guarded_sequence(starter: LoadedModel, allocator: Allocator) -> LlamaSequence:
    plain = plain_ops(starter.config)
    ops = replace(plain, attend=allocator.guard(plain.attend))
    space = StepSpace(starter.weights, ops, lambda step: allocator.guard(step))
    return BucketedSequence(space, 512)


@pytest.mark.parametrize("calls", [0, 1, 3])
def test_failed_step_leaves_the_committed_tokens_right(starter: LoadedModel, calls: int) -> None:
    """With accepted rows still to be moved, whichever layer the memory ran out in."""
    allocator = Allocator()
    sequence, ordinary = guarded_sequence(starter, allocator), starter.new_sequence(512)
    ids = list(range(8, 18))
    visible = np.eye(4, dtype=np.bool_)
    visible[3, 1] = True
    tree = StepLayout(np.array([30, 31, 32, 33]), np.array([10, 10, 10, 11]), visible, np.arange(4))
    for each in (sequence, ordinary):
        each.forward(causal_layout(ids, 0))
        each.commit(range(10))
        each.forward(tree)
        each.commit([1, 3])
    allocator.calls_until_full = calls
    with pytest.raises(InsufficientMemoryError, match="a step of 1 tokens"):
        sequence.forward(causal_layout([40], 12))
    allocator.calls_until_full = None
    whole = [*ids, 31, 33, 40]
    kept = len(sequence.cached_ids)
    assert list(sequence.cached_ids) == whole[:kept]
    actual = sequence.forward(causal_layout(whole[kept:], kept))
    torch.testing.assert_close(actual, ordinary.forward(causal_layout([40], 12)), atol=1e-4, rtol=0)


def test_out_of_memory_fails_that_request_and_the_engine_goes_on(starter: LoadedModel) -> None:
    allocator = Allocator()

    class Model:
        """The starter model with its sequences behind the allocator."""

        def __getattr__(self, name: str) -> object:
            return getattr(starter, name)

        def new_sequence(self, max_positions: int | None = None) -> LlamaSequence:
            return guarded_sequence(starter, allocator)

    ready = threading.Event()

    def on_status(status: Status) -> None:
        if status.state is EngineState.READY:
            ready.set()

    config = EngineConfig(prewarm=False, deadline_ms=60_000)
    engine = CompletionEngine(lambda _progress: Model(), config, on_status)  # type: ignore[arg-type, return-value]
    engine.start()
    text = "def add(a, b):\n    return a + b\n\n\ndef add3(a, b, c):\n    return a"

    def ask() -> CompletionResult | ForelookError:
        outcomes: list[CompletionResult | ForelookError] = []
        done = threading.Event()

        def finish(outcome: CompletionResult | ForelookError) -> None:
            outcomes.append(outcome)
            done.set()

        engine.submit(KEY, CompletionParams(KEY.uri, 1, len(text)), lambda _text: None, finish)
        assert done.wait(TIMEOUT_S)
        return outcomes[0]

    try:
        assert ready.wait(TIMEOUT_S)
        engine.open_document(WorkspaceKey("", "w"), KEY, "python", 1, text)
        before = ask()
        assert isinstance(before, CompletionResult)
        assert before.suggestions
        allocator.calls_until_full = 2
        failed = ask()
        assert isinstance(failed, InsufficientMemoryError)
        assert "close other programs, shorten the context" in str(failed)
        assert engine.status.state is EngineState.READY
        allocator.calls_until_full = None
        after = ask()
        assert isinstance(after, CompletionResult)
        assert after.suggestions == before.suggestions
    finally:
        engine.close()
