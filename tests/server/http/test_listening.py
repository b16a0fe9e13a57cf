"""The listener of the HTTP interfaces: its keys, and TLS where other machines can reach it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from forelook.completion.engine.engine import CompletionEngine
from forelook.config import ServerConfig
from forelook.errors import AuthenticationError, ConfigError
from forelook.local.access import AccessPolicy, Refusal
from forelook.local.endpoint import Endpoint
from forelook.local.identity import UserPaths
from forelook.local.listener import GuardedListener
from forelook.local.user_keys import KeyRing, issue_key
from forelook.server.app import HttpListener, create_app
from forelook.server.backend import ExitHooks
from forelook.server.run import Server, _open_http

from tests.completion.fake_model import FakeModel
from tests.server.http.harness import FAST, KEY, TARGET, parse_answer


def paths(folder: Path) -> UserPaths:
    return UserPaths(folder / "run", folder / "state", folder / "cache", folder / "short")


def opened(config: ServerConfig, folder: Path, keys: KeyRing | None = None) -> tuple[Endpoint, HttpListener]:
    listener = GuardedListener.bind_to(*config.http_address)
    try:
        return _open_http(config, paths(folder), listener, Endpoint(socket_path="/s"), keys)
    finally:
        listener.close()


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    config = ServerConfig(http="127.0.0.1:0")
    first, second = opened(config, tmp_path), opened(config, tmp_path)
    key_path = Path(first[0].http_key_path or "")
    assert key_path == paths(tmp_path).http_key_path.resolve()
    if sys.platform != "win32":
        assert key_path.stat().st_mode & 0o777 == 0o600
    assert first[1].policy.tokens == second[1].policy.tokens == (key_path.read_text().strip(),)
    assert (first[0].http_url or "").startswith("http://127.0.0.1:")


def test_keys_come_from_a_file_or_are_done_without(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n{KEY[::-1]}x\n")
    file.chmod(0o600)
    _, http = opened(ServerConfig(http="127.0.0.1:0", http_key_file=file), tmp_path)
    assert http.policy.tokens == (KEY, f"{KEY[::-1]}x")
    endpoint, http = opened(ServerConfig(http="localhost:0", http_without_key=True), tmp_path)
    assert (http.policy.tokens, endpoint.http_key_path) == ((), None)
    file.chmod(0o644)
    if sys.platform != "win32":
        with pytest.raises(AuthenticationError, match="readable by other users"):
            opened(ServerConfig(http="127.0.0.1:0", http_key_file=file), tmp_path)


def test_a_team_s_keys_are_accepted_next_to_the_owner_s(tmp_path: Path) -> None:
    key = issue_key(tmp_path / "keys.json", "ann")
    ring = KeyRing(tmp_path / "keys.json")
    _, http = opened(ServerConfig(http="127.0.0.1:0"), tmp_path, ring)

    def sender(sent: str) -> object:
        named = {"host": ("127.0.0.1",), "authorization": (f"Bearer {sent}",)}
        return http.policy.check(lambda name: named.get(name.lower(), ()))

    assert sender(http.policy.tokens[0]) == ""
    found = ring.find(key.encode())
    assert found is not None
    assert sender(key) == found.principal
    assert isinstance(sender(key + "x"), Refusal)
    _, open_to_all = opened(ServerConfig(http="127.0.0.1:0", http_without_key=True), tmp_path, ring)
    assert open_to_all.policy.check(lambda name: ("localhost",) if name == "Host" else ()) == ""


def test_keys_need_an_address_for_their_users(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--port, --http or both"):
        ServerConfig(keys_file=tmp_path / "keys.json")
    ServerConfig(keys_file=tmp_path / "keys.json", port=0)
    ServerConfig(keys_file=tmp_path / "keys.json", http="127.0.0.1:0")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses 127.0.0.2, which only Linux has by default")
async def test_beyond_loopback_http_is_encrypted_and_the_editors_socket_is_as_before(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"]
    await asyncio.to_thread(
        subprocess.run,
        [*command, "-addext", "subjectAltName=IP:127.0.0.2", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    # The only rule is the name of the address, so a second loopback address stands for another machine's view.
    config = ServerConfig(http="127.0.0.2:0", tls_certificate=certificate, tls_key=key, idle_timeout_s=None)
    editors, clients = socket.socket(socket.AF_UNIX), socket.socket()
    editors.bind(str(tmp_path / "s"))
    clients.bind(("127.0.0.2", 0))
    port = clients.getsockname()[1]
    policy = AccessPolicy(tokens=(KEY,), hosts=frozenset({"127.0.0.2"}))
    engine_hooks = ExitHooks(idle=lambda: None, shutdown=lambda: None, failed=lambda _status: None)
    app = create_app(
        lambda on_status: CompletionEngine(lambda _progress: FakeModel(TARGET), FAST, on_status),
        config,
        AccessPolicy(),
        engine_hooks,
        http=HttpListener(port, policy),
    )
    listening = asyncio.Event()
    server = Server(app, config, listening.set, clients)
    task = asyncio.create_task(server.serve(sockets=[editors]))
    await listening.wait()
    trusting = ssl.create_default_context(cafile=str(certificate))
    request = (
        f"GET /api/version HTTP/1.1\r\nHost: 127.0.0.2\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n"
    )
    try:
        reader, writer = await asyncio.open_connection("127.0.0.2", port, ssl=trusting)
        writer.write(request.encode())
        assert parse_answer(await reader.read()).status == 200
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.2", port)
        writer.write(request.encode())
        assert not (await reader.read()).startswith(b"HTTP/1.1 200"), "nothing is answered in the clear"
        writer.close()
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert parse_answer(await reader.read()).status == 200
        writer.close()
    finally:
        server.should_exit = True
        await task
        editors.close()
        clients.close()
