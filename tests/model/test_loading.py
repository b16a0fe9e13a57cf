"""Loading: every fault of a checkpoint is a typed error that names the thing and the way out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forelook.errors import (
    CheckpointError,
    ConfigError,
    ModelNotFoundError,
    TokenizerError,
    UnsupportedArchitectureError,
)
from forelook.model.config import parse_config
from forelook.model.families import FAMILIES
from forelook.model.loading import STARTER_MODEL_NAME, LoadedModel, choose_dtype, find_checkpoint, load_model
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from tests.model.checkpoints import build_reference, save, write_byte_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound checkpoint in shards, for tests to damage."""
    return save(build_reference("qwen2_bias"), tmp_path / "model", max_shard_size="60KB")


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """A sound checkpoint in one file."""
    return save(build_reference("llama"), tmp_path / "model")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def load(folder: Path) -> LoadedModel:
    return load_model(str(folder), device="cpu", dtype="float32")


def test_starter_model_is_the_default_and_loads_in_the_cpus_best_dtype() -> None:
    loaded = load_model(None, device="cpu")
    assert loaded.name == STARTER_MODEL_NAME
    assert loaded.dtype is choose_dtype("auto", torch.device("cpu"))
    assert loaded.max_positions == 2048
    assert loaded.status_line == ""


def test_progress_rises_to_one_and_names_the_model(folder: Path) -> None:
    seen: list[tuple[float, str]] = []
    load_model(str(folder), device="cpu", dtype="float32", on_progress=lambda share, line: seen.append((share, line)))
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert len({share for share in shares if 0 < share < 1}) > 10
    assert all(str(folder) in line for _, line in seen)


def test_weights_bytes_are_the_checkpoints(single: Path) -> None:
    loaded = load(single)
    expected = sum(tensor.nbytes for tensor in load_file(single / "model.safetensors").values())
    # In addition to the checkpoint's tensors there are the rotation table and a second copy of the norms.
    assert expected <= loaded.weights.nbytes <= expected * 1.2


def test_fingerprint_changes_with_model_revision_and_tokenizer(single: Path, folder: Path) -> None:
    first = load(single).fingerprint
    assert load(single).fingerprint == first
    assert load_model(str(single), revision="v2", device="cpu", dtype="float32").fingerprint != first
    write_byte_tokenizer(single, 320, ("<s>", "</s>", "<extra>"))
    assert load(single).fingerprint != first


def test_generation_config_adds_ends_of_sequence(single: Path) -> None:
    (single / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 5]}))
    assert load(single).stop_token_ids == {1, 5}


def test_model_without_sentinels_says_that_it_ignores_the_suffix(single: Path) -> None:
    loaded = load(single)
    assert loaded.infill.name == "plain"
    assert "not trained to infill" in loaded.status_line


def test_model_without_sentinels_is_refused_where_infilling_is_asked_for(single: Path) -> None:
    with pytest.raises(TokenizerError, match=r"none of the infill sentinels.*--left-to-right"):
        load_model(str(single), device="cpu", dtype="float32", allow_left_to_right=False)


def test_family_that_promises_sentinels_is_refused_without_them(single: Path) -> None:
    promised = single.rename(single.with_name("CodeLlama-7b-hf"))
    with pytest.raises(TokenizerError, match="▁<PRE>"):
        load(promised)


@pytest.mark.parametrize("name", ["", "does-not-exist/", "./nowhere", "/no/such/folder", "a/b/c"])
def test_unknown_folder_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError):
        load_model(name, device="cpu")


def test_folder_without_config_is_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["model.bin", "model.safetensors"])
def test_single_file_says_which_formats_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="GGUF file or the folder of a Hugging Face checkpoint"):
        load(tmp_path / name)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (LocalEntryNotFoundError("offline"), "the hub cannot be reached"),
        (HFValidationError("bad"), "neither a folder nor a hub id"),
    ],
)
def test_hub_faults_become_one_clear_error(fault: Exception, message: str) -> None:
    def download(*args: object, **options: object) -> str:
        raise fault

    with pytest.raises(ModelNotFoundError, match=message):
        find_checkpoint("owner/name", None, lambda share, line: None, download=download)


def test_hub_id_is_downloaded_as_safetensors_at_its_revision(single: Path) -> None:
    asked: dict[str, Any] = {}

    def download(model: str, **options: Any) -> str:
        asked.update(options, model=model)
        return str(single)

    assert find_checkpoint("owner/name", "v1", lambda share, line: None, download=download) == single
    assert asked["model"] == "owner/name"
    assert asked["revision"] == "v1"
    assert "*.safetensors" in asked["allow_patterns"]
    assert not any("bin" in pattern or "py" in pattern for pattern in asked["allow_patterns"])


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "gpt2"},
        {"model_type": None},
        {"model_type": "mixtral"},
        {"hidden_act": "gelu"},
        {"quantization_config": {"quant_method": "gptq"}},
        {"rope_parameters": {"rope_type": "longrope", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        {"head_dim": 7},
    ],
    ids=str,
)
def test_architecture_we_would_compute_wrongly_is_refused(single: Path, changes: dict[str, Any]) -> None:
    edit_config(single, **changes)
    with pytest.raises(UnsupportedArchitectureError, match=r"config\.json"):
        load(single)


def test_unknown_architecture_is_named_together_with_ours(single: Path) -> None:
    edit_config(single, model_type="granitemoehybrid")
    with pytest.raises(UnsupportedArchitectureError, match="model_type is 'granitemoehybrid'") as caught:
        load(single)
    assert all(name in str(caught.value) for name in FAMILIES)


@pytest.mark.parametrize("family", ["gemma", "starcoder2", "qwen3"])
def test_fields_that_a_config_leaves_out_have_transformers_defaults(family: str) -> None:
    """Transformers 4 leaves out what equals its own defaults."""
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    given = dict(zip(names, (320, 48, 112, 3, 4), strict=True))
    whole = AutoConfig.for_model(family, **given, num_key_value_heads=2).to_dict()
    left_out = {"model_type": family, **given, "num_key_value_heads": 2}
    assert replace(parse_config(left_out, ""), bos_token_id=None, eos_token_ids=(), dtype="") == replace(
        parse_config(whole, ""), bos_token_id=None, eos_token_ids=(), dtype=""
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "hidden_size is None"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        ({"num_key_value_heads": 3}, "not a multiple of num_key_value_heads = 3"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps is -1.0"),
        ({"rope_parameters": {"rope_type": "linear"}}, "'linear' lacks factor"),
        ({"intermediate_size": 96}, "gate_proj.weight has shape"),
        ({"num_hidden_layers": 4}, r"model\.layers\.3\.\S+ cannot be read"),
        ({"attention_bias": True}, r"q_proj\.bias cannot be read"),
    ],
    ids=str,
)
def test_config_that_does_not_fit_the_weights_is_named(single: Path, changes: dict[str, Any], message: str) -> None:
    edit_config(single, **changes)
    with pytest.raises(CheckpointError, match=message):
        load(single)


def test_old_rope_scaling_field_means_the_same(single: Path) -> None:
    """Configs written before transformers 5 say rope_theta and rope_scaling with "type"."""
    raw = json.loads((single / "config.json").read_text())
    raw.pop("rope_parameters")
    raw.update(rope_theta=5e4, rope_scaling={"type": "linear", "factor": 4.0})
    (single / "config.json").write_text(json.dumps(raw))
    rope = load(single).config.rope
    assert (rope.kind, rope.theta, rope.parameters["factor"]) == ("linear", 5e4, 4.0)


def test_missing_shard_is_named(folder: Path) -> None:
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"{shard.name} is missing"):
        load(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_truncated_file_is_named(single: Path, keep: float) -> None:
    path = single / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep > 1 or keep == 0 else keep * len(data))])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged, truncated or still being downloaded"):
        load(single)


def test_tensor_missing_from_the_index_is_named(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    del index["weight_map"]["model.norm.weight"]
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight is in no shard"):
        load(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_damaged_index_is_named(folder: Path, content: str) -> None:
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        load(folder)


def test_index_cannot_reach_outside_the_folder(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = "../../elsewhere.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"elsewhere\.safetensors is missing"):
        load(folder)


def test_pickled_weights_are_refused_by_name(single: Path) -> None:
    (single / "model.safetensors").rename(single / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*only safetensors"):
        load(single)


@pytest.mark.parametrize("method", ["gptq", "awq", "exl2", "bitsandbytes", "fp8", None])
def test_checkpoint_quantized_beforehand_says_what_to_do_instead(single: Path, method: str | None) -> None:
    edit_config(single, quantization_config={} | ({"quant_method": method} if method else {"bits": 4}))
    with pytest.raises(
        UnsupportedArchitectureError, match=r"not supported; use the unquantized.*dtype int8 or int4"
    ) as refused:
        load(single)
    assert repr(method or "unknown") in str(refused.value)


@pytest.mark.parametrize("name", ["consolidated.00.pth", "pytorch_model.bin", "model.pt"])
def test_folder_of_another_format_names_what_it_holds_and_what_is_read(single: Path, name: str) -> None:
    (single / "model.safetensors").rename(single / name)
    with pytest.raises(CheckpointError, match=rf"found only {name}; only safetensors are supported"):
        load(single)


def test_integer_weights_are_refused_as_quantized(single: Path) -> None:
    tensors = load_file(single / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    tensors[name] = tensors[name].to(torch.int8)
    save_file(tensors, single / "model.safetensors")
    with pytest.raises(CheckpointError, match="quantized"):
        load(single)


def test_missing_and_damaged_config_files(single: Path) -> None:
    (single / "generation_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"generation_config\.json cannot be read"):
        load(single)
    (single / "generation_config.json").unlink()
    (single / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"config\.json is not a JSON object"):
        load(single)


def test_missing_tokenizer_is_named(single: Path) -> None:
    (single / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is missing"):
        load(single)


def test_tokenizer_with_more_text_than_the_embedding_is_refused(single: Path, shared_dir: Path) -> None:
    source = shared_dir / "data" / "codellama-tokenizer" / "tokenizer.json"
    (single / "tokenizer.json").write_bytes(source.read_bytes())
    with pytest.raises(TokenizerError, match="only 320 embeddings"):
        load(single)


@pytest.mark.parametrize(("field", "value"), [("device", "tpu"), ("device", "cuda:99"), ("dtype", "int3")])
def test_unknown_device_or_dtype_says_what_is_allowed(field: str, value: str) -> None:
    with pytest.raises(ConfigError, match=field):
        load_model(None, **{field: value})


def test_half_precision_weights_load_in_any_dtype(tmp_path: Path) -> None:
    for saved in (torch.bfloat16, torch.float16, torch.float64):
        folder = save(build_reference("llama").to(saved), tmp_path / str(saved))
        for dtype in ("bfloat16", "float32", "float64"):
            loaded = load_model(str(folder), device="cpu", dtype=dtype)
            assert str(loaded.weights.dtype) == f"torch.{dtype}"
