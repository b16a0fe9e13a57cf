"""Endpoints: how a backend publishes one, how clients find it, and what a user may write."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from forelook.errors import AuthenticationError, EndpointError
from forelook.local.endpoint import Endpoint, claim, discover, publish, running_backends
from forelook.local.identity import BackendFiles, BackendIdentity, UserPaths

IDENTITY = BackendIdentity()
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes and Unix sockets")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


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


def _valid(**more: object) -> bytes:
    return json.dumps({**asdict(Endpoint(host="127.0.0.1", port=8123, pid=4)), **more}).encode()


DAMAGED = {
    "empty": b"",
    "truncated": _valid()[:40],
    "another value": b"[]",
    "no address": b"{}",
    "another type": _valid(port="8123"),
    "not UTF-8": b"\xff",
    "deep": b"[" * 60_000,
    "huge": b" " * 100_000 + _valid(),
    "a large number": b'{"pid": 1e999}',
}
"""Contents of a record that no backend wrote."""
OBSTACLES: dict[str, Callable[[Path], object]] = {
    **{name: lambda path, content=content: path.write_bytes(content) for name, content in DAMAGED.items()},
    "pipe": os.mkfifo,
    "folder": lambda path: (path / "inside").mkdir(parents=True),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to an endless file": lambda path: path.symlink_to("/dev/zero"),
    "newer by a field": lambda path: path.write_bytes(_valid(color="red")),
}


@pytest.mark.parametrize("make", OBSTACLES.values(), ids=OBSTACLES)
@pytest.mark.timeout(10)
def test_nothing_that_a_dead_backend_left_blocks_a_start(paths: UserPaths, make: Callable[[Path], object]) -> None:
    files = BackendFiles.of(IDENTITY, paths)
    for path in (files.record, files.socket, files.token):
        make(path)
    assert discover(IDENTITY, paths) is None
    assert running_backends(paths) == []
    with claim(files, 1.0):
        publish(files, Endpoint(host="127.0.0.1", port=8123))
        assert discover(IDENTITY, paths) is not None


def test_a_newer_backend_s_record_is_understood(paths: UserPaths) -> None:
    files = BackendFiles.of(IDENTITY, paths)
    with claim(files, 1.0):
        files.record.write_bytes(_valid(color="red"))
        assert discover(IDENTITY, paths) == Endpoint(host="127.0.0.1", port=8123, pid=4)


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_living_backend_with_a_damaged_record_is_named(paths: UserPaths, content: bytes) -> None:
    files = BackendFiles.of(IDENTITY, paths)
    with claim(files, 1.0):
        files.record.write_bytes(content)
        with pytest.raises(EndpointError, match=rf"process {os.getpid()} is running, but its record .* end that"):
            discover(IDENTITY, paths)


def test_an_old_backend_s_end_leaves_the_files_of_its_successor(paths: UserPaths) -> None:
    files = BackendFiles.of(IDENTITY, paths)
    with contextlib.ExitStack() as old, contextlib.ExitStack() as new:
        old.enter_context(claim(files, 1.0))
        publish(files, Endpoint(host="127.0.0.1", port=1))
        shutil.rmtree(files.lock.parent)  # as at logout
        files = BackendFiles.of(IDENTITY, paths)
        new.enter_context(claim(files, 1.0))
        successor = Endpoint(host="127.0.0.1", port=2)
        for path in (files.socket, files.token):
            path.touch()
        publish(files, successor)
        old.close()
        assert discover(IDENTITY, paths) == successor
        assert files.socket.exists()
        assert files.token.exists()
    assert not files.record.exists(), "the successor clears its own"


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
        ("wss://gpu.example:1/../other", "path = /../other is not a valid path"),
        ("wss://gpu.example:1//other", "path = //other is not a valid path"),
        ("unix:", "expected an absolute one"),
        ("unix:run/f.sock", "expected an absolute one"),
    ],
)
def test_an_endpoint_url_that_cannot_be_is_refused_without_showing_secrets(url: str, said: str) -> None:
    with pytest.raises(EndpointError, match=said) as caught:
        Endpoint.from_url(url)
    assert "hunter2" not in str(caught.value)
