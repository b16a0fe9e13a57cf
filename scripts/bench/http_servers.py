"""Servers that speak HTTP, started for a benchmark, and a connection to one."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from forelook.local.endpoint import Endpoint, running_backends
from forelook.local.identity import UserPaths

from bench.processes import READY_TIMEOUT_S, private_environment

REQUEST_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        host, port: where its HTTP interface listens.
        keys: one per client; empty where it asks for none.
        endpoint: of the editor protocol; ``None`` if it has none.
        pid: of its process, where :func:`alone` may halt it.
    """

    host: str
    port: int
    keys: tuple[str, ...] = ()
    endpoint: Endpoint | None = None
    pid: int | None = None


@contextlib.contextmanager
def alone(server: Server, servers: Iterable[Server]) -> Iterator[None]:
    """Halt the other servers' processes: what they do while idle takes no time from the one that is asked."""
    halted = [each.pid for each in servers if each is not server and each.pid is not None]
    for pid in halted:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in halted:
            os.kill(pid, signal.SIGCONT)


class Connection:
    """A client.

    Args:
        server: to ask.
        key: one of the server's; its first one by default.
        keeps: whether a connection serves the next request too; curl's does not, and servers close what is idle.
    """

    def __init__(self, server: Server, key: str | None = None, *, keeps: bool = False) -> None:
        self._keeps = keeps
        self._http = http.client.HTTPConnection(server.host, server.port, timeout=REQUEST_TIMEOUT_S)
        self._headers = {"Content-Type": "application/json"}
        key = key or next(iter(server.keys), None)
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"

    def send(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers by lower-case name and body of an answer."""
        data = None if body is None else json.dumps(body)
        try:
            response = self._ask(method, path, data)
        except ConnectionError:
            if not self._keeps:
                raise
            self._http.close()  # it was idle for too long; a busy machine takes its time between requests
            response = self._ask(method, path, data)
        headers = {name.lower(): value for name, value in response.getheaders()}
        answer = response.status, headers, response.read()
        if not self._keeps:
            self._http.close()
        return answer

    def _ask(self, method: str, path: str, data: str | None) -> http.client.HTTPResponse:
        self._http.request(method, path, data, self._headers)
        return self._http.getresponse()

    def post(self, path: str, body: object) -> tuple[dict[str, Any], float]:
        """Return the decoded answer and the milliseconds until it had come.

        Raises:
            RuntimeError: the status is not 200.
        """
        started_s = time.perf_counter()
        status, _, data = self.send("POST", path, body)
        elapsed_ms = (time.perf_counter() - started_s) * 1e3
        if status != 200:
            raise RuntimeError(f"{path} was answered {status}: {data[:300].decode('utf-8', 'replace')}")
        answer: dict[str, Any] = json.loads(data)
        return answer, elapsed_ms

    def close(self) -> None:
        """Close it; the next request opens another."""
        self._http.close()


@contextlib.contextmanager
def forelook(*arguments: str, num_keys: int = 1) -> Iterator[Server]:
    """Start ``forelook serve`` with its HTTP interface, folders of its own and that many keys; wait for its model.

    Raises:
        RuntimeError: it ended or did not listen; the message holds the end of its log.
    """
    keys = tuple(secrets.token_hex(32) for _ in range(num_keys))
    with private_environment(sees_models="--model" in arguments) as environment:
        folder = Path(environment["XDG_RUNTIME_DIR"])
        key_file = folder / "keys"
        key_file.touch(0o600)
        key_file.write_text("".join(f"{key}\n" for key in keys))
        flags = ["--announce", "--http", "127.0.0.1:0", "--http-key-file", str(key_file), *arguments]
        command = [sys.executable, "-m", "forelook", "serve", *flags]
        with _process(command, folder / "log", environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            if b'"http"' not in line:
                raise RuntimeError(f"it does not listen: {line.decode()}{(folder / 'log').read_text()[-2000:]}")
            parts = urlsplit(json.loads(line)["http"])
            assert parts.hostname is not None
            assert parts.port is not None
            (endpoint,) = running_backends(UserPaths.from_environment(environment, folder, os.getuid()))
            server = Server(parts.hostname, parts.port, keys, endpoint, process.pid)
            _wait_until_ready(server, process, folder / "log")
            yield server


@contextlib.contextmanager
def llama_server(program: Path, model: Path, options: Sequence[str] = ()) -> Iterator[Server]:
    """Start llama.cpp's server with one slot and all cores, and wait for its model.

    Raises:
        RuntimeError: it ended before it was ready; the message holds the end of its log.
    """
    with private_environment() as environment, contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        cores = str(len(os.sched_getaffinity(0)))
        log = Path(environment["XDG_RUNTIME_DIR"]) / "log"
        command = [str(program), "--model", str(model), "--host", "127.0.0.1", "--port", str(port), "--parallel", "1"]
        with _process([*command, "--threads", cores, *options], log, environment) as process:
            server = Server("127.0.0.1", port, pid=process.pid)
            _wait_until_ready(server, process, log)
            yield server


@contextlib.contextmanager
def _process(
    command: Sequence[str], log_path: Path, environment: dict[str, str], stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout or log, stderr=log, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    connection = Connection(server)
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if connection.send("GET", "/health")[0] == 200:
                return
        connection.close()
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"the server is not ready: {log_path.read_text(errors='replace')[-2000:]}")
