"""The compiled kernels: what they compute is torch's, and no number of a row depends on the rows beside it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from forelook.compiled import Compiled, compilers
from forelook.decoding.layout import StepLayout, causal_layout
from forelook.model import format_choice, loading
from forelook.model.config import LlamaConfig, parse_config
from forelook.model.forward.llama import LlamaSequence, forward
from forelook.model.forward.native import library
from forelook.model.forward.native.kernels import Kernels
from forelook.model.forward.native.library import load_kernels, native_kernels
from forelook.model.forward.native.matrices import (
    MAX_ROWS,
    NativeFloats,
    NativeGroups4,
    NativeMatrix,
    NativeRows8,
    as_stored,
)
from forelook.model.forward.native.step import serves_native
from forelook.model.loading import LoadedModel, load_model
from forelook.model.quantization import quantize_groups, quantize_rows

from tests.compilers import program
from tests.model.checkpoints import build_reference, save

AVAILABLE = native_kernels()
needs_kernels = pytest.mark.skipif(AVAILABLE.functions is None, reason=f"no compiled kernels: {AVAILABLE.reason}")
WIDE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
SERVED = (
    "llama",
    "grouped_queries",
    "one_kv_head",
    "tied_head",
    "all_biases",
    "llama3_scaling",
    "qwen2_bias",
    "qwen3",
    "granite",
)
FORMATS = ("float32", "bfloat16", "int8", "int4")


def kernels() -> Kernels:
    assert AVAILABLE.functions is not None
    return AVAILABLE.functions


def matrices(weight: torch.Tensor) -> dict[str, tuple[NativeMatrix, torch.Tensor]]:
    """A matrix in every format, and the floats it stands for."""
    rows, groups, half = quantize_rows(weight), as_stored(quantize_groups(weight)), weight.to(torch.bfloat16)
    return {
        "float32": (NativeFloats(weight, kernels()), weight),
        "bfloat16": (NativeFloats(half, kernels()), half.float()),
        "int8": (NativeRows8(rows, torch.float32, kernels()), rows.codes * rows.scales.float().unsqueeze(1)),
        "int4": (NativeGroups4(groups, torch.float32, kernels()), groups.floats(torch.float32)),
    }


@needs_kernels
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("shape", [(1, 32), (7, 64), (40, 288), (129, 576)])
def test_products_are_those_of_the_floats(kind: str, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    matrix, floats = matrices(torch.randn(*shape, generator=generator))[kind]
    bias = torch.randn(shape[0], generator=generator)
    for size in (1, 2, 5, 8, 9, 16, 70):
        x = torch.randn(size, shape[1], generator=generator)
        x[0] = 0.0
        x[-1, 3] = 40.0  # a large value leaves the others enough digits
        expected = x.double() @ floats.double().t() + bias
        error = (matrix.product(x.to(matrix.dtype), bias.to(matrix.dtype)).double() - expected).abs().amax(1)
        size_of_terms = (x.abs() @ floats.abs().t()).amax(1) + 1
        tolerance = {"float32": 1e-6, "bfloat16": 1e-2}.get(kind, 5e-4)
        assert (error <= tolerance * size_of_terms).all(), (size, error / size_of_terms)


@needs_kernels
@pytest.mark.parametrize("kind", FORMATS)
def test_row_has_the_same_numbers_beside_any_others_and_on_any_number_of_threads(kind: str) -> None:
    generator = torch.Generator().manual_seed(4)
    matrix, _ = matrices(torch.randn(50, 96, generator=generator))[kind]
    x = torch.randn(20, 96, generator=generator).to(matrix.dtype)
    whole = matrix.product(x, None)
    before = torch.get_num_threads()
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            for start, stop in ((0, 1), (3, 5), (4, 12), (0, 20), (19, 20)):
                assert torch.equal(matrix.product(x[start:stop], None), whole[start:stop])
    finally:
        torch.set_num_threads(before)


@needs_kernels
def test_largest_weights_and_activations_overflow_nothing() -> None:
    inputs = 8192
    rows = quantize_rows(torch.ones(4, inputs))
    groups = quantize_groups(torch.tensor([[0.0, 1.0]]).repeat(16, inputs // 2))
    x = torch.full((2, inputs), 1e3)
    x[1] = -1e3
    eight = NativeRows8(rows, torch.float32, kernels()).product(x, None)
    torch.testing.assert_close(eight, torch.tensor([[inputs * 1e3], [-inputs * 1e3]]).expand(2, 4), rtol=5e-3, atol=0)
    four = NativeGroups4(groups, torch.float32, kernels()).product(x, None)
    torch.testing.assert_close(
        four, torch.tensor([[inputs * 500.0], [-inputs * 500.0]]).expand(2, 16), rtol=5e-3, atol=0
    )


def tree() -> StepLayout:
    """Three accepted tokens with wrong ones between them; only the accepted ones' logits are wanted."""
    visible = np.eye(6, dtype=np.bool_)
    for row in (2, 4):
        visible[row, [column for column in (0, 2) if column < row]] = True
    visible[1, 0] = visible[3, 0] = visible[3, 2] = visible[5, 0] = True
    ids, positions = np.array([9, 50, 8, 51, 7, 52]), np.array([5, 6, 6, 7, 7, 6])
    return StepLayout(ids, positions, visible, np.array([0, 2, 4]))


@needs_kernels
@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("dtype", FORMATS)
def test_step_is_the_plain_forward_in_every_family_and_a_tree_changes_no_bit(
    name: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(format_choice, "_OPERATORS", 1e9)  # whatever is faster for matrices as small as these
    # Where the processor has bfloat16 torch's operators round activations to it, which the kernels never do.
    monkeypatch.setattr(loading, "_CPU_BFLOAT16", ())
    reference = build_reference(name, **WIDE).to(torch.bfloat16)
    folder = str(save(reference, tmp_path))
    loaded = load_model(folder, device="cpu", dtype=dtype)
    sequence = LlamaSequence(loaded.weights)
    assert sequence._native_step is not None
    sequence.forward(causal_layout([3, 4, 5, 6, 7], 0))
    sequence.commit(range(5))
    expected = plain(loaded, sequence, [9, 8, 7])
    if dtype == "bfloat16":  # the kernels compute with these weights in float32
        wide = load_model(folder, device="cpu", dtype="float32")
        expected = wide.new_sequence().forward(causal_layout([3, 4, 5, 6, 7, 9, 8, 7], 0, last_logits_only=False))[5:]
    causal = sequence.forward(causal_layout([9, 8, 7], 5, last_logits_only=False)).clone()
    tolerance = 1e-3 if dtype.startswith("int") else 1e-5
    torch.testing.assert_close(causal, expected, atol=tolerance, rtol=0)
    assert torch.equal(sequence.forward(causal_layout([9, 8, 7], 5)), causal[-1:]), "only the last row's logits"
    assert torch.equal(sequence.forward(tree()), causal), "a row sees what it sees in a plain step"
    sequence.commit([0, 2])
    assert torch.equal(sequence.forward(causal_layout([7], 7)), causal[2:]), "what a tree leaves in the cache"


def plain(loaded: LoadedModel, sequence: LlamaSequence, ids: list[int]) -> torch.Tensor:
    """The logits of the forward by torch's operators after what is committed."""
    length, cache = len(sequence.cached_ids), sequence._cache
    layout = causal_layout(ids, length, last_logits_only=False)
    from forelook.model.forward.attention import step_visibility

    visibility = step_visibility(
        layout, length, cache.dtype, torch.device("cpu"), masks_prefix=True, masks_causal=False
    )
    with torch.inference_mode():
        return forward(
            loaded.weights,
            cache,
            torch.from_numpy(layout.token_ids),
            torch.from_numpy(layout.positions),
            visibility,
            None,
        ).clone()


@needs_kernels
def test_long_prefix_and_the_largest_step_agree_with_torch(starter: LoadedModel) -> None:
    sequence = LlamaSequence(starter.weights, 700)
    if sequence._native_step is None:
        pytest.skip("torch's products are faster here")
    ids = [20 + index * 7 % 900 for index in range(600 + MAX_ROWS)]
    sequence.forward(causal_layout(ids[:600], 0))
    sequence.commit(range(600))
    found = sequence.forward(causal_layout(ids[600:], 600, last_logits_only=False)).clone()
    torch.testing.assert_close(found, plain(starter, sequence, ids[600:]), atol=1e-3, rtol=0)


@needs_kernels
def test_sequences_of_several_threads_do_not_disturb_each_other(starter: LoadedModel) -> None:
    def run(ids: list[int]) -> torch.Tensor:
        sequence = LlamaSequence(starter.weights, 64)
        for start in range(0, 48, 6):
            logits = sequence.forward(causal_layout(ids[start : start + 6], start))
            sequence.commit(range(6))
        return logits.clone()

    prompts = [[5 + (index * step) % 200 for index in range(48)] for step in (3, 7, 11, 13)]
    expected = [run(ids) for ids in prompts]
    found: dict[int, torch.Tensor] = {}
    threads = [
        threading.Thread(target=lambda i=i, ids=ids: found.__setitem__(i, run(ids))) for i, ids in enumerate(prompts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[index], logits) for index, logits in enumerate(expected))


@needs_kernels
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_process_starts_threads_of_its_own() -> None:
    matrix, _ = matrices(torch.ones(64, 64))["int8"]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        matrix.product(torch.ones(2, 64), None)
        child = os.fork()
        if child == 0:
            found = torch.empty(2, 64)
            struct, x = matrix.struct(), torch.ones(2, 64)
            import ctypes

            failed = kernels().product(ctypes.addressof(struct), x.data_ptr(), 2, found.data_ptr(), 2)
            os._exit(0 if not failed and abs(float(found[0, 0]) - 64) < 0.1 else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(bool(library._unsupported()) or not compilers(), reason="no compiler or processor for the kernels")
def test_a_compiler_makes_kernels_that_are_right() -> None:
    """Wrong ones are refused and torch computes: the other tests would only be skipped."""
    assert AVAILABLE.functions is not None, AVAILABLE.reason


def config(**changes: object) -> LlamaConfig:
    raw = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1,
        "num_attention_heads": 4, "vocab_size": 320, "max_position_embeddings": 64,
    }  # fmt: skip
    return parse_config({**raw, **changes}, "config.json")


def test_other_mathematics_and_shapes_stay_with_torch() -> None:
    assert serves_native(config())
    assert not serves_native(config(hidden_size=48))
    assert not serves_native(config(intermediate_size=100))
    assert not serves_native(config(model_type="starcoder2"))
    assert not serves_native(config(model_type="gemma", head_dim=16, hidden_act="gelu_pytorch_tanh"))
    assert not serves_native(config(model_type="mistral", sliding_window=7))


def test_without_kernels_torch_computes_and_the_reason_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_choice, "native_kernels", lambda: Compiled(None, "no C compiler was found"))
    for setting, quantized in (("float32", None), ("int8", "int8")):
        found = format_choice.choose_format(setting, torch.float32, torch.device("cpu"), config())
        assert found.quantized == quantized
        assert not isinstance(found.matrices.layer(torch.ones(32, 64)), NativeMatrix)


@needs_kernels
def test_compiled_file_is_kept_and_a_damaged_one_replaced(tmp_path: Path) -> None:
    found = compilers()
    if not found:
        pytest.skip("no compiler: the file was compiled elsewhere")
    assert "compiled for this processor by" in load_kernels(tmp_path, found).reason
    (path,) = tmp_path.iterdir()
    assert load_kernels(tmp_path, []).reason == "compiled earlier for this processor"
    damaged = tmp_path / "other" / path.name
    damaged.parent.mkdir()
    damaged.write_bytes(b"not a library")
    assert load_kernels(damaged.parent, []).functions is None
    assert load_kernels(damaged.parent, found).functions is not None
    assert damaged.stat().st_size == path.stat().st_size


@needs_kernels
def test_kernels_that_compute_something_else_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = compilers()
    if not found:
        pytest.skip("no compiler")
    wrong = tmp_path / "wrong.c"
    wrong.write_text(
        "int forelook_step(void *m, void *s) { return 0; }\n"
        "int forelook_product(void *m, float *x, long n, float *y, long t) { return 0; }\n"
    )
    substitute = program(tmp_path, "cc", f'exec {found[0][0]} -shared -fPIC -o "$8" {wrong}')
    refused = load_kernels(tmp_path / "kept", [substitute])
    assert refused.functions is None
    assert "computes something else than it should" in caplog.text
