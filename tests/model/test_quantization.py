"""Quantized weights: close to the model, smaller, and decoding is lossless with respect to the quantized model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.layout import causal_layout
from forelook.decoding.limits import Limits
from forelook.decoding.request import DecodeRequest
from forelook.errors import ConfigError, UnsupportedArchitectureError
from forelook.model import quantization
from forelook.model.forward.kernel_choice import KernelChoice
from forelook.model.forward.matrix import DenseMatrix
from forelook.model.forward.projection import Projection
from forelook.model.forward.quantized import NEVER, IntegerMatrix8
from forelook.model.forward.static_step import BucketedSequence, StepSpace
from forelook.model.forward.step_ops import plain_ops
from forelook.model.loading import LoadedModel, load_model
from forelook.model.memory import weight_bytes
from forelook.model.quantization import quantize_groups, quantize_rows, stored_bytes, torchao_quantizer

from tests.decoding.streams import drafted
from tests.model.checkpoints import build_reference, save

CPU = torch.device("cpu")
needs_torchao = pytest.mark.skipif(
    quantization.importlib.util.find_spec("torchao") is None, reason="needs the optional extra forelook[quantize]"
)


@pytest.fixture
def float_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same kernel on every machine, measured or not."""
    use_kernel(monkeypatch, "float")


def use_kernel(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    chosen = KernelChoice(kernel, NEVER, {}, {})
    monkeypatch.setattr("forelook.model.matrix_formats.kernel_choice", lambda *_args, **_kwargs: chosen)


@pytest.fixture(scope="module")
def prompt(starter: LoadedModel) -> list[int]:
    return [0, *starter.tokenizer.encode_prefix("def add(a, b):\n    return a + b\n\n\ndef add3(a, b, c):\n    ret")]


def test_rounding_is_within_half_a_step() -> None:
    weight = torch.randn(70, 96, generator=torch.Generator().manual_seed(1))
    weight[3] = 0
    before = weight.clone()
    rows = quantize_rows(weight)
    step = rows.scales.float()[:, None]
    # A scale is stored in bfloat16, so the largest weight of a row may be cut by half a percent.
    assert ((rows.codes * step - weight).abs() <= step * 0.5 + weight.abs().amax(1, keepdim=True) * 0.005).all()
    groups = quantize_groups(weight)
    wide = (part.repeat_interleave(32, 1) for part in (groups.scales, groups.minima))
    scales, minima = wide
    assert ((groups.codes * scales + minima - weight).abs() <= scales * 0.75 + 1e-6).all()
    assert torch.equal(weight, before)
    assert torch.equal(groups.reordered(lambda part: part.flip(0)).codes, groups.codes.flip(0))


@needs_torchao
def test_a_user_sees_nothing_of_what_torchao_has_to_say_of_itself() -> None:
    code = (
        "import torch; from forelook.model.quantization import torchao_quantizer; "
        "torchao_quantizer('int8', torch.device('cpu'), torch.float32)(torch.ones(32, 32))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@needs_torchao
@pytest.mark.parametrize(("kind", "most"), [("int8", 0.02), ("int4", 0.2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torchaos_product_is_close_and_not_equal(kind: str, most: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 256, generator=generator).to(dtype)
    rows, bias = torch.randn(7, 256, generator=generator).to(dtype), torch.randn(96, generator=generator).to(dtype)
    exact = Projection(weight.clone(), bias)(rows).float()
    found = Projection(DenseMatrix(torchao_quantizer(kind, CPU, dtype)(weight.clone())), bias)(rows).float()
    error = float((found - exact).norm() / exact.norm())
    assert 1e-4 < error < most


@needs_torchao
def test_torchaos_weights_are_counted_as_they_are_stored() -> None:
    weight = torch.randn(512, 512)
    assert stored_bytes(weight) == 4 * 512 * 512
    assert stored_bytes(torchao_quantizer("int8", CPU, torch.float32)(weight)) < 1.1 * 512 * 512


@pytest.mark.parametrize(("kind", "kernel"), [("int8", "float"), ("int8", "integer"), ("int4", "float")])
@pytest.mark.parametrize("padded", [False, True])
def test_drafts_do_not_change_what_the_quantized_model_says(
    kind: str, kernel: str, padded: bool, prompt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel == "integer" and not IntegerMatrix8.serves():
        pytest.skip("torch has no integer kernel here")
    use_kernel(monkeypatch, kernel)
    loaded = load_model(None, device="cpu", dtype=kind)
    assert loaded.weight_format == kind
    request = DecodeRequest(prompt, Limits(64, loaded.stop_token_ids))
    plain = [token for ids in autoregressive(request, loaded.new_sequence()) for token in ids]
    sequence = (
        BucketedSequence(StepSpace(loaded.weights, plain_ops(loaded.config))) if padded else loaded.new_sequence()
    )
    with_drafts = [token for ids in drafted(request, sequence) for token in ids]
    assert len(plain) > 20
    if with_drafts != plain:
        place = next(i for i, (left, right) in enumerate(zip(plain, with_drafts, strict=False)) if left != right)
        top = loaded.new_sequence().forward(causal_layout([*prompt, *plain[:place]], 0))[0].topk(2).values
        assert float(top[0] - top[1]) < 0.1, "only a near tie excuses another token"


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantized_model_has_its_own_fingerprint_and_less_memory(
    kind: str, starter: LoadedModel, float_kernel: None
) -> None:
    loaded = load_model(None, device="cpu", dtype=kind)
    assert loaded.fingerprint != starter.fingerprint
    whole = loaded.weights.nbytes - loaded.weights.rotations.nbytes
    plain = starter.weights.nbytes - starter.weights.rotations.nbytes
    assert whole < 0.6 * plain * 2 / starter.dtype.itemsize
    assert whole == pytest.approx(weight_bytes(loaded.config, loaded.dtype, kind), rel=0.05)
    assert loaded.weights.head.shares(loaded.weights.embedding), "embedding and head are one matrix"


def test_int4_refuses_matrices_it_cannot_group(tmp_path: Path) -> None:
    folder = save(build_reference("llama"), tmp_path / "model")  # 48 inputs
    with pytest.raises(UnsupportedArchitectureError, match="choose dtype int8"):
        load_model(str(folder), device="cpu", dtype="int4")


def test_missing_torchao_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"pip install forelook\[quantize\]"):
        torchao_quantizer("int8", torch.device("cuda"), torch.bfloat16)
    assert load_model(None, device="cpu", dtype="int8").weight_format == "int8", "a CPU needs no torchao"
