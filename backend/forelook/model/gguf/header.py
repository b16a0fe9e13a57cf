"""Reads the header of a GGUF file: its metadata, and where its tensors are. The file may be damaged or hostile.

The ``gguf`` package has a reader too. It makes several numpy arrays per string, which takes seconds for a vocabulary,
and it trusts every count and offset. See docs/decisions.md, "GGUF is read by our own code".
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from forelook.errors import CheckpointError, ModelNotFoundError, UnsupportedArchitectureError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# Far more than any model has; a file that claims more is hostile. Chosen, not measured.
_MAX_KEYS = 100_000
_MAX_TENSORS = 1_000_000
_MAX_STRINGS = 10_000_000
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 20
_DEFAULT_ALIGNMENT = 32

_STRING, _ARRAY = 8, 9
# Little-endian numbers by the type's code in the file.
_NUMBERS: Mapping[int, struct.Struct] = MappingProxyType(
    {code: struct.Struct(f"<{letter}") for code, letter in (*enumerate("BbHhIif?"), (10, "Q"), (11, "q"), (12, "d"))}
)
_LENGTH = struct.Struct("<Q")
_U32 = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class BlockType:
    """A format of tensor data.

    Attributes:
        name: as in ggml, such as ``"Q4_K"``.
        num_values: values per block.
        num_bytes: bytes per block.
    """

    name: str
    num_values: int
    num_bytes: int


# By the type's code in the file; the types that blocks.py reads. The gguf package describes further ones.
BLOCK_TYPES: Mapping[int, BlockType] = MappingProxyType(
    {
        0: BlockType("F32", 1, 4),
        1: BlockType("F16", 1, 2),
        2: BlockType("Q4_0", 32, 18),
        3: BlockType("Q4_1", 32, 20),
        6: BlockType("Q5_0", 32, 22),
        7: BlockType("Q5_1", 32, 24),
        8: BlockType("Q8_0", 32, 34),
        12: BlockType("Q4_K", 256, 144),
        13: BlockType("Q5_K", 256, 176),
        14: BlockType("Q6_K", 256, 210),
        30: BlockType("BF16", 1, 2),
    }
)


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """A tensor in a file.

    Attributes:
        shape: the slowest dimension first, as in torch; ggml writes the fastest first.
        code: the type's code in the file.
        type: the format of its data.
        offset: of its first byte in the file.
        num_bytes: of its data.
    """

    shape: tuple[int, ...]
    code: int
    type: BlockType
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A memory-mapped GGUF file.

    Attributes:
        path: of the file.
        metadata: values by key. Arrays of numbers are numpy arrays, arrays of strings are lists.
        tensors: by name.
        data: the whole file. The mapping is private, so torch may treat it as writable although it is only read.
        header_bytes: size of the header.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorPlace]
    data: mmap.mmap
    header_bytes: int

    def check_size(self) -> None:
        """Raise if the file has become shorter: reading a mapping beyond the end kills the process.

        Raises:
            CheckpointError: it has, or it was deleted and replaced.
        """
        try:
            size = self.path.stat().st_size
        except OSError:
            return  # deleted: the mapping keeps its content
        if size < len(self.data):
            raise CheckpointError(
                f"{self.path} shrank from {len(self.data)} to {size} bytes while it was read; wait until the program "
                "that writes it is done"
            )

    def drop_pages(self, place: TensorPlace) -> None:
        """Take a tensor that was read out of this process's memory; the system still caches the file as it sees fit."""
        start = -(-place.offset // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (place.offset + place.num_bytes) // mmap.PAGESIZE * mmap.PAGESIZE - start
        if length > 0 and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            self.data.madvise(mmap.MADV_DONTNEED, start, length)


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file, by its first bytes or its name."""
    if not path.is_file():
        return False
    if path.suffix.lower() == ".gguf":
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_gguf(path: Path) -> GgufFile:
    """Map a file and read its header.

    Raises:
        ModelNotFoundError: there is no such file, or it cannot be opened.
        CheckpointError: the file is no GGUF file, truncated or damaged.
        UnsupportedArchitectureError: a version, byte order or tensor type that is not supported.
    """
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            head = stream.read(8)
            if head[:4] != MAGIC:
                shown = "empty" if not head else f"not a GGUF file: it begins with {head[:4]!r}"
                raise CheckpointError(f"{path} is {shown}; download it again")
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelNotFoundError(f"{path} cannot be opened: {reason}; check the path and its permissions") from error
    return _Parser(path, data, size).parse()


class _Parser:
    """Reads values one after the other, none beyond the end of the file."""

    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self._path = path
        self._data = data
        self._size = min(size, len(data))
        self._at = len(MAGIC)

    def parse(self) -> GgufFile:
        self._check_version()
        num_tensors, num_keys = self._number(_LENGTH), self._number(_LENGTH)
        self._check_count("metadata keys", num_keys, _MAX_KEYS, 8 + 4 + 1)
        self._check_count("tensors", num_tensors, _MAX_TENSORS, 8 + 4 + 4 + 8)
        metadata: dict[str, Any] = {}
        for _ in range(num_keys):
            key = self._text("a metadata key")
            if key in metadata:
                raise self._damaged(f"metadata key {key!r} occurs twice")
            metadata[key] = self._value(self._number(_U32), key)
        places: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(num_tensors):
            name = self._text("a tensor name")
            if name in places:
                raise self._damaged(f"tensor {name!r} occurs twice")
            places[name] = self._place(name)
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
            raise self._damaged(f"general.alignment is {alignment!r}, which is not a power of two")
        begin = -(-self._at // alignment) * alignment
        tensors = {name: self._tensor(name, *place, begin) for name, place in places.items()}
        return GgufFile(self._path, MappingProxyType(metadata), MappingProxyType(tensors), self._data, self._at)

    def _check_version(self) -> None:
        version = self._number(_U32)
        if version in _VERSIONS:
            return
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        found = f"version {swapped} in big-endian byte order" if swapped in _VERSIONS else f"version {version}"
        raise UnsupportedArchitectureError(
            f"{self._path} is GGUF {found}; versions 2 and 3 in little-endian byte order are supported: convert the "
            "model again with a current llama.cpp"
        )

    def _check_count(self, what: str, count: int, limit: int, least_bytes: int) -> None:
        if count > limit or count * least_bytes > self._size - self._at:
            raise self._damaged(f"it claims to have {count} {what}, more than its {self._size} bytes can contain")

    def _damaged(self, reason: str) -> CheckpointError:
        return CheckpointError(f"{self._path} is damaged or incomplete: {reason}; finish or repeat its download")

    def _take(self, num_bytes: int) -> int:
        """The start of the next bytes, which are skipped."""
        start, end = self._at, self._at + num_bytes
        if end > self._size:
            raise CheckpointError(
                f"{self._path} is truncated or still being downloaded: its header continues after the last of its "
                f"{self._size} bytes; finish or repeat the download"
            )
        self._at = end
        return start

    def _number(self, form: struct.Struct) -> Any:
        return form.unpack_from(self._data, self._take(form.size))[0]

    def _text(self, what: str) -> str:
        start = self._take(self._number(_LENGTH))
        try:
            return self._data[start : self._at].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._damaged(f"{what} is not UTF-8") from error

    def _value(self, code: int, key: str) -> Any:
        if code in _NUMBERS:
            return self._number(_NUMBERS[code])
        if code == _STRING:
            return self._text(f"the value of {key!r}")
        if code != _ARRAY:
            raise self._damaged(f"the value of {key!r} has the unknown type {code}")
        element, count = self._number(_U32), self._number(_LENGTH)
        if element in _NUMBERS:
            form = _NUMBERS[element]
            self._check_count(f"values of {key!r}", count, self._size, form.size)
            return np.frombuffer(self._data, np.dtype(form.format), count, self._take(count * form.size))
        if element != _STRING:
            raise self._damaged(f"the array {key!r} has elements of the unknown type {element}")
        self._check_count(f"strings in {key!r}", count, _MAX_STRINGS, _LENGTH.size)
        return self._texts(count, key)

    def _texts(self, count: int, key: str) -> list[str]:
        """An array of strings: the loop that a vocabulary's load time depends on."""
        data, at, size, length_of = self._data, self._at, self._size, _LENGTH.unpack_from
        texts: list[str] = []
        append = texts.append
        try:
            for _ in range(count):
                start = at + 8
                at = start + length_of(data, at)[0]
                if at > size:
                    self._take(at - self._at)
                append(data[start:at].decode("utf-8"))
        except struct.error:
            self._take(self._size)  # raises: the file ends within a length
        except UnicodeDecodeError as error:
            raise self._damaged(f"string {len(texts)} of {key!r} is not UTF-8") from error
        self._at = at
        return texts

    def _place(self, name: str) -> tuple[tuple[int, ...], int, int]:
        count = self._number(_U32)
        if not 1 <= count <= _MAX_DIMENSIONS:
            raise self._damaged(f"tensor {name!r} has {count} dimensions")
        shape = tuple(self._number(_LENGTH) for _ in range(count))[::-1]
        if not all(shape):
            raise self._damaged(f"tensor {name!r} has the shape {list(shape)}")
        return shape, self._number(_U32), self._number(_LENGTH)

    def _tensor(self, name: str, shape: tuple[int, ...], code: int, offset: int, begin: int) -> TensorPlace:
        form = block_type(code)
        if form is None:
            raise UnsupportedArchitectureError(
                f"{self._path}: tensor {name!r} has the unknown type {code}; choose a file in "
                f"{', '.join(known.name for known in BLOCK_TYPES.values())}"
            )
        if shape[-1] % form.num_values:
            raise self._damaged(f"tensor {name!r} has rows of {shape[-1]} values, no multiple of {form.name}'s blocks")
        num_bytes = prod(shape) // form.num_values * form.num_bytes
        if begin + offset + num_bytes > self._size:
            raise CheckpointError(
                f"{self._path} is truncated or still being downloaded: tensor {name!r} ends at byte "
                f"{begin + offset + num_bytes}, the file has {self._size}; finish or repeat the download"
            )
        return TensorPlace(shape, code, form, begin + offset, num_bytes)


def block_type(code: int) -> BlockType | None:
    """The format of a type's code; ``None`` if neither we nor the gguf package knows it."""
    known = BLOCK_TYPES.get(code)
    if known is not None:
        return known
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType  # takes 0.2 s to import

    try:
        kind = GGMLQuantizationType(code)
        num_values, num_bytes = GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError):
        return None
    return BlockType(kind.name, num_values, num_bytes)
