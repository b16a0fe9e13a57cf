"""Private folders, atomic writes and lock files."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TypeVar

from forelook.errors import EndpointError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

T = TypeVar("T")

OpenFile = Callable[[str, int, int], int]
"""Opens a path with flags and a mode and returns a descriptor, as ``os.open`` does."""

DAMAGED_SUFFIX = ".damaged"
"""Ends the name of a file that could not be read and was set aside."""

_NO_STATE_FILE = (errno.EINVAL, errno.EFBIG, errno.EISDIR)  # what stands in its place is none of our files
MAX_STATE_BYTES = 256 * 2**20  # chosen, not measured: no file of our own state is near that

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
        try:
            os.fchmod(descriptor, 0o600)
        except OSError:  # another user's file
            os.close(descriptor)
            raise
    return os.fdopen(descriptor, mode, buffering)


def read_regular_file(
    path: Path,
    max_bytes: int,
    *,
    follows_links: bool = False,
    check: Callable[[os.stat_result], None] = lambda _info: None,
) -> bytes:
    """Read a file that others may have put there: never wait for a pipe, a device or an endless file.

    Args:
        path: the file.
        max_bytes: limit of its size.
        follows_links: whether ``path`` itself may be a symbolic link; folders above it always may.
        check: raises if the file that was opened must not be read.

    Raises:
        OSError: it cannot be opened, is a link (``ELOOP``), is not a regular file (``EINVAL``) or is larger than
            ``max_bytes`` (``EFBIG``).
    """
    if not follows_links and path.is_symlink():  # the flag below does not exist on Windows
        raise OSError(errno.ELOOP, "it is a symbolic link", str(path))
    # Without O_NONBLOCK, opening a named pipe would wait for its writer; O_NOCTTY keeps a terminal from taking over.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags | (0 if follows_links else getattr(os, "O_NOFOLLOW", 0)))
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            code = errno.EISDIR if stat.S_ISDIR(info.st_mode) else errno.EINVAL
            raise OSError(code, "it is not a regular file", str(path))
        check(info)
        # Some files have no size, as in /proc, and others grow: what is read counts too.
        data = file.read(max_bytes + 1) if info.st_size <= max_bytes else b""
    if max(len(data), info.st_size) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes} bytes", str(path))
    return data


def read_or_set_aside(path: Path, read: Callable[[bytes], T]) -> T | None:
    """What ``read`` makes of a file of our own; a file it fails on is renamed, so that it cannot fail every start.

    Args:
        path: the file.
        read: parses and checks the content. Whatever it raises means damage, except running out of memory.

    Returns:
        ``None`` if there is no file that can be read.
    """
    try:
        return read(read_regular_file(path, MAX_STATE_BYTES, follows_links=True))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - damage raises anything: RecursionError, OverflowError, BadZipFile …
        if isinstance(error, OSError) and error.errno not in _NO_STATE_FILE:
            logger.warning("cannot read %s (%s); continuing without it", path, error.strerror)
            return None
        logger.warning("set aside %s (%s); continuing without it", path, type(error).__name__)
        with contextlib.suppress(OSError):
            path.replace(path.with_name(path.name + DAMAGED_SUFFIX))
        return None


def _flush_folder(folder: Path) -> None:
    """Make a rename durable, on platforms where a folder can be flushed."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# Lock files stay after use: removing one would let two processes hold the lock. All of them are in private folders; a
# pipe, a link or another user's file there is a leftover that protects nothing.


def try_lock(path: Path, open_file: OpenFile = os.open) -> IO[bytes] | None:
    """Lock ``path`` exclusively; ``None`` while another process holds it. Closing the file releases the lock.

    Raises:
        OSError: the file cannot be opened.
    """
    try:
        file = _open_lock(path, open_file)
    except _NotALockError as error:
        logger.warning("removed %s, which is no lock file (%s)", path, error)
        remove_leftover(path)
        file = _open_lock(path, open_file)
    if _lock(file) and names(path, file):
        return file
    file.close()
    return None


def _open_lock(path: Path, open_file: OpenFile) -> IO[bytes]:
    try:
        file = open_private(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), open_file, buffering=0)
    except OSError as error:
        if path.is_symlink() or (path.exists() and not path.is_file()) or _is_foreign(path):
            raise _NotALockError(error.strerror) from error
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or _is_foreign(path):
        file.close()
        raise _NotALockError("it is no regular file of this user's")
    return file


class _NotALockError(OSError):
    """What is called like a lock file cannot be one."""


def _is_foreign(path: Path) -> bool:
    """Whether another user owns the file."""
    try:
        return sys.platform != "win32" and path.lstat().st_uid != os.getuid()
    except FileNotFoundError:
        return False


def names(path: Path, file: IO[bytes]) -> bool:
    """Whether ``path`` is still the name of an open file: its folder may have been removed and made again."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def remove_leftover(path: Path) -> bool:
    """Remove whatever has this name, and return whether there was anything; a folder that is not empty is renamed.

    Raises:
        OSError: it can be neither removed nor renamed.
    """
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError:
        if not path.is_dir():
            raise
        try:
            path.rmdir()
        except OSError:
            path.rename(path.with_name(f".{secrets.token_hex(4)}-{path.name}.old"))
    return True


@contextlib.contextmanager
def file_lock(path: Path, timeout_s: float, purpose: str) -> Iterator[IO[bytes]]:
    """Hold the lock of ``path`` while the context lasts; yields the file, which names this process.

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
            raise EndpointError(f"{purpose}: {lock_holder(path)} has held {path} for {timeout_s:g} s")
        time.sleep(_RETRY_S)  # no portable lock call accepts a timeout
    with file:
        with contextlib.suppress(OSError):  # a full disk; the name is only for messages
            file.truncate(0)
            file.write(b"%d" % os.getpid())
        yield file


def lock_holder(path: Path) -> str:
    """The process that holds a lock, for messages."""
    try:
        content = read_regular_file(path, 100).decode("ascii")
    except (OSError, ValueError):
        content = ""
    return f"process {content}" if content.isdecimal() else "another process"


def is_locked(path: Path) -> bool:
    """Whether a running process of this user holds the lock of ``path``."""
    flags = os.O_RDWR | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(path, flags), "r+b", 0) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or _is_foreign(path):
                return False
            return not _lock(file, shared=True)  # shared: two processes that ask at once must not see each other
    except OSError:
        return False  # no lock file, or one that this user's processes cannot hold


def _lock(file: IO[bytes], *, shared: bool = False) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
