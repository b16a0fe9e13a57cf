"""Which models are recommended for a machine, and what is said of those that are here."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from forelook.commands import cli
from forelook.model.catalogue import CATALOGUE, Machine, recommend
from forelook.model.gguf.files import gguf_on_hub
from forelook.model.installed import card_license, installed_models
from forelook.model.loading import STARTER_MODEL_PATH
from forelook.model.speed import MachineSpeed

GB = 10**9


def speed(gigabytes_per_s: float, gigaflops_per_s: float) -> MachineSpeed:
    """Of a CPU in bfloat16, with typical costs per layer."""
    return MachineSpeed(
        gigabytes_per_s * 1e9,
        gigaflops_per_s * 1e9,
        2e-4,
        2e-8,
        "cpu",
        "bfloat16",
        2,
        1.0,
        "2026-11-29",
        was_busy=False,
    )


def cpu(gigabytes_per_s: float, gigaflops_per_s: float) -> Machine:
    return Machine("cpu", 64 * GB, 2, 4, speed(gigabytes_per_s, gigaflops_per_s))


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
        "codegemma-2b",
        "starcoder2-3b",
    ):
        assert any(wanted in name for name in names), wanted
    assert [model.num_parameters for model in CATALOGUE] == sorted(model.num_parameters for model in CATALOGUE)
    assert all(model.license and model.context >= 2048 for model in CATALOGUE)


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (Machine("cuda", 80 * GB, 2, 2), "codellama/CodeLlama-13b-hf"),
        (Machine("cuda", 24 * GB, 2, 2), "ibm-granite/granite-8b-code-base-4k"),
        (Machine("cuda", 8 * GB, 2, 2), "Qwen/Qwen2.5-Coder-3B"),
        (Machine("cuda", GB, 2, 2), "smollm2-135m"),
        (Machine("cuda", GB // 10, 2, 2), None),
        (cpu(65, 450), "Qwen/Qwen2.5-Coder-0.5B"),
        (cpu(10, 450), "smollm2-135m"),  # of larger ones every step reads too slowly
        (cpu(65, 45), None),  # the prompt of a new place takes seconds
        (cpu(200, 2000), "Qwen/Qwen2.5-Coder-1.5B"),
        (cpu(2000, 50_000), "Qwen/Qwen2.5-Coder-7B"),
        (Machine("cuda", None, 2, 2), "codellama/CodeLlama-13b-hf"),
    ],
)
def test_the_largest_model_that_fits_and_keeps_up_is_the_one_to_take(machine, name):
    assert best(machine) == name
    assert sum(fit.is_best for fit in recommend(machine)) <= 1


@pytest.mark.parametrize(
    ("model", "num_parameters", "kv_values_per_token"),
    [  # as the published checkpoints have them
        ("Qwen/Qwen2.5-Coder-0.5B", 493_961_216, 6_144),
        ("deepseek-ai/deepseek-coder-1.3b-base", 1_346_371_584, 98_304),
        ("Qwen/Qwen2.5-Coder-1.5B", 1_543_569_408, 14_336),
        ("google/codegemma-2b", 2_506_096_640, 9_216),
        ("bigcode/starcoder2-3b", 3_029_336_064, 15_360),
        ("Qwen/Qwen2.5-Coder-3B", 3_085_697_024, 18_432),
        ("ibm-granite/granite-3b-code-base-2k", 3_481_272_320, 163_840),
        ("codellama/CodeLlama-7b-hf", 6_738_280_448, 262_144),
        ("deepseek-ai/deepseek-coder-6.7b-base", 6_740_246_528, 262_144),
        ("Qwen/Qwen2.5-Coder-7B", 7_615_283_200, 28_672),
        ("ibm-granite/granite-8b-code-base-4k", 8_053_063_680, 73_728),
        ("codellama/CodeLlama-13b-hf", 13_015_613_440, 409_600),
    ],
)
def test_shapes_are_those_of_the_published_models(model, num_parameters, kv_values_per_token):
    (row,) = [row for row in CATALOGUE if row.model == model]
    assert (row.num_parameters, row.config.kv_values_per_token) == (num_parameters, kv_values_per_token)


def test_a_gguf_variant_is_the_same_model_in_half_the_size():
    rows = {row.model: row for row in CATALOGUE}
    variants = [row for row in CATALOGUE if gguf_on_hub(row.model)]
    assert len(variants) == 4
    for variant in variants:
        size = variant.model.split("Coder-")[1].split("-")[0]
        original = rows[f"Qwen/Qwen2.5-Coder-{size}"]
        assert replace(variant.config) == original.config
        assert variant.license == original.license
        assert variant.download_bytes == pytest.approx(original.download_bytes * 8.5 / 16)


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
    copy_of_starter(cache / "models--own--other" / "snapshots" / "1", model_type="mamba")
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
    assert "model_type is 'mamba'" in found["own/other"].fault
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
