"""The real backend as a process of its own: started once, found again, killed, idle, asked to stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from forelook.commands.client import connected
from forelook.errors import AuthenticationError, BackendUnreachableError
from forelook.local.access import read_tokens
from forelook.local.endpoint import Endpoint, discover
from forelook.local.files import file_lock, is_locked
from forelook.local.identity import BackendFiles, BackendIdentity, UserPaths
from forelook.local.spawn import connect_or_spawn, open_log
from forelook.protocol import jsonrpc, messages
from websockets.sync.server import ServerConnection, unix_serve

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals and Unix sockets")]
IDENTITY = BackendIdentity()
SOURCE = 'def add(a, b):\n    """Add two numbers."""\n    return '


class Home:
    """Folders and environment of a user who has nothing running; short, as a socket's path must be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        named = {name: str(folder / name[4:7]) for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME")}
        self.environ = {**os.environ, **named, "OMP_NUM_THREADS": "1"}
        self.paths = UserPaths.from_environment(self.environ, folder, os.getuid())

    def spawn(self, settings: Mapping[str, object] | None = None, identity: BackendIdentity = IDENTITY) -> Endpoint:
        return connect_or_spawn(identity, self.paths, self.environ, settings=settings or {})

    def forelook(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "forelook", *arguments]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, check=False)

    def wait_until_gone(self) -> None:
        """The lock is free once the process has ended, however it did."""
        with file_lock(BackendFiles.of(IDENTITY, self.paths).lock, 60.0, "the backend did not end"):
            pass


@pytest.fixture
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="fl") as folder:
        found = Home(Path(folder))
        yield found
        endpoint = discover(IDENTITY, found.paths)
        if endpoint is not None and endpoint.pid is not None:
            os.kill(endpoint.pid, signal.SIGTERM)
        found.wait_until_gone()


def ask(endpoint: Endpoint) -> messages.CompletionResult:
    with connected(endpoint) as client:
        client.wait_until_ready(120.0)
        client.notify(
            messages.DOCUMENT_OPEN, messages.DocumentOpenParams("file:///w", "file:///w/a.py", "python", 1, SOURCE)
        )
        invoked = messages.TriggerKind.INVOKED
        params = messages.CompletionParams("file:///w/a.py", 1, len(SOURCE), invoked, deadline_ms=60_000)
        return client.call(messages.COMPLETION, params, 120.0)


def test_a_killed_backend_is_replaced_and_completes_the_same(home: Home) -> None:
    first = home.spawn()
    before = ask(first)
    assert before.suggestions
    assert before.stats.num_generated_tokens > 0
    assert home.spawn().pid == first.pid, "one that runs is found, not started again"
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    home.wait_until_gone()
    assert discover(IDENTITY, home.paths) is None
    second = home.spawn()
    assert second.pid != first.pid
    assert ask(second).suggestions == before.suggestions


def test_four_that_start_at_once_start_one(home: Home) -> None:
    code = (
        "import os; from pathlib import Path; from forelook.local.identity import *\n"
        "from forelook.local.spawn import connect_or_spawn\n"
        f"paths = UserPaths.from_environment(os.environ, Path({str(home.folder)!r}), os.getuid())\n"
        "print(connect_or_spawn(BackendIdentity(), paths, dict(os.environ)).pid)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=home.environ, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    pids = {process.communicate()[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0, 0, 0]
    assert len(pids) == 1
    endpoint = discover(IDENTITY, home.paths)
    assert endpoint is not None
    assert pids == {str(endpoint.pid)}


def test_the_socket_and_its_folder_are_private(home: Home) -> None:
    endpoint = home.spawn()
    assert endpoint.socket_path is not None
    socket_path = Path(endpoint.socket_path)
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
    for path in socket_path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_second_backend_for_the_same_is_refused_at_once(home: Home) -> None:
    endpoint = home.spawn()
    done = home.forelook("serve")
    assert done.returncode == 5
    assert f"already running: process {endpoint.pid} at unix:" in done.stderr


def test_an_idle_backend_ends_and_leaves_nothing_behind(home: Home) -> None:
    home.spawn({"listen.idleTimeout": 2.0})  # time to find it first
    home.wait_until_gone()
    files = BackendFiles.of(IDENTITY, home.paths)
    assert not files.record.exists()
    assert not files.socket.exists()
    assert "exiting: idle" in home.paths.log_path.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_backend_in_order(home: Home, number: signal.Signals) -> None:
    endpoint = home.spawn()
    assert endpoint.pid is not None
    with connected(endpoint) as client:
        client.wait_until_ready(120.0)
        os.kill(endpoint.pid, number)
        home.wait_until_gone()
    assert not BackendFiles.of(IDENTITY, home.paths).socket.exists()
    assert "Traceback" not in home.paths.log_path.read_text()


def test_tcp_needs_the_token_of_this_start(home: Home) -> None:
    endpoint = home.spawn({"listen": {"port": 0}})
    assert endpoint.host == "127.0.0.1"
    assert endpoint.token_path is not None
    token_path = Path(endpoint.token_path)
    assert stat.S_IMODE(token_path.stat().st_mode) == 0o600
    (token,) = read_tokens(token_path)
    with connected(endpoint) as client:
        assert client.hello.protocol_version == messages.PROTOCOL_VERSION
    stolen = home.folder / "old-token"
    stolen.write_text("0" * 64)
    stolen.chmod(0o600)
    with (
        pytest.raises(AuthenticationError, match="401"),
        connected(Endpoint(host=endpoint.host, port=endpoint.port, token_path=str(stolen))),
    ):
        pass
    assert home.forelook("stop").returncode == 0
    assert not token_path.exists()
    assert token not in home.paths.log_path.read_text()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_tls_carries_the_same_protocol(home: Home) -> None:
    certificate, key = home.folder / "c.pem", home.folder / "k.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    endpoint = home.spawn({"listen": {"port": 0, "tlsCertificate": str(certificate), "tlsKey": str(key)}})
    assert endpoint.url == f"wss://127.0.0.1:{endpoint.port}/rpc"
    asked = ("status", "--endpoint", f"wss://localhost:{endpoint.port}", "--token-file", str(endpoint.token_path))
    distrusted = home.forelook(*asked)
    assert distrusted.returncode == 5
    assert "certificate" in distrusted.stderr
    home.environ["SSL_CERT_FILE"] = str(certificate)
    trusted = home.forelook(*asked)
    assert trusted.returncode == 0, trusted.stderr
    assert f"pid: {endpoint.pid}" in trusted.stdout


def test_complete_agrees_with_no_backend_and_its_text_is_not_logged(home: Home) -> None:
    path = home.folder / "add.py"
    path.write_text(SOURCE)
    arguments = ("complete", str(path), "--at", "3:12", "--deadline-ms", "60000", "--json")
    home.spawn({"logLevel": "debug"})  # at which web servers like to log what they are sent
    over_wire = home.forelook(*arguments)
    assert over_wire.returncode == 0, over_wire.stderr
    alone = home.forelook(*arguments, "--no-backend")
    assert alone.returncode == 0, alone.stderr
    first, second = json.loads(over_wire.stdout), json.loads(alone.stdout)
    assert first["suggestions"] == second["suggestions"]
    assert first["suggestions"]
    assert (first["model"], first["tokens_per_step"] > 0) == ("starter-model", True)
    status = home.forelook("status", "--json")
    assert json.loads(status.stdout)[0]["state"] == "ready"
    assert home.forelook("stop").returncode == 0
    home.wait_until_gone()
    log = home.paths.log_path.read_text()
    assert "Add two numbers" not in log
    assert stat.S_IMODE(home.paths.log_path.stat().st_mode) == 0o600


def test_a_backend_that_goes_instead_of_answering_has_been_shut_down(tmp_path: Path) -> None:
    def serve(websocket: ServerConnection) -> None:
        hello = json.loads(websocket.recv())
        limits = messages.ServerLimits(1, 1, 1, 1)
        result = messages.HelloResult(
            messages.PROTOCOL_VERSION, "0", 1, messages.Status(messages.EngineState.READY), limits
        )
        websocket.send(jsonrpc.encode_message(jsonrpc.Response(hello["id"], messages.to_json(result))))
        websocket.recv()
        websocket.close(1012, "service restart")

    path = tmp_path / "s"
    with unix_serve(serve, str(path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with connected(Endpoint(socket_path=str(path))) as client:
            client.shut_down(10)
        with connected(Endpoint(socket_path=str(path))) as client, pytest.raises(BackendUnreachableError, match="1012"):
            client.call(messages.STATUS, messages.Empty(), 10)
        server.shutdown()


def test_every_way_of_decoding_suggests_the_same(home: Home) -> None:
    identity = BackendIdentity(dtype="float32")
    ways = ({}, {"autoregressive": True}, {"lookahead": {"window": 4, "ngram": 3, "maxCandidates": 4}})
    results = []
    for settings in ways:
        results.append(ask(home.spawn(settings, identity=identity)))
        assert home.forelook("stop").returncode == 0
    assert results[0].suggestions == results[1].suggestions == results[2].suggestions
    assert results[0].suggestions
    assert results[1].stats.num_drafted_tokens == 0
    assert results[2].stats.num_drafted_tokens > 0
    accepted = [set(result.stats.accepted_by_origin) for result in results]
    assert accepted[1:] == [set(), {"lookahead"}], "the published method drafts from its own pool only"
    assert accepted[0] - {"lookahead"}, "the product also drafts from the text itself"


def test_pools_outlive_the_backend_until_they_are_cleared(home: Home) -> None:
    path = home.folder / "work" / "add.py"
    path.parent.mkdir()
    subprocess.run(["git", "init", "--quiet", str(path.parent)], check=True)  # else its pool is in memory only
    path.write_text(SOURCE * 20)
    workspace = ("--workspace", str(path.parent))

    def sizes() -> list[int]:
        found = Path(home.forelook("pool", "path").stdout.strip())
        return [base.stat().st_size for base in found.glob("*/*.base")]

    assert home.forelook("complete", str(path), "--at", "1:1").returncode == 0
    while (stats := json.loads(home.forelook("pool", "stats", *workspace, "--json").stdout)[0]["pool"])["num_waiting"]:
        pass  # indexing goes on between requests
    assert stats["num_documents"] == 1
    assert stats["num_tokens"] > 100
    assert home.forelook("stop").returncode == 0
    (kept,) = sizes()
    cleared = home.forelook("pool", "clear", *workspace)  # starts the backend that can do it
    assert cleared.returncode == 0, cleared.stderr
    assert home.forelook("stop").returncode == 0
    assert all(size < kept / 2 for size in sizes())


def test_doctor_finds_the_running_backend_and_names_faults(home: Home) -> None:
    endpoint = home.spawn()
    with connected(endpoint) as client:
        client.wait_until_ready(120.0)
    done = home.forelook("doctor", "--json")
    assert done.returncode == 0, done.stdout
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert f"process {endpoint.pid}" in found["backend"]["detail"]
    assert "starter-model on cpu" in found["model"]["detail"]
    assert {"python", "torch", "device", "tokenizers", "socket", "grammars", "runtime folder"} <= set(found)
    assert endpoint.socket_path is not None
    Path(endpoint.socket_path).chmod(0o666)
    done = home.forelook("doctor")
    assert done.returncode == 1
    assert f"chmod 600 {endpoint.socket_path}" in done.stdout.replace("\n", " ")


def test_a_backend_that_cannot_start_says_why(paths: UserPaths) -> None:
    with pytest.raises(BackendUnreachableError, match=r"did not start: invalid config.device: 'tpu'.*backend\.log"):
        connect_or_spawn(BackendIdentity(device="tpu"), paths, dict(os.environ))
    assert not is_locked(BackendFiles.of(BackendIdentity(device="tpu"), paths).spawn_lock)


def test_the_log_is_private_and_a_long_one_set_aside(paths: UserPaths) -> None:
    with open_log(paths) as log:
        log.write(b"x" * 5_000_001)
    assert stat.S_IMODE(paths.log_path.stat().st_mode) == 0o600
    with open_log(paths) as log:
        log.write(b"new")
    assert paths.log_path.read_bytes() == b"new"
    assert paths.log_path.with_suffix(".log.1").stat().st_size == 5_000_001
