"""Which GGUF files make up a model: one, or the parts of a split one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forelook.errors import CheckpointError, ModelNotFoundError
from forelook.model.gguf.header import GgufFile, is_gguf, read_gguf

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_ON_HUB = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+):(?P<file>[^:\\]+\.gguf)", re.IGNORECASE)
_MAX_PARTS = 10_000
# Bytes of the weights that enter a fingerprint: enough to tell fine-tunes of one model apart. Chosen, not measured.
_SAMPLES = 64
_SAMPLE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class HubGguf:
    """A GGUF file in a repository of the Hugging Face hub.

    Attributes:
        repository: hub id.
        name: path of the file in the repository; of a split model, of its first part.
        part_names: all files of the model.
    """

    repository: str
    name: str
    part_names: tuple[str, ...]


def gguf_on_hub(model: str) -> HubGguf | None:
    """Split ``OWNER/REPO:FILE.gguf``; ``None`` for anything else."""
    match = _ON_HUB.fullmatch(model)
    if match is None or ".." in match["file"].split("/"):
        return None
    names = _part_names(match["file"])
    return HubGguf(match["repository"], names[0], names)


def _part_names(name: str) -> tuple[str, ...]:
    part = _PART.fullmatch(name)
    if part is None or not 1 <= int(part["count"]) <= _MAX_PARTS:
        return (name,)
    suffix = name[name.rindex(".") :]
    return tuple(f"{part['stem']}-{n:05}-of-{part['count']}{suffix}" for n in range(1, int(part["count"]) + 1))


def models_in(folder: Path) -> list[Path]:
    """The GGUF models directly in a folder, each by its first file; vision projectors are none."""
    found = []
    for path in sorted(folder.glob("*.[gG][gG][uU][fF]")):
        part = _PART.fullmatch(path.name)
        if path.is_file() and not path.name.lower().startswith("mmproj") and (part is None or int(part["number"]) == 1):
            found.append(path)
    return found


def find_gguf(path: Path) -> Path | None:
    """The first file of the GGUF model that a path names: a file, one part of a split file, or a folder with one model.

    ``None`` if the path names none.

    Raises:
        ModelNotFoundError: the folder has several models.
    """
    if path.is_dir():
        models = models_in(path)
        if len(models) > 1:
            names = ", ".join(model.name for model in models[:8])
            raise ModelNotFoundError(f"{path} contains {len(models)} GGUF models ({names}); name one of these files")
        return models[0] if models else None
    return path if is_gguf(path) else None


def parts_of(path: Path) -> list[Path]:
    """All files of the model that one file belongs to, in order.

    Raises:
        CheckpointError: a part is missing.
    """
    paths = [path.with_name(name) for name in _part_names(path.name)]
    if len(paths) == 1:
        return [path]
    missing = [each.name for each in paths if not each.is_file()]
    if missing:
        raise CheckpointError(
            f"{path}: {len(missing)} of {len(paths)} parts are missing ({', '.join(missing[:3])}); download them into "
            "the same folder"
        )
    return paths


def read_parts(path: Path) -> list[GgufFile]:
    """Read the headers of all files of a model, the one with the metadata first.

    Raises:
        ModelError: a subclass; a part is missing, damaged, or of another model.
    """
    files = [read_gguf(part) for part in parts_of(path)]
    claimed = files[0].metadata.get("split.count", 0)
    if claimed and claimed != len(files):
        raise CheckpointError(
            f"{files[0].path} is one of {claimed} parts, and its name says {len(files)}; keep the names that the parts "
            "were published with"
        )
    names: set[str] = set()
    for file in files:
        twice = names & file.tensors.keys()
        if twice:
            raise CheckpointError(f"{file.path}: tensor {min(twice)!r} is in an earlier part too; download it again")
        names |= file.tensors.keys()
    total = files[0].metadata.get("split.tensors.count")
    if isinstance(total, int) and total != len(names):
        raise CheckpointError(
            f"{files[0].path} and its parts have {len(names)} of {total} tensors; download all parts again"
        )
    return files


def content_key(files: Sequence[GgufFile]) -> str:
    """A hash of headers, sizes and samples of the weights, which costs milliseconds whatever the size."""
    digest = hashlib.sha256()
    for file in files:
        size, header = len(file.data), file.header_bytes
        digest.update(f"{size} {header} ".encode() + file.data[:header])
        stride = max(_SAMPLE_BYTES, (size - header) // _SAMPLES)
        for start in range(header, size, stride):
            digest.update(file.data[start : start + _SAMPLE_BYTES])
        digest.update(file.data[-_SAMPLE_BYTES:])
    return digest.hexdigest()
