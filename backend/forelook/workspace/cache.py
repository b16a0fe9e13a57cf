"""The pool of a workspace on disk: a base that is replaced as a whole, and a journal of what changed since.

::

    pools/<hash of workspace and model>/
        lock            held by the process that writes
        17.base         everything as of some moment
        17.journal      what changed after it, one checked record after another

A base is written beside the old one, flushed and renamed, so at every moment one complete base is there; a process
killed while it appends to the journal loses that record. Every part carries a checksum: a damaged file is set aside
under another name, and the pool starts from what is sound. Only the holder of the lock writes; another process on the
same workspace reads, and writes once the lock is free.

Files hold tokens, which are as private as the text: they are readable by the user alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from forelook.decoding.ngrams.index import IndexState, TokenArray
from forelook.decoding.ngrams.pool import PoolState
from forelook.errors import PoolCacheError
from forelook.local.files import TEMPORARY_SUFFIX, OpenFile, open_private, try_lock, write_atomically

FORMAT_VERSION = 1

_LOG = logging.getLogger(__name__)
_BASE_MAGIC = b"FLKBASE\n"
_JOURNAL_MAGIC = b"FLKJRNL\n"
_PREFIX = struct.Struct("<8sIII")  # magic, format version, length and checksum of what follows
_RECORD = struct.Struct("<II")  # length and checksum of the payload
_PAYLOAD = struct.Struct("<BIIQII")  # operation, start, end, digest, bytes of the key, tokens
_FILE_NAME = re.compile(r"(\d+)\.(base|journal)")
_MAX_RECORD_BYTES = 1 << 28
_WRITE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a document: tokens ``[start, end)`` replaced by ``ids``.

    ``end`` is ``None`` for the whole document, and ``ids`` is ``None`` where it was removed. ``digest`` is the text's,
    where it is known.
    """

    key: str
    start: int
    end: int | None
    ids: TokenArray | None
    digest: int = 0


@dataclass(frozen=True, slots=True)
class Restored:
    """What a cache held.

    Attributes:
        generation: the base's number.
        state: the base, or ``None`` where there is no sound one.
        digests: per document of the base whose text's digest is known, that digest.
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
        workspace: the workspace's uri.
        fingerprint: names model, revision and tokenizer.
        max_bytes: bound for all pools of the user; the ones written longest ago are deleted.
        open_file: opens a file as ``os.open`` does; tests give one that fails.
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
        self._journal_end = 0

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._folder

    @property
    def journal_bytes(self) -> int:
        """Size of the journal behind its head; 0 before the first append."""
        return self._journal_end

    # -- the lock -------------------------------------------------------------------------------------------------

    def acquire(self) -> bool:
        """Become the writer; False while another process is.

        Raises:
            PoolCacheError: the folder cannot be made or written.
        """
        if self._lock is not None:
            return True
        try:
            for folder in (self._root, self._folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
            self._lock = try_lock(self._folder / "lock", self._open_file)
        except OSError as error:
            raise _failed("made", self._folder, error) from error
        if self._lock is None:
            return False
        self._generation = max(self._generations(), default=0)
        return True

    def release(self) -> None:
        """Let another process write."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self) -> Restored:
        """The newest sound base and its journal; damaged files are set aside."""
        for generation in sorted(self._generations(), reverse=True):
            base = self._path(generation, "base")
            try:
                found = self._read_base(base) if base.exists() else None
            except (OSError, ValueError, PoolCacheError) as error:
                self.reject(generation, error)
                continue
            if found is not None:
                state, digests = found
                changes = self._read_journal(self._path(generation, "journal"), generation)
                return Restored(generation, state, digests, changes)
        return Restored(0, None, {}, [])

    def reject(self, generation: int, error: Exception) -> bool:
        """Set a base and its journal aside; False where they could not be renamed."""
        for kind in ("base", "journal"):
            self._set_aside(self._path(generation, kind), error)
        return not self._path(generation, "base").exists()

    def _read_base(self, path: Path) -> tuple[PoolState, dict[str, int]]:
        with path.open("rb") as file:
            header = json.loads(_read_head(file, _BASE_MAGIC))
            if header.get("identity") != self._identity:
                raise PoolCacheError(f"{path} belongs to another workspace or model")
            arrays: dict[str, TokenArray] = {}
            for name, count, checksum in header["arrays"]:
                data = file.read(4 * count)
                if len(data) < 4 * count:
                    raise PoolCacheError(f"{path} is cut short")
                if zlib.crc32(data) != checksum:
                    raise PoolCacheError(f"{path} is damaged in its {name}")
                arrays[name] = np.frombuffer(data, dtype="<i4").astype(np.int32, copy=False)
        segments: list[TokenArray] = []
        start = 0
        for length in header["segments"]:
            segments.append(arrays["positions"][start : start + length])
            start += length
        index = IndexState(arrays["tokens"], header["sorted_length"], segments)
        state = PoolState(header["keys"], header["weights"], arrays["pieces"].reshape(-1, 3), index)
        return state, header["digests"]

    def _read_journal(self, path: Path, generation: int) -> list[Change]:
        try:
            with path.open("rb") as file:
                head = json.loads(_read_head(file, _JOURNAL_MAGIC))
                if head != {"generation": generation, "identity": self._identity}:
                    raise PoolCacheError(f"{path} belongs to another base")
                changes, is_sound = _read_records(file.read())
        except FileNotFoundError:
            return []
        except (OSError, ValueError, PoolCacheError) as error:
            self._set_aside(path, error)
            return []
        if not is_sound:
            self._set_aside(path, PoolCacheError("a record in it is damaged; those before it are kept"))
        return changes

    def _set_aside(self, path: Path, error: Exception) -> None:
        """Rename a file that cannot be read; without the lock only leave it alone."""
        if not path.exists():
            return
        _LOG.warning("set aside %s: %s", path, error)
        if self._lock is not None:
            with suppress(OSError):
                path.replace(path.with_name(path.name + ".damaged"))

    # -- writing --------------------------------------------------------------------------------------------------

    def write_base(self, state: PoolState, digests: dict[str, int]) -> None:
        """Replace everything, and begin an empty journal.

        Raises:
            PoolCacheError: it cannot be written; what was there before is still there.
        """
        self._check_writer()
        segments = state.index.segments
        positions = np.concatenate(segments) if segments else np.zeros(0, dtype=np.int32)
        parts = {"tokens": state.index.tokens, "positions": positions, "pieces": state.pieces.reshape(-1)}
        arrays = {name: array.astype("<i4", copy=False).tobytes() for name, array in parts.items()}
        header = {
            "identity": self._identity,
            "keys": state.keys,
            "weights": state.weights,
            "digests": digests,
            "sorted_length": state.index.sorted_length,
            "segments": [len(segment) for segment in segments],
            "arrays": [(name, len(data) // 4, zlib.crc32(data)) for name, data in arrays.items()],
        }
        generation = self._generation + 1
        base = self._path(generation, "base")
        self._write_whole(base, [_head(_BASE_MAGIC, header), *arrays.values()])
        self._generation = generation
        self._journal_end = 0
        self._remove_others()
        self._make_room()

    def append(self, changes: Sequence[Change]) -> None:
        """Add changes to the journal.

        Raises:
            PoolCacheError: they cannot be written.
        """
        self._check_writer()
        path = self._path(self._generation, "journal")
        data = b"".join(map(_encode_change, changes))
        if self._journal_end == 0:
            head = _head(_JOURNAL_MAGIC, {"generation": self._generation, "identity": self._identity})
            self._write_whole(path, [head, data])
            self._journal_end = len(data)
            return
        try:
            with open_private(path, os.O_WRONLY | os.O_APPEND, self._open_file, buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                try:
                    _write_all(file, data)
                except OSError:
                    file.truncate(size)  # half a record would hide all later ones
                    raise
        except OSError as error:
            raise _failed("written", path, error) from error
        self._journal_end += len(data)

    def delete(self) -> None:
        """Delete everything kept of this workspace.

        Raises:
            PoolCacheError: something cannot be deleted, or another process is the writer.
        """
        if not self.acquire():
            raise PoolCacheError(f"{self._folder} is in use by another process; stop it, then clear the pool again")
        for path in self._folder.iterdir():
            if path.name != "lock":
                try:
                    path.unlink()
                except OSError as error:
                    raise _failed("deleted", path, error) from error
        self._journal_end = 0

    def _check_writer(self) -> None:
        if self._lock is None:
            raise PoolCacheError(f"{self._folder} is written by another process")

    def _write_whole(self, path: Path, blocks: Sequence[bytes]) -> None:
        try:
            write_atomically(path, blocks, is_durable=True, open_file=self._open_file)
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
        """Delete older generations and leftovers of writers that were killed; what was set aside is kept once."""
        for path in self._folder.iterdir():
            match = _FILE_NAME.fullmatch(path.name)
            if path.name.endswith(TEMPORARY_SUFFIX) or (match and int(match[1]) != self._generation):
                with suppress(OSError):
                    path.unlink()

    def _make_room(self) -> None:
        """Delete pools written longest ago while all together exceed the bound; never this one or one in use."""
        sizes: list[tuple[float, int, Path]] = []
        for folder in self._root.iterdir():
            if folder.is_dir():
                entries = [entry.stat() for entry in folder.iterdir()]
                sizes.append((max((e.st_mtime for e in entries), default=0.0), sum(e.st_size for e in entries), folder))
        total = sum(size for _, size, _ in sizes)
        for _, size, folder in sorted(sizes):
            if total <= self._max_bytes:
                return
            if folder != self._folder and _delete_unused(folder):
                _LOG.info("deleted the pool in %s to stay within %d bytes", folder, self._max_bytes)
                total -= size


def _delete_unused(folder: Path) -> bool:
    """Delete a pool's folder unless a process writes to it."""
    try:
        lock = try_lock(folder / "lock")
        if lock is None:
            return False
        with lock:
            shutil.rmtree(folder)
    except OSError as error:
        _LOG.warning("cannot delete the pool in %s: %s", folder, error.strerror)
        return False
    return True


def _write_all(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while len(view):
        view = view[file.write(view[:_WRITE_BYTES]) :]


def _failed(what: str, path: Path, error: OSError) -> PoolCacheError:
    reason = error.strerror or type(error).__name__
    return PoolCacheError(f"{path} cannot be {what} ({reason}): the pool goes on in memory; make room or give access")


def _head(magic: bytes, header: dict[str, object]) -> bytes:
    data = json.dumps(header).encode()
    return _PREFIX.pack(magic, FORMAT_VERSION, len(data), zlib.crc32(data)) + data


def _read_head(file: IO[bytes], magic: bytes) -> bytes:
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        raise PoolCacheError("the file is cut short")
    found, version, length, checksum = _PREFIX.unpack(prefix)
    if found != magic:
        raise PoolCacheError("the file is not a pool")
    if version != FORMAT_VERSION:
        raise PoolCacheError(f"format version {version} is not {FORMAT_VERSION}, the one this Forelook reads")
    if length > _MAX_RECORD_BYTES:
        raise PoolCacheError("its head is damaged")
    data = file.read(length)
    if len(data) < length or zlib.crc32(data) != checksum:
        raise PoolCacheError("its head is damaged")
    return data


_SET, _REPLACE, _REMOVE = 0, 1, 2


def _encode_change(change: Change) -> bytes:
    key = change.key.encode("utf-8", "surrogateescape")
    ids = b"" if change.ids is None else np.ascontiguousarray(change.ids, dtype="<i4").tobytes()
    operation = _REMOVE if change.ids is None else _SET if change.end is None else _REPLACE
    payload = (
        _PAYLOAD.pack(operation, change.start, change.end or 0, change.digest, len(key), len(ids) // 4) + key + ids
    )
    return _RECORD.pack(len(payload), zlib.crc32(payload)) + payload


def _read_records(data: bytes) -> tuple[list[Change], bool]:
    """The records up to the first unsound one, and whether that is only one cut short at the end."""
    changes: list[Change] = []
    start = 0
    while start < len(data):
        if start + _RECORD.size > len(data):
            return changes, True
        length, checksum = _RECORD.unpack_from(data, start)
        end = start + _RECORD.size + length
        payload = data[start + _RECORD.size : end]
        if end > len(data):
            return changes, True
        if zlib.crc32(payload) != checksum:
            return changes, False
        changes.append(_decode_change(payload))
        start = end
    return changes, True


def _decode_change(payload: bytes) -> Change:
    operation, start, end, digest, key_length, num_ids = _PAYLOAD.unpack_from(payload)
    middle = _PAYLOAD.size + key_length
    key = payload[_PAYLOAD.size : middle].decode("utf-8", "surrogateescape")
    ids = np.frombuffer(payload, dtype="<i4", count=num_ids, offset=middle).astype(np.int32)
    if operation == _REMOVE:
        return Change(key, 0, None, None)
    return Change(key, start, None if operation == _SET else end, ids, digest)
