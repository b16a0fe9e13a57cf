"""Any history of tree steps, commits and truncations gives the logits of plain recomputation in float64."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from forelook.decoding.step_layout import StepLayout
from forelook.errors import ConfigError
from forelook.model.llama import LlamaSequence
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


MODELS = {variant: Models(variant) for variant in ("grouped_queries", "qwen2_bias")}


class Histories(RuleBasedStateMachine):
    """Forward, commit and truncate in any order the protocol allows."""

    @initialize(variant=st.sampled_from(sorted(MODELS)))
    def start(self, variant: str) -> None:
        self.models = MODELS[variant]
        self.sequence: LlamaSequence = self.models.loaded.new_sequence(MAX_POSITIONS)
        self.committed: list[int] = []
        self.paths: list[list[int]] = []
        self.layout: StepLayout | None = None

    @precondition(lambda self: len(self.committed) < MAX_POSITIONS)
    @rule(data=st.data())
    def forward(self, data: st.DataObject) -> None:
        start = len(self.committed)
        size = data.draw(st.integers(1, min(10, MAX_POSITIONS - start)), label="tail")
        parents = [data.draw(st.integers(-1, row - 1), label=f"parent of {row}") for row in range(size)]
        if data.draw(st.booleans(), label="causal"):
            parents = list(range(-1, size - 1))
        ids = [data.draw(st.integers(0, TINY["vocab_size"] - 1), label=f"token {row}") for row in range(size)]
        self.paths = []
        for row, parent in enumerate(parents):
            self.paths.append([*(self.paths[parent] if parent >= 0 else []), row])
        visibility = np.zeros((size, size), dtype=np.bool_)
        for row, path in enumerate(self.paths):
            visibility[row, path] = True
        causal = parents == list(range(-1, size - 1))
        rows = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=3), label="rows"))
        self.layout = StepLayout(
            np.array(ids),
            np.array([start + len(path) - 1 for path in self.paths]),
            None if causal else visibility,
            np.array(rows),
        )
        logits = self.sequence.forward(self.layout)
        assert logits.dtype == torch.float64
        for row, actual in zip(rows, logits, strict=True):
            expected = self.models.recompute([*self.committed, *(ids[index] for index in self.paths[row])])
            torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)

    @precondition(lambda self: self.layout is not None)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        assert self.layout is not None
        path = data.draw(st.sampled_from(self.paths), label="path")
        path = path[: data.draw(st.integers(0, len(path)), label="accepted")]
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


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)


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
    sequence.truncate(5)
    assert list(sequence.cached_ids) == [5]
