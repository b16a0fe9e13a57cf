"""A fence for tested programs: a process with limits, without network, writing or other processes."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile

TEST_TIMEOUT_S = 8.0
TEST_MEMORY_BYTES = 1 << 30
# An audit hook cannot be removed from Python; the limits of the process are the second barrier.
FENCE = """
import sys
def _fence(event, arguments):
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        if (mode is not None and set(mode) & set("wax+")) or (mode is None and flags & 0o103):
            raise PermissionError("writing is not allowed here")
    elif event.startswith(("socket.", "subprocess.", "shutil.", "ctypes.", "winreg.", "pty.", "signal.", "fcntl.")):
        raise PermissionError(event + " is not allowed here")
    elif event.startswith("os.") and event not in ("os.listdir", "os.scandir", "os.walk", "os.fwalk"):
        raise PermissionError(event + " is not allowed here")
    elif event in ("builtins.input", "code.__new__", "_posixsubprocess.fork_exec", "_thread.start_new_thread"):
        raise PermissionError(event + " is not allowed here")
sys.addaudithook(_fence)
sys.modules["_posixsubprocess"] = None
del _fence
"""


def passes(program: str) -> bool:
    """Return whether a program runs to its end in a process limited in time, memory, files and processes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (int(TEST_TIMEOUT_S), int(TEST_TIMEOUT_S)))
        resource.setrlimit(resource.RLIMIT_AS, (TEST_MEMORY_BYTES, TEST_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    # A program that exits early has not passed: it must reach its own last line.
    token = os.urandom(8).hex()
    ended = f"\nimport sys as _sys\n_sys.__stdout__.write({token!r})\n"
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            preexec_fn=limit,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate((FENCE + program + ended).encode("utf-8", "replace"), TEST_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return False
    return process.returncode == 0 and said.endswith(token.encode())
