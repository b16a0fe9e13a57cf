"""Folders only the user can enter, files of one backend, locks that outlive nobody, and who is found where."""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from forelook.errors import AuthenticationError, BackendUnreachableError, EndpointError
from forelook.local.endpoint import Endpoint, claim, discover, publish, running_backends
from forelook.local.files import is_locked
from forelook.local.identity import MAX_SOCKET_PATH_BYTES, BackendFiles, BackendIdentity, UserPaths
from forelook.local.spawn import connect_or_spawn, open_log

IDENTITY = BackendIdentity()
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes and Unix sockets")


@pytest.fixture
def paths(tmp_path: Path) -> UserPaths:
    return UserPaths(tmp_path / "r", tmp_path / "s", tmp_path / "c", tmp_path / "short")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


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
    ]
    assert len({identity.key for identity in identities}) == len(identities)
    assert BackendIdentity("m").key == BackendIdentity("m").key


def test_a_model_folder_is_the_same_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    by_relative = BackendIdentity("model").normalized()
    assert by_relative == BackendIdentity(str(tmp_path / "model")).normalized()
    assert BackendIdentity("owner/name").normalized().model == "owner/name"


def test_a_path_too_long_for_a_socket_moves_to_the_short_folder(tmp_path: Path) -> None:
    long_dir = tmp_path / ("x" * 120)
    short_dir = tmp_path / "s"
    files = BackendFiles.of(IDENTITY, UserPaths(long_dir, tmp_path, tmp_path, short_dir))
    assert {files.socket.parent, files.lock.parent, files.record.parent} == {short_dir}
    assert mode(short_dir) == 0o700
    assert not long_dir.exists()


def test_the_longest_path_that_fits_is_bound(tmp_path: Path) -> None:
    import socket

    base = Path("/tmp") / f"fl{os.getpid()}"
    room = MAX_SOCKET_PATH_BYTES - len(str(base)) - len("/") - len(f"/{IDENTITY.key}.sock")
    folder = base / ("y" * room)
    try:
        files = BackendFiles.of(IDENTITY, UserPaths(folder, tmp_path, tmp_path, tmp_path / "s"))
        assert files.socket.parent == folder
        assert len(str(files.socket)) == MAX_SOCKET_PATH_BYTES
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(files.socket))
        files.socket.unlink()
    finally:
        folder.rmdir()
        base.rmdir()


def test_a_claim_clears_what_a_dead_backend_left_and_its_own(paths: UserPaths) -> None:
    files = BackendFiles.of(IDENTITY, paths)
    for path in (files.record, files.socket, files.token):
        path.write_text("left behind")
    with claim(files, 1.0):
        assert not files.record.exists()
        assert not files.socket.exists()
        files.socket.touch()
        publish(files, Endpoint(socket_path=str(files.socket)))
        assert mode(files.record) == 0o600
        with (
            pytest.raises(EndpointError, match="a backend for this model and device is already running"),
            claim(files, 0.05),
        ):
            pass
        assert files.record.exists()
    assert not files.record.exists()
    assert not files.socket.exists()


def test_only_a_living_backend_is_discovered(paths: UserPaths) -> None:
    assert discover(IDENTITY, paths) is None
    files = BackendFiles.of(IDENTITY, paths)
    endpoint = Endpoint(host="127.0.0.1", port=8123, token_path=str(files.token), pid=4, server_version="1")
    with claim(files, 1.0):
        assert discover(IDENTITY, paths) is None, "it does not listen yet"
        publish(files, endpoint)
        assert discover(IDENTITY, paths) == endpoint
        assert running_backends(paths) == [endpoint]
        assert discover(BackendIdentity("another"), paths) is None
        record = files.record.read_text()
    files.record.write_text(record)  # as kill -9 leaves it
    assert discover(IDENTITY, paths) is None
    assert running_backends(paths) == []


def test_other_files_in_the_runtime_folder_are_no_backends(paths: UserPaths) -> None:
    folder = BackendFiles.of(IDENTITY, paths).record.parent
    (folder / "statistics.json").write_text("{}")
    assert running_backends(paths) == []


def test_a_damaged_record_is_named(paths: UserPaths) -> None:
    files = BackendFiles.of(IDENTITY, paths)
    for content in ("{", "[]", '{"unknown": 1}', "{}", "\udcff"):
        files.record.write_bytes(content.encode("utf-8", "surrogateescape"))
        with pytest.raises(EndpointError, match=r"endpoint needs|json cannot be read"):
            discover(IDENTITY, paths)


def test_a_removed_socket_is_named_with_the_process(paths: UserPaths) -> None:
    files = BackendFiles.of(IDENTITY, paths)
    with claim(files, 1.0):
        publish(files, Endpoint(socket_path=str(files.socket), pid=77))
        with pytest.raises(EndpointError, match=r"process id 77 is running, but its socket .* is gone"):
            discover(IDENTITY, paths)


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    endpoint = Endpoint(host="127.0.0.1", port=1, token_path=str(tmp_path / "none"))
    with pytest.raises(AuthenticationError, match="none cannot be read"):
        endpoint.headers()


@pytest.mark.parametrize(
    ("url", "socket_path", "host", "port", "tls"),
    [
        ("unix:/run/f.sock", "/run/f.sock", None, None, False),
        ("unix:///run/f.sock", "/run/f.sock", None, None, False),
        ("ws://127.0.0.1:8123", None, "127.0.0.1", 8123, False),
        ("ws://localhost:8123/rpc", None, "localhost", 8123, False),
        ("ws://[::1]:8123", None, "::1", 8123, False),
        ("wss://gpu.example:443/", None, "gpu.example", 443, True),
    ],
)
def test_endpoint_urls(url: str, socket_path: str | None, host: str | None, port: int | None, tls: bool) -> None:
    endpoint = Endpoint.from_url(url)
    assert (endpoint.socket_path, endpoint.host, endpoint.port, endpoint.tls) == (socket_path, host, port, tls)
    assert Endpoint(**json.loads(json.dumps(asdict(endpoint)))) == endpoint


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ws://gpu.example:8123", "is not on this machine; use wss://"),
        ("http://127.0.0.1:1", "is not a supported scheme"),
        ("ws://127.0.0.1", "is not a supported scheme"),
        ("ws://127.0.0.1:99999", "is not a supported scheme"),
        ("", "is not a supported scheme"),
        ("wss://ada:hunter2@gpu.example:1", "must not contain credentials"),
        ("wss://gpu.example:1?token=hunter2", "must not contain credentials"),
        ("wss://gpu.example:1/other", "path = /other is not a valid path"),
        ("unix:", "expected an absolute one"),
        ("unix:run/f.sock", "expected an absolute one"),
    ],
)
def test_an_endpoint_url_that_cannot_be_is_refused_without_showing_secrets(url: str, said: str) -> None:
    with pytest.raises(EndpointError, match=said) as caught:
        Endpoint.from_url(url)
    assert "hunter2" not in str(caught.value)


def test_a_backend_that_cannot_start_says_why(paths: UserPaths) -> None:
    with pytest.raises(BackendUnreachableError, match=r"did not start: invalid config.device: 'tpu'.*backend\.log"):
        connect_or_spawn(BackendIdentity(device="tpu"), paths, dict(os.environ))
    assert not is_locked(BackendFiles.of(BackendIdentity(device="tpu"), paths).spawn_lock)


def test_the_log_is_private_and_a_long_one_set_aside(paths: UserPaths) -> None:
    with open_log(paths) as log:
        log.write(b"x" * 5_000_001)
    assert mode(paths.log_path) == 0o600
    with open_log(paths) as log:
        log.write(b"new")
    assert paths.log_path.read_bytes() == b"new"
    assert paths.log_path.with_suffix(".log.1").stat().st_size == 5_000_001
