"""All attention backends agree with the reference, on random shapes, within the dtype's error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from forelook.decoding.layout import StepLayout
from forelook.model.forward.attention import (
    Attention,
    Visibility,
    attend_flash_attn,
    attend_torch,
    attend_torch_flash,
    choose_attention,
    merge_by_log_sum_exp,
    step_visibility,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.model.reference_attention import attend_reference

CPU = torch.device("cpu")
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
BACKENDS = [pytest.param(attend_torch, id="torch"), pytest.param(attend_torch_flash, id="torch-flash")]


def random_step(
    *,
    groups: int,
    kv_heads: int,
    size: int,
    prefix: int,
    tail: int,
    kind: str,
    dtype: torch.dtype,
    seed: int,
    whole: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Visibility]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    visible = None
    if kind == "tree":
        rng = np.random.default_rng(seed)
        visible = np.eye(tail, dtype=np.bool_)
        for row in range(1, tail):
            if (parent := int(rng.integers(-1, row))) >= 0:
                visible[row] |= visible[parent]
    layout = StepLayout(np.zeros(tail, np.int64), np.zeros(tail, np.int64), visible, np.arange(tail))
    # As in the cache: a slice of a longer tensor, and queries cut out of a fused projection.
    keys, values = (random(kv_heads, prefix + tail + 7, size)[:, : prefix + tail] for _ in range(2))
    queries = random(tail, groups * kv_heads + 2, size)[:, : groups * kv_heads]
    return queries, keys, values, step_visibility(layout, prefix, dtype, CPU, masks_prefix=whole, masks_causal=whole)


def check(attend: Attention, device: str = "cpu", **shape: object) -> None:
    queries, keys, values, visibility = random_step(**shape)
    scale = queries.shape[2] ** -0.5
    expected = attend_reference(queries.double(), keys.double(), values.double(), widened(visibility), scale)
    bias = None if visibility.bias is None else visibility.bias.to(device)
    actual = attend(
        queries.to(device),
        keys.to(device),
        values.to(device),
        Visibility(visibility.prefix_length, visibility.num_tokens, bias),
        scale,
    )
    assert actual.dtype == queries.dtype
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual.cpu().double(), expected, atol=TOLERANCE[queries.dtype], rtol=0)


def widened(visibility: Visibility) -> Visibility:
    bias = None if visibility.bias is None else visibility.bias.double()
    return Visibility(visibility.prefix_length, visibility.num_tokens, bias)


SHAPES = {
    "groups": st.sampled_from([1, 2, 4, 7]),
    "kv_heads": st.sampled_from([1, 2, 3]),
    "size": st.sampled_from([16, 64, 128]),
    "prefix": st.one_of(st.just(0), st.integers(1, 300)),
    "tail": st.one_of(st.just(1), st.integers(2, 128)),
    "kind": st.sampled_from(["causal", "tree"]),
    "dtype": st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    "seed": st.integers(0, 10**6),
    "whole": st.booleans(),
}
EXAMPLE = {"groups": 4, "kv_heads": 2, "size": 64, "kind": "tree", "dtype": torch.float32, "seed": 0, "whole": False}


@pytest.mark.parametrize("attend", BACKENDS)
@settings(max_examples=60, deadline=None)
@given(**SHAPES)
@example(**EXAMPLE, prefix=0, tail=1)
@example(**EXAMPLE, prefix=1, tail=1)
@example(**EXAMPLE, prefix=0, tail=128)
def test_backend_agrees_with_the_reference(attend: Attention, **shape: object) -> None:
    check(attend, **shape)


@pytest.mark.parametrize("attend", BACKENDS)
@pytest.mark.parametrize("kind", ["causal", "tree"])
def test_backend_agrees_over_a_long_prefix(attend: Attention, kind: str) -> None:
    shape = {"groups": 2, "kv_heads": 1, "size": 128, "prefix": 16_000, "tail": 64, "seed": 1}
    check(attend, **shape, kind=kind, dtype=torch.float32)


@settings(max_examples=40, deadline=None)
@given(**{**SHAPES, "kind": st.just("causal"), "whole": st.just(False)})
@example(**{**EXAMPLE, "kind": "causal"}, prefix=512, tail=512)
@example(**{**EXAMPLE, "kind": "causal", "groups": 3, "kv_heads": 3}, prefix=1, tail=100)
def test_a_chunk_of_a_prompt_needs_no_mask(**shape: object) -> None:
    assert random_step(**shape)[3].bias is None
    check(attend_torch, **shape)


def test_reference_is_the_definition() -> None:
    """Row by row: a softmax over the visible keys alone."""
    queries, keys, values, visibility = random_step(
        groups=2, kv_heads=2, size=16, prefix=5, tail=6, kind="tree", dtype=torch.float64, seed=3
    )
    actual = attend_reference(queries, keys, values, visibility, 0.3).view(6, 4, 16)
    assert visibility.bias is not None
    for row in range(6):
        seen = visibility.bias[row] == 0
        assert 5 < int(seen.sum()) <= 11
        for head in range(4):
            weights = torch.softmax(keys[head // 2, seen] @ queries[row, head] * 0.3, dim=0)
            torch.testing.assert_close(actual[row, head], weights @ values[head // 2, seen])


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.1, 200), st.integers(0, 10**6))
def test_merging_two_parts_equals_attending_to_both(first: int, second: int, spread: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(first + second, generator=generator, dtype=torch.float64) * spread
    values = torch.randn(first + second, 4, generator=generator, dtype=torch.float64)
    parts = [
        (torch.softmax(scores[part], 0) @ values[part], scores[part].logsumexp(0, keepdim=True))
        for part in (slice(0, first), slice(first, None))
    ]
    merged = merge_by_log_sum_exp(*parts[0], *parts[1])
    torch.testing.assert_close(merged.double(), torch.softmax(scores, 0) @ values, atol=1e-4, rtol=1e-4)


def test_merging_with_an_empty_part_changes_nothing() -> None:
    value, nothing = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0])
    empty, some = torch.tensor([-torch.inf]), torch.tensor([3.0])
    assert merge_by_log_sum_exp(nothing, empty, value, some).tolist() == [1.0, 2.0]
    assert merge_by_log_sum_exp(value, some, nothing, empty).tolist() == [1.0, 2.0]


def test_choice_names_its_reason() -> None:
    cpu = choose_attention(CPU, torch.bfloat16)
    assert cpu.name == "torch"
    assert "CPU" in cpu.reason
    wide = choose_attention(torch.device("cuda"), torch.float32)
    assert wide.name == "torch"
    assert "float32" in wide.reason
    half = choose_attention(torch.device("cuda"), torch.bfloat16)
    assert half.name in ("flash-attn", "torch-flash")
    assert "flash-attn" in half.reason


@pytest.mark.gpu
@pytest.mark.parametrize("attend", [*BACKENDS, pytest.param(attend_flash_attn, id="flash-attn")])
@pytest.mark.parametrize("prefix", [0, 1, 777, 16_000])
@pytest.mark.parametrize("tail", [1, 8, 128])
def test_backend_agrees_with_the_reference_on_a_gpu(attend: Attention, prefix: int, tail: int) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; this torch sees none")
    if attend is attend_flash_attn:
        pytest.importorskip("flash_attn", reason="needs the optional extra forelook[flash]")
    for groups, size, kind in ((1, 128, "tree"), (4, 64, "tree"), (4, 128, "causal")):
        shape = {"groups": groups, "kv_heads": 2, "size": size, "prefix": prefix, "tail": tail, "seed": 5}
        check(attend, "cuda", **shape, kind=kind, dtype=torch.bfloat16)
