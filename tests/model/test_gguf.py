"""GGUF models compute what transformers computes on the weights in the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from forelook.decoding.layout import causal_layout
from forelook.model.gguf.blocks import DEQUANTIZERS, dequantize
from forelook.model.gguf.header import BLOCK_TYPES, TensorPlace, read_gguf
from forelook.model.loading import LoadedModel, load_model

from tests.model.checkpoints import VARIANTS, build_reference, write_byte_tokenizer
from tests.model.gguf_files import write_model

IDS = torch.randint(2, 258, (60,), generator=torch.Generator().manual_seed(1)).tolist()
# A GGUF file has no place for these: rope factors of other kinds, a window of Mistral's, the layers that have one.
NOT_IN_GGUF = {"yarn_with_own_magnitudes", "dynamic_scaling", "mistral_with_window", "qwen2_with_windowed_layers"}
STORED = sorted(set(VARIANTS) - NOT_IN_GGUF)


def load(path: Path, dtype: str = "float32") -> LoadedModel:
    return load_model(str(path), device="cpu", dtype=dtype)


def logits(loaded: LoadedModel, ids: list[int]) -> torch.Tensor:
    return loaded.new_sequence().forward(causal_layout(ids, 0, last_logits_only=False))


def assert_equal_to(reference: Any, loaded: LoadedModel) -> None:
    with torch.no_grad():
        expected = reference(torch.tensor([IDS])).logits[0]
    torch.testing.assert_close(logits(loaded, IDS), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", STORED)
def test_logits_are_those_of_transformers(variant: str, tmp_path: Path) -> None:
    reference = write_model(build_reference(variant), tmp_path / "model.gguf")
    assert_equal_to(reference, load(tmp_path / "model.gguf"))


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
@pytest.mark.parametrize("variant", ["grouped_queries", "qwen2_bias", "granite", "qwen3", "gemma", "starcoder2"])
def test_logits_of_quantized_weights_are_those_of_the_dequantized_ones(variant: str, kind: str, tmp_path: Path) -> None:
    model = build_reference(variant, hidden_size=64, intermediate_size=128, num_hidden_layers=2)
    reference = write_model(model, tmp_path / "model.gguf", kind=kind)
    loaded = load(tmp_path / "model.gguf")
    assert_equal_to(reference, loaded)
    assert ("dequantized to float32" in loaded.status_line) == kind.startswith("Q")
    if kind.startswith("Q"):
        stored = sum(place.num_bytes for place in read_gguf(tmp_path / "model.gguf").tensors.values())
        assert (
            f": {loaded.weights.nbytes / 2**20:.0f} MiB of memory instead of {stored / 2**20:.0f}" in loaded.status_line
        )


@pytest.mark.parametrize("code", sorted(BLOCK_TYPES))
def test_block_type_is_that_of_the_gguf_package(code: int) -> None:
    form, kind = BLOCK_TYPES[code], gguf.GGMLQuantizationType(code)
    assert (form.name, form.num_values, form.num_bytes) == (kind.name, *gguf.GGML_QUANT_SIZES[kind])
    assert form.name in DEQUANTIZERS


@pytest.mark.parametrize(
    "code", [*sorted(BLOCK_TYPES), gguf.GGMLQuantizationType.Q2_K, gguf.GGMLQuantizationType.IQ4_NL]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_block_is_dequantized_as_by_the_gguf_package(code: int, dtype: torch.dtype) -> None:
    kind = gguf.GGMLQuantizationType(code)
    from forelook.model.gguf.header import block_type

    form = block_type(code)
    assert form is not None
    rows, blocks = 7, max(1, 300_000 // form.num_values // 7)  # more than one chunk
    data = np.random.default_rng(code).integers(0, 256, (rows, blocks * form.num_bytes), dtype=np.uint8)
    if form.num_values > 1:  # finite scales
        halves = data.view(np.float16)
        halves[~np.isfinite(halves)] = 0.25
    with np.errstate(all="ignore"):
        expected = torch.from_numpy(gguf.dequantize(data.copy(), kind)).to(dtype)
    place = TensorPlace((rows, blocks * form.num_values), code, form, 0, data.nbytes)
    found, is_finite = dequantize(torch.from_numpy(data).view(-1), place, dtype, "test")
    assert found.dtype is dtype
    torch.testing.assert_close(found, expected.view(found.shape), rtol=0, atol=0, equal_nan=True)
    assert is_finite == bool(expected.isfinite().all())


@pytest.mark.parametrize("code", [0, 1, 30])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_values_that_are_not_finite_or_become_infinite_are_noticed(code: int, value: float) -> None:
    form, kept = BLOCK_TYPES[code], torch.float16
    stored = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}[code]
    values = torch.zeros(2, 300_000).index_fill(1, torch.tensor([299_999]), value).to(stored)
    place = TensorPlace((2, 300_000), code, form, 0, values.nbytes)
    assert not dequantize(values.view(torch.uint8).view(-1), place, kept, "test")[1]
    assert dequantize(torch.zeros_like(values).view(torch.uint8).view(-1), place, kept, "test")[1]


def test_tensor_data_is_read_from_its_mapping(tmp_path: Path) -> None:
    write_model(build_reference("llama"), tmp_path / "model.gguf")
    file = read_gguf(tmp_path / "model.gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    assert {tensor.name: tensor.data_offset for tensor in reader.tensors} == {
        name: place.offset for name, place in file.tensors.items()
    }
    assert set(file.metadata) == {name for name in reader.fields if not name.startswith("GGUF.")}


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_model(build_reference("llama"), path)
    first = load(path).fingerprint
    assert load(path).fingerprint == first
    content = path.read_bytes()
    write_model(build_reference("llama", seed=1), path)
    assert len(path.read_bytes()) == len(content)
    assert load(path).fingerprint != first


def test_format_follows_from_the_files_own_name(tmp_path: Path) -> None:
    """Mellum's sentinels are StarCoder's, in another order."""
    control = ("<s>", "</s>", "<|endoftext|>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<filename>")
    write_byte_tokenizer(tmp_path, 320, control)
    tokenizer = tmp_path / "tokenizer.json"
    raw = json.loads(tokenizer.read_text(encoding="utf-8"))
    raw["model"]["vocab"]["ab"], raw["model"]["merges"] = len(raw["model"]["vocab"]), [["a", "b"]]
    tokenizer.write_text(json.dumps(raw), encoding="utf-8")
    ids = {f"tokenizer.ggml.fim_{part}_token_id": 3 + index for index, part in enumerate(("pre", "suf", "mid"))}
    for name, order in (("Mellum 4b Base", "spm"), ("Granite 3b Code Base", "psm")):
        metadata = {"general.name": name, "tokenizer.chat_template": "{{ x }}", **ids}
        path = tmp_path / "model.gguf"
        write_model(build_reference("llama"), path, tokenizer=tokenizer, metadata=metadata)
        loaded = load(path)
        assert loaded.infill.order.value == order
        assert loaded.status_line == ""
