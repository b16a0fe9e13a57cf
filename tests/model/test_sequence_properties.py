"""Any history of tree steps, commits and truncations gives the logits of plain recomputation in float64."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from forelook.decoding.layout import StepLayout
from forelook.errors import ConfigError
from forelook.model.forward.llama import LlamaSequence
from forelook.model.forward.static_step import BucketedSequence, Step, StepSpace
from forelook.model.forward.step_ops import plain_ops
from forelook.model.loading import LoadedModel, load_model
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from transformers import PreTrainedModel

from tests.model.checkpoints import build_reference, save

MAX_POSITIONS = 40
TINY = {
    "vocab_size": 260,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
}


class Models:
    """One model in float64 twice: transformers', which recomputes, and ours, which remembers."""

    def __init__(self, variant: str) -> None:
        self.reference: PreTrainedModel = build_reference(variant, **TINY).double()
        with TemporaryDirectory() as folder:
            self.loaded: LoadedModel = load_model(
                str(save(self.reference, Path(folder) / "model")), device="cpu", dtype="float64"
            )

    @torch.no_grad()
    def recompute(self, ids: list[int]) -> torch.Tensor:
        return self.reference(torch.tensor([ids])).logits[0, -1]


MODELS = {variant: Models(variant) for variant in ("grouped_queries", "qwen2_bias", "starcoder2_with_window")}


class Histories(RuleBasedStateMachine):
    """Forward, commit and truncate in any order the protocol allows."""

    @initialize(variant=st.sampled_from(sorted(MODELS)))
    def start(self, variant: str) -> None:
        self.models = MODELS[variant]
        self.sequence: LlamaSequence = self.new_sequence()
        self.committed: list[int] = []
        self.paths: list[list[int]] = []
        self.layout: StepLayout | None = None

    def new_sequence(self) -> LlamaSequence:
        return self.models.loaded.new_sequence(MAX_POSITIONS)

    # Trees come from a seed: drawn number by number they would nearly always be small and plain.
    @precondition(lambda self: len(self.committed) < MAX_POSITIONS)
    @rule(seed=st.integers(0, 10**9), causal=st.booleans())
    def forward(self, seed: int, causal: bool) -> None:
        rng = np.random.default_rng(seed)
        start = len(self.committed)
        size = int(rng.integers(1, min(10, MAX_POSITIONS - start) + 1))
        self.paths = []
        for row in range(size):
            parent = row - 1 if causal else int(rng.integers(-1, row))
            self.paths.append([*(self.paths[parent] if parent >= 0 else []), row])
        visibility = np.zeros((size, size), dtype=np.bool_)
        for row, path in enumerate(self.paths):
            visibility[row, path] = True
        ids = rng.integers(0, TINY["vocab_size"], size)
        rows = np.sort(rng.choice(size, size=min(size, 3), replace=False))
        positions = np.array([start + len(path) - 1 for path in self.paths])
        self.layout = StepLayout(ids, positions, None if causal else visibility, rows)
        logits = self.sequence.forward(self.layout)
        assert logits.dtype == torch.float64
        for row, actual in zip(rows, logits, strict=True):
            expected = self.models.recompute([*self.committed, *ids[self.paths[row]].tolist()])
            # transformers computes its norms in float32 whatever the dtype; a wrong mask or position is far larger.
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)

    @precondition(lambda self: len(self.committed) < MAX_POSITIONS)
    @rule(seed=st.integers(0, 10**9), partly=st.booleans())
    def step(self, seed: int, partly: bool) -> None:
        """A tree, and a path of it accepted: most often with gaps between its rows."""
        self.forward(seed, causal=False)
        self.commit(seed, partly)

    @precondition(lambda self: self.layout is not None)
    @rule(seed=st.integers(0, 10**9), partly=st.booleans())
    def commit(self, seed: int, partly: bool) -> None:
        assert self.layout is not None
        rng = np.random.default_rng(seed)
        path = self.paths[int(rng.integers(len(self.paths)))]
        if partly:
            path = path[: int(rng.integers(len(path) + 1))]
        self.sequence.commit(path)
        self.committed.extend(int(self.layout.token_ids[row]) for row in path)
        self.layout = None

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        length = data.draw(st.integers(0, len(self.committed)), label="length")
        self.sequence.truncate(length)
        del self.committed[length:]
        self.layout = None

    @invariant()
    def cached_ids_are_the_committed_tokens(self) -> None:
        if hasattr(self, "sequence"):
            assert list(self.sequence.cached_ids) == self.committed


def run_thrice(step: Step) -> Step:
    """As capturing does: the step is run for warming up before it is wanted."""
    for _ in range(3):
        step()
    return step


class PaddedHistories(Histories):
    """The same for steps of static shapes, padded, with the accepted rows moved by the next step."""

    def new_sequence(self) -> LlamaSequence:
        return BucketedSequence(
            StepSpace(self.models.loaded.weights, plain_ops(self.models.loaded.config), run_thrice), MAX_POSITIONS
        )


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=30, stateful_step_count=12, deadline=None)
TestPaddedHistories = PaddedHistories.TestCase
TestPaddedHistories.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)


@pytest.mark.parametrize("rows", [[1, 0], [0, 0], [3], [-1]])
def test_rows_that_are_no_ascending_part_of_the_tail_cannot_be_committed(rows: list[int]) -> None:
    sequence = MODELS["grouped_queries"].loaded.new_sequence(MAX_POSITIONS)
    sequence.forward(StepLayout(np.array([5, 6, 7]), np.arange(3), None, np.array([2])))
    with pytest.raises(ConfigError, match="rows"):
        sequence.commit(rows)
    assert list(sequence.cached_ids) == []


def test_commit_without_a_forward_is_refused() -> None:
    sequence = MODELS["grouped_queries"].loaded.new_sequence(MAX_POSITIONS)
    sequence.forward(StepLayout(np.array([5]), np.arange(1), None, np.array([0])))
    sequence.commit([0])
    with pytest.raises(ConfigError, match="rows"):
        sequence.commit([0])


def test_truncating_beyond_the_end_changes_nothing() -> None:
    models = MODELS["grouped_queries"]
    sequence = models.loaded.new_sequence(MAX_POSITIONS)
    sequence.forward(StepLayout(np.array([5]), np.arange(1), None, np.array([0])))
    sequence.commit([0])
    sequence.truncate(5)
    assert list(sequence.cached_ids) == [5]
    logits = sequence.forward(StepLayout(np.array([9]), np.array([1]), None, np.array([0])))
    torch.testing.assert_close(logits[0], models.recompute([5, 9]), atol=1e-6, rtol=0)
    with pytest.raises(ConfigError, match="length"):
        sequence.truncate(-1)
