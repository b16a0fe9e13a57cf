"""Backends, as real processes, whose model cannot be loaded or changes on disk: none stays in anybody's way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from forelook.local.endpoint import discover, running_backends
from forelook.local.files import file_lock
from forelook.local.identity import BackendFiles, BackendIdentity
from forelook.model.loading import STARTER_MODEL_PATH
from safetensors.torch import load_file, save_file

from tests.local.test_spawn import SOURCE, Home, home

__all__ = ["home"]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals and Unix sockets")]


@pytest.fixture
def model(home: Home) -> Iterator[Path]:
    """Where a model may be."""
    (home.folder / "a.py").write_text(SOURCE)
    yield home.folder / "model"
    for endpoint in running_backends(home.paths):
        assert endpoint.pid is not None
        os.kill(endpoint.pid, signal.SIGTERM)


def complete(home: Home, model: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return home.forelook("complete", str(home.folder / "a.py"), "--at", "3:12", "--model", str(model), *more)


def wait_until_gone(home: Home, model: Path) -> None:
    with file_lock(BackendFiles.of(BackendIdentity(str(model)), home.paths).lock, 60.0, "the backend did not end"):
        pass


def backend(home: Home, model: Path) -> int:
    endpoint = discover(BackendIdentity(str(model)), home.paths)
    assert endpoint is not None
    assert endpoint.pid is not None
    return endpoint.pid


def settle() -> None:
    time.sleep(2.2)  # until files count as written


def test_a_model_that_is_not_there_ends_its_backend_and_is_found_once_it_is_there(home: Home, model: Path) -> None:
    done = complete(home, model)
    assert done.returncode == 4, done.stderr
    assert done.stderr.count(str(model)) == 1
    assert "Traceback" not in done.stderr
    shutil.copytree(STARTER_MODEL_PATH, model)  # at once: the old backend may still be exiting
    done = complete(home, model)
    assert done.returncode == 0, done.stderr
    log = home.paths.log_path.read_text()
    assert log.count("model error:") == 1
    assert "exiting: the model cannot be loaded" in log
    assert "Traceback" not in log


def test_serve_with_other_options_takes_the_place_of_a_backend_that_failed(home: Home, model: Path) -> None:
    shutil.copytree(STARTER_MODEL_PATH, model)
    path = model / "tokenizer.json"
    path.write_text(path.read_text().replace("<SUF>", "<WHAT>"))
    done = complete(home, model)
    assert done.returncode == 4, done.stderr
    assert "--left-to-right" in done.stderr
    serve = [sys.executable, "-m", "forelook", "serve", "--left-to-right", "--announce", "--model", str(model)]
    with subprocess.Popen(serve, env=home.environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "listening" in process.stdout.readline()
        done = complete(home, model)
        assert done.returncode == 0, done.stderr
        assert backend(home, model) == process.pid
        process.terminate()


def test_serve_ends_with_the_status_of_a_model_error(home: Home, model: Path) -> None:
    done = home.forelook("serve", "--model", str(model))
    assert done.returncode == 4
    assert done.stderr.count(f"{model}") == 1, "told once"


def test_a_model_that_is_replaced_is_loaded_by_the_next_request(home: Home, model: Path) -> None:
    shutil.copytree(STARTER_MODEL_PATH, model)
    assert complete(home, model).returncode == 0
    first = backend(home, model)
    weights = load_file(model / "model.safetensors")
    save_file(weights, model / "new", metadata={"format": "pt"})
    (model / "new").replace(model / "model.safetensors")
    settle()
    done = complete(home, model)
    assert done.returncode == 0, done.stderr
    assert backend(home, model) != first
    assert "the files of" in home.paths.log_path.read_text()


def test_a_model_that_is_deleted_while_it_is_loaded_is_a_clear_error(home: Home, model: Path) -> None:
    shutil.copytree(STARTER_MODEL_PATH, model)
    assert complete(home, model).returncode == 0
    shutil.rmtree(model)
    time.sleep(1.1)  # files are looked at once per second
    done = complete(home, model)
    assert done.returncode == 4, done.stderr
    assert str(model) in done.stderr
    assert "Traceback" not in done.stderr
    wait_until_gone(home, model)


def with_nan(model: Path) -> None:
    path = model / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, path, metadata={"format": "pt"})


def half_downloaded(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def loop(model: Path) -> None:
    shutil.rmtree(model)
    model.symlink_to(model)


def loop_of_weights(model: Path) -> None:
    path = model / "model.safetensors"
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (with_nan, "not finite"),
        (half_downloaded, "still being downloaded"),
        (loop, "neither a folder nor a hub id"),
        (loop_of_weights, "no model.safetensors"),
    ],
)
def test_bad_files_are_one_clear_line(home: Home, model: Path, damage: object, said: str) -> None:
    shutil.copytree(STARTER_MODEL_PATH, model)
    damage(model)  # type: ignore[operator]
    done = complete(home, model)
    assert done.returncode == 4, done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in home.paths.log_path.read_text()
