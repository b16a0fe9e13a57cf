"""On a real GPU: kernels agree with the reference, and a step is the same numbers captured or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.layout import StepLayout, causal_layout
from forelook.decoding.limits import Limits
from forelook.decoding.request import DecodeRequest
from forelook.model.config import LlamaConfig, parse_config
from forelook.model.forward.cuda_graphs import CudaGraphs
from forelook.model.forward.static_step import BucketedSequence, StepSpace, run_as_it_is
from forelook.model.forward.step_attention import attend_masked, step_attention_choices
from forelook.model.forward.step_ops import choose_step_ops, fused_error, plain_ops
from forelook.model.loading import LoadedModel, load_model

from tests.decoding.streams import drafted

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}
CONFIG = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 256,
    "intermediate_size": 384,
    "num_hidden_layers": 1,
    "num_attention_heads": 8,
}


@pytest.fixture(scope="module")
def cuda() -> torch.device:
    return torch.device("cuda")


@pytest.fixture(scope="module")
def loaded(cuda: torch.device) -> LoadedModel:
    return load_model(None, device="cuda", dtype="float32")


def shapes(groups: int, size: int) -> LlamaConfig:
    return replace(parse_config(CONFIG, "config.json"), num_heads=8, num_kv_heads=8 // groups, head_size=size)


def random_tree(tail: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    visible = np.eye(tail, dtype=np.bool_)
    for row in range(1, tail):
        if (parent := int(rng.integers(-1, row))) >= 0:
            visible[row] |= visible[parent]
    return visible


@pytest.mark.parametrize("name", ["triton-tree", "flash-attn", "torch-varlen", "masked"])
@pytest.mark.parametrize(("groups", "size"), [(1, 128), (4, 64), (8, 128)])
@pytest.mark.parametrize("prefix", [0, 1, 777, 4096, 16_000])
@pytest.mark.parametrize("tail", [1, 8, 64, 128])
def test_every_step_attention_agrees_with_the_reference(
    cuda: torch.device, name: str, groups: int, size: int, prefix: int, tail: int
) -> None:
    choice = next(c for c in step_attention_choices(cuda, torch.bfloat16, size) if c.name == name)
    if choice.attend is None:
        pytest.skip(choice.reason)
    generator = torch.Generator(device=cuda).manual_seed(prefix + tail)
    queries = torch.randn(tail, 8, size, generator=generator, device=cuda).bfloat16()
    cache = torch.randn(2 * (8 // groups), prefix + tail + 70, size, generator=generator, device=cuda).bfloat16()
    length = torch.tensor([prefix], dtype=torch.int32, device=cuda)
    visible = torch.from_numpy(random_tree(tail, prefix)).to(cuda)
    expected = attend_masked(queries.float(), cache.float(), length, visible, size**-0.5)
    actual = choice.attend(queries, cache, length, visible, size**-0.5)
    torch.testing.assert_close(actual.float(), expected, atol=TOLERANCE[torch.bfloat16], rtol=0)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_fused_operators_compile_and_equal_the_plain_ones(cuda: torch.device, dtype: torch.dtype) -> None:
    pytest.importorskip("triton")
    from forelook.model.forward import triton_step

    fused = (triton_step.add_norm, triton_step.rotate_and_store, triton_step.gate)
    assert fused_error(shapes(4, 64), cuda, dtype, *fused) <= TOLERANCE[dtype]


def test_choice_says_what_runs_and_why(cuda: torch.device) -> None:
    ops = choose_step_ops(shapes(1, 128), cuda, torch.bfloat16)
    assert ops.attention_name in ops.reason
    assert "µs" in ops.reason


def test_captured_step_is_bit_for_bit_the_uncaptured_one(loaded: LoadedModel, cuda: torch.device) -> None:
    assert loaded.space is not None
    graphs = CudaGraphs(cuda)
    captured = BucketedSequence(StepSpace(loaded.weights, loaded.space.ops, graphs))
    uncaptured = BucketedSequence(StepSpace(loaded.weights, loaded.space.ops, run_as_it_is))
    rng = np.random.default_rng(3)
    for tail in (1, 8, 5, 16, 30, 64, 100, 1, 128):
        start = len(captured.cached_ids)
        visible = random_tree(tail, tail)
        positions = start + visible.sum(axis=1) - 1
        ids = rng.integers(8, loaded.config.vocab_size, tail)
        layout = StepLayout(ids, positions, visible, np.arange(tail))
        expected = uncaptured.forward(layout).clone()
        assert torch.equal(captured.forward(layout), expected)
        path = np.flatnonzero(visible[-1]).tolist()
        captured.commit(path)
        uncaptured.commit(path)
    assert graphs.num_captured >= 6


def test_captured_step_gives_the_cpus_greedy_tokens_with_drafts(loaded: LoadedModel) -> None:
    on_cpu = load_model(None, device="cpu", dtype="float32")
    prompt = [0, *on_cpu.tokenizer.encode_prefix("def add(a, b):\n    return a + b\n\n\ndef add3(a, b, c):\n    ret")]
    request = DecodeRequest(prompt, Limits(96, on_cpu.stop_token_ids))
    expected = [token for ids in autoregressive(request, on_cpu.new_sequence()) for token in ids]
    for run in (autoregressive, drafted):
        assert [token for ids in run(request, loaded.new_sequence()) for token in ids] == expected


def test_plain_operators_capture_too(loaded: LoadedModel, cuda: torch.device) -> None:
    space = StepSpace(loaded.weights, plain_ops(loaded.config), CudaGraphs(cuda))
    sequence, ordinary = BucketedSequence(space), load_model(None, device="cpu", dtype="float32").new_sequence()
    layout = causal_layout([0, 9, 10, 11, 12], 0)
    torch.testing.assert_close(sequence.forward(layout).cpu(), ordinary.forward(layout), atol=1e-3, rtol=0)


def test_capture_that_finds_no_memory_leaves_the_step_uncaptured(
    loaded: LoadedModel, cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loaded.space is not None
    monkeypatch.setattr("forelook.model.forward.cuda_graphs._MIN_FREE_BYTES", 2**50)
    graphs = CudaGraphs(cuda)
    sequence = BucketedSequence(StepSpace(loaded.weights, loaded.space.ops, graphs))
    layout = causal_layout([0, 9, 10], 0)
    torch.testing.assert_close(sequence.forward(layout), loaded.new_sequence().forward(layout))
    assert graphs.num_captured == 0


def test_forwards_in_a_row_without_reading_logits_do_not_overwrite_each_other(loaded: LoadedModel) -> None:
    """A prefill does so: the pinned buffer must not be refilled while its copy is still to come."""
    ids = list(range(8, 8 + 96))
    sequence = loaded.new_sequence()
    for start in range(0, 96, 8):
        logits = sequence.forward(causal_layout(ids[start : start + 8], start))
        sequence.commit(range(8))
    expected = load_model(None, device="cpu", dtype="float32").new_sequence().forward(causal_layout(ids, 0))
    torch.testing.assert_close(logits.cpu(), expected, atol=1e-3, rtol=0)
