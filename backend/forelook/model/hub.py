"""Downloads models from the Hugging Face hub: safetensors only, resumable, every file verified, the commit recorded.

huggingface_hub manages the cache and the connection. But it discards a partial file when a download is interrupted, and
it checks sizes only. So this module downloads large files itself, to resume them in the next pull, and compares every
file's hash with the hub's: SHA-256 for large files, the git blob hash for others.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from forelook.errors import CheckpointError, InsufficientDiskError, ModelNotFoundError, UnsupportedArchitectureError
from forelook.local.files import read_or_set_aside, write_atomically
from forelook.model.config import parse_config
from forelook.model.gguf.architectures import find_architecture, read_config
from forelook.model.gguf.files import HubGguf, gguf_on_hub, read_parts
from forelook.model.installed import missing_files

_WANTED = ("*.json", "*.safetensors", "README.md", "LICENSE*", "NOTICE*")
_UNWANTED = ("consolidated*", "*/*")
_HASH_CHUNK = 1 << 22  # bytes; chosen, not measured

# (file name, bytes downloaded, size in bytes)
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Hub:
    """The hub, and where its models are stored.

    Attributes:
        cache_dir: the cache folder of huggingface_hub.
        records_path: JSON file that lists the pulled models.
        endpoint: address of a mirror; ``None`` for the hub itself.
        token: of the user; ``None`` for the one that `hf auth login` has stored.
        is_offline: never contact the hub.
    """

    cache_dir: Path
    records_path: Path
    endpoint: str | None = None
    token: str | None = None
    is_offline: bool = False


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a commit, as described by the hub.

    Attributes:
        name: path in the repository.
        size: in bytes.
        digest: hash, hexadecimal.
        algorithm: ``"sha256"``, or ``"git"`` for the hash of a git blob.
    """

    name: str
    size: int
    digest: str
    algorithm: str


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that was downloaded completely and verified.

    Attributes:
        model: hub id.
        revision: the requested branch, tag or commit.
        commit: the commit it resolved to.
        folder: the snapshot folder; also valid for ``--model``.
        files: all of its files.
    """

    model: str
    revision: str
    commit: str
    folder: Path
    files: tuple[HubFile, ...]

    @property
    def size_bytes(self) -> int:
        """Total size of the files in bytes."""
        return sum(file.size for file in self.files)


def split_revision(text: str) -> tuple[str, str | None]:
    """Split ``MODEL[@REVISION]``, where ``MODEL`` is ``owner/name`` or ``owner/name:file.gguf``.

    Raises:
        ModelNotFoundError: ``MODEL`` is not a hub id.
    """
    model, at, revision = text.partition("@")
    if gguf_on_hub(model) is not None and (revision or not at):
        return model, revision or None
    owner, slash, name = model.partition("/")
    if not (owner and slash and name) or "/" in name or (at and not revision):
        raise ModelNotFoundError(
            f"model {text!r} is not a hub id such as owner/name, owner/name@revision or owner/name:file.gguf"
        )
    return model, revision or None


def pull(model: str, revision: str | None, hub: Hub, on_progress: OnProgress) -> Pulled:
    """Download a model, verify all files and record the commit; files that already exist are only verified.

    Args:
        model: hub id, or ``owner/name:file.gguf`` for a GGUF file.
        revision: a branch, tag or commit; the main branch by default.
        hub: source and destination.
        on_progress: called with the progress of each file.

    Raises:
        ModelNotFoundError: no such model or revision, no access to it, or the hub cannot be reached.
        UnsupportedArchitectureError: Forelook cannot run the model; no weights were downloaded.
        CheckpointError: no safetensors, or a file failed verification and was removed.
        InsufficientDiskError: not enough disk space.
    """
    asked = "main" if revision is None else revision
    if hub.is_offline:
        return _check_offline(model, asked, hub, on_progress)
    gguf = gguf_on_hub(model)
    if gguf is not None:
        return _pull_gguf(model, gguf, asked, hub, on_progress)
    commit, files, _ = _describe(model, asked, hub)
    chosen = choose_files(model, files)
    config = next(file for file in chosen if file.name == "config.json")
    small_first = sorted(chosen, key=lambda file: (file is not config, file.size))
    folder = _fetch(model, commit, config, hub, on_progress).parent
    _check(folder, config)
    parse_config(json.loads((folder / "config.json").read_text(encoding="utf-8")), f"{model}: config.json")
    _check_room(model, chosen, folder, hub)
    _fetch_all(model, commit, small_first, folder, hub, on_progress)
    lacking = missing_files(folder)
    if lacking:
        raise CheckpointError(f"{model} at {commit}: {lacking} on the hub; choose another revision")
    pulled = Pulled(model, asked, commit, folder, tuple(chosen))
    record(hub.records_path, pulled)
    return pulled


def _pull_gguf(model: str, gguf: HubGguf, asked: str, hub: Hub, on_progress: OnProgress) -> Pulled:
    """Download one GGUF file or all parts of a split one, and the card and license next to it."""
    repository = gguf.repository
    commit, files, architecture = _describe(repository, asked, hub)
    if architecture is not None:
        find_architecture(architecture, model)
    by_name = {file.name: file for file in files}
    missing = [name for name in gguf.part_names if name not in by_name]
    if missing:
        others = sorted(name for name in by_name if name.lower().endswith(".gguf"))
        raise ModelNotFoundError(
            f"{repository} at revision {asked} has no file {missing[0]}; it has "
            f"{', '.join(others[:12]) or 'no GGUF files'}"
        )
    papers = [file for file in files if fnmatch(file.name, "README.md") or fnmatch(file.name, "LICENSE*")]
    chosen = [*papers, *(by_name[name] for name in gguf.part_names)]
    folder = hub.cache_dir / f"models--{repository.replace('/', '--')}" / "snapshots" / commit
    (folder.parents[1] / "blobs").mkdir(parents=True, exist_ok=True)
    _check_room(model, chosen, folder, hub)
    _fetch_all(repository, commit, chosen, folder, hub, on_progress)
    read_config(read_parts(folder / gguf.name))  # what cannot run is said now
    pulled = Pulled(model, asked, commit, folder, tuple(chosen))
    record(hub.records_path, pulled)
    return pulled


def choose_files(model: str, files: list[HubFile]) -> list[HubFile]:
    """The files of a repository that Forelook reads, plus card and license.

    Raises:
        CheckpointError: there are no safetensors.
        UnsupportedArchitectureError: there is no config.json.
    """
    names = [file.name for file in files]
    if "config.json" not in names:
        raise UnsupportedArchitectureError(
            f"{model} has no config.json, so it is not a checkpoint; choose another model"
        )
    chosen = [
        file
        for file in files
        if any(fnmatch(file.name, pattern) for pattern in _WANTED)
        and not any(fnmatch(file.name, pattern) for pattern in _UNWANTED)
    ]
    if not any(file.name.endswith(".safetensors") for file in chosen):
        found = sorted(name for name in names if name.endswith((".bin", ".gguf", ".pt", ".pth", ".safetensors")))
        raise CheckpointError(
            f"{model} has no safetensors at its top level ({', '.join(found[:3]) or 'no weights at all'}), and pickled "
            "weights are not supported because they can run code; choose another revision or a converted model"
        )
    return chosen


def _describe(model: str, revision: str, hub: Hub) -> tuple[str, list[HubFile], str | None]:
    """The commit of a revision, its files, and the architecture of its GGUF files as far as the hub knows it."""
    from huggingface_hub import HfApi

    with _explained(model, revision, hub):
        info = HfApi(endpoint=hub.endpoint, token=hub.token).model_info(model, revision=revision, files_metadata=True)
    files = []
    for sibling in info.siblings or ():
        large = sibling.lfs
        if large is not None:
            files.append(HubFile(sibling.rfilename, large.size, large.sha256, "sha256"))
        elif sibling.blob_id is not None and sibling.size is not None:
            files.append(HubFile(sibling.rfilename, sibling.size, sibling.blob_id, "git"))
    if info.sha is None:
        raise ModelNotFoundError(f"{model} at revision {revision}: the hub returned no commit; try again later")
    described = getattr(info, "gguf", None)
    architecture = described.get("architecture") if isinstance(described, dict) else None
    return info.sha, files, architecture if isinstance(architecture, str) else None


def _fetch_all(model: str, commit: str, files: list[HubFile], folder: Path, hub: Hub, on_progress: OnProgress) -> None:
    """Download and verify files into the cache's folder of a commit."""
    for file in files:
        if file.algorithm == "sha256" and not (folder / file.name).is_file():
            _fetch_blob(model, commit, file, folder.parents[1] / "blobs", hub, on_progress)
        _fetch(model, commit, file, hub, on_progress)
        _check(folder, file)
        on_progress(file.name, file.size, file.size)


def _fetch(model: str, commit: str, file: HubFile, hub: Hub, on_progress: OnProgress) -> Path:
    from huggingface_hub import hf_hub_download

    with _explained(model, commit, hub):
        path = hf_hub_download(
            model,
            file.name,
            revision=commit,
            cache_dir=hub.cache_dir,
            endpoint=hub.endpoint,
            token=hub.token,
            tqdm_class=_progress_class(file, on_progress),
        )
    return Path(path)


def _fetch_blob(model: str, commit: str, file: HubFile, blobs: Path, hub: Hub, on_progress: OnProgress) -> None:
    """Download a large file into the cache, where huggingface_hub finds it by its hash; resumes a partial file."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # it is public, and re-exported

    blob = blobs / file.digest
    if blob.is_file():
        return
    partial = blobs / f"{file.digest}.pulled.incomplete"
    partial.touch()
    with _explained(model, commit, hub), partial.open("r+b") as stream:
        stream.seek(0, os.SEEK_END)
        if stream.tell() > file.size:
            stream.seek(0)
            stream.truncate()
        http_get(
            hf_hub_url(model, file.name, revision=commit, endpoint=hub.endpoint),
            stream,
            resume_size=stream.tell(),
            headers=build_hf_headers(token=hub.token),
            expected_size=file.size,
            tqdm_class=_progress_class(file, on_progress),
        )
    _check(blobs, replace(file, name=partial.name), shown=file.name)
    partial.replace(blob)


def _progress_class(file: HubFile, on_progress: OnProgress) -> Any:
    """A replacement for tqdm, through which huggingface_hub reports progress."""

    class Progress:
        def __init__(self, *_args: Any, initial: int = 0, **_options: Any) -> None:
            self.n = initial

        def update(self, count: float | None = 1) -> None:
            self.n += int(count or 0)
            on_progress(file.name, self.n, file.size)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_error: object) -> None:
            self.close()

        def close(self) -> None:
            """There is nothing to release."""

        def set_description(self, *_args: Any, **_options: Any) -> None:
            """The file name is known already."""

        refresh = set_postfix = reset = set_description

    return Progress


def _check(folder: Path, file: HubFile, *, shown: str | None = None) -> None:
    """Verify a file's size and hash; on a mismatch remove it, so that the next pull downloads it again."""
    path = folder / file.name
    if path.is_file() and path.stat().st_size == file.size and digest_of(path, file.algorithm) == file.digest:
        return
    blob = path.resolve()
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)
    raise CheckpointError(
        f"{shown or file.name} does not match the hub's {file.algorithm} {file.digest[:12]}…: it was corrupted in "
        "transit or on disk and has been removed; pull again"
    )


def digest_of(path: Path, algorithm: str) -> str:
    """The SHA-256 of a file, or for ``"git"`` its git blob hash."""
    digest = hashlib.sha256()
    if algorithm == "git":
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _check_room(model: str, files: list[HubFile], folder: Path, hub: Hub) -> None:
    missing = sum(file.size for file in files if not (folder / file.name).is_file())
    # partial downloads are resumed
    partial = sum(path.stat().st_size for path in folder.parents[1].glob("blobs/*.incomplete"))
    free = shutil.disk_usage(hub.cache_dir).free
    if missing - partial > free:
        raise InsufficientDiskError(
            f"{model} needs {(missing - partial) / 1e9:.1f} GB more and {free / 1e9:.1f} GB are free in "
            f"{hub.cache_dir}; free some space, or set HF_HUB_CACHE to a folder on another disk"
        )


def _check_offline(model: str, revision: str, hub: Hub, on_progress: OnProgress) -> Pulled:
    known = recorded(hub.records_path).get(model)
    if known is None or revision not in (known.revision, known.commit):
        raise ModelNotFoundError(
            f"{model} at revision {revision} was never pulled on this machine, and offline mode does not contact the "
            "hub; pull it once without --offline, or copy the checkpoint here and pass its folder to --model"
        )
    for file in known.files:
        _check(known.folder, file)
        on_progress(file.name, file.size, file.size)
    return known


@contextmanager
def _explained(model: str, revision: str, hub: Hub) -> Iterator[None]:
    """Convert errors of huggingface_hub to errors that name the fix."""
    from huggingface_hub import errors

    where = f"{model} at revision {revision}"
    unreachable: tuple[type[Exception], ...] = (
        errors.HTTPError,  # type: ignore[attr-defined]  # the base class of whichever client it uses
        errors.LocalEntryNotFoundError,
        ConnectionError,
    )
    try:
        yield
    except errors.GatedRepoError as error:
        message = "gated; accept its license on its hub page, then log in with `hf auth login`"
        raise ModelNotFoundError(f"{where} is {message}") from error
    except errors.RevisionNotFoundError as error:
        message = "the model exists, but not this revision; omit it for the newest"
        raise ModelNotFoundError(f"{where}: {message}") from error
    except errors.RepositoryNotFoundError as error:
        message = "is not on the hub; check the name, and for a private model log in with `hf auth login`"
        raise ModelNotFoundError(f"{where} {message}") from error
    except errors.HFValidationError as error:
        raise ModelNotFoundError(f"{where} is not a hub id; write it as owner/name") from error
    except errors.HfHubHTTPError as error:
        raise ModelNotFoundError(f"{where} cannot be downloaded: {_first_line(error)}; try again later") from error
    except unreachable as error:
        raise ModelNotFoundError(
            f"{where}: {hub.endpoint or 'the hub'} is unreachable, or the connection was lost ({_first_line(error)}); "
            "connect and pull again, which resumes the download, set HF_ENDPOINT to a mirror, or copy the checkpoint "
            "here and pass its folder to --model"
        ) from error
    except OSError as error:
        raise ModelNotFoundError(
            f"{where} cannot be stored in {hub.cache_dir}: {_first_line(error)}; check that folder"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


# --- records


def recorded(path: Path) -> dict[str, Pulled]:
    """The pulled models by hub id; a damaged file counts as empty and is set aside."""
    return read_or_set_aside(path, _parse_records) or {}


def _parse_records(data: bytes) -> dict[str, Pulled]:
    return {
        str(model): Pulled(
            str(model),
            str(entry["revision"]),
            str(entry["commit"]),
            Path(entry["folder"]),
            tuple(HubFile(**file) for file in entry["files"]),
        )
        for model, entry in json.loads(data).items()
    }


def record(path: Path, pulled: Pulled) -> None:
    """Record a pulled model's commit and the hashes of its files."""
    known = {**recorded(path), pulled.model: pulled}
    raw = {
        model: {
            "revision": entry.revision,
            "commit": entry.commit,
            "folder": str(entry.folder),
            "files": [asdict(file) for file in entry.files],
        }
        for model, entry in known.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, json.dumps(raw, indent=1))


def pinned_folder(path: Path, model: str | None, revision: str | None) -> Path | None:
    """The snapshot folder of a pulled model, if the revision matches and all files exist with their size."""
    known = None if model is None else recorded(path).get(model)
    if known is None or revision not in (None, known.revision, known.commit):
        return None
    whole = all(
        (known.folder / file.name).is_file() and (known.folder / file.name).stat().st_size == file.size
        for file in known.files
    )
    return known.folder if whole else None


def hub_from(environ: Mapping[str, str], records_path: Path, *, is_offline: bool = False) -> Hub:
    """The hub as configured by the environment variables of huggingface_hub.

    Args:
        environ: environment variables.
        records_path: JSON file that lists the pulled models.
        is_offline: whether the user asked for offline mode.
    """
    home = Path(environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = Path(environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub").expanduser()
    says_offline = environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return Hub(
        cache,
        records_path,
        endpoint=environ.get("HF_ENDPOINT") or None,
        token=environ.get("HF_TOKEN") or None,
        is_offline=is_offline or says_offline,
    )
