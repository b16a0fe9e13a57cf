"""Which files are loaded where no model is chosen, and for models that came from packages."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from forelook.confidence import Confidence
from forelook.decoding.drafting.draft import ID_BITS
from forelook.errors import ModelNotFoundError
from forelook.languages import ROWS
from forelook.local.identity import BackendIdentity, UserPaths
from forelook.model import catalogue, default_model
from forelook.model.adapter import read_adapter
from forelook.model.confidence import ALL, ConfidenceTable, read_confidence, write_confidence
from forelook.model.default_model import DEFAULT_ADAPTER_PATH, choose_files, load_user_model
from forelook.model.infill_templates import InfillOrder
from forelook.model.loading import STARTER_MODEL_NAME
from forelook.model.pair_file import FILE_NAME as PAIRS_NAME
from forelook.model.pair_file import pairs_path, read_pairs

from tests.model.adapters import make_adapter
from tests.model.checkpoints import build_reference, write_byte_tokenizer
from tests.model.gguf_files import write_model
from tests.model.test_control_tokens import CONTROL, OWN


@pytest.fixture
def paths(tmp_path: Path) -> UserPaths:
    return UserPaths(tmp_path / "run", tmp_path / "state", tmp_path / "cache", tmp_path / "s")


@pytest.fixture
def own_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny default model: its adapter is in the package, and its base is :func:`pull`'s to bring."""
    (tmp_path / "made").mkdir()
    write_byte_tokenizer(tmp_path / "made", 320, (*CONTROL, "ab"))
    text = (tmp_path / "made/tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "made/tokenizer.json").write_text(text.replace('"merges": []', '"merges": ["a b"]'))
    model = build_reference("tied_head")
    model = write_model(model, tmp_path / "made/base.gguf", tokenizer=tmp_path / "made/tokenizer.json", pre="smollm")
    folder = tmp_path / "package"
    make_adapter(model, folder, config={"forelook": OWN})
    monkeypatch.setattr(default_model, "DEFAULT_ADAPTER_PATH", folder)
    (row,) = [row for row in catalogue.CATALOGUE if row.source is not None]
    assert row.source is not None
    source = replace(row.source, member_bytes=(tmp_path / "made/base.gguf").stat().st_size)
    rows = tuple(replace(each, source=source) if each is row else each for each in catalogue.CATALOGUE)
    monkeypatch.setattr(catalogue, "CATALOGUE", rows)
    return folder


def pull(paths: UserPaths, tmp_path: Path) -> Path:
    """Bring the base into the user's folder."""
    paths.models_dir.mkdir(parents=True)
    path = paths.models_dir / "SmolLM2-135M-Instruct.Q4_1.gguf"
    (tmp_path / "made/base.gguf").rename(path)
    return path


def test_without_the_base_the_bundled_model_answers_and_offers_it(own_adapter: Path, paths: UserPaths) -> None:
    chosen = choose_files(None, None, None, paths)
    assert (chosen.model, chosen.path, chosen.adapter) == (None, None, None)
    assert chosen.offer == (
        "the small bundled model answers; `forelook pull smollm2-135m` gets a better one, 93 MB, Apache-2.0"
    )
    loaded = load_user_model(BackendIdentity(device="cpu", dtype="float32"), paths)
    assert loaded.name == STARTER_MODEL_NAME
    assert loaded.status_line == chosen.offer


def test_with_the_base_the_default_model_infills(own_adapter: Path, paths: UserPaths, tmp_path: Path) -> None:
    path = pull(paths, tmp_path)
    chosen = choose_files(None, None, None, paths)
    assert (chosen.model, chosen.path, chosen.adapter, chosen.offer) == ("smollm2-135m", path, own_adapter, "")
    loaded = load_user_model(BackendIdentity(device="cpu", dtype="float32"), paths)
    assert (loaded.name, loaded.infill.order, loaded.status_line) == (
        "smollm2-135m", InfillOrder.SUFFIX_FIRST, "",
    )  # fmt: skip


@pytest.mark.usefixtures("own_adapter")
def test_the_bases_arrival_and_its_loss_are_noticed(paths: UserPaths, tmp_path: Path) -> None:
    bundled = load_user_model(BackendIdentity(device="cpu", dtype="float32"), paths)
    assert not bundled.files.changed()
    path = pull(paths, tmp_path)
    bundled.files._checked_s = float("-inf")  # a look per second
    assert bundled.files.changed(), "the next backend loads it"
    default = load_user_model(BackendIdentity(device="cpu", dtype="float32"), paths)
    path.unlink()
    assert default.files.changed()


@pytest.mark.usefixtures("own_adapter")
def test_the_bundled_model_can_be_chosen_by_its_name(paths: UserPaths, tmp_path: Path) -> None:
    pull(paths, tmp_path)
    chosen = choose_files(STARTER_MODEL_NAME, None, None, paths)
    assert (chosen.model, chosen.path, chosen.offer, chosen.awaited) == (None, None, "", None)
    loaded = load_user_model(BackendIdentity(STARTER_MODEL_NAME, device="cpu", dtype="float32"), paths)
    assert (loaded.name, loaded.status_line) == (STARTER_MODEL_NAME, "")


@pytest.mark.usefixtures("own_adapter")
def test_a_teams_adapter_replaces_our_own(paths: UserPaths, tmp_path: Path) -> None:
    for model in (None, "smollm2-135m"):
        with pytest.raises(ModelNotFoundError, match=r"smollm2-135m is not on this machine; run `forelook pull"):
            choose_files(model, None, str(tmp_path / "team"), paths)
    pull(paths, tmp_path)
    for model in (None, "smollm2-135m"):
        assert choose_files(model, None, str(tmp_path / "team"), paths).adapter == tmp_path / "team"
    assert choose_files("/a/folder", None, str(tmp_path / "team"), paths).adapter == tmp_path / "team"
    assert choose_files("/a/folder", None, None, paths).adapter is None


def test_thresholds_are_those_measured_with_the_adapter(own_adapter: Path, paths: UserPaths, tmp_path: Path) -> None:
    of_base = {Confidence.DEFAULT: {ALL: 0.1}, Confidence.STRICT: {ALL: 0.2}}
    of_adapter = {Confidence.DEFAULT: {ALL: 0.3, "go": 0.4}, Confidence.STRICT: {ALL: 0.5}}
    write_confidence(pull(paths, tmp_path), of_base, {})
    write_confidence(own_adapter, of_adapter, {})
    loaded = load_user_model(BackendIdentity(device="cpu", dtype="float32"), paths)
    assert loaded.confidence == ConfidenceTable(of_adapter, is_measured=True)
    shutil.copytree(own_adapter, tmp_path / "team", ignore=shutil.ignore_patterns("confidence.json"))
    team = BackendIdentity(adapter=str(tmp_path / "team"), device="cpu", dtype="float32")
    assert not load_user_model(team, paths).confidence.is_measured, "the base's table says nothing about the sum"


def test_a_package_without_an_adapter_has_no_default_model(paths: UserPaths, tmp_path: Path, own_adapter: Path) -> None:
    (own_adapter / "adapter_model.safetensors").unlink()
    assert choose_files(None, None, None, paths).offer == ""
    path = pull(paths, tmp_path)
    assert choose_files(None, None, None, paths).model is None
    chosen = choose_files("smollm2-135m", None, None, paths)
    assert (chosen.path, chosen.adapter) == (path, None), "the base alone, left to right"


def test_the_shipped_adapter_fits_the_catalogued_base_and_is_small() -> None:
    (row,) = [row for row in catalogue.CATALOGUE if row.source is not None]
    adapter = read_adapter(DEFAULT_ADAPTER_PATH)
    adapter.check_shapes(row.config)
    assert adapter.config.infill == "forelook"
    assert {"<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<EOT>"} <= adapter.config.tokens.keys()
    assert len(adapter.config.base_sample) == 128, "another model of these shapes is refused"
    sizes = {path.name: path.stat().st_size for path in DEFAULT_ADAPTER_PATH.iterdir()}
    assert sizes.pop(PAIRS_NAME) < 3_000_000
    assert sum(sizes.values()) < 24_000_000


def test_the_shipped_pairs_are_of_the_bases_vocabulary() -> None:
    (row,) = [row for row in catalogue.CATALOGUE if row.source is not None]
    path = pairs_path(DEFAULT_ADAPTER_PATH)
    assert path is not None
    table = read_pairs(path, row.config.vocab_size)
    assert table is not None
    assert len(table) == 200_000
    assert table.pairs.max() >> ID_BITS < row.config.vocab_size
    assert all(0 < probability <= 1 for pair in table.pairs[::1000].tolist() for _, probability in table.of(pair))


def test_the_shipped_adapter_has_thresholds_of_its_own() -> None:
    table = read_confidence(DEFAULT_ADAPTER_PATH)
    assert table.is_measured
    for level, values in table.least.items():
        assert values.keys() <= {language.name for language in ROWS} | {ALL}, level
    for name, value in table.least[Confidence.DEFAULT].items():
        assert value <= table.least[Confidence.STRICT].get(name, 1.0)


def test_the_papers_of_the_base_come_along(repository: Path) -> None:
    assert "Apache License" in (DEFAULT_ADAPTER_PATH / "LICENSE").read_text(encoding="utf-8")
    assert "SmolLM2-135M-Instruct" in (repository / "NOTICE").read_text(encoding="utf-8")
    assert 'license-files = ["LICENSE", "NOTICE",' in (repository / "pyproject.toml").read_text(encoding="utf-8")
