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
from forelook.model.forward.projection import Projection
from forelook.model.forward.static_step import BucketedSequence, StepSpace
from forelook.model.forward.step_ops import plain_ops
from forelook.model.loading import LoadedModel, load_model
from forelook.model.memory import weight_bytes
from forelook.model.quantization import quantizer, stored_bytes

from tests.decoding.streams import drafted
from tests.model.checkpoints import build_reference, save

CPU = torch.device("cpu")
needs_torchao = pytest.mark.skipif(
    quantization.importlib.util.find_spec("torchao") is None, reason="needs the optional extra forelook[quantize]"
)


@pytest.fixture(scope="module")
def prompt(starter: LoadedModel) -> list[int]:
    return [0, *starter.tokenizer.encode_prefix("def add(a, b):\n    return a + b\n\n\ndef add3(a, b, c):\n    ret")]


@needs_torchao
def test_a_user_sees_nothing_of_what_torchao_has_to_say_of_itself() -> None:
    code = (
        "import torch; from forelook.model.quantization import quantizer; "
        "quantizer('int8', torch.device('cpu'), torch.float32)(torch.ones(32, 32))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@needs_torchao
@pytest.mark.parametrize(("kind", "most"), [("int8", 0.02), ("int4", 0.2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantized_product_is_close_and_not_equal(kind: str, most: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 256, generator=generator).to(dtype)
    rows, bias = torch.randn(7, 256, generator=generator).to(dtype), torch.randn(96, generator=generator).to(dtype)
    exact = Projection(weight.clone(), bias)(rows).float()
    found = Projection(weight.clone(), bias, quantizer(kind, CPU, dtype))(rows).float()
    error = float((found - exact).norm() / exact.norm())
    assert 1e-4 < error < most


@needs_torchao
def test_int8_weights_take_a_quarter_of_float32() -> None:
    weight = torch.randn(512, 512)
    assert stored_bytes(weight) == 4 * 512 * 512
    assert stored_bytes(quantizer("int8", CPU, torch.float32)(weight)) < 1.1 * 512 * 512


@needs_torchao
@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("padded", [False, True])
def test_drafts_do_not_change_what_the_quantized_model_says(kind: str, padded: bool, prompt: list[int]) -> None:
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
        assert loaded.dtype != torch.float32, "in float32 the two must be identical"
        assert float(top[0] - top[1]) < 0.1, "only a near tie in bfloat16 excuses another token"


@needs_torchao
def test_quantized_model_has_its_own_fingerprint_and_less_memory(starter: LoadedModel) -> None:
    loaded = load_model(None, device="cpu", dtype="int8")
    assert loaded.fingerprint != starter.fingerprint
    matrices, plain_matrices = (
        sum(part.nbytes for layer in weights.layers for part in (layer.qkv, layer.output, layer.gate_up, layer.down))
        for weights in (loaded.weights, starter.weights)
    )
    assert matrices < 0.6 * plain_matrices * loaded.dtype.itemsize / starter.dtype.itemsize
    embedding = loaded.weights.embedding.nbytes
    assert matrices + embedding == pytest.approx(weight_bytes(loaded.config, loaded.dtype, "int8"), rel=0.03)


@needs_torchao
def test_int4_refuses_matrices_it_cannot_group(tmp_path: Path) -> None:
    folder = save(build_reference("llama"), tmp_path / "model")  # 48 inputs
    with pytest.raises(UnsupportedArchitectureError, match="choose dtype int8"):
        load_model(str(folder), device="cpu", dtype="int4")


def test_missing_torchao_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"pip install forelook\[quantize\]"):
        load_model(None, device="cpu", dtype="int8")
