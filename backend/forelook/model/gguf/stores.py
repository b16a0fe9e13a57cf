"""Finds the GGUF models on a machine: in the hub's cache, in the stores of Ollama and LM Studio, in given folders."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forelook.errors import ModelError
from forelook.model.config import LlamaConfig
from forelook.model.gguf.architectures import read_config
from forelook.model.gguf.files import models_in, parts_of, read_parts
from forelook.model.gguf.header import is_gguf
from forelook.model.gguf.vocabulary import check_kind
from forelook.model.installed import InstalledModel

# How deep a folder is searched, and how many folders at most. Chosen, not measured.
_MAX_DEPTH = 6
_MAX_FOLDERS = 20_000
_MAX_MANIFEST_BYTES = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MODEL_LAYER = "application/vnd.ollama.image.model"


@dataclass(frozen=True, slots=True)
class Stores:
    """Where other programs keep their models; the folders need not exist.

    Attributes:
        ollama: the folder with ``manifests`` and ``blobs``.
        lm_studio: folders of ``publisher/model/file.gguf``.
    """

    ollama: Path
    lm_studio: tuple[Path, ...]

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Stores:
        """The stores as configured by environment variables."""
        home = Path(environ.get("HOME") or environ.get("USERPROFILE") or Path("~").expanduser())
        return cls(
            Path(environ.get("OLLAMA_MODELS") or home / ".ollama" / "models"),
            (home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models"),
        )


def installed_gguf(
    hub_cache: Path, stores: Stores, folders: Sequence[Path], pinned: Mapping[str, str]
) -> Iterator[InstalledModel]:
    """Every GGUF model on this machine; one that is in several places comes once, the first of them.

    Args:
        hub_cache: the cache folder of huggingface_hub.
        stores: of other programs.
        folders: further folders to search, with all folders below them.
        pinned: commits that were pulled and verified, by model.
    """
    seen: set[Path] = set()
    for path, model, source, revision in _found(hub_cache, stores, folders):
        real = path.resolve()
        if real not in seen:
            seen.add(real)
            is_pinned = revision is not None and pinned.get(model) == revision
            yield _inspect(path, model, source, revision, is_pinned=is_pinned)


def _found(hub_cache: Path, stores: Stores, folders: Sequence[Path]) -> Iterator[tuple[Path, str, str, str | None]]:
    """Path, the value for ``--model``, source and revision of each model."""
    for repository in sorted(hub_cache.glob("models--*")):
        owner_and_name = repository.name.removeprefix("models--").replace("--", "/")
        for snapshot in sorted(repository.glob("snapshots/*")):
            for path in _below(snapshot):
                yield path, f"{owner_and_name}:{path.relative_to(snapshot).as_posix()}", "hub cache", snapshot.name
    for path, name in _in_ollama(stores.ollama):
        yield path, str(path), f"Ollama, {name}", None
    for folder in stores.lm_studio:
        for path in _below(folder):
            yield path, str(path), "LM Studio", None
    for folder in folders:
        for path in _below(folder):
            yield path, str(path), "folder", None


def _below(folder: Path) -> Iterator[Path]:
    """The models in a folder and below it. Links to folders are followed, each folder once, so a loop ends."""
    visited: set[tuple[int, int]] = set()
    waiting = [(folder, 0)]
    while waiting and len(visited) < _MAX_FOLDERS:
        place, depth = waiting.pop(0)
        try:
            status = place.stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            yield from models_in(place)
            if depth < _MAX_DEPTH:
                with os.scandir(place) as entries:
                    below = sorted(entry.path for entry in entries if _is_folder(entry))
                waiting += [(Path(path), depth + 1) for path in below]
        except OSError:  # it is gone, not readable, or a link to itself
            continue


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _in_ollama(store: Path) -> Iterator[tuple[Path, str]]:
    """Blob and name of each model of Ollama: a manifest names its layers by digest, and one of them is the model."""
    root = store / "manifests"
    for folder, folders, names in os.walk(root):  # does not follow links
        folders.sort()
        for name in sorted(names):
            manifest = Path(folder) / name
            digest = _model_digest(manifest)
            blob = None if digest is None else store / "blobs" / digest.replace(":", "-")
            if blob is not None and is_gguf(blob):
                parts = manifest.relative_to(root).parts
                shown = parts[-2:] if parts[:-2] == ("registry.ollama.ai", "library") else parts
                yield blob, f"{'/'.join(shown[:-1])}:{shown[-1]}"


def _model_digest(manifest: Path) -> str | None:
    try:
        if manifest.stat().st_size > _MAX_MANIFEST_BYTES:
            return None
        layers = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
        digests = [layer["digest"] for layer in layers if layer["mediaType"] == _MODEL_LAYER]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return digests[0] if digests and _DIGEST.fullmatch(str(digests[0])) else None


def _inspect(path: Path, model: str, source: str, revision: str | None, *, is_pinned: bool) -> InstalledModel:
    """Describe a model by its header."""
    config: LlamaConfig | None = None
    license_name, fault, size = "", "", 0
    try:
        size = sum(part.stat().st_size for part in parts_of(path))
        files = read_parts(path)
        named = files[0].metadata.get("general.license")
        license_name = named if isinstance(named, str) else ""
        config = read_config(files)
        check_kind(files[0])
    except ModelError as error:
        fault = str(error)
    except OSError as error:
        fault = f"it cannot be read ({type(error).__name__})"
    return InstalledModel(model, source, path.parent, revision, is_pinned, license_name, config, size, fault)
