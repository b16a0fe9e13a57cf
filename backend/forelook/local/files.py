"""Private folders, atomic writes and lock files."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from forelook.errors import EndpointError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

OpenFile = Callable[[str, int, int], int]
"""Opens a path with flags and a mode and returns a descriptor, as ``os.open`` does."""

TEMPORARY_SUFFIX = ".new"
"""Ends the name of a file that is being written; a killed process leaves it behind."""

_RETRY_S = 0.02  # chosen, not measured: between two attempts to lock


def make_private_dir(path: Path) -> Path:
    """Create ``path`` as a folder that only this user can enter.

    Raises:
        EndpointError: it is a link or a file, belongs to another user, or cannot be closed to others.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.lstat()
        if not stat.S_ISDIR(info.st_mode):
            raise EndpointError(f"{path} is not a directory; remove it")
        if sys.platform != "win32":
            if info.st_uid != os.getuid():
                raise EndpointError(
                    f"{path} belongs to user {info.st_uid}, not to you; remove it or set XDG_RUNTIME_DIR"
                )
            if stat.S_IMODE(info.st_mode) != 0o700:
                path.chmod(0o700)
    except FileExistsError as error:
        raise EndpointError(f"{path} is not a directory; remove it") from error
    except OSError as error:
        raise EndpointError(f"{path} cannot be used as a private folder: {error.strerror or error}") from error
    return path


def write_atomically(
    path: Path, content: str | bytes | Iterable[bytes], *, is_durable: bool = False, open_file: OpenFile = os.open
) -> None:
    """Replace ``path`` as a whole or not at all; only this user can read it.

    Args:
        path: the file, in an existing folder.
        content: a text, which is written as UTF-8, or bytes in one or several blocks.
        is_durable: flush the file and its folder to the disk, so that the new content survives a power failure.
        open_file: opens the temporary file; tests pass one that fails.

    Raises:
        OSError: the file cannot be written; its former content is still there.
    """
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}{TEMPORARY_SUFFIX}")
    blocks = [content.encode()] if isinstance(content, str) else [content] if isinstance(content, bytes) else content
    try:
        with open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, open_file) as file:
            file.writelines(blocks)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if is_durable:
            _flush_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def open_private(path: Path, flags: int, open_file: OpenFile = os.open, *, buffering: int = -1) -> IO[bytes]:
    """Open a file that only this user can read; symbolic links are refused.

    Raises:
        OSError: it cannot be opened.
    """
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = open_file(str(path), flags, 0o600)
    mode = "ab" if flags & os.O_APPEND else "wb" if flags & os.O_WRONLY else "r+b"
    if sys.platform != "win32":
        os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, mode, buffering)


def _flush_folder(folder: Path) -> None:
    """Make a rename durable, on platforms where a folder can be flushed."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# Lock files stay after use: removing one would let two processes hold the lock.


def try_lock(path: Path, open_file: OpenFile = os.open) -> IO[bytes] | None:
    """Lock ``path`` exclusively; ``None`` while another process holds it. Closing the file releases the lock.

    Raises:
        OSError: the file cannot be opened.
    """
    file = open_private(path, os.O_RDWR | os.O_CREAT, open_file)
    if _lock(file):
        return file
    file.close()
    return None


@contextlib.contextmanager
def file_lock(path: Path, timeout_s: float, purpose: str) -> Iterator[None]:
    """Hold the lock of ``path`` while the context lasts.

    Args:
        path: the lock file.
        timeout_s: maximum time to wait for another process.
        purpose: what the lock is for; opens the error message.

    Raises:
        EndpointError: another process held the lock for ``timeout_s``.
        OSError: the file cannot be opened.
    """
    deadline_s = time.monotonic() + timeout_s
    while (file := try_lock(path)) is None:
        if time.monotonic() >= deadline_s:
            raise EndpointError(f"{purpose}: another process has held {path} for {timeout_s:g} s")
        time.sleep(_RETRY_S)  # no portable lock call accepts a timeout
    with file:
        yield


def is_locked(path: Path) -> bool:
    """Whether a running process holds the lock of ``path``."""
    try:
        with path.open("r+b") as file:
            return not _lock(file, shared=True)  # shared: two processes that ask at once must not see each other
    except FileNotFoundError:
        return False


def _lock(file: IO[bytes], *, shared: bool = False) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
