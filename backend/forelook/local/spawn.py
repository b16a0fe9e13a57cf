"""Starts a backend for a client that finds none running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO

from forelook.errors import BackendUnreachableError
from forelook.local.endpoint import Endpoint, discover
from forelook.local.files import file_lock, make_private_dir
from forelook.local.identity import BackendFiles, BackendIdentity, UserPaths
from forelook.local.log_handler import MAX_LOG_BYTES


def connect_or_spawn(
    identity: BackendIdentity,
    paths: UserPaths,
    environ: Mapping[str, str],
    *,
    settings: Mapping[str, object] = MappingProxyType({}),
    timeout_s: float = 60.0,
) -> Endpoint:
    """The backend of ``identity``, started if it is not running. Blocks; any number of processes may call it at once.

    Args:
        identity: what it must serve.
        paths: the user's folders.
        environ: the environment of a new backend.
        settings: further settings of a new backend, as JSON names and spells them; a running one keeps its own.
        timeout_s: maximum time until a new backend listens; it loads the model after that.

    Raises:
        BackendUnreachableError: it did not start; the message says why and names its log.
        EndpointError: another process is starting it and does not finish, or the runtime folder cannot be used.
    """
    identity = identity.normalized()
    endpoint = discover(identity, paths)
    if endpoint is not None:
        return endpoint
    files = BackendFiles.of(identity, paths)
    with file_lock(files.spawn_lock, timeout_s, "another process is starting the backend"):
        endpoint = discover(identity, paths)  # another process may have started it meanwhile
        if endpoint is not None:
            return endpoint
        _spawn(identity.command_arguments(settings), files.lock.parent, paths, environ, timeout_s)
        endpoint = discover(identity, paths)
    if endpoint is None:
        raise BackendUnreachableError(f"the backend exited right after starting; see {paths.log_path}")
    return endpoint


def _spawn(
    arguments: Sequence[str], runtime_dir: Path, paths: UserPaths, environ: Mapping[str, str], timeout_s: float
) -> None:
    """Start ``forelook serve`` detached and wait until it announces that it listens.

    Raises:
        BackendUnreachableError: it exited, or announced nothing in time.
    """
    command = [sys.executable, "-m", "forelook", "serve", "--announce", *arguments]
    with open_log(paths) as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=runtime_dir,  # `-m` adds the working folder to the module path, so only the user may write to it
            env=dict(environ),
            start_new_session=True,
        )
    assert process.stdout is not None
    with process.stdout:
        line = _read_line(process.stdout, timeout_s)
    try:
        announced = json.loads(line) if line else {}
    except ValueError:
        announced = {}
    # A dead backend stays a zombie until its parent has collected its exit status.
    threading.Thread(target=process.wait, name="forelook-backend-reaper", daemon=True).start()
    if "listening" in announced:
        return
    process.terminate()
    reason = announced.get("error") or (f"no response within {timeout_s:g} s" if line is None else "it exited")
    raise BackendUnreachableError(f"the backend did not start: {reason}; see {paths.log_path}")


def _read_line(stream: IO[bytes], timeout_s: float) -> bytes | None:
    """The first line, ``b""`` at the end of the stream, ``None`` if neither came in time."""
    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.append(stream.readline(65_536)), daemon=True)
    reader.start()
    reader.join(timeout_s)
    return lines[0] if lines else None


def open_log(paths: UserPaths) -> IO[bytes]:
    """The backend's log for appending, 0600; a log of more than ``MAX_LOG_BYTES`` is rotated first."""
    make_private_dir(paths.state_dir)
    path = paths.log_path
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
