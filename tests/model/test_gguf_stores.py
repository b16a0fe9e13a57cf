"""GGUF models are found where people have them, and fetched from the hub one file at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from forelook.commands import cli
from forelook.errors import CheckpointError, ModelNotFoundError, UnsupportedArchitectureError
from forelook.model.gguf.stores import Stores, installed_gguf
from forelook.model.hub import Hub, pinned_folder, pull, recorded, split_revision
from forelook.model.installed import InstalledModel
from forelook.model.loading import load_model

from tests.model.checkpoints import build_reference
from tests.model.fake_hub import COMMIT, FakeHub, running
from tests.model.gguf_files import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_model(build_reference("llama"), path, metadata={"general.license": "apache-2.0"})
    return path.read_bytes()


def place(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def add_to_ollama(store: Path, name: str, content: bytes) -> Path:
    digest = hashlib.sha256(content + name.encode()).hexdigest()
    layers = [
        {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:" + "0" * 64},
        {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"},
    ]
    place(store / "manifests" / name, json.dumps({"layers": layers}).encode())
    return place(store / "blobs" / f"sha256-{digest}", content)


def found_in(home: Path, folders: tuple[Path, ...] = (), **pinned: str) -> dict[str, InstalledModel]:
    models = installed_gguf(home / "hub", Stores.of({"HOME": str(home)}), folders, pinned)
    return {each.model: each for each in models}


def test_models_of_every_store_are_found_with_what_their_header_says(model: bytes, tmp_path: Path) -> None:
    cached = place(tmp_path / "hub" / "models--own--repo-GGUF" / "snapshots" / "abc" / "sub" / "m.gguf", model)
    blob = add_to_ollama(tmp_path / ".ollama" / "models", "registry.ollama.ai/library/coder/1.5b", model)
    studio = place(tmp_path / ".lmstudio" / "models" / "publisher" / "repo" / "m.gguf", model)
    mine = place(tmp_path / "mine" / "a" / "b" / "m.gguf", model)
    place(tmp_path / "mine" / "mmproj-m.gguf", model)
    found = found_in(tmp_path, (tmp_path / "mine",))
    assert {each.model: each.source for each in found.values()} == {
        "own/repo-GGUF:sub/m.gguf": "hub cache",
        str(blob): "Ollama, coder:1.5b",
        str(studio): "LM Studio",
        str(mine): "folder",
    }
    for each in found.values():
        assert (each.fault, each.license, each.size_bytes, each.context) == ("", "apache-2.0", len(model), 160)
        assert each.num_parameters
    assert found["own/repo-GGUF:sub/m.gguf"].folder == cached.parent
    assert load_model(str(blob), device="cpu", dtype="float32").config.num_layers == 3


def test_ollamas_folder_is_the_one_of_its_own_variable(model: bytes, tmp_path: Path) -> None:
    blob = add_to_ollama(tmp_path / "elsewhere", "hf.co/own/repo/Q4_K_M", model)
    environ = {"HOME": str(tmp_path), "OLLAMA_MODELS": str(tmp_path / "elsewhere")}
    (each,) = installed_gguf(tmp_path / "hub", Stores.of(environ), (), {})
    assert (each.model, each.source) == (str(blob), "Ollama, hf.co/own/repo:Q4_K_M")


def test_links_in_a_circle_end_and_a_linked_model_comes_once(model: bytes, tmp_path: Path) -> None:
    path = place(tmp_path / "mine" / "m.gguf", model)
    (tmp_path / "mine" / "again").symlink_to(tmp_path / "mine")
    (tmp_path / "mine" / "itself").symlink_to(tmp_path / "mine" / "itself")
    (tmp_path / "mine" / "n.gguf").symlink_to(path)
    (tmp_path / "mine" / "lost.gguf").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".ollama" / "models" / "manifests").mkdir(parents=True)
    (tmp_path / ".ollama" / "models" / "manifests" / "loop").symlink_to(tmp_path / ".ollama" / "models")
    assert list(found_in(tmp_path, (tmp_path / "mine",))) == [str(path)]


MODEL_LAYER = b'{"layers": [{"mediaType": "application/vnd.ollama.image.model"%s}]}'


@pytest.mark.parametrize(
    "manifest",
    [b"", b"{", b"[]", b'{"layers": 3}', MODEL_LAYER % b"", MODEL_LAYER % b', "digest": "sha256:../../x"'],
)
def test_damaged_manifest_is_passed_over(manifest: bytes, tmp_path: Path) -> None:
    place(tmp_path / ".ollama" / "models" / "manifests" / "registry.ollama.ai" / "library" / "m" / "1", manifest)
    assert found_in(tmp_path) == {}


def test_damaged_model_is_listed_with_its_fault(model: bytes, tmp_path: Path) -> None:
    path = place(tmp_path / "mine" / "half.gguf", model[: len(model) // 2])
    assert "still being downloaded" in found_in(tmp_path, (tmp_path / "mine",))[str(path)].fault


def test_model_with_an_unknown_vocabulary_is_not_listed_as_ready(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    path = tmp_path / "mine" / "m.gguf"
    write_model(build_reference("llama"), path, metadata={"tokenizer.ggml.pre": "no-such"})
    assert "pre is 'no-such'" in found_in(tmp_path, (tmp_path / "mine",))[str(path)].fault


def test_the_command_lists_gguf_models(
    model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    path = place(tmp_path / "HOME" / ".lmstudio" / "models" / "p" / "r" / "m.gguf", model)
    assert cli.main(["models", "--device", "cpu"]) == 0
    assert f"{path}  0 M parameters" in capsys.readouterr().out


@pytest.fixture
def fake(model: bytes) -> Iterator[FakeHub]:
    names = ("m.Q4_0.gguf", "m.Q8_0.gguf", "sub/s-00001-of-00002.gguf")
    with running(FakeHub({"README.md": b"# A model\n", **dict.fromkeys(names, model)})) as hub:
        yield hub


@pytest.fixture
def hub(fake: FakeHub, tmp_path: Path) -> Hub:
    (tmp_path / "cache").mkdir()
    return Hub(tmp_path / "cache", tmp_path / "state" / "models.json", endpoint=fake.endpoint)


def quiet(_name: str, _done: int, _size: int) -> None:
    """No progress shown."""


def test_one_file_is_pulled_verified_recorded_and_run(fake: FakeHub, hub: Hub, model: bytes) -> None:
    name = "owner/model:m.Q4_0.gguf"
    fake.cut_at["m.Q4_0.gguf"] = [len(model) // 2]
    pulled = pull(name, None, hub, quiet)
    assert {file.name for file in pulled.files} == {"README.md", "m.Q4_0.gguf"}
    assert {file for file, _ in fake.gets} == {"README.md", "m.Q4_0.gguf"}, "and nothing else was downloaded"
    assert recorded(hub.records_path)[name] == pulled
    folder = pinned_folder(hub.records_path, name, None)
    assert folder is not None
    loaded = load_model(name, folder=folder, device="cpu", dtype="float32")
    assert (loaded.name, loaded.config.num_layers) == (name, 3)
    (each,) = installed_gguf(hub.cache_dir, Stores.of({"HOME": "/nonexistent"}), (), {name: COMMIT})
    assert (each.model, each.is_pinned) == (name, True)


def test_corrupted_file_is_removed_and_pulled_again(fake: FakeHub, hub: Hub, model: bytes) -> None:
    fake.altered["m.Q4_0.gguf"] = model[:-1] + b"\xff"
    with pytest.raises(CheckpointError, match="does not match"):
        pull("owner/model:m.Q4_0.gguf", None, hub, quiet)
    del fake.altered["m.Q4_0.gguf"]
    assert pull("owner/model:m.Q4_0.gguf", None, hub, quiet).commit == COMMIT


def test_wrong_name_lists_the_files_and_a_foreign_architecture_is_not_downloaded(fake: FakeHub, hub: Hub) -> None:
    with pytest.raises(ModelNotFoundError, match=r"has no file x\.gguf; it has m\.Q4_0\.gguf, m\.Q8_0\.gguf"):
        pull("owner/model:x.gguf", None, hub, quiet)
    with pytest.raises(ModelNotFoundError, match=r"has no file sub/s-00002-of-00002\.gguf"):
        pull("owner/model:sub/s-00001-of-00002.gguf", None, hub, quiet)
    fake.architecture = "mamba"
    with pytest.raises(UnsupportedArchitectureError, match="'mamba'"):
        pull("owner/model:m.Q4_0.gguf", None, hub, quiet)
    assert not fake.gets


def test_revision_follows_the_file() -> None:
    assert split_revision("own/repo:sub/m.gguf@v1") == ("own/repo:sub/m.gguf", "v1")
    assert split_revision("own/repo:m.gguf") == ("own/repo:m.gguf", None)
    with pytest.raises(ModelNotFoundError):
        split_revision("own/repo:m.gguf@")
