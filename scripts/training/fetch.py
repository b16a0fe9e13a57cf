"""Downloads the packages of the corpus list with pip, npm and apt, and unpacks what is source text or states a license.

The list is ``packages.txt`` next to this file. Each package becomes one folder, ``<registry>-<name>``.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from training.cleaning import LANGUAGE_OF_SUFFIX

PACKAGE_LIST = Path(__file__).with_name("packages.txt")
_MAX_FILE_BYTES = 500_000
_LICENCE_NAMES = ("licen", "copying", "copyright", "metadata", "pkg-info", "package.json", "cargo.toml")


def packages(path: Path = PACKAGE_LIST) -> list[tuple[str, str]]:
    """Pairs of registry (``pypi``, ``npm``, ``debian``, ``debian-source``) and package name."""
    lines = (line.split("#")[0].split() for line in path.read_text("utf-8").splitlines())
    return [(fields[0], fields[1]) for fields in lines if fields]


def fetch(target: Path, *, path: Path = PACKAGE_LIST, workers: int = 4) -> Iterator[tuple[str, str, str]]:
    """Download and unpack every package of the list that ``target`` lacks.

    Yields:
        Registry, name, and ``"ok"`` or what went wrong; a package that cannot be had is no error.
    """
    target.mkdir(parents=True, exist_ok=True)

    def one(package: tuple[str, str]) -> tuple[str, str, str]:
        registry, name = package
        folder = target / f"{registry}-{name.replace('/', '+')}"
        if folder.is_dir():
            return registry, name, "ok"
        with tempfile.TemporaryDirectory(dir=target) as scratch:
            command = [*_COMMANDS[registry], name]
            try:
                done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=600)
            except (OSError, subprocess.TimeoutExpired) as error:
                return registry, name, str(error)
            archives = sorted(Path(scratch).iterdir())
            if done.returncode or not archives:
                return registry, name, (done.stderr or done.stdout).strip()[-200:] or "nothing came"
            partial = Path(scratch) / "unpacked"
            for archive in archives:
                unpack(archive, partial)
            partial.rename(folder)
        return registry, name, "ok"

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(one, packages(path))


def unpack(archive: Path, folder: Path) -> None:
    """Write the source and license files of a wheel, npm, Debian or tar archive under ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as zipped:
            for entry in zipped.infolist():
                if not entry.is_dir() and _is_wanted(entry.filename, entry.file_size):
                    _write(folder, entry.filename, zipped.read(entry))
    elif archive.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True, capture_output=True)
        for path in folder.rglob("*"):
            if path.is_file() and not _is_wanted(path.name, path.lstat().st_size):
                path.unlink()
    elif ".tar" in archive.name or archive.suffix == ".tgz":
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and _is_wanted(member.name, member.size):
                    data = tar.extractfile(member)
                    # The archive's own top folder says nothing; a Debian diff's top is its debian folder.
                    parts = PurePosixPath(member.name).parts
                    name = member.name if parts[0] == "debian" else "/".join(parts[1:])
                    if data is not None and name:
                        _write(folder, name, data.read())


def _is_wanted(name: str, size: int) -> bool:
    path = PurePosixPath(name)
    if size > _MAX_FILE_BYTES:
        return False
    return path.suffix.lower() in LANGUAGE_OF_SUFFIX or path.name.lower().startswith(_LICENCE_NAMES)


def _write(folder: Path, name: str, data: bytes) -> None:
    path = (folder / name).resolve()
    if folder.resolve() not in path.parents:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(data)


_COMMANDS: dict[str, list[str]] = {
    "pypi": [sys.executable, *["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "-d", "."]],
    "npm": ["npm", "pack", "--silent"],
    "debian": ["apt-get", "download", "--quiet"],
    "debian-source": ["apt-get", "source", "--download-only", "--quiet"],
}
"""The command of each registry, without the package's name."""
