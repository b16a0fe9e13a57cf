"""Compiles a C source for this processor once, checks it, and loads it.

A C compiler knows the processor and is on most developers' machines, but not on all: whoever uses this module can do
without. The compiled file is kept with Python's own compiled files, so it is trusted as they are; where that folder
cannot be written it is compiled at every start.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

_COMPILERS = ("cc", "gcc", "clang")
_LIMIT_S = 120.0  # for the compiler; it takes about 3 s. Chosen, not measured
REMEDY = "install a C compiler (gcc or clang), or `pip install ziglang`, and restart the backend"

_Functions = TypeVar("_Functions")


@dataclass(frozen=True, slots=True)
class CSource:
    """A C file and how it is compiled.

    Attributes:
        path: the file; all C files and headers of its folder count as its parts.
        flags: for every compiler.
        libraries: what it is linked with.
        variants: one more flag each, tried in turn until a compiler takes it; an empty one is none.
    """

    path: Path
    flags: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    variants: tuple[str, ...] = ("",)

    @property
    def folder(self) -> Path:
        """Where its compiled file is kept."""
        return self.path.parent / "__pycache__"

    def compiled_path(self, folder: Path) -> Path:
        """The file for these sources and flags and this processor: machines of several kinds may share a home."""
        digest = hashlib.sha256(" ".join(self.flags).encode())
        digest.update((cpu_info("flags") or platform.node()).encode())
        for path in sorted(self.path.parent.glob("*.[ch]")):
            digest.update(path.read_bytes())
        return folder / f"{self.path.stem}-{digest.hexdigest()[:24]}.so"


@dataclass(frozen=True, slots=True)
class Compiled(Generic[_Functions]):
    """What became of a source.

    Attributes:
        functions: the functions; ``None`` without.
        reason: why, for ``forelook doctor``.
    """

    functions: _Functions | None
    reason: str


def load_compiled(
    source: CSource,
    open_functions: Callable[[Path], _Functions],
    is_right: Callable[[_Functions], bool],
    folder: Path,
    found: Sequence[Sequence[str]],
) -> Compiled[_Functions]:
    """Load the compiled file of a folder, or compile it with the first compiler that can.

    Args:
        source: what to compile.
        open_functions: loads a compiled file; may raise ``OSError`` or ``AttributeError``.
        is_right: whether its functions compute what they should.
        folder: where the file is kept.
        found: commands of compilers.
    """
    path = source.compiled_path(folder)
    loaded = _accepted(path, open_functions, is_right) if path.is_file() else None
    if loaded is not None:
        return Compiled(loaded, "compiled earlier for this processor")
    if not found:
        return Compiled(None, f"no C compiler was found; {REMEDY}")
    for compiler in found:
        with tempfile.TemporaryDirectory(prefix="forelook-") as temporary:
            built = Path(temporary) / path.name
            if not any(_compile(source, [*compiler, *filter(None, [flag])], built) for flag in source.variants):
                continue
            loaded = _accepted(built, open_functions, is_right)
            if loaded is None:
                continue
            _keep(built, path)
            return Compiled(loaded, f"compiled for this processor by {Path(compiler[0]).name}")
    tried = " and ".join(Path(command[0]).name for command in found)
    return Compiled(None, f"nothing that {tried} compiled works here; the log says why")


def _accepted(
    path: Path, open_functions: Callable[[Path], _Functions], is_right: Callable[[_Functions], bool]
) -> _Functions | None:
    try:
        functions = open_functions(path)
    except (OSError, AttributeError) as error:
        logger.warning("cannot load %s: %s", path.name, type(error).__name__)
        return None
    if not is_right(functions):
        logger.warning("%s computes something else than it should; it is not used", path.name)
        return None
    return functions


def compilers() -> list[list[str]]:
    """Commands of the C compilers of this machine, the usual one first."""
    found = [[path] for name in _COMPILERS if (path := shutil.which(name)) is not None]
    if importlib.util.find_spec("ziglang") is not None:
        found.append([sys.executable, "-m", "ziglang", "cc"])
    return found


def cpu_info(name: str) -> str:
    """What Linux says about the first processor, such as its ``flags``; empty elsewhere."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return ""


def _compile(source: CSource, compiler: Sequence[str], target: Path) -> bool:
    command = [*compiler, *source.flags, "-o", str(target), str(source.path), *source.libraries]
    name = source.path.name
    try:
        done = subprocess.run(command, capture_output=True, timeout=_LIMIT_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("%s cannot compile %s: %s", compiler[0], name, type(error).__name__)
        return False
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        logger.warning("%s cannot compile %s: %s", compiler[0], name, lines[-1] if lines else done.returncode)
    return done.returncode == 0


def _keep(built: Path, path: Path) -> None:
    """Move a compiled file to its place as a whole, so that no process loads half of it."""
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(built, temporary)
        temporary.replace(path)
    except OSError as error:
        logger.warning(
            "%s cannot be written (%s); %s is compiled at every start", path.parent, error.strerror, path.stem
        )
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
