"""The CPU's small step computes what the plain forward computes, on every kind of checkpoint."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from forelook.decoding.layout import causal_layout, lay_out
from forelook.model.forward.attention import step_visibility
from forelook.model.forward.cpu_step import MAX_TOKENS, CpuStep
from forelook.model.forward.llama import forward
from forelook.model.loading import load_model
from torch.utils._python_dispatch import TorchDispatchMode

from tests.model.checkpoints import VARIANTS, build_reference, save


@pytest.mark.parametrize("name", sorted(VARIANTS))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_small_step_equals_the_plain_forward(name, dtype, tmp_path):
    loaded = load_model(str(save(build_reference(name), tmp_path)), device="cpu", dtype=dtype)
    sequence = loaded.new_sequence()
    weights, cache = sequence._weights, sequence._cache
    step = CpuStep(weights)
    layouts = [
        causal_layout([3, 4, 5, 6, 7], 0),
        causal_layout([3], 0),
        lay_out([9], 5, [1, 2, 3, 4], [0, 0, 1, 2]),
        lay_out([9, 8, 7], 5, [1, 2, 3, 4], [0, 0, 1, 2]),
        lay_out([9], 5, [1, 2], [0, 1]),
    ]
    for layout in layouts:
        start = int(layout.positions[0])
        sequence.truncate(0)
        if start:
            sequence.forward(causal_layout(range(start), 0))
            sequence.commit(range(start))
        arguments = (
            torch.from_numpy(layout.token_ids),
            torch.from_numpy(layout.positions),
            step_visibility(
                layout,
                cache.length,
                cache.dtype,
                weights.device,
                masks_prefix=True,
                masks_causal=True,
                window=weights.config.window,
            ),
            None if len(layout.logit_rows) == len(layout) else torch.from_numpy(layout.logit_rows),
        )
        with torch.inference_mode():
            expected = forward(weights, cache, *arguments).clone()
            keys = [part.clone() for part in cache.keys(len(layout))]
            actual = step.forward(cache, *arguments)
            again = step.forward(cache, *arguments)
        tolerance = 0.05 if dtype == "bfloat16" else 1e-5
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)
        for before, after in zip(keys, cache.keys(len(layout)), strict=True):
            torch.testing.assert_close(after, before, atol=tolerance, rtol=0)
        assert torch.equal(again, actual), "the scratch tensors carry something over"


def test_a_backend_that_attends_to_prefix_and_tail_apart_is_not_served(tmp_path):
    weights = load_model(None, device="cpu", dtype="float32").new_sequence()._weights
    assert CpuStep.serves(weights)
    apart = replace(weights.attention, masks_prefix=False)
    assert not CpuStep.serves(replace(weights, attention=apart))


def test_tails_up_to_the_limit_and_beyond_agree(tmp_path):
    sequence = load_model(None, device="cpu", dtype="float32").new_sequence()
    ids = [20 + index % 97 for index in range(MAX_TOKENS + 1)]
    longest = sequence.forward(causal_layout(ids, 0, last_logits_only=False)).clone()
    sequence.truncate(0)
    small = sequence.forward(causal_layout(ids[:-1], 0, last_logits_only=False))
    torch.testing.assert_close(small, longest[:-1], atol=1e-3, rtol=1e-3)


class _Counting(TorchDispatchMode):
    """Counts the operators that run while it is entered."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def _operators(variant, num_layers, num_tokens, folder):
    save(build_reference(variant, num_hidden_layers=num_layers), folder)
    sequence = load_model(str(folder), device="cpu", dtype="float32").new_sequence()
    sequence.forward(causal_layout([3, 4, 5, 6, 7], 0))
    sequence.commit(range(5))
    layout = causal_layout([8] * num_tokens, 5)
    sequence.forward(layout)  # makes the scratch tensors
    with _Counting() as counting:
        sequence.forward(layout)
    return counting.count


@pytest.mark.parametrize("num_tokens", [1, 4])
@pytest.mark.parametrize(("variant", "most"), [("llama", 21), ("grouped_queries", 22), ("qwen2_bias", 22)])
def test_a_layer_takes_few_operators_with_grouped_queries_too(variant, most, num_tokens, tmp_path):
    two, three = (_operators(variant, count, num_tokens, tmp_path / str(count)) for count in (2, 3))
    assert three - two <= most, "a layer does work that could be done once per step or per tail size"
