"""Damaged, hostile and foreign GGUF files: each is one error that names the file, the fault and the way out."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forelook.errors import CheckpointError, ModelError, ModelNotFoundError, UnsupportedArchitectureError
from forelook.model.gguf.files import find_gguf, gguf_on_hub
from forelook.model.gguf.header import read_gguf
from forelook.model.loading import LoadedModel, load_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.model.checkpoints import build_reference, save
from tests.model.gguf_files import split_in_two, write_model


def load(path: Path) -> LoadedModel:
    return load_model(str(path), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "model.gguf"
    write_model(build_reference("llama"), path)
    return path


def rewritten(sound: Path, path: Path, change: Callable[[bytearray], None]) -> Path:
    content = bytearray(sound.read_bytes())
    change(content)
    path.write_bytes(content)
    return path


def put(offset: int, form: str, value: int) -> Callable[[bytearray], None]:
    return lambda content: struct.pack_into(form, content, offset, value)


def after(text: str, skip: int, form: str, value: int) -> Callable[[bytearray], None]:
    """Overwrites a number some bytes behind a name in the file."""

    def change(content: bytearray) -> None:
        struct.pack_into(form, content, content.index(text.encode()) + len(text) + skip, value)

    return change


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (put(0, "4s", b"GGML"), CheckpointError, "not a GGUF file: it begins with b'GGML'"),
        (put(4, "<I", 1), UnsupportedArchitectureError, "GGUF version 1;"),
        (put(4, "<I", 99), UnsupportedArchitectureError, "GGUF version 99;"),
        (put(4, ">I", 3), UnsupportedArchitectureError, "version 3 in big-endian"),
        (put(8, "<Q", 2**63), CheckpointError, "claims to have 9223372036854775808 tensors"),
        (put(16, "<Q", 2**63), CheckpointError, "claims to have 9223372036854775808 metadata keys"),
        (put(8, "<Q", 900_000), CheckpointError, "claims to have 900000 tensors"),
        (put(24, "<Q", 2**64 - 1), CheckpointError, "header continues after the last"),  # a key's length
        (after("general.architecture", 4, "<Q", 2**62), CheckpointError, "header continues after the last"),
        (after("general.architecture", 0, "<I", 77), CheckpointError, "unknown type 77"),
        (after("tokenizer.ggml.tokens", 8, "<Q", 2**60), CheckpointError, "claims to have .* strings"),
        (after("tokenizer.ggml.tokens", 4, "<I", 9), CheckpointError, "elements of the unknown type 9"),
        (after("tokenizer.ggml.token_type", 8, "<Q", 2**60), CheckpointError, "claims to have .* values"),
        (after("token_embd.weight", 0, "<I", 5000), CheckpointError, "has 5000 dimensions"),
        (after("token_embd.weight", 4, "<Q", 2**63), CheckpointError, "truncated or still being downloaded"),
        (after("token_embd.weight", 4, "<Q", 0), CheckpointError, "has the shape"),
        (after("token_embd.weight", 20, "<I", 12), CheckpointError, "no multiple of Q4_K's blocks"),
        (after("token_embd.weight", 20, "<I", 4), UnsupportedArchitectureError, "unknown type 4"),
        (after("token_embd.weight", 20, "<I", 10**6), UnsupportedArchitectureError, "unknown type 1000000"),
        (after("token_embd.weight", 24, "<Q", 2**64 - 32), CheckpointError, "truncated or still being downloaded"),
        (lambda content: content.__setitem__(slice(0, None), b""), CheckpointError, "is empty"),
    ],
)
def test_damaged_header_is_one_clear_error(
    change: Callable[[bytearray], None], kind: type[ModelError], message: str, sound: Path, tmp_path: Path
) -> None:
    path = rewritten(sound, tmp_path / "model.gguf", change)
    with pytest.raises(kind, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_file_cut_anywhere_is_truncated_or_still_being_downloaded(sound: Path, tmp_path: Path) -> None:
    content = sound.read_bytes()
    path = tmp_path / "model.gguf"
    for length in (8, 20, 40, 300, 2_000, len(content) // 2, len(content) - 33):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"download"):
            load(path)


def test_altered_bytes_never_cause_anything_but_a_typed_error(sound: Path, tmp_path: Path) -> None:
    content = sound.read_bytes()
    header = read_gguf(sound).header_bytes

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.tuples(st.integers(4, header - 1), st.integers(0, 255)), min_size=1, max_size=6))
    def check(changes: list[tuple[int, int]]) -> None:
        changed = bytearray(content)
        for offset, byte in changes:
            changed[offset] = byte
        (tmp_path / "model.gguf").write_bytes(changed)
        with contextlib.suppress(ModelError):
            load(tmp_path / "model.gguf")

    check()


def test_foreign_architecture_is_named_together_with_ours(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_model(build_reference("llama"), path, metadata={"general.architecture": "mamba"})
    with pytest.raises(UnsupportedArchitectureError, match=r"general\.architecture is 'mamba'") as caught:
        load(path)
    assert {"llama", "qwen2", "granite", "qwen3", "gemma", "starcoder2"} <= set(
        str(caught.value).replace(",", " ").split()
    )


@pytest.mark.parametrize(
    "name", ["token_embd.weight", "blk.1.attn_q.weight", "blk.2.ffn_norm.weight", "output_norm.weight"]
)
def test_missing_tensor_is_named(name: str, tmp_path: Path) -> None:
    write_model(build_reference("llama"), tmp_path / "model.gguf", leave_out=(name,))
    with pytest.raises(CheckpointError, match=rf"tensor {name} is missing"):
        load(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"llama.feed_forward_length": 99}, r"implies \[99, 48\]"),
        ({"llama.attention.head_count_kv": 2}, r"implies \[24, 48\]"),
        ({"llama.embedding_length": 50, "llama.rope.dimension_count": 12}, r"implies"),
    ],
)
def test_tensor_of_another_shape_is_named(metadata: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_model(build_reference("llama"), tmp_path / "model.gguf", metadata=metadata)
    with pytest.raises(CheckpointError, match=f"the metadata {message}.*; weights and the metadata must"):
        load(tmp_path / "model.gguf")


def test_link_that_leads_to_itself_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").symlink_to(tmp_path / "model.gguf")
    with pytest.raises(ModelNotFoundError, match=r"model\.gguf' is neither .* but a link that leads nowhere"):
        load(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("metadata", "kind", "message"),
    [
        ({"llama.block_count": None}, CheckpointError, "num_hidden_layers is None"),
        ({"llama.attention.head_count": 3}, CheckpointError, "not a multiple of"),
        ({"llama.attention.head_count": [4, 4, 2]}, UnsupportedArchitectureError, "head_count differs between layers"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, CheckpointError, "rms_norm_eps is nan"),
        ({"llama.context_length": 2**32 - 1}, CheckpointError, "context_length is 4294967295"),
        ({"llama.expert_count": 8}, UnsupportedArchitectureError, "mixture of 8 experts"),
        ({"llama.rope.scaling.type": "longrope"}, UnsupportedArchitectureError, "rope scaling is 'longrope'"),
        ({"llama.rope.dimension_count": 6}, UnsupportedArchitectureError, "partial_rotary_factor"),
        ({"general.alignment": 3}, CheckpointError, "general.alignment is 3"),
    ],
)
def test_metadata_that_cannot_be_right_is_one_clear_error(
    metadata: dict[str, Any], kind: type[ModelError], message: str, tmp_path: Path
) -> None:
    write_model(build_reference("llama"), tmp_path / "model.gguf", metadata=metadata)
    with pytest.raises(kind, match=message):
        load(tmp_path / "model.gguf")


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    model = build_reference("llama")
    model.model.layers[1].mlp.down_proj.weight.data[3, 4] = float("nan")
    write_model(model, tmp_path / "model.gguf")
    with pytest.raises(CheckpointError, match=r"blk\.1\.ffn_down\.weight contains values that are not finite"):
        load(tmp_path / "model.gguf")
    save(model, tmp_path / "folder")
    with pytest.raises(CheckpointError, match=r"not finite"):
        load(tmp_path / "folder")


def test_vocabulary_without_weights_says_so(shared_dir: Path) -> None:
    with pytest.raises(CheckpointError, match="a vocabulary only"):
        load(shared_dir / "data" / "llama-spm" / "ggml-vocab-llama-spm.gguf")


def test_file_without_a_suffix_is_known_by_its_first_bytes(sound: Path, tmp_path: Path) -> None:
    blob = tmp_path / "sha256-0123"
    blob.write_bytes(sound.read_bytes())
    assert load(blob).config == load(sound).config


def test_split_model_loads_by_any_part_and_by_its_folder(sound: Path, tmp_path: Path) -> None:
    parts = split_in_two(sound, tmp_path)
    assert [part.name for part in parts] == ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"]
    whole = load(sound)
    for path in (*parts, tmp_path):
        found = load(path)
        every = torch.arange(whole.config.vocab_size)
        assert found.weights.embedding.rows(every).equal(whole.weights.embedding.rows(every))
        assert len(found.weights.layers) == 3
    parts[1].rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"1 of 2 parts are missing \(model-00002-of-00002\.gguf\)"):
        load(parts[0])


def test_folder_with_several_models_asks_which(sound: Path, tmp_path: Path) -> None:
    for name in ("a.Q4_0.gguf", "a.Q8_0.gguf", "mmproj-a.gguf"):
        (tmp_path / name).write_bytes(sound.read_bytes())
    with pytest.raises(ModelNotFoundError, match=r"2 GGUF models \(a\.Q4_0\.gguf, a\.Q8_0\.gguf\); name one"):
        load(tmp_path)
    (tmp_path / "a.Q8_0.gguf").unlink()
    assert load(tmp_path).config == load(sound).config


def test_safetensors_of_a_folder_come_first(sound: Path, tmp_path: Path) -> None:
    folder = save(build_reference("qwen2_bias"), tmp_path / "model")
    (folder / "other.gguf").write_bytes(sound.read_bytes())
    assert load(folder).config.model_type == "qwen2"


def test_model_deleted_while_it_is_loaded_goes_on(sound: Path, tmp_path: Path) -> None:
    from forelook.decoding.layout import causal_layout

    path = tmp_path / "model.gguf"
    path.write_bytes(sound.read_bytes())
    loaded = load(path)
    before = loaded.new_sequence().forward(causal_layout([5, 6], 0))
    path.write_bytes(b"")
    path.unlink()
    assert loaded.new_sequence().forward(causal_layout([5, 6], 0)).equal(before)


def test_file_that_shrinks_while_it_is_read_is_an_error(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(sound.read_bytes())
    file = read_gguf(path)
    path.write_bytes(sound.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="shrank"):
        file.check_size()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("own/repo:m.gguf", ("own/repo", "m.gguf", 1)),
        ("own/repo:sub/m-00002-of-00003.gguf", ("own/repo", "sub/m-00001-of-00003.gguf", 3)),
        ("own/repo", None),
        ("own/repo:m.bin", None),
        ("own/repo:../m.gguf", None),
        ("C:/models/m.gguf", None),
        ("/models/m.gguf", None),
    ],
)
def test_file_on_the_hub_is_named_behind_a_colon(text: str, expected: tuple[str, str, int] | None) -> None:
    found = gguf_on_hub(text)
    assert (None if found is None else (found.repository, found.name, len(found.part_names))) == expected


def test_folder_without_models_is_none(tmp_path: Path) -> None:
    assert find_gguf(tmp_path) is None
    assert find_gguf(tmp_path / "nothing.gguf") is None
