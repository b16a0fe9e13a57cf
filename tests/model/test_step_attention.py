"""Attention whose prefix length lives on the device agrees with the reference; the choice is made by measurement."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from forelook.model.config import LlamaConfig, parse_config
from forelook.model.forward.attention import Visibility
from forelook.model.forward.step_attention import (
    StepAttention,
    StepAttentionChoice,
    attend_captured_prefix_and_tail,
    attend_masked,
    describe_attention,
    step_attention_choices,
)
from forelook.model.forward.step_ops import choose_step_attention
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.model.reference_attention import attend_reference

CPU = torch.device("cpu")
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5, torch.bfloat16: 3e-2}


def cpu_flash_prefix(
    rows: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, prefix_length: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """A CPU's flash kernel in the place of CUDA's; over an empty prefix it answers as badly as those do."""
    length = int(prefix_length)
    if length == 0:
        return torch.full_like(rows, torch.nan), torch.full(rows.shape[:2], torch.inf).T
    output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        rows.transpose(0, 1).unsqueeze(0),
        keys[:length].transpose(0, 1).unsqueeze(0),
        values[:length].transpose(0, 1).unsqueeze(0),
        0.0,
        False,
        scale=scale,
    )
    return output[0].transpose(0, 1), lse[0]


BACKENDS = [
    pytest.param(attend_masked, id="masked"),
    pytest.param(partial(attend_captured_prefix_and_tail, cpu_flash_prefix), id="prefix-and-tail"),
]


def check(
    attend: StepAttention,
    *,
    groups: int,
    kv_heads: int,
    size: int,
    prefix: int,
    tail: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    visible = np.eye(tail, dtype=np.bool_)
    for row in range(1, tail):
        # Any visibility, not only a tree's: who sees whom among the rows before.
        visible[row, :row] = rng.random(row) < rng.random()
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(tail, groups * kv_heads, size, generator=generator, dtype=torch.float64).to(dtype)
    cache = torch.randn(2 * kv_heads, prefix + tail + 5, size, generator=generator, dtype=torch.float64).to(dtype)
    scale = size**-0.5
    bias = torch.zeros(tail, prefix + tail, dtype=torch.float64)
    bias[:, prefix:].masked_fill_(~torch.from_numpy(visible), float("-inf"))
    whole = cache[:, : prefix + tail].double()
    expected = attend_reference(
        queries.double(), whole[:kv_heads], whole[kv_heads:], Visibility(prefix, tail, bias), scale
    )
    length = torch.tensor([prefix], dtype=torch.int32)
    actual = attend(queries, cache, length, torch.from_numpy(visible), scale)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, atol=TOLERANCE[dtype], rtol=0)


SHAPES = {
    "groups": st.sampled_from([1, 2, 4, 7]),
    "kv_heads": st.sampled_from([1, 2]),
    "size": st.sampled_from([16, 64, 128]),
    "prefix": st.one_of(st.just(0), st.integers(1, 300)),
    "tail": st.one_of(st.just(1), st.integers(2, 128)),
    "dtype": st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    "seed": st.integers(0, 10**6),
}


@pytest.mark.parametrize("attend", BACKENDS)
@settings(max_examples=40, deadline=None)
@given(**SHAPES)
@example(groups=4, kv_heads=2, size=64, prefix=0, tail=1, dtype=torch.float32, seed=0)
@example(groups=1, kv_heads=2, size=128, prefix=0, tail=128, dtype=torch.float32, seed=0)
def test_step_attention_agrees_with_the_reference(attend: StepAttention, **shape: object) -> None:
    check(attend, **shape)  # type: ignore[arg-type]


@pytest.mark.parametrize("attend", BACKENDS)
@pytest.mark.parametrize("size", [64, 128])
def test_step_attention_agrees_over_a_long_prefix(attend: StepAttention, size: int) -> None:
    check(attend, groups=2, kv_heads=1, size=size, prefix=16_000, tail=48, dtype=torch.float32, seed=1)


# --- the choice


def config() -> LlamaConfig:
    raw = {
        "model_type": "llama",
        "vocab_size": 64,
        "hidden_size": 128,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    return replace(parse_config(raw, "config.json"))


def wrong(*arguments: torch.Tensor) -> torch.Tensor:
    return attend_masked(*arguments) * 1.01  # type: ignore[arg-type]


def failing(*_arguments: object) -> torch.Tensor:
    raise RuntimeError("no kernel image is available for execution on the device")


def slow(*arguments: torch.Tensor) -> torch.Tensor:
    return attend_masked(*arguments)  # type: ignore[arg-type]


def test_fastest_that_agrees_is_chosen_and_the_reason_names_the_others() -> None:
    milliseconds = iter([0.5, 0.2])
    choices = [
        StepAttentionChoice("absent", None, "is not installed"),
        StepAttentionChoice("wrong", wrong),
        StepAttentionChoice("failing", failing),
        StepAttentionChoice("slow", slow),
        StepAttentionChoice("masked", attend_masked),
    ]
    attend, name, reason = choose_step_attention(
        config(), CPU, torch.float32, choices=choices, measure=lambda _run: next(milliseconds)
    )
    assert (attend, name) == (attend_masked, "masked")
    assert "masked 200 µs, slow 500 µs" in reason
    assert "absent: is not installed" in reason
    assert "wrong: differs from the reference by" in reason
    assert "failing: fails on this device with RuntimeError" in reason


def test_where_nothing_else_works_the_mask_does() -> None:
    choices = [StepAttentionChoice("failing", failing)]
    attend, name, reason = choose_step_attention(config(), CPU, torch.float32, choices=choices)
    assert (attend, name) == (attend_masked, "masked")
    assert "nothing faster agrees" in reason


def test_every_way_says_why_it_cannot_be_used() -> None:
    on_cpu = {choice.name: choice for choice in step_attention_choices(CPU, torch.float32, 128)}
    assert [name for name, choice in on_cpu.items() if choice.attend is not None] == ["masked"]
    assert all(choice.reason for name, choice in on_cpu.items() if name != "masked")
    in_float32 = {choice.name: choice for choice in step_attention_choices(torch.device("cuda"), torch.float32, 96)}
    assert "float32" in in_float32["flash-attn"].reason
    assert in_float32["triton-tree"].attend is None
    assert "torch: on a CPU" in describe_attention(CPU, torch.float32)
    assert "timed when a model is loaded" in describe_attention(torch.device("cuda"), torch.bfloat16)
