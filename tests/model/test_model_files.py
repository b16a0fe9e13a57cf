"""Whether a model's files are still those that were loaded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forelook.model.loading import STARTER_MODEL_PATH, load_model
from forelook.model.model_files import ModelFiles


class Clock:
    """Hours ahead of any file, until a test sets it to a file's time."""

    def __init__(self) -> None:
        self.now_s = time.time() + 3600.0

    def __call__(self) -> float:
        self.now_s += 10.0
        return self.now_s


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("config.json", "tokenizer.json", "model-1.safetensors", "model.safetensors.index.json"):
        (tmp_path / name).write_text(name)
    return tmp_path


def replace_file(path: Path) -> None:
    new = path.with_name("new")
    new.write_text(path.read_text())
    new.replace(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "replaced": replace_file,
    "grown": lambda path: path.write_text(path.read_text() + "x"),
    "touched": lambda path: os.utime(path, (1, 1)),
}


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "model-1.safetensors", "model.safetensors.index.json"]
)
@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_any_file_is_seen(folder: Path, name: str, change: str) -> None:
    files = ModelFiles(folder, Clock())
    assert not files.changed()
    (folder / "README.md").write_text("new")
    assert not files.changed()
    CHANGES[change](folder / name)
    assert files.changed()


def test_a_folder_that_is_gone_is_a_change(folder: Path) -> None:
    files = ModelFiles(folder, Clock())
    folder.rename(folder.with_name("elsewhere"))
    assert files.changed()


def test_what_a_link_leads_to_counts(folder: Path) -> None:
    blob, other = folder / "blob", folder / "other"
    blob.write_text("a")
    other.write_text("a")
    link = folder / "model-2.safetensors"
    link.symlink_to(blob)
    files = ModelFiles(folder, Clock())
    link.unlink()
    link.symlink_to(other)
    assert files.changed()
    link.unlink()
    link.symlink_to(link)  # a loop
    assert not files.changed(), "nothing is known of what cannot be looked at"


def test_a_file_that_is_being_written_is_waited_for(folder: Path) -> None:
    clock = Clock()
    files = ModelFiles(folder, clock)
    path = folder / "model-1.safetensors"
    path.write_text("half")
    written_s = path.stat().st_mtime
    clock.now_s = written_s - 9.0
    assert not files.changed(), "a second ago"
    assert files.changed(), "eleven seconds ago"


def test_files_are_looked_at_once_per_second(folder: Path) -> None:
    now_s = time.time() + 3600.0
    files = ModelFiles(folder, lambda: now_s)
    assert not files.changed()
    (folder / "config.json").unlink()
    assert not files.changed()
    now_s += 1.0
    assert files.changed()


def test_an_awaited_file_counts_at_once(folder: Path) -> None:
    files = ModelFiles(folder, lambda: 1e9)
    files.awaited = folder / "base.gguf"
    assert not files.changed()
    files.awaited.touch()
    assert files.changed(), "less than a second after the last look"


def test_a_loaded_model_knows_its_files() -> None:
    model = load_model(None, device="cpu", dtype="float32")
    assert {path.name for path in model.files.paths} == {"config.json", "tokenizer.json", "model.safetensors"}
    assert {path.parent for path in model.files.paths} == {STARTER_MODEL_PATH}
    assert not model.files.changed()
