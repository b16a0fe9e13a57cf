"""The user's folders, and what tells one backend from another."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from forelook.local.identity import MAX_SOCKET_PATH_BYTES, BackendFiles, BackendIdentity, UserPaths

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes and Unix sockets")


def test_folders_follow_the_xdg_variables() -> None:
    environ = {"XDG_RUNTIME_DIR": "/run/user/7", "XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "/c"}
    found = UserPaths.from_environment(environ, Path("/home/ada"), 7)
    assert (found.runtime_dir, found.state_dir, found.cache_dir) == (
        Path("/run/user/7/forelook"), Path("/s/forelook"), Path("/c/forelook"),
    )  # fmt: skip


@pytest.mark.parametrize("value", [None, "", "relative/folder"])
def test_folders_without_usable_variables_are_in_the_home(value: str | None) -> None:
    names = ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME")
    environ = {} if value is None else dict.fromkeys(names, value)
    found = UserPaths.from_environment(environ, Path("/home/ada"), 7)
    assert found.runtime_dir == Path("/home/ada/.local/state/forelook/run")
    assert found.state_dir == Path("/home/ada/.local/state/forelook")
    assert found.cache_dir == Path("/home/ada/.cache/forelook")
    assert found.short_dir == Path("/tmp/forelook-7")


def test_each_part_of_the_identity_has_its_own_backend() -> None:
    identities = [
        BackendIdentity(),
        BackendIdentity("m"),
        BackendIdentity("m", "r"),
        BackendIdentity("mr"),
        BackendIdentity(device="cpu"),
        BackendIdentity(dtype="float32"),
        BackendIdentity(adapter="float32"),
    ]
    assert len({identity.key for identity in identities}) == len(identities)
    assert BackendIdentity("m").key == BackendIdentity("m").key


def test_a_model_folder_is_the_same_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    by_relative = BackendIdentity("model").normalized()
    assert by_relative == BackendIdentity(str(tmp_path / "model")).normalized()
    assert BackendIdentity("owner/name").normalized().model == "owner/name"
    assert BackendIdentity(adapter="model").normalized().adapter == str(tmp_path / "model")
    (tmp_path / "model" / "m.gguf").symlink_to(tmp_path / "blob")
    (tmp_path / "blob").write_bytes(b"GGUF")
    by_relative = BackendIdentity("model/m.gguf").normalized()
    assert by_relative.model == str(tmp_path / "model" / "m.gguf"), "not the blob, whose name says nothing"


def test_a_path_too_long_for_a_socket_moves_to_the_short_folder(tmp_path: Path) -> None:
    long_dir = tmp_path / ("x" * 120)
    short_dir = tmp_path / "s"
    files = BackendFiles.of(BackendIdentity(), UserPaths(long_dir, tmp_path, tmp_path, short_dir))
    assert {files.socket.parent, files.lock.parent, files.record.parent} == {short_dir}
    assert stat.S_IMODE(short_dir.stat().st_mode) == 0o700
    assert not long_dir.exists()


def test_the_longest_path_that_fits_is_bound(tmp_path: Path) -> None:
    import socket

    base = Path("/tmp") / f"fl{os.getpid()}"
    room = MAX_SOCKET_PATH_BYTES - len(str(base)) - len("/") - len(f"/{BackendIdentity().key}.sock")
    folder = base / ("y" * room)
    try:
        files = BackendFiles.of(BackendIdentity(), UserPaths(folder, tmp_path, tmp_path, tmp_path / "s"))
        assert files.socket.parent == folder
        assert len(str(files.socket)) == MAX_SOCKET_PATH_BYTES
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(files.socket))
        files.socket.unlink()
    finally:
        folder.rmdir()
        base.rmdir()
