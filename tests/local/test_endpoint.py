"""Endpoints: how a backend publishes one, how clients find it, and what a user may write."""

from __future__ import annotations

import json
import stat
import sys
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
