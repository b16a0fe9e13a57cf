"""A padded step of fixed addresses gives the numbers of the ordinary forward, and drafting on it stays lossless."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.layout import StepLayout, causal_layout
from forelook.decoding.limits import Limits
from forelook.decoding.lookahead.published import PublishedSettings
from forelook.decoding.request import DecodeRequest
from forelook.errors import ContextOverflowError
from forelook.model.forward.kv_cache import DeferringKVCache
from forelook.model.forward.static_step import TAIL_SIZES, BucketedSequence, Step, StepSpace, run_as_it_is
from forelook.model.forward.step_ops import plain_ops
from forelook.model.loading import LoadedModel, load_model

from tests.decoding.streams import drafted, published
from tests.model.checkpoints import build_reference, save


class FakeGraphs:
    """Stands in for capturing: warms up like it, and replays only the function it was given."""

    def __init__(self) -> None:
        self.num_prepared = 0
        self.num_replays = 0

    def __call__(self, step: Step) -> Step:
        self.num_prepared += 1
        for _ in range(3):
            step()

        def replay() -> None:
            self.num_replays += 1
            step()

        return replay


def load(variant: str, folder: Path, dtype: str = "float32", **changes: object) -> LoadedModel:
    model = build_reference(variant, max_position_embeddings=1024, **changes)
    return load_model(str(save(model, folder / "model")), device="cpu", dtype=dtype)


def padded(loaded: LoadedModel, graphs: FakeGraphs | None = None, max_positions: int | None = None) -> BucketedSequence:
    return BucketedSequence(StepSpace(loaded.weights, plain_ops(loaded.config), graphs or run_as_it_is), max_positions)


def random_layout(rng: np.random.Generator, size: int, start: int, vocab_size: int, *, causal: bool) -> StepLayout:
    visibility = np.eye(size, dtype=np.bool_)
    positions = np.full(size, start)
    for row in range(1, size):
        if (parent := row - 1 if causal else int(rng.integers(-1, row))) >= 0:
            visibility[row] |= visibility[parent]
            positions[row] = positions[parent] + 1
    rows = np.sort(rng.choice(size, size=int(rng.integers(1, size + 1)), replace=False))
    return StepLayout(rng.integers(0, vocab_size, size), positions, None if causal else visibility, rows)


@pytest.mark.parametrize(
    "variant",
    [
        "llama",
        "grouped_queries",
        "all_biases",
        "qwen2_bias",
        "granite",
        "tied_head",
        "qwen3",
        "gemma",
        "starcoder2",
        "starcoder2_with_window",
        "qwen2_with_windowed_layers",
    ],
)
def test_padded_step_gives_the_logits_of_the_ordinary_forward(variant: str, tmp_path: Path) -> None:
    """Over every tail size and its neighbours, with accepted rows scattered over the tail."""
    loaded = load(variant, tmp_path)
    graphs = FakeGraphs()
    ordinary, static = loaded.new_sequence(), padded(loaded, graphs)
    rng = np.random.default_rng(7)
    sizes = [1, 1, 7, 8, 9, 16, 17, 31, 64, 65, 127, 128, 129, 1, 200, 2, 33]
    for index, size in enumerate(sizes):
        layout = random_layout(rng, size, len(ordinary.cached_ids), loaded.config.vocab_size, causal=index % 3 == 0)
        expected, actual = ordinary.forward(layout), static.forward(layout)
        assert expected.std() > 0.1
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
        path = [row for row in range(size) if layout.visibility is None or layout.visibility[-1, row]]
        for sequence in (ordinary, static):
            sequence.commit(path)
        assert static.cached_ids == ordinary.cached_ids
        if index % 5 == 4:
            length = len(ordinary.cached_ids) - 3
            for sequence in (ordinary, static):
                sequence.truncate(length)
    if loaded.config.window is None:  # beyond a window steps run unpadded
        assert sorted(static._steps) == list(TAIL_SIZES)
    assert graphs.num_replays > graphs.num_prepared


@pytest.mark.parametrize("method", ["autoregressive", "lookahead", "published"])
def test_whole_generations_with_drafts_are_token_identical(method: str, starter: LoadedModel) -> None:
    prompt = [0, *starter.tokenizer.encode_prefix("def add(a, b):\n    return a + b\n\n\ndef add3(a, b, c):\n    ret")]
    request = DecodeRequest(prompt, Limits(96))
    expected = [token for ids in autoregressive(request, starter.new_sequence()) for token in ids]
    sequence = padded(starter, FakeGraphs())
    run = {
        "autoregressive": lambda: autoregressive(request, sequence),
        "lookahead": lambda: drafted(request, sequence),
        "published": lambda: published(request, sequence, PublishedSettings(5, 4, 5)),
    }[method]
    for _ in range(2):  # the second time most of the prompt is cached
        assert [token for ids in run() for token in ids] == expected
        sequence.truncate(len(prompt) // 2)


def test_two_sequences_share_outputs_and_heads_but_no_cache(tmp_path: Path) -> None:
    loaded = load("llama", tmp_path)
    space = StepSpace(loaded.weights, plain_ops(loaded.config), FakeGraphs())
    sequences = [BucketedSequence(space, 64) for _ in range(2)]
    prompts = [[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]]
    for sequence, ids in zip(sequences, prompts, strict=True):
        sequence.forward(causal_layout(ids, 0))
        sequence.commit(range(len(ids)))
    for sequence, ids in zip(sequences, prompts, strict=True):
        expected = loaded.new_sequence().forward(causal_layout([*ids, 3], 0))
        torch.testing.assert_close(sequence.forward(causal_layout([3], 5)), expected, atol=1e-5, rtol=0)


def test_steps_are_prepared_once_when_first_needed_and_said_so(tmp_path: Path) -> None:
    loaded = load("llama", tmp_path)
    graphs, lines = FakeGraphs(), []
    sequence = BucketedSequence(StepSpace(loaded.weights, plain_ops(loaded.config), graphs, lines.append), 64)
    assert graphs.num_prepared == 0
    for _ in range(3):
        sequence.forward(causal_layout([1, 2, 3], 0))
    assert graphs.num_prepared == 2  # a trunk and a head
    assert lines == ["Preparing steps of 8 tokens", "", "Preparing the logits of 1 tokens", ""]


def test_dropped_sequence_and_space_are_freed_at_once(tmp_path: Path) -> None:
    """Their caches and weights are gigabytes on a GPU: a cycle would keep them until the garbage collector comes."""
    loaded = load("llama", tmp_path)
    space = StepSpace(loaded.weights, plain_ops(loaded.config), FakeGraphs())
    sequence = BucketedSequence(space, 64)
    sequence.forward(causal_layout([1, 2, 3], 0))
    sequence.commit([0, 2])
    gone = [weakref.ref(sequence), weakref.ref(space)]
    gc.disable()
    try:
        del sequence, space
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()


def test_last_position_can_be_used_and_the_one_behind_it_cannot(tmp_path: Path) -> None:
    loaded = load("llama", tmp_path)
    sequence = padded(loaded, FakeGraphs(), 12)
    ids = list(range(2, 14))
    for start, stop in ((0, 9), (9, 12)):
        logits = sequence.forward(causal_layout(ids[start:stop], start))
        sequence.commit(range(stop - start))
    expected = loaded.new_sequence().forward(causal_layout(ids, 0))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    with pytest.raises(ContextOverflowError):
        sequence.forward(causal_layout([1], 12))


def test_deferred_moves_are_the_moves_that_an_immediate_commit_makes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = {"num_layers": 2, "num_kv_heads": 2, "head_size": 4, "capacity": 80, "dtype": torch.float32}
        cache = DeferringKVCache(**sizes, device=torch.device("cpu"))
        cache.storage.copy_(torch.from_numpy(rng.random(cache.storage.shape)))
        start = cache.length = int(rng.integers(0, 20))
        rows = np.sort(rng.choice(50, size=int(rng.integers(1, 45)), replace=False)).tolist()
        before = cache.storage.clone()
        cache.commit(rows)
        sources, targets = cache.take_moves()
        cache.storage.index_copy_(2, torch.tensor(targets, dtype=torch.int64), cache.storage[:, :, sources])
        kept = [*range(start), *(start + row for row in rows)]
        assert torch.equal(cache.storage[:, :, : cache.length], before[:, :, kept])
        assert cache.take_moves() == ([], [])
