"""Pulling models: progress, resume, hashes, pinned commits, offline, and what is said when something is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from forelook.commands import cli
from forelook.errors import CheckpointError, InsufficientDiskError, ModelNotFoundError, UnsupportedArchitectureError
from forelook.model.hub import Hub, hub_from, pinned_folder, pull, recorded, split_revision
from forelook.model.loading import STARTER_MODEL_PATH, load_model

from tests.model.fake_hub import COMMIT, FakeHub, running

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def starter_files() -> dict[str, bytes]:
    names = ("config.json", "tokenizer.json", WEIGHTS)
    files = {name: (STARTER_MODEL_PATH / name).read_bytes() for name in names}
    return {
        **files,
        "README.md": b"---\nlicense: apache-2.0\n---\n# A model\n",
        "pytorch_model.bin": b"pickled",
        "original/consolidated.safetensors": b"another copy",
        "consolidated.00.safetensors": b"another copy",
    }


@pytest.fixture
def fake(starter_files: dict[str, bytes]) -> Iterator[FakeHub]:
    with running(FakeHub(starter_files)) as hub:
        yield hub


@pytest.fixture
def hub(fake: FakeHub, tmp_path: Path) -> Hub:
    return Hub(tmp_path / "cache", tmp_path / "state" / "models.json", endpoint=fake.endpoint)


def quiet(_name: str, _done: int, _size: int) -> None:
    """No progress shown."""


def test_a_pulled_model_loads_and_its_commit_is_recorded(fake, hub, tmp_path):
    seen: dict[str, list[int]] = {}
    pulled = pull("owner/model", None, hub, lambda name, done, _size: seen.setdefault(name, []).append(done))
    assert {file.name for file in pulled.files} == {"config.json", "tokenizer.json", WEIGHTS, "README.md"}
    assert {name for name, _ in fake.gets} == {file.name for file in pulled.files}, "and nothing else was downloaded"
    assert pulled.commit == COMMIT
    for file in pulled.files:
        assert seen[file.name] == sorted(seen[file.name])
        assert seen[file.name][-1] == file.size
    assert recorded(hub.records_path)["owner/model"] == pulled
    folder = pinned_folder(hub.records_path, "owner/model", None)
    assert folder == pulled.folder
    num_requests = fake.num_requests
    loaded = load_model("owner/model", folder=folder, device="cpu", dtype="float32")
    assert loaded.name == "owner/model"
    assert fake.num_requests == num_requests, "a pinned model asks no hub"


def test_a_second_pull_downloads_nothing_and_a_moved_branch_moves_the_pin(fake, hub):
    pull("owner/model", None, hub, quiet)
    num_gets = len(fake.gets)
    pull("owner/model", None, hub, quiet)
    assert len(fake.gets) == num_gets
    fake.commit = COMMIT[::-1]
    assert pull("owner/model", "main", hub, quiet).commit == COMMIT[::-1]
    assert pinned_folder(hub.records_path, "owner/model", COMMIT) is None
    assert pinned_folder(hub.records_path, "owner/model", COMMIT[::-1]).name == COMMIT[::-1]


def large_model(fake: FakeHub, size: int = 24_000_000) -> None:
    fake.files[WEIGHTS] = bytes(range(250)) * (size // 250)


def test_a_connection_cut_on_the_way_is_resumed_where_it_stopped(fake, hub):
    large_model(fake)
    fake.cut_at[WEIGHTS] = [15_000_000]
    pulled = pull("owner/model", None, hub, quiet)
    assert (pulled.folder / WEIGHTS).read_bytes() == fake.files[WEIGHTS]
    first, second = [wanted for name, wanted in fake.gets if name == WEIGHTS]
    assert first is None
    assert int(second.removeprefix("bytes=").rstrip("-")) >= 10_000_000


def test_a_pull_that_was_interrupted_goes_on_where_it_stopped(fake, hub):
    large_model(fake)

    def interrupt(name: str, done: int, size: int) -> None:
        if name == WEIGHTS and size > done >= 20_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("owner/model", None, hub, interrupt)
    assert recorded(hub.records_path) == {}, "half a model is not recorded"
    fake.gets.clear()
    pulled = pull("owner/model", None, hub, quiet)
    (wanted,) = [wanted for name, wanted in fake.gets if name == WEIGHTS]
    assert wanted is not None
    assert int(wanted.removeprefix("bytes=").rstrip("-")) >= 10_000_000
    assert (pulled.folder / WEIGHTS).read_bytes() == fake.files[WEIGHTS]
    assert [name for name, _ in fake.gets] == [WEIGHTS], "the small files were here already"


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_a_corrupted_file_is_refused_and_removed(fake, hub, name):
    good = fake.files[name]
    fake.altered[name] = good[:100] + bytes([good[100] ^ 1]) + good[101:]
    with pytest.raises(CheckpointError, match=f"{name} does not match the hub"):
        pull("owner/model", None, hub, quiet)
    assert not list(hub.cache_dir.glob(f"models--owner--model/snapshots/*/{name}"))
    assert recorded(hub.records_path) == {}
    del fake.altered[name]
    pulled = pull("owner/model", None, hub, quiet)
    assert (pulled.folder / name).read_bytes() == good


def test_a_file_damaged_on_disk_later_is_found_and_fetched_again(fake, hub):
    pulled = pull("owner/model", None, hub, quiet)
    blob = (pulled.folder / WEIGHTS).resolve()
    content = bytearray(blob.read_bytes())
    content[1000] ^= 1
    blob.write_bytes(content)
    offline = Hub(hub.cache_dir, hub.records_path, is_offline=True)
    with pytest.raises(CheckpointError, match="corrupted in transit or on disk"):
        pull("owner/model", None, offline, quiet)
    assert pinned_folder(hub.records_path, "owner/model", None) is None
    pull("owner/model", None, hub, quiet)
    assert (pulled.folder / WEIGHTS).read_bytes() == fake.files[WEIGHTS]


def test_offline_verifies_local_files_without_a_request(fake, hub):
    offline = Hub(hub.cache_dir, hub.records_path, endpoint=fake.endpoint, is_offline=True)
    with pytest.raises(ModelNotFoundError, match="never pulled on this machine, and offline"):
        pull("owner/model", None, offline, quiet)
    assert fake.num_requests == 0
    pulled = pull("owner/model", "v1", hub, quiet)
    num_requests = fake.num_requests
    assert pull("owner/model", "v1", offline, quiet) == pulled
    assert pull("owner/model", COMMIT, offline, quiet) == pulled
    assert fake.num_requests == num_requests


def test_without_a_network_the_way_out_is_named(tmp_path):
    hub = Hub(tmp_path, tmp_path / "models.json", endpoint="http://127.0.0.1:9")
    with pytest.raises(ModelNotFoundError) as caught:
        pull("owner/model", None, hub, quiet)
    for said in ("http://127.0.0.1:9 is unreachable", "connect and pull again", "HF_ENDPOINT", "--model"):
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("model", "revision", "said"),
    [
        ("owner/nothing", None, "is not on the hub; check the name"),
        ("owner/gated", None, "is gated; accept its license"),
        ("owner/model", "v9", "the model exists, but not this revision"),
    ],
)
def test_what_the_hub_refuses_is_explained(hub, model, revision, said):
    with pytest.raises(ModelNotFoundError, match=said):
        pull(model, revision, hub, quiet)


def test_pickled_weights_and_foreign_architectures_are_refused_before_anything_large_comes(fake, hub):
    weights = fake.files.pop(WEIGHTS)
    del fake.files["consolidated.00.safetensors"]
    with pytest.raises(CheckpointError, match=r"no safetensors at its top level \(.*pytorch_model.bin.*run code"):
        pull("owner/model", None, hub, quiet)
    fake.files[WEIGHTS] = weights
    fake.files["config.json"] = json.dumps({"model_type": "gpt_bigcode"}).encode()
    with pytest.raises(UnsupportedArchitectureError, match="model_type is 'gpt_bigcode'"):
        pull("owner/model", None, hub, quiet)
    assert {name for name, _ in fake.gets} <= {"config.json"}
    del fake.files["config.json"]
    with pytest.raises(UnsupportedArchitectureError, match=r"no config\.json"):
        pull("owner/model", None, hub, quiet)


def test_a_full_disk_is_named_before_the_download(fake, hub, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 1000})())
    with pytest.raises(InsufficientDiskError, match=r"needs .* GB more and 0\.0 GB are free .*HF_HUB_CACHE"):
        pull("owner/model", None, hub, quiet)
    assert WEIGHTS not in {name for name, _ in fake.gets}


@pytest.mark.parametrize("text", ["", "model", "a/b/c", "owner/", "/model", "owner/model@", "@v1"])
def test_a_name_that_is_no_hub_id_is_refused(text):
    with pytest.raises(ModelNotFoundError, match="is not a hub id"):
        split_revision(text)


def test_a_revision_is_split_off():
    assert split_revision("owner/model@v1.0") == ("owner/model", "v1.0")
    assert split_revision("owner/model") == ("owner/model", None)


def test_the_hub_is_described_by_its_own_variables(tmp_path):
    assert hub_from({"HF_HOME": "/h"}, tmp_path).cache_dir == Path("/h/hub")
    assert hub_from({"XDG_CACHE_HOME": "/c"}, tmp_path).cache_dir == Path("/c/huggingface/hub")
    named = hub_from({"HF_HUB_CACHE": "/x", "HF_ENDPOINT": "http://m", "HF_HUB_OFFLINE": "1"}, tmp_path)
    assert (named.cache_dir, named.endpoint, named.is_offline) == (Path("/x"), "http://m", True)
    assert not hub_from({"HF_HUB_OFFLINE": "0"}, tmp_path).is_offline
    assert hub_from({}, tmp_path, is_offline=True).is_offline


def test_the_command_pulls_lists_and_explains(fake, tmp_path, monkeypatch, capsys):
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "xdg"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", fake.endpoint)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert cli.main(["pull", "owner/model@v1"]) == 0
    captured = capsys.readouterr()
    assert f"owner/model at {COMMIT}: 4 files" in captured.out
    assert f"{WEIGHTS}: " in captured.err
    assert cli.main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["installed"]
    found = {model["model"]: model for model in listed}
    assert found["starter-model"]["fault"] == ""
    assert (found["owner/model"]["is_pinned"], found["owner/model"]["license"]) == (True, "apache-2.0")
    assert cli.main(["pull", "owner/nothing"]) == cli.EXIT_MODEL
    assert "is not on the hub" in capsys.readouterr().err
    assert cli.main(["pull", "owner/model", "--offline"]) == cli.EXIT_MODEL
    assert cli.main(["pull", "owner/model@v1", "--offline", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["commit"] == COMMIT
