"""Which models are recommended for a machine, and what is said of those that are here."""

from __future__ import annotations

import json
import shutil

import pytest
from forelook.commands import cli
from forelook.model.catalogue import Machine, card_license, installed_models, recommend
from forelook.model.families import CATALOGUE
from forelook.model.loading import STARTER_MODEL_PATH

GB = 10**9


def best(machine: Machine) -> str | None:
    return next((fit.model.model for fit in recommend(machine) if fit.is_best), None)


def test_the_catalogue_names_models_the_forward_runs_and_nothing_else():
    names = [model.model for model in CATALOGUE]
    assert len(set(names)) == len(names)
    for wanted in (
        "CodeLlama-7b",
        "CodeLlama-13b",
        "Coder-0.5B",
        "Coder-7B",
        "1.3b-base",
        "6.7b-base",
        "3b-code",
        "8b-code",
    ):
        assert any(wanted in name for name in names), wanted
    assert not any("starcoder" in name.lower() for name in names), "its layers are not the Llama family's"
    assert [model.num_parameters for model in CATALOGUE] == sorted(model.num_parameters for model in CATALOGUE)
    assert all(model.license and model.context >= 2048 for model in CATALOGUE)


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (Machine("cuda", 80 * GB, 2, 2), "codellama/CodeLlama-13b-hf"),
        (Machine("cuda", 24 * GB, 2, 2), "ibm-granite/granite-8b-code-base-4k"),
        (Machine("cuda", 8 * GB, 2, 2), "Qwen/Qwen2.5-Coder-3B"),
        (Machine("cuda", GB, 2, 2), None),
        (Machine("cpu", 64 * GB, 2, 4), "Qwen/Qwen2.5-Coder-0.5B"),
        (Machine("cpu", 64 * GB, 4, 4), None),  # in float32 even the smallest is slower than a typist
        (Machine("cuda", None, 2, 2), "codellama/CodeLlama-13b-hf"),
    ],
)
def test_the_largest_model_that_fits_and_keeps_up_is_the_one_to_take(machine, name):
    assert best(machine) == name


def test_the_cache_of_a_prompt_counts_as_memory():
    (fit,) = [fit for fit in recommend(Machine("cuda", 14 * GB, 2, 2)) if "CodeLlama-7b" in fit.model.model]
    assert fit.needed_bytes > 1.05 * fit.model.download_bytes
    assert not fit.fits
    (fit,) = [fit for fit in recommend(Machine("cuda", 18 * GB, 2, 2)) if "CodeLlama-7b" in fit.model.model]
    assert fit.fits


def copy_of_starter(folder, **changes):
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "model.safetensors"):
        shutil.copy(STARTER_MODEL_PATH / name, folder)
    config = json.loads((STARTER_MODEL_PATH / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_installed_models_are_found_in_package_cache_and_folders_with_their_faults(tmp_path):
    cache, folders = tmp_path / "cache", tmp_path / "folders"
    whole = copy_of_starter(cache / "models--own--whole" / "snapshots" / "abc")
    copy_of_starter(cache / "models--own--bert" / "snapshots" / "1", architectures=["BertModel"])
    copy_of_starter(cache / "models--own--other" / "snapshots" / "1", model_type="starcoder2")
    (copy_of_starter(cache / "models--own--half" / "snapshots" / "1") / "model.safetensors").unlink()
    copy_of_starter(folders / "mine")
    (copy_of_starter(folders / "broken") / "config.json").write_text("{")
    found = {m.model: m for m in installed_models(STARTER_MODEL_PATH, cache, [folders], {"own/whole": "abc"})}
    assert set(found) == {
        "starter-model", "own/whole", "own/other", "own/half", str(folders / "mine"), str(folders / "broken"),
    }  # fmt: skip
    assert found["own/whole"].folder == whole
    assert (found["own/whole"].is_pinned, found["own/whole"].fault) == (True, "")
    assert found["own/whole"].num_parameters == found["starter-model"].num_parameters > 1_000_000
    assert "model_type is 'starcoder2'" in found["own/other"].fault
    assert "1 of 1 weight files are missing" in found["own/half"].fault
    assert found[str(folders / "mine")].fault == ""
    assert "cannot be read" in found[str(folders / "broken")].fault


@pytest.mark.parametrize(
    ("card", "name"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\ntags:\n- code\nlicense: other\nlicense_name: 'deepseek'\n---\ntext", "deepseek"),
        ("# no header\nlicense: mit\n", ""),
        ("---\nlicense: mit", ""),
    ],
)
def test_a_license_is_read_from_a_cards_header(tmp_path, card, name):
    (tmp_path / "README.md").write_text(card)
    assert card_license(tmp_path) == name


def test_the_command_prints_what_is_here_and_what_suits(tmp_path, monkeypatch, capsys):
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "xdg"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    copy_of_starter(tmp_path / "mine")
    assert cli.main(["models", "--device", "cpu", "--all", "--folder", str(tmp_path / "mine")]) == 0
    printed = capsys.readouterr().out
    for said in (
        "starter-model",
        str(tmp_path / "mine"),
        "codellama/CodeLlama-13b-hf",
        "26.03 GB",
        "Apache-2.0",
        "forelook pull",
    ):
        assert said in printed, said
    with pytest.raises(SystemExit) as ended:
        cli.main(["models", "--device", "tpu"])
    assert ended.value.code == cli.EXIT_USAGE


def test_the_json_lists_the_whole_catalogue_with_what_the_extension_shows(tmp_path, monkeypatch, capsys):
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "xdg"))
    assert cli.main(["models", "--device=cpu", "--all", "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    assert [fit["model"]["model"] for fit in listing["recommended"]] == [known.model for known in CATALOGUE]
    for fit in listing["recommended"]:
        assert {"needed_bytes", "fits", "is_slow", "is_best"} <= fit.keys()
        assert {"license", "download_bytes"} <= fit["model"].keys()
    assert {"model", "fault"} <= listing["installed"][0].keys()
