"""The Triton kernels against plain torch, in Triton's interpreter: the same programs, run on a CPU."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from forelook.model.config import LlamaConfig, parse_config
from forelook.model.forward.step_attention import attend_masked
from forelook.model.forward.step_ops import fused_error, plain_ops, rotate_and_store

if torch.cuda.is_available():
    pytest.skip("tests/gpu runs the compiled kernels here", allow_module_level=True)
os.environ["TRITON_INTERPRET"] = "1"  # read by Triton when it is imported
pytest.importorskip("triton", reason="needs the package triton (about 290 MB): pip install triton")

from forelook.model.forward import triton_step
from forelook.model.forward.triton_attention import attend_tree

CONFIG = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 256,
    "intermediate_size": 384,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
}


def config(kv_heads: int, size: int) -> LlamaConfig:
    return replace(parse_config(CONFIG, "config.json"), num_kv_heads=kv_heads, head_size=size)


@pytest.mark.parametrize(("groups", "kv_heads", "size"), [(1, 2, 64), (4, 1, 128), (7, 1, 16)])
@pytest.mark.parametrize(("prefix", "tail", "num_programs"), [
    (0, 1, 4), (0, 16, 4), (1, 8, 16), (37, 32, 2), (64, 20, 4), (700, 5, 8), (40, 72, 4),
])  # fmt: skip
def test_tree_attention_agrees_with_the_mask(
    groups: int, kv_heads: int, size: int, prefix: int, tail: int, num_programs: int
) -> None:
    dtype = torch.float16 if size == 128 else torch.float32
    rng = np.random.default_rng(prefix + tail + groups)
    visible = np.eye(tail, dtype=np.bool_)
    for row in range(1, tail):
        if (parent := int(rng.integers(-1, row))) >= 0:
            visible[row] |= visible[parent]
    generator = torch.Generator().manual_seed(tail)
    queries = torch.randn(tail, groups * kv_heads, size, generator=generator).to(dtype)
    cache = torch.randn(2 * kv_heads, prefix + tail + 9, size, generator=generator).to(dtype)
    cache[:, prefix + tail :] = float("nan")  # nothing behind the tail may be read into the result
    arguments = (torch.tensor([prefix], dtype=torch.int32), torch.from_numpy(visible), size**-0.5)
    clean = cache.double().nan_to_num()
    expected = attend_masked(queries.double(), clean, *arguments)
    actual = attend_tree(queries, cache, *arguments, num_programs=num_programs)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, atol=2e-5 if dtype == torch.float32 else 4e-3, rtol=0)


@pytest.mark.parametrize(("kv_heads", "size"), [(4, 64), (2, 96), (1, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_operators_equal_the_plain_ones(kv_heads: int, size: int, dtype: torch.dtype) -> None:
    fused = (triton_step.add_norm, triton_step.rotate_and_store, triton_step.gate)
    error = fused_error(config(kv_heads, size), torch.device("cpu"), dtype, *fused)
    assert error <= (2e-6 if dtype == torch.float32 else 0.016)  # two units in the last place


def test_the_comparison_sees_a_wrong_operator() -> None:
    shapes = config(2, 64)
    gate = plain_ops(shapes).gate
    wrong_gate = lambda gate_up: gate(gate_up) * 1.1  # noqa: E731
    good = (triton_step.add_norm, rotate_and_store)
    assert fused_error(shapes, torch.device("cpu"), torch.float32, *good, gate) < 1e-5
    assert fused_error(shapes, torch.device("cpu"), torch.float32, *good, wrong_gate) > 0.05
