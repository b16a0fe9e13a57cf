"""Runs git in untrusted folders: nothing that a repository contains starts a program or a connection.

A repository's configuration can name programs: a file system monitor, hooks, transports of a partial clone's remote,
filters, credential helpers, pagers. Settings on the command line close most; transports have settings of their own
that override those, so the environment closes them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path

logger = logging.getLogger(__name__)

# Chosen, not measured.
TIMEOUT_S = 20.0
MAX_OUTPUT_BYTES = 64 << 20

_SETTINGS = (
    "core.fsmonitor=", f"core.hooksPath={os.devnull}", "core.sshCommand=false", "core.gitProxy=false",
    "core.askPass=false", "core.pager=false", "core.editor=false", "sequence.editor=false",
    "core.alternateRefsCommand=false", "credential.helper=", "diff.external=false", "gpg.program=false",
    "gpg.ssh.program=false", "gpg.x509.program=false", "uploadpack.packObjectsHook=", "interactive.diffFilter=",
    "protocol.allow=never", "submodule.recurse=false", "safe.bareRepository=explicit",
)  # fmt: skip

_CLOSED_ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "none",  # protocol.<name>.allow of the repository would override protocol.allow
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_ASKPASS": "false",
    "SSH_ASKPASS": "false",
    "GIT_SSH_COMMAND": "false",
    "GIT_EDITOR": "false",
    "GIT_PAGER": "cat",
    "LC_ALL": "C",
}

# What git needs to find the user's own configuration; anything named GIT_* of this process stays out.
_USER_FOLDERS = (
    "HOME", "XDG_CONFIG_HOME", "USERPROFILE", "HOMEDRIVE", "HOMEPATH", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA",
    "SYSTEMROOT", "TEMP", "TMP",
)  # fmt: skip


def run_git(top: Path, *arguments: str, timeout_s: float = TIMEOUT_S) -> bytes | None:
    """Run a git command that only reads, in a repository.

    Args:
        top: the folder with the repository's ``.git``; no repository further up is used instead.
        arguments: the command and its arguments.
        timeout_s: time until git is killed, for example because its configuration is a pipe.

    Returns:
        What it printed; ``None`` without git, or if it failed, took too long or printed more than 64 MiB.
    """
    program = _program()
    if program is None:
        return None
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    try:
        process = subprocess.Popen(
            [program, "--no-pager", *settings, *arguments],
            cwd=top,
            env=_environment(top),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        logger.info("git cannot be started: %s", type(error).__name__)
        return None
    timer = threading.Timer(timeout_s, _kill, [process])
    timer.daemon = True
    timer.start()
    try:
        assert process.stdout is not None
        output = process.stdout.read(MAX_OUTPUT_BYTES + 1)
        if len(output) > MAX_OUTPUT_BYTES:
            _kill(process)
        code = process.wait()
    finally:
        timer.cancel()
        process.stdout.close()  # type: ignore[union-attr]  # it was opened above
    return output if code == 0 and len(output) <= MAX_OUTPUT_BYTES else None


def user_excludes_file() -> Path | None:
    """The file of the user's own ignore patterns where ``core.excludesFile`` names none."""
    config = os.environ.get("XDG_CONFIG_HOME")
    if config:
        return Path(config) / "git" / "ignore"
    home = os.environ.get("HOME")
    return Path(home) / ".config" / "git" / "ignore" if home else None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill git and what it started; it was made the leader of a group of its own."""
    logger.info("git took too long or printed too much; stopped")
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


def _environment(top: Path) -> dict[str, str]:
    kept = {name: value for name in _USER_FOLDERS if (value := os.environ.get(name)) is not None}
    return {"PATH": _search_path(), **kept, **_CLOSED_ENVIRONMENT, "GIT_CEILING_DIRECTORIES": str(top.parent)}


def _search_path() -> str:
    """The absolute entries of PATH: a relative one would find programs in the folder that is looked at."""
    entries = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(entry for entry in entries if Path(entry).is_absolute())


@lru_cache(maxsize=1)
def _program() -> str | None:
    """Git's absolute path; not by ``shutil.which``, which on Windows looks in the current folder first."""
    name = "git.exe" if sys.platform == "win32" else "git"
    for entry in _search_path().split(os.pathsep):
        path = Path(entry) / name
        if entry and path.is_file() and os.access(path, os.X_OK):
            return str(path)
    logger.info("git is not installed; only the ignore files in folders are honored")
    return None
