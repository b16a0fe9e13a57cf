"""The bytes of a pool's files: a header and arrays in the base, a header and one record per change in the journal.

Integers are little-endian. Every part carries a CRC-32.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from forelook.decoding.ngrams.index import IndexState, TokenArray
from forelook.decoding.ngrams.pool import PoolState
from forelook.errors import PoolCacheError

FORMAT_VERSION = 1
_BASE_MAGIC = b"FLKBASE\n"
_JOURNAL_MAGIC = b"FLKJRNL\n"
_PREFIX = struct.Struct("<8sIII")  # magic, format version, length and checksum of the JSON header
_RECORD = struct.Struct("<II")  # length and checksum of the payload
_PAYLOAD = struct.Struct("<BIIQII")  # operation, start, end, digest, bytes of the key, tokens
_SET, _REPLACE, _REMOVE = 0, 1, 2
_MAX_HEADER_BYTES = 1 << 28  # chosen, not measured: a larger length is damage

Identity = dict[str, str]
"""The workspace and the model that a file belongs to."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a document: tokens ``[start, end)`` replaced by ``ids``.

    Attributes:
        key: the document.
        start: first token replaced.
        end: end of the replaced tokens, exclusive; ``None`` for the whole document.
        ids: the replacement; ``None`` if the document was removed.
        digest: the digest of the document's text; 0 if unknown.
    """

    key: str
    start: int
    end: int | None
    ids: TokenArray | None
    digest: int = 0


def base_blocks(identity: Identity, state: PoolState, digests: dict[str, int]) -> list[bytes]:
    """The content of a base."""
    segments = state.index.segments
    positions = np.concatenate(segments) if segments else np.zeros(0, dtype=np.int32)
    parts = {"tokens": state.index.tokens, "positions": positions, "pieces": state.pieces.reshape(-1)}
    arrays = {name: array.astype("<i4", copy=False).tobytes() for name, array in parts.items()}
    header = {
        "identity": identity,
        "keys": state.keys,
        "weights": state.weights,
        "digests": digests,
        "sorted_length": state.index.sorted_length,
        "segments": [len(segment) for segment in segments],
        "arrays": [(name, len(data) // 4, zlib.crc32(data)) for name, data in arrays.items()],
    }
    return [_header(_BASE_MAGIC, header), *arrays.values()]


def read_base(file: IO[bytes], identity: Identity) -> tuple[PoolState, dict[str, int]]:
    """The pool of a base, and the known digests of its documents' texts.

    Raises:
        PoolCacheError: the file is damaged, or of another format version, workspace or model.
        ValueError, OSError: likewise.
    """
    header = _read_header(file, _BASE_MAGIC)
    if header.get("identity") != identity:
        raise PoolCacheError("the file belongs to another workspace or model")
    arrays: dict[str, TokenArray] = {}
    for name, count, checksum in header["arrays"]:
        data = file.read(4 * count)
        if len(data) < 4 * count:
            raise PoolCacheError("the file is truncated")
        if zlib.crc32(data) != checksum:
            raise PoolCacheError(f"its {name} are damaged")
        arrays[name] = np.frombuffer(data, dtype="<i4").astype(np.int32, copy=False)
    segments: list[TokenArray] = []
    start = 0
    for length in header["segments"]:
        segments.append(arrays["positions"][start : start + length])
        start += length
    index = IndexState(arrays["tokens"], header["sorted_length"], segments)
    return PoolState(header["keys"], header["weights"], arrays["pieces"].reshape(-1, 3), index), header["digests"]


def journal_header(identity: Identity, generation: int) -> bytes:
    """The start of the journal of a base."""
    return _header(_JOURNAL_MAGIC, {"generation": generation, "identity": identity})


def journal_records(changes: Iterable[Change]) -> bytes:
    """The records of some changes."""
    return b"".join(map(_encode_change, changes))


def read_journal(file: IO[bytes], identity: Identity, generation: int) -> tuple[list[Change], bool]:
    """The changes up to the first damaged record, and whether there is none; a truncated last record is none.

    Raises:
        PoolCacheError: the header is damaged, or the journal belongs to another base.
        ValueError, OSError: likewise.
    """
    if _read_header(file, _JOURNAL_MAGIC) != {"generation": generation, "identity": identity}:
        raise PoolCacheError("the file belongs to another base")
    data = file.read()
    changes: list[Change] = []
    start = 0
    while start + _RECORD.size <= len(data):
        length, checksum = _RECORD.unpack_from(data, start)
        end = start + _RECORD.size + length
        payload = data[start + _RECORD.size : end]
        if end > len(data):
            break
        if zlib.crc32(payload) != checksum:
            return changes, False
        changes.append(_decode_change(payload))
        start = end
    return changes, True


def _header(magic: bytes, header: dict[str, object]) -> bytes:
    data = json.dumps(header).encode()
    return _PREFIX.pack(magic, FORMAT_VERSION, len(data), zlib.crc32(data)) + data


def _read_header(file: IO[bytes], magic: bytes) -> dict[str, Any]:
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        raise PoolCacheError("the file is truncated")
    found, version, length, checksum = _PREFIX.unpack(prefix)
    if found != magic:
        raise PoolCacheError("the file is not part of a pool")
    if version != FORMAT_VERSION:
        raise PoolCacheError(f"format version {version} is not supported (expected {FORMAT_VERSION})")
    data = file.read(length) if length <= _MAX_HEADER_BYTES else b""
    if len(data) < length or zlib.crc32(data) != checksum:
        raise PoolCacheError("its header is damaged")
    header = json.loads(data)
    if not isinstance(header, dict):
        raise PoolCacheError("its header is not an object")
    return header


def _encode_change(change: Change) -> bytes:
    key = change.key.encode("utf-8", "surrogatepass")
    ids = b"" if change.ids is None else np.ascontiguousarray(change.ids, dtype="<i4").tobytes()
    operation = _REMOVE if change.ids is None else _SET if change.end is None else _REPLACE
    fields = _PAYLOAD.pack(operation, change.start, change.end or 0, change.digest, len(key), len(ids) // 4)
    payload = fields + key + ids
    return _RECORD.pack(len(payload), zlib.crc32(payload)) + payload


def _decode_change(payload: bytes) -> Change:
    operation, start, end, digest, key_length, num_ids = _PAYLOAD.unpack_from(payload)
    middle = _PAYLOAD.size + key_length
    key = _decode_key(payload[_PAYLOAD.size : middle])
    ids = np.frombuffer(payload, dtype="<i4", count=num_ids, offset=middle).astype(np.int32)
    if operation == _REMOVE:
        return Change(key, 0, None, None)
    return Change(key, start, None if operation == _SET else end, ids, digest)


def _decode_key(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # written by 0.1.0, which could not write every name
        return data.decode("utf-8", "surrogateescape")
