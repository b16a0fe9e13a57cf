"""Models from the Hugging Face hub: safetensors only, resumed, every file checked, the commit recorded.

huggingface_hub keeps its cache and speaks to the hub. It throws a partial file away when a download is interrupted, and
checks sizes only; so large files are written here, to be continued by the next pull, and each file's hash is compared
with the one the hub tells: SHA-256 of large files, git's own hash of the others.
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
from forelook.local.files import write_atomically
from forelook.model.catalogue import missing_files
from forelook.model.config import parse_config

_WANTED = ("*.json", "*.safetensors", "README.md", "LICENSE*", "NOTICE*")
_UNWANTED = ("consolidated*", "*/*")
_HASH_CHUNK = 1 << 22

# (file, bytes of it that are here, its size)
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Hub:
    """Where models come from and go to.

    Attributes:
        cache_dir: huggingface_hub's cache.
        records_path: JSON file of what was pulled.
        endpoint: another address than the hub's own, for a mirror.
        token: of a user who is logged in; ``None`` for the one that `hf auth login` has stored.
        is_offline: never ask the hub.
    """

    cache_dir: Path
    records_path: Path
    endpoint: str | None = None
    token: str | None = None
    is_offline: bool = False


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a commit, as the hub describes it.

    Attributes:
        name: in the repository.
        size: bytes.
        digest: hexadecimal.
        algorithm: ``"sha256"``, or ``"git"`` for the hash of a git blob.
    """

    name: str
    size: int
    digest: str
    algorithm: str


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that is here, whole and checked.

    Attributes:
        model: hub id.
        revision: what was asked for.
        commit: what that was.
        folder: the snapshot; good for ``--model`` too.
        files: its files.
    """

    model: str
    revision: str
    commit: str
    folder: Path
    files: tuple[HubFile, ...]

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)


def split_revision(text: str) -> tuple[str, str | None]:
    """``MODEL[@REVISION]`` in its parts.

    Raises:
        ModelNotFoundError: not a hub id.
    """
    model, at, revision = text.partition("@")
    owner, slash, name = model.partition("/")
    if not (owner and slash and name) or "/" in name or (at and not revision):
        raise ModelNotFoundError(f"model {text!r} is not a hub id such as owner/name or owner/name@revision")
    return model, revision or None


def pull(model: str, revision: str | None, hub: Hub, on_progress: OnProgress) -> Pulled:
    """Bring a model here, check all of it and record its commit; what is here already is only checked.

    Args:
        model: hub id.
        revision: a branch, tag or commit; the hub's main branch by default.
        hub: where from and where to.
        on_progress: told how each file comes along.

    Raises:
        ModelNotFoundError: no such model or revision, not for this user, or the hub cannot be reached.
        UnsupportedArchitectureError: Forelook could not run it; nothing large was downloaded.
        CheckpointError: no safetensors, or a file that is not what the hub says it is; it has been removed.
        InsufficientDiskError: no room for it.
    """
    asked = "main" if revision is None else revision
    if hub.is_offline:
        return _check_offline(model, asked, hub, on_progress)
    commit, files = _describe(model, asked, hub)
    chosen = choose_files(model, files)
    config = next(file for file in chosen if file.name == "config.json")
    small_first = sorted(chosen, key=lambda file: (file is not config, file.size))
    folder = _fetch(model, commit, config, hub, on_progress).parent
    _check(folder, config)
    parse_config(json.loads((folder / "config.json").read_text(encoding="utf-8")), f"{model}: config.json")
    _check_room(model, chosen, folder, hub)
    for file in small_first:
        if file.algorithm == "sha256" and not (folder / file.name).is_file():
            _fetch_blob(model, commit, file, folder.parents[1] / "blobs", hub, on_progress)
        path = _fetch(model, commit, file, hub, on_progress)
        _check(path.parent, file)
        on_progress(file.name, file.size, file.size)
    lacking = missing_files(folder)
    if lacking:
        raise CheckpointError(f"{model} at {commit}: {lacking} on the hub; choose another revision")
    pulled = Pulled(model, asked, commit, folder, tuple(chosen))
    record(hub.records_path, pulled)
    return pulled


def choose_files(model: str, files: list[HubFile]) -> list[HubFile]:
    """The files of a repository that are read, and its card and licence.

    Raises:
        CheckpointError: there is no checkpoint in safetensors among them.
        UnsupportedArchitectureError: there is no config.json.
    """
    names = [file.name for file in files]
    if "config.json" not in names:
        raise UnsupportedArchitectureError(f"{model} has no config.json: it is not a checkpoint that can be loaded")
    chosen = [
        file
        for file in files
        if any(fnmatch(file.name, pattern) for pattern in _WANTED)
        and not any(fnmatch(file.name, pattern) for pattern in _UNWANTED)
    ]
    if not any(file.name.endswith(".safetensors") for file in chosen):
        found = sorted(name for name in names if name.endswith((".bin", ".gguf", ".pt", ".pth", ".safetensors")))
        raise CheckpointError(
            f"{model} has no safetensors at its top level ({', '.join(found[:3]) or 'no weights at all'}); pickled "
            "weights can run code and are not read: choose another revision or a converted copy of the model"
        )
    return chosen


def _describe(model: str, revision: str, hub: Hub) -> tuple[str, list[HubFile]]:
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
        raise ModelNotFoundError(f"{model} at revision {revision}: the hub names no commit")
    return info.sha, files


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
    """Bring a large file into the cache, where huggingface_hub finds it by its hash, going on where it stopped."""
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
    """A stand-in for tqdm, which is what huggingface_hub tells its progress."""

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
            """Nothing is held."""

        def set_description(self, *_args: Any, **_options: Any) -> None:
            """The file's name is known."""

        refresh = set_postfix = reset = set_description

    return Progress


def _check(folder: Path, file: HubFile, *, shown: str | None = None) -> None:
    """Compare a file with what the hub says; a wrong one is removed, so that the next pull fetches it anew."""
    path = folder / file.name
    if path.is_file() and path.stat().st_size == file.size and digest_of(path, file.algorithm) == file.digest:
        return
    blob = path.resolve()
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)
    raise CheckpointError(
        f"{shown or file.name} is not the file that the hub describes ({file.algorithm} {file.digest[:12]}…): it was "
        "damaged on the way or on disk and has been removed; pull again"
    )


def digest_of(path: Path, algorithm: str) -> str:
    """SHA-256 of a file, or for ``"git"`` the hash of the git blob that it is."""
    digest = hashlib.sha256()
    if algorithm == "git":
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _check_room(model: str, files: list[HubFile], folder: Path, hub: Hub) -> None:
    missing = sum(file.size for file in files if not (folder / file.name).is_file())
    # what an earlier attempt has left is continued
    partial = sum(path.stat().st_size for path in folder.parents[1].glob("blobs/*.incomplete"))
    free = shutil.disk_usage(hub.cache_dir).free
    if missing - partial > free:
        raise InsufficientDiskError(
            f"{model} needs {(missing - partial) / 1e9:.1f} GB more and {free / 1e9:.1f} GB are free in "
            f"{hub.cache_dir}: make room, or set HF_HUB_CACHE to a folder on another disk"
        )


def _check_offline(model: str, revision: str, hub: Hub, on_progress: OnProgress) -> Pulled:
    known = recorded(hub.records_path).get(model)
    if known is None or revision not in (known.revision, known.commit):
        raise ModelNotFoundError(
            f"{model} at revision {revision} was never pulled on this machine, and offline mode asks no hub: pull it "
            "without --offline once, or copy a checkpoint's folder here and give it with --model"
        )
    for file in known.files:
        _check(known.folder, file)
        on_progress(file.name, file.size, file.size)
    return known


@contextmanager
def _explained(model: str, revision: str, hub: Hub) -> Iterator[None]:
    """Turn what huggingface_hub raises into errors that name the way out."""
    from huggingface_hub import errors

    where = f"{model} at revision {revision}"
    unreachable: tuple[type[Exception], ...] = (
        errors.HTTPError,  # type: ignore[attr-defined]  # the client's base class, whichever client it uses
        errors.LocalEntryNotFoundError,
        ConnectionError,
    )
    try:
        yield
    except errors.GatedRepoError as error:
        message = "gated: accept its licence on its page on the hub, then log in with `hf auth login`"
        raise ModelNotFoundError(f"{where} is {message}") from error
    except errors.RevisionNotFoundError as error:
        message = "the model is there, that revision is not; leave it out for the newest"
        raise ModelNotFoundError(f"{where}: {message}") from error
    except errors.RepositoryNotFoundError as error:
        message = "is not on the hub: check the name; a private model needs `hf auth login`"
        raise ModelNotFoundError(f"{where} {message}") from error
    except errors.HFValidationError as error:
        raise ModelNotFoundError(f"{where}: not a hub id such as owner/name") from error
    except errors.HfHubHTTPError as error:
        raise ModelNotFoundError(f"{where} cannot be downloaded: {_first_line(error)}; try again later") from error
    except unreachable as error:
        raise ModelNotFoundError(
            f"{where}: {hub.endpoint or 'the hub'} cannot be reached, or was lost on the way ({_first_line(error)}). "
            "Connect to a network and pull again, which goes on where it stopped; or set HF_ENDPOINT to a mirror; or "
            "copy a checkpoint's folder here and give it with --model"
        ) from error
    except OSError as error:
        raise ModelNotFoundError(f"{where} cannot be stored in {hub.cache_dir}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


# --- records


def recorded(path: Path) -> dict[str, Pulled]:
    """What was pulled, by hub id; a file that cannot be understood counts as empty."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return {
            model: Pulled(
                model,
                entry["revision"],
                entry["commit"],
                Path(entry["folder"]),
                tuple(HubFile(**file) for file in entry["files"]),
            )
            for model, entry in raw.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def record(path: Path, pulled: Pulled) -> None:
    """Remember a pulled model's commit and its files' hashes."""
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
    """The snapshot of a pulled model, if that is what a model and a revision mean and all of it is here."""
    known = None if model is None else recorded(path).get(model)
    if known is None or revision not in (None, known.revision, known.commit):
        return None
    whole = all(
        (known.folder / file.name).is_file() and (known.folder / file.name).stat().st_size == file.size
        for file in known.files
    )
    return known.folder if whole else None


def hub_from(environ: Mapping[str, str], records_path: Path, *, is_offline: bool = False) -> Hub:
    """The hub as huggingface_hub's own variables describe it.

    Args:
        environ: the process's environment, from whoever may read it.
        records_path: file of what was pulled.
        is_offline: whether the user said so.
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
