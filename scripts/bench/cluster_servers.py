"""A cluster of replicas on this machine, started for a benchmark."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from forelook.local.access import new_token
from forelook.local.endpoint import Endpoint

from bench.http_servers import Server
from bench.processes import READY_TIMEOUT_S, private_environment


@contextlib.contextmanager
def cluster(
    num_replicas: int, model: str, cpus: float = 1.0, variables: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run ``forelook cluster up`` with one key and folders of its own.

    Args:
        num_replicas: number of replicas.
        model: of all replicas.
        cpus: threads of one replica.
        variables: of Ray's environment.

    Raises:
        RuntimeError: it did not start; the message holds what it said.
    """
    with private_environment() as environment, contextlib.closing(socket.socket()) as probe:
        folder = Path(environment["XDG_STATE_HOME"])
        key_file = folder / "key"
        key = new_token(key_file)
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        args = {"tokenFile": str(key_file), "folder": str(folder / "shared"), "replicas": num_replicas, "cpus": cpus}
        application = {
            "name": "bench",
            "route_prefix": "/",
            "import_path": "forelook.cluster.application:build",
            "args": {**args, "settings": {"model": model}},
        }
        config = folder / "cluster.yaml"
        config.write_text(json.dumps({"http_options": {"port": port}, "applications": [application]}))
        command = [sys.executable, "-m", "forelook", "cluster", "up", str(config)]
        log = folder / "log"
        environment |= variables or {}
        with log.open("wb") as errors:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        try:
            if b"ready" not in process.stdout.readline():
                raise RuntimeError(f"the cluster does not start: {log.read_text()[-2000:]}")
            endpoint = Endpoint.from_url(f"ws://127.0.0.1:{port}", str(key_file))
            yield Server("127.0.0.1", port, (key,), endpoint)
        finally:
            process.terminate()
            process.wait(READY_TIMEOUT_S)
