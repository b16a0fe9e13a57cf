"""A cluster on one machine: Ray as children of one process, which ends with it. Loopback only, unless there is TLS."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import yaml
from ray import serve
from ray.serve._private.api import serve_start
from ray.serve._private.constants import SERVE_NAMESPACE
from ray.serve.schema import ServeDeploySchema

from forelook.cluster.cluster_config import ClusterConfig
from forelook.config import check_tls
from forelook.errors import ConfigError, EndpointError, ForelookError, ModelError
from forelook.local.files import file_lock, is_locked, make_private_dir, read_regular_file, write_atomically
from forelook.local.identity import MAX_SOCKET_PATH_BYTES, UserPaths
from forelook.server.run import on_signals

logger = logging.getLogger("forelook.cluster")

_APPLICATION = "forelook.cluster.application:build"
_MAX_FILE_BYTES = 2**20  # chosen, not measured
_OBJECT_STORE_BYTES = 128 * 2**20  # chosen, not measured: requests and answers are small
_LOCALHOST = "127.0.0.1"
_POLL_S = 0.25
_RAY_PATH_BYTES = len("/ray/session_2026-11-29_20-20-54_729326_1234567/sockets/plasma_store")
_STOP_TIMEOUT_S = 60.0  # chosen, not measured


@dataclass(frozen=True, slots=True)
class RunningCluster:
    """The cluster of this user on this machine.

    Attributes:
        pid: the process that holds it.
        ray_address: where Ray's control service listens.
        url: where clients connect.
    """

    pid: int
    ray_address: str
    url: str


@dataclass(frozen=True, slots=True)
class ClusterFiles:
    """Its files, in a private folder."""

    folder: Path

    @classmethod
    def of(cls, paths: UserPaths) -> ClusterFiles:
        """In the user's runtime folder, or the short one where the paths of Ray's sockets would be too long."""
        is_short = len(os.fsencode(paths.runtime_dir)) + _RAY_PATH_BYTES <= MAX_SOCKET_PATH_BYTES
        return cls(paths.runtime_dir if is_short else paths.short_dir)

    @property
    def ray_folder(self) -> Path:
        """Ray's own files, sockets and logs."""
        return self.folder / "ray"

    @property
    def lock(self) -> Path:
        """Held as long as the cluster lives."""
        return self.folder / "cluster.lock"

    @property
    def record(self) -> Path:
        """Where it listens."""
        return self.folder / "cluster.json"

    def running(self) -> RunningCluster | None:
        """The cluster that runs, if one does; it may still be starting."""
        if not is_locked(self.lock):
            return None
        try:
            return RunningCluster(**json.loads(read_regular_file(self.record, _MAX_FILE_BYTES)))
        except (OSError, ValueError, TypeError):
            return None


def read_config(path: Path) -> ServeDeploySchema:
    """Read a configuration file of Ray Serve whose applications are Forelook's.

    Raises:
        ConfigError: it cannot be read, has a value outside its range, or would serve other machines without TLS.
    """
    try:
        content = yaml.safe_load(read_regular_file(path, _MAX_FILE_BYTES, follows_links=True))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError("cluster file", str(path), f"a YAML file ({type(error).__name__})") from error
    if not isinstance(content, Mapping) or not content.get("applications"):
        raise ConfigError("cluster file", str(path), "a configuration of Ray Serve with applications")
    options = content.get("http_options") or {}
    http = {"host": _LOCALHOST, **options} if isinstance(options, Mapping) else options
    try:
        schema = ServeDeploySchema.model_validate({"proxy_location": "HeadOnly", **content, "http_options": http})
    except ValueError as error:  # pydantic's
        raise ConfigError("cluster file", str(path), f"a configuration of Ray Serve ({error})") from error
    for application in schema.applications:
        if application.import_path != _APPLICATION:
            raise ConfigError(f"{application.name}.import_path", application.import_path, _APPLICATION)
        ClusterConfig.from_json(application.args)
    options = schema.http_options
    certificate, key = (Path(name) if name else None for name in (options.ssl_certfile, options.ssl_keyfile))
    names = ("http_options.host", "http_options.ssl_certfile", "http_options.ssl_keyfile")
    check_tls(options.host, certificate, key, names)
    if options.request_timeout_s is not None:
        raise ConfigError("http_options.request_timeout_s", options.request_timeout_s, "none: editors stay connected")
    return schema


def host(path: Path, files: ClusterFiles, announce: Callable[[RunningCluster], None]) -> None:
    """Run the cluster of a configuration file until this process is signaled. Call it from the main thread.

    Args:
        path: the configuration file.
        files: the cluster's files.
        announce: called once clients can connect.

    Raises:
        ConfigError: the file is invalid.
        EndpointError: a cluster runs already, or an address cannot be used.
        ModelError: a model cannot be loaded.
    """
    schema = read_config(path)
    make_private_dir(files.folder)
    with file_lock(files.lock, 0.0, "a cluster is already running"):
        files.record.unlink(missing_ok=True)
        shutil.rmtree(files.ray_folder, ignore_errors=True)  # what the cluster before left: logs, until now
        make_private_dir(files.ray_folder)
        try:
            address = _start_ray(_num_cpus(schema), files.ray_folder)
            stop = threading.Event()
            with on_signals(stop.set):  # after Ray has set its own handlers, which end the process at once
                running = RunningCluster(os.getpid(), address, _url(schema))
                write_atomically(files.record, json.dumps(asdict(running)))
                _deploy(schema, stop)
                if not stop.is_set():
                    announce(running)
                stop.wait()
                logger.info("exiting: the cluster ends")
                serve.shutdown()
                ray.shutdown()
        finally:
            ray.shutdown()
            files.record.unlink(missing_ok=True)


def update(path: Path, running: RunningCluster) -> None:
    """Bring a running cluster to a configuration file; replicas are replaced without a gap.

    Raises:
        ConfigError: the file is invalid.
        EndpointError: the cluster cannot be reached.
        ModelError: a model cannot be loaded; the replicas of before serve on.
    """
    schema = read_config(path)
    with _connected(running):
        _deploy(schema, threading.Event())


def status(running: RunningCluster) -> dict[str, object]:
    """Applications, their states and how many replicas are in which state.

    Raises:
        EndpointError: the cluster cannot be reached.
    """
    with _connected(running):
        applications = {
            name: {
                "status": str(application.status.value),
                "message": application.message,
                "replicas": {
                    str(getattr(state, "value", state)): count
                    for deployment in application.deployments.values()
                    for state, count in deployment.replica_states.items()
                },
            }
            for name, application in serve.status().applications.items()
        }
    return {**asdict(running), "applications": applications}


def stop(running: RunningCluster, files: ClusterFiles) -> None:
    """End a cluster, and wait until its process has.

    Raises:
        EndpointError: it does not end.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)
    with file_lock(files.lock, _STOP_TIMEOUT_S, "the cluster is still ending"):
        pass


def _start_ray(num_cpus: int, folder: Path) -> str:
    """Start Ray as children of this process; returns the address of its control service."""
    try:
        return _init_ray(num_cpus, folder)
    except Exception as error:  # noqa: BLE001 - Ray raises no type of its own
        # Ray waits 30 s for its own processes, which a busy machine may not start in time.
        logger.warning("Ray does not start, trying again: %s", error)
        ray.shutdown()
    try:
        return _init_ray(num_cpus, folder)
    except Exception as error:  # Ray raises no type of its own
        raise EndpointError(f"Ray does not start: {error}; its logs are in {folder}") from error


def _init_ray(num_cpus: int, folder: Path) -> str:
    context = ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        namespace=SERVE_NAMESPACE,
        log_to_driver=False,
        logging_level=logging.WARNING,
        _node_ip_address=_LOCALHOST,
        _temp_dir=str(folder),
    )
    return str(context.address_info["gcs_address"])


@contextlib.contextmanager
def _connected(running: RunningCluster) -> Iterator[None]:
    try:
        ray.init(
            address=running.ray_address,
            namespace=SERVE_NAMESPACE,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _node_ip_address=_LOCALHOST,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EndpointError(f"Ray does not answer at {running.ray_address} ({type(error).__name__})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _deploy(schema: ServeDeploySchema, stop: threading.Event) -> None:
    """Hand the configuration to Ray Serve and wait until all applications run, or ``stop`` is set."""
    client = serve_start(http_options=schema.http_options.model_dump(), proxy_location=schema.proxy_location)
    client.deploy_apps(schema)
    wanted = {application.name for application in schema.applications}
    while not stop.wait(_POLL_S):
        applications = serve.status().applications
        failed = _failure(applications)
        if failed is not None:
            raise failed
        if wanted <= {name for name, each in applications.items() if each.status.value == "RUNNING"}:
            return


def _failure(applications: Mapping[str, Any]) -> ForelookError | None:
    for name, application in applications.items():
        if application.status.value in ("DEPLOY_FAILED", "UNHEALTHY"):
            said = [application.message, *(each.message for each in application.deployments.values())]
            # The last line of a traceback is the error; the lines before are Ray's.
            lines = [line.strip() for text in said for line in text.splitlines() if "Error: " in line]
            return ModelError(f"application {name} does not start: {lines[-1] if lines else application.message}")
    return None


def _num_cpus(schema: ServeDeploySchema) -> int:
    """Ray counts cores, it does not reserve them: enough for all replicas twice, as an update has old and new ones."""
    configs = [ClusterConfig.from_json(application.args) for application in schema.applications]
    return int(sum(2 * config.num_cpus * (config.max_replicas or config.num_replicas) for config in configs) + 1)


def _url(schema: ServeDeploySchema) -> str:
    options = schema.http_options
    return f"{'wss' if options.ssl_certfile else 'ws'}://{options.host}:{options.port}"
