"""The pool of a workspace on disk: a base that is replaced as a whole, and a journal of later changes.

::

    pools/<hash of workspace and model>/
        lock            held by the writing process
        17.base         the whole pool at one moment
        17.journal      changes after it

A new base is written to a temporary file, flushed and renamed, so one complete base exists at every moment. A process
that is killed while it appends to the journal loses that record. A damaged file is renamed, and the pool starts from
the sound ones. Only the process that holds the lock writes; others on the same workspace read, and write once the lock
is free.

Files contain tokens, which are as private as the text: only the user can read them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from forelook.decoding.ngrams.pool import PoolState
from forelook.errors import PoolCacheError
from forelook.local.files import (
    TEMPORARY_SUFFIX,
    OpenFile,
    open_private,
    try_lock,
    write_atomically,
)
from forelook.workspace.cache_format import (
    Change,
    base_blocks,
    journal_header,
    journal_records,
    read_base,
    read_journal,
)

logger = logging.getLogger(__name__)
_FILE_NAME = re.compile(r"(\d+)\.(base|journal)")
_MAX_POOLS = 1000  # folders of one user; chosen, not measured
_WRITE_BYTES = 1 << 20  # per system call; chosen, not measured


@dataclass(frozen=True, slots=True)
class Restored:
    """The content of a cache.

    Attributes:
        generation: the number of the base.
        state: the base; ``None`` if there is no sound one.
        digests: the digest of the text of each document of the base, where known.
        changes: what the journal adds to the base.
    """

    generation: int
    state: PoolState | None
    digests: dict[str, int]
    changes: list[Change]


class PoolCache:
    """One workspace's folder. Its methods block on the disk; call them from one thread.

    Args:
        root: the user's folder of all pools.
        workspace: the workspace's name.
        fingerprint: identifies model, revision and tokenizer.
        max_bytes: maximum size of all pools of the user; those written longest ago are deleted.
        open_file: opens a file as ``os.open`` does; tests pass one that fails.
    """

    def __init__(
        self,
        root: Path,
        workspace: str,
        fingerprint: str,
        *,
        max_bytes: int = 1 << 30,
        open_file: OpenFile = os.open,
    ) -> None:
        self._root = root
        self._identity = {"workspace": workspace, "fingerprint": fingerprint}
        name = hashlib.blake2b(json.dumps(self._identity, sort_keys=True).encode(), digest_size=16).hexdigest()
        self._folder = root / name
        self._max_bytes = max_bytes
        self._open_file = open_file
        self._lock: IO[bytes] | None = None
        self._generation = 0
        self._journal_bytes = 0

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return self._folder

    @property
    def exists(self) -> bool:
        """Whether there is a folder, sound or not."""
        return self._folder.exists()

    @property
    def journal_bytes(self) -> int:
        """Size of the journal after its header; 0 before the first append."""
        return self._journal_bytes

    # --- the lock

    def acquire(self) -> bool:
        """Become the writer; returns False while another process is.

        Raises:
            PoolCacheError: the folder cannot be created or written.
        """
        if self._lock is not None and self._is_in_place(self._lock):
            return True
        self.release()
        try:
            for folder in (self._root, self._folder):  # may be links, unlike the folder of the token
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
            self._lock = try_lock(self._folder / "lock", self._open_file)
        except OSError as error:
            raise _failed("created", self._folder, error) from error
        if self._lock is None:
            return False
        self._generation = max(self._generations(), default=0)
        self._journal_bytes = 0
        return True

    def _is_in_place(self, lock: IO[bytes]) -> bool:
        """Whether the lock is still the file in the folder: somebody may have deleted the folder."""
        try:
            return os.path.samestat(os.fstat(lock.fileno()), (self._folder / "lock").stat())
        except OSError:
            return False

    def release(self) -> None:
        """Let another process become the writer."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # --- reading

    def read(self) -> Restored:
        """The newest sound base and its journal; damaged files are renamed."""
        for generation in sorted(self._generations(), reverse=True):
            path = self._path(generation, "base")
            if not path.exists():
                continue
            try:
                with path.open("rb") as file:
                    state, digests = read_base(file, self._identity)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - damage raises anything
                self.reject(generation, error)
            else:
                return Restored(generation, state, digests, self._read_journal(generation))
        return Restored(0, None, {}, [])

    def reject(self, generation: int, error: Exception) -> bool:
        """Rename a base and its journal; returns False if the base could not be renamed."""
        for kind in ("base", "journal"):
            self._set_aside(self._path(generation, kind), error)
        return not self._path(generation, "base").exists()

    def _read_journal(self, generation: int) -> list[Change]:
        path = self._path(generation, "journal")
        try:
            with path.open("rb") as file:
                changes, is_sound = read_journal(file, self._identity, generation)
        except FileNotFoundError:
            return []
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - damage raises anything
            self._set_aside(path, error)
            return []
        if not is_sound:
            self._set_aside(path, PoolCacheError("one record is damaged; those before it are kept"))
        return changes

    def _set_aside(self, path: Path, error: Exception) -> None:
        """Rename a file that cannot be read; without the lock leave it alone."""
        if not path.exists():
            return
        logger.warning("set aside %s: %s", path, error)
        if self._lock is not None:
            with suppress(OSError):
                path.replace(path.with_name(path.name + ".damaged"))

    # --- writing

    def write_base(self, state: PoolState, digests: dict[str, int]) -> None:
        """Replace everything, and start an empty journal.

        Raises:
            PoolCacheError: it cannot be written; the former content is still there.
        """
        self._check_writer()
        generation = self._generation + 1
        self._write_whole(self._path(generation, "base"), base_blocks(self._identity, state, digests))
        self._generation = generation
        self._journal_bytes = 0
        self._remove_others()
        self._make_room()

    def append(self, changes: Sequence[Change]) -> None:
        """Add changes to the journal.

        Raises:
            PoolCacheError: they cannot be written.
        """
        self._check_writer()
        path = self._path(self._generation, "journal")
        if not self._path(self._generation, "base").exists():
            raise PoolCacheError(f"{path} has lost its base; the pool is written again")
        data = journal_records(changes)
        if self._journal_bytes == 0:
            self._write_whole(path, [journal_header(self._identity, self._generation), data])
        else:
            self._append(path, data)
        self._journal_bytes += len(data)

    def delete(self) -> None:
        """Delete all files of this workspace.

        Raises:
            PoolCacheError: a file cannot be deleted, or another process is the writer.
        """
        if not self.acquire():
            raise PoolCacheError(f"{self._folder} is in use by another process; stop it, then clear the pool again")
        for path in self._folder.iterdir():
            if path.name != "lock":
                try:
                    path.unlink()
                except OSError as error:
                    raise _failed("deleted", path, error) from error
        self._journal_bytes = 0

    def _check_writer(self) -> None:
        if self._lock is None:
            raise PoolCacheError(f"{self._folder} is written by another process")

    def _write_whole(self, path: Path, blocks: Sequence[bytes]) -> None:
        try:
            write_atomically(path, blocks, is_durable=True, open_file=self._open_file)
        except OSError as error:
            raise _failed("written", path, error) from error

    def _append(self, path: Path, data: bytes) -> None:
        try:
            with open_private(path, os.O_WRONLY | os.O_APPEND, self._open_file, buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                try:
                    left = memoryview(data)
                    while left:
                        left = left[file.write(left[:_WRITE_BYTES]) :]
                except OSError:
                    file.truncate(size)  # half a record would hide all later ones
                    raise
        except OSError as error:
            raise _failed("written", path, error) from error

    def _path(self, generation: int, kind: str) -> Path:
        return self._folder / f"{generation}.{kind}"

    def _generations(self) -> set[int]:
        try:
            names = [path.name for path in self._folder.iterdir()]
        except OSError:
            return set()
        return {int(match[1]) for name in names if (match := _FILE_NAME.fullmatch(name))}

    def _remove_others(self) -> None:
        """Delete older generations and temporary files of killed writers; damaged files are kept once."""
        for path in self._folder.iterdir():
            match = _FILE_NAME.fullmatch(path.name)
            if path.name.endswith(TEMPORARY_SUFFIX) or (match and int(match[1]) != self._generation):
                with suppress(OSError):
                    path.unlink()

    def _make_room(self) -> None:
        """Delete pools written longest ago while all together exceed the limit; never this one or one in use."""
        sizes: list[tuple[float, int, Path]] = []
        for folder in self._root.iterdir():
            if folder.is_dir():
                with suppress(FileNotFoundError):  # another process is replacing its files, so they are in use
                    entries = [entry.stat() for entry in folder.iterdir()]
                    written_s = max((entry.st_mtime for entry in entries), default=0.0)
                    sizes.append((written_s, sum(entry.st_size for entry in entries), folder))
        total, count = sum(size for _, size, _ in sizes), len(sizes)
        for _, size, folder in sorted(sizes):
            if total <= self._max_bytes and count <= _MAX_POOLS:
                return
            if folder != self._folder and _delete_unused(folder):
                logger.info("deleted the pool in %s (limit %d bytes)", folder, self._max_bytes)
                total -= size
                count -= 1


def _delete_unused(folder: Path) -> bool:
    """Delete a pool's folder unless a process writes to it."""
    try:
        lock = try_lock(folder / "lock")
        if lock is None:
            return False
        with lock:
            shutil.rmtree(folder)
    except OSError as error:
        logger.warning("cannot delete the pool in %s: %s", folder, error.strerror)
        return False
    return True


def _failed(what: str, path: Path, error: OSError) -> PoolCacheError:
    reason = error.strerror or type(error).__name__
    return PoolCacheError(
        f"{path} cannot be {what} ({reason}); continuing in memory only; free some disk space or fix the permissions"
    )
