"""Low-rank adapters: merged as the peft package documents, for any base in any form; what does not fit is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forelook.errors import CheckpointError, ModelError, ModelNotFoundError, UnsupportedArchitectureError
from forelook.model.adapter import base_sample, read_adapter
from forelook.model.loading import load_model
from transformers import PreTrainedModel

from tests.model.adapters import ALPHA, LAYER_TARGETS, PREFIX, RANK, make_adapter, write_adapter
from tests.model.checkpoints import build_reference, save
from tests.model.gguf_files import write_model
from tests.model.test_gguf import IDS, logits

Q_PROJ = f"{PREFIX}model.layers.0.self_attn.q_proj"


def run(base: Path, adapter: Path | None, dtype: str = "float32") -> torch.Tensor:
    return logits(load_model(str(base), adapter=adapter, device="cpu", dtype=dtype), IDS)


def expected(reference: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = reference(torch.tensor([IDS])).logits[0]
    return found


def assert_close(found: torch.Tensor, reference: PreTrainedModel) -> None:
    torch.testing.assert_close(found, expected(reference), atol=2e-3, rtol=1e-4)


@pytest.fixture
def base(tmp_path: Path) -> PreTrainedModel:
    model = build_reference("tied_head", num_key_value_heads=2)
    save(model, tmp_path / "base")
    return model


TARGETS = {"starcoder2": ("q_proj", "v_proj", "c_fc", "c_proj"), "llama": (*LAYER_TARGETS, "embed_tokens", "lm_head")}
FAMILIES = ["llama", "grouped_queries", "tied_head", "qwen2_bias", "qwen3", "gemma", "granite", "starcoder2"]


@pytest.mark.parametrize("form", ["folder", "gguf"])
@pytest.mark.parametrize("variant", FAMILIES)
def test_logits_are_those_of_the_merged_model(variant: str, form: str, tmp_path: Path) -> None:
    model = build_reference(variant)
    before = expected(model)
    if form == "folder":
        path = save(model, tmp_path / "base")
    else:
        path = tmp_path / "base.gguf"
        model = write_model(model, path)
    # a norm with a bias is not only its weight, and head norms are not among what is saved
    norms = variant not in ("starcoder2", "qwen3")
    targets = TARGETS.get(variant, (*LAYER_TARGETS, "embed_tokens"))
    make_adapter(model, tmp_path / "adapter", targets=targets, norms=norms, rows=(0, 5, 9), config=ids_of(0, 5, 9))
    assert (expected(model) - before).abs().max() > 0.1, "the adapter changes something"
    assert_close(run(path, tmp_path / "adapter"), model)


def ids_of(*rows: int) -> dict[str, Any]:
    return {"forelook": {"sentinel_ids": list(rows)}}


def test_a_quantized_base_is_merged_before_it_is_rounded_to_the_devices_format(tmp_path: Path) -> None:
    model = build_reference("tied_head", hidden_size=64, intermediate_size=128)
    model = write_model(model, tmp_path / "base.gguf", kind="Q4_1")
    make_adapter(model, tmp_path / "adapter")
    assert_close(run(tmp_path / "base.gguf", tmp_path / "adapter"), model)
    loaded = load_model(str(tmp_path / "base.gguf"), adapter=tmp_path / "adapter", device="cpu", dtype="bfloat16")
    embedding = model.get_input_embeddings().weight.to(torch.bfloat16)
    share = float((loaded.weights.embedding.rows(torch.arange(len(embedding))) == embedding).float().mean())
    assert share > 0.995, "one rounding, not two; the last bit of a float32 sum depends on its order"


def test_adapters_tensors_in_bfloat16_are_multiplied_in_float32(base: PreTrainedModel, tmp_path: Path) -> None:
    make_adapter(base, tmp_path / "adapter", dtype=torch.bfloat16)
    assert_close(run(tmp_path / "base", tmp_path / "adapter"), base)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"use_rslora": True}, ALPHA / RANK**0.5),
        ({"alpha_pattern": {"k_proj": ALPHA, "mlp.down_proj": ALPHA}}, None),
        ({"rank_pattern": {"layers.1.self_attn.q_proj": RANK}, "r": RANK}, None),
    ],
)
def test_the_scale_is_that_of_the_configuration(
    base: PreTrainedModel, config: dict[str, Any], scale: float | None, tmp_path: Path
) -> None:
    make_adapter(base, tmp_path / "adapter", scale=scale, config=config)
    assert_close(run(tmp_path / "base", tmp_path / "adapter"), base)


def test_alpha_of_one_module_is_its_own(base: PreTrainedModel, tmp_path: Path) -> None:
    make_adapter(base, tmp_path / "adapter", targets=("q_proj",), norms=False, scale=3.0,
                 config={"alpha_pattern": {"self_attn.q_proj": 3 * RANK}})  # fmt: skip
    assert_close(run(tmp_path / "base", tmp_path / "adapter"), base)


def test_pefts_own_names_of_wrapped_modules_are_understood(base: PreTrainedModel, tmp_path: Path) -> None:
    tensors = make_adapter(base, tmp_path / "adapter", rows=(0, 1))
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        name = name.replace("norm.weight", "norm.modules_to_save.default.weight").replace("lora_A.", "lora_A.default.")
        if name == "sentinel_rows":
            name = f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta"
        renamed[name] = tensor
    raw = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    write_adapter(tmp_path / "other", renamed, {**raw, "trainable_token_indices": {"embed_tokens": [0, 1]}})
    assert_close(run(tmp_path / "base", tmp_path / "other"), base)


def test_without_an_adapter_nothing_changes_and_the_fingerprint_tells_them_apart(
    base: PreTrainedModel, tmp_path: Path
) -> None:
    before = expected(base)
    make_adapter(base, tmp_path / "adapter")
    torch.testing.assert_close(run(tmp_path / "base", None), before, atol=1e-4, rtol=1e-4)
    folder = str(tmp_path / "base")
    plain = load_model(folder, device="cpu", dtype="float32")
    adapted = load_model(folder, adapter=tmp_path / "adapter", device="cpu", dtype="float32")
    assert plain.fingerprint != adapted.fingerprint
    assert {path.parent.name for path in adapted.files.paths} == {"base", "adapter"}


Edit = Callable[[dict[str, torch.Tensor], dict[str, Any]], object]


def cut_rank(tensors: dict[str, torch.Tensor], _config: dict[str, Any]) -> None:
    tensors[f"{Q_PROJ}.lora_A.weight"] = tensors[f"{Q_PROJ}.lora_A.weight"][:2]


def add_layer(tensors: dict[str, torch.Tensor], _config: dict[str, Any]) -> None:
    for part in ("lora_A", "lora_B"):
        tensors[f"{Q_PROJ}.{part}.weight".replace("layers.0", "layers.3")] = tensors[f"{Q_PROJ}.{part}.weight"].clone()


def drop_layer(tensors: dict[str, torch.Tensor], _config: dict[str, Any]) -> None:
    for part in ("lora_A", "lora_B"):
        del tensors[f"{Q_PROJ}.{part}.weight"]


def poison(tensors: dict[str, torch.Tensor], _config: dict[str, Any]) -> None:
    tensors[f"{Q_PROJ}.lora_A.weight"][0, 0] = float("nan")


def make_integers(tensors: dict[str, torch.Tensor], _config: dict[str, Any]) -> None:
    tensors[f"{Q_PROJ}.lora_A.weight"] = tensors[f"{Q_PROJ}.lora_A.weight"].to(torch.int8)


def shorten_embedding(tensors: dict[str, torch.Tensor], _config: dict[str, Any]) -> None:
    name = f"{PREFIX}model.embed_tokens.lora_embedding_A"
    tensors[name] = tensors[name][:, :100]


def drop_half(tensors: dict[str, torch.Tensor], _config: dict[str, Any]) -> None:
    del tensors[f"{Q_PROJ}.lora_B.weight"]


def drop_norms(tensors: dict[str, torch.Tensor], _config: dict[str, Any]) -> None:
    for name in [name for name in tensors if "norm" in name]:
        del tensors[name]


def rename(tensors: dict[str, torch.Tensor], _config: dict[str, Any]) -> None:
    tensors["what.is.this"] = tensors.pop(f"{Q_PROJ}.lora_A.weight")


def double(tensors: dict[str, torch.Tensor], _config: dict[str, Any]) -> None:
    tensors[f"{Q_PROJ}.lora_A.default.weight"] = tensors[f"{Q_PROJ}.lora_A.weight"].clone()


def state(**values: Any) -> Edit:
    return lambda _tensors, config: config.update(values)


@pytest.mark.parametrize(
    ("edit", "kind", "said"),
    [
        (cut_rank, CheckpointError, r"q_proj.lora_A.weight has shape \[2, 48\].*need \[4, 48\]"),
        (shorten_embedding, CheckpointError, r"lora_embedding_A has shape \[4, 100\].*base that it was trained on"),
        (add_layer, CheckpointError, r"it changes .*layers.3.self_attn.q_proj.*own/base"),
        (drop_layer, CheckpointError, "lacks the tensors of model.layers.0.self_attn.q_proj"),
        (drop_half, CheckpointError, "only one of lora_A and lora_B"),
        (drop_norms, CheckpointError, "lacks input_layernorm, one of its modules_to_save"),
        (poison, CheckpointError, "q_proj becomes infinite or NaN in float32"),
        (make_integers, CheckpointError, "dtype torch.int8"),
        (rename, CheckpointError, "'what.is.this' is no tensor of a LoRA adapter"),
        (double, CheckpointError, "is there twice"),
        (state(peft_type="IA3"), UnsupportedArchitectureError, "peft_type is 'IA3'; only 'LORA'"),
        (state(peft_type=None), UnsupportedArchitectureError, "peft_type is None"),
        (state(use_dora=True), UnsupportedArchitectureError, "use_dora is True"),
        (state(bias="all"), UnsupportedArchitectureError, "bias is 'all'"),
        (state(init_lora_weights="pissa_niter_4"), UnsupportedArchitectureError, "init_lora_weights is 'pissa"),
        (state(r=0), CheckpointError, "invalid r: '0'"),
        (state(r=2), CheckpointError, r"need \[320, 2\]|need \[2, "),
        (state(r=True), CheckpointError, "invalid r"),
        (state(lora_alpha=float("inf")), CheckpointError, "invalid lora_alpha"),
        (state(target_modules=[1]), CheckpointError, "invalid target_modules"),
        (state(rank_pattern=[1]), CheckpointError, "invalid rank_pattern: .*expected an object"),
        (state(forelook={"base": {"hidden_size": 47}}), CheckpointError, "hidden_size = 47, and this one has 48"),
        (state(forelook={"base": {"sample": [0.5] * 9000}}), CheckpointError, "invalid sample"),
        (state(forelook={"infill": "nonsense"}), ModelError, "infill format 'nonsense'"),
        (state(forelook={"tokens": {"<fim_prefix>": 3}}), ModelError, "token 3 <fim_prefix>, but that is no control"),
        (state(forelook={"tokens": {"a": 0, "b": 0}}), CheckpointError, "different token ids"),
        (state(forelook={"eos_token_ids": "x"}), CheckpointError, "invalid eos_token_ids"),
        (state(forelook=[]), CheckpointError, "invalid forelook"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_does_not_fit_is_one_clear_error(
    base: PreTrainedModel, edit: Edit, kind: type[ModelError], said: str, tmp_path: Path
) -> None:
    tensors = make_adapter(base, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    edit(tensors, config)
    write_adapter(tmp_path / "adapter", tensors, config)
    with pytest.raises(kind, match=said):
        run(tmp_path / "base", tmp_path / "adapter")


def test_rows_outside_the_vocabulary_are_refused(base: PreTrainedModel, tmp_path: Path) -> None:
    make_adapter(base, tmp_path / "adapter", rows=(0, 1), config=ids_of(0, 4000))
    with pytest.raises(CheckpointError, match="row of token 4000, and this model has 320"):
        run(tmp_path / "base", tmp_path / "adapter")


def test_a_bias_or_a_head_that_the_base_ties_is_refused(base: PreTrainedModel, tmp_path: Path) -> None:
    tensors = make_adapter(base, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    write_adapter(tmp_path / "bias", {**tensors, f"{Q_PROJ}.bias": torch.zeros(48)}, config)
    with pytest.raises(CheckpointError, match="no tensor of a LoRA adapter"):
        run(tmp_path / "base", tmp_path / "bias")
    write_adapter(tmp_path / "head", {**tensors, f"{PREFIX}lm_head.weight": torch.zeros(320, 48)}, config)
    with pytest.raises(CheckpointError, match=r"changes .*lm_head.weight, which this model does not have"):
        run(tmp_path / "base", tmp_path / "head")


def test_another_model_of_the_same_shapes_is_recognized(base: PreTrainedModel, tmp_path: Path) -> None:
    weights = base.state_dict()
    own = {"forelook": {"base": {"hidden_size": 48, "sample": base_sample(weights.__getitem__)}}}
    save(build_reference("tied_head", num_key_value_heads=2, seed=1), tmp_path / "other")
    quantized = build_reference("tied_head", num_key_value_heads=2, hidden_size=64, intermediate_size=128)
    make_adapter(base, tmp_path / "adapter", config=own)
    assert_close(run(tmp_path / "base", tmp_path / "adapter"), base)
    with pytest.raises(CheckpointError, match="trained on other weights of the same shapes"):
        run(tmp_path / "other", tmp_path / "adapter")
    sample = base_sample(quantized.state_dict().__getitem__)
    in_four_bits = write_model(quantized, tmp_path / "base.gguf", kind="Q4_0")
    make_adapter(in_four_bits, tmp_path / "fitting", config={"forelook": {"base": {"sample": sample}}})
    assert_close(run(tmp_path / "base.gguf", tmp_path / "fitting"), in_four_bits)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is damaged or no safetensors file"),
        (b"\x80\x02]q\x00.", "is damaged or no safetensors file"),
        (struct.pack("<Q", 2**62) + b"{}", "is damaged or no safetensors file"),
        (
            (lambda header: struct.pack("<Q", len(header)) + header)(
                b'{"%s.lora_A.weight":{"dtype":"F32","shape":[4,48],"data_offsets":[0,99999999]}}' % Q_PROJ.encode()
            ),
            "is damaged or no safetensors file",
        ),
    ],
)
def test_hostile_files_are_refused(base: PreTrainedModel, content: bytes, said: str, tmp_path: Path) -> None:
    make_adapter(base, tmp_path / "adapter")
    (tmp_path / "adapter/adapter_model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        read_adapter(tmp_path / "adapter")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"a":' * 100_000, b" " * (2 << 20)])
def test_hostile_configurations_are_refused(base: PreTrainedModel, content: bytes, tmp_path: Path) -> None:
    make_adapter(base, tmp_path / "adapter")
    (tmp_path / "adapter/adapter_config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"adapter_config.json (cannot be read|is not a JSON object)"):
        read_adapter(tmp_path / "adapter")


def test_a_folder_without_an_adapter_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"lacks adapter_config.json; name a folder"):
        read_adapter(tmp_path / "nothing")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match=r"lacks adapter_model.safetensors; name a folder"):
        read_adapter(tmp_path)
