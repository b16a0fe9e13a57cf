"""Compiles the kernels for this processor once, checks them, and loads them.

Torch's kernels for few rows are written for AVX-512, and a step of a small model is some two thousand operators of a
few microseconds. ``step.c`` is one call per step. It needs a C compiler, which the machine may lack: without one,
torch's kernels run all the same. The compiled file lies beside Python's own compiled files, so it is trusted as they
are; where that folder cannot be written it is compiled at every start.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import logging
import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from forelook.model.forward.native.check import is_right
from forelook.model.forward.native.kernels import Kernels

logger = logging.getLogger(__name__)

_SOURCES = Path(__file__).parent
_MAIN = "step.c"
_FOLDER = _SOURCES / "__pycache__"
_FLAGS = ("-std=gnu11", "-O3", "-march=native", "-shared", "-fPIC")
_LIBRARIES = ("-lm", "-lpthread")
_OPENMP = ("-fopenmp", "")
"""With torch's threads, or with threads of our own where a compiler has no OpenMP."""
_COMPILERS = ("cc", "gcc", "clang")
_FEATURES = {"avx2", "fma", "f16c"}
_LIMIT_S = 120.0  # for the compiler; it takes about 3 s. Chosen, not measured
REMEDY = "install a C compiler (gcc or clang), or `pip install ziglang`, and restart the backend"


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether the kernels can be used here.

    Attributes:
        kernels: the functions; ``None`` without.
        reason: why, for ``forelook doctor``.
    """

    kernels: Kernels | None
    reason: str


@cache
def native_kernels() -> Availability:
    """The kernels, compiled now if need be."""
    missing = _unsupported()
    if missing:
        return Availability(None, missing)
    return load_kernels(_FOLDER, compilers())


def must_compile() -> bool:
    """Whether the first use of the kernels compiles them, which takes some seconds."""
    return not _unsupported() and not _compiled(_FOLDER).is_file() and bool(compilers())


def load_kernels(folder: Path, found: Sequence[Sequence[str]]) -> Availability:
    """Load the compiled file of a folder, or compile it with the first compiler that can.

    Args:
        folder: where the file is kept.
        found: commands of compilers.
    """
    path = _compiled(folder)
    loaded = _load(path) if path.is_file() else None
    if loaded is not None:
        return Availability(loaded, "compiled earlier for this processor")
    if not found:
        return Availability(None, f"no C compiler was found; {REMEDY}")
    for compiler in found:
        with tempfile.TemporaryDirectory(prefix="forelook-") as temporary:
            built = Path(temporary) / path.name
            if not any(_compile([*compiler, *filter(None, [openmp])], built) for openmp in _OPENMP):
                continue
            loaded = _load(built)
            if loaded is None:
                continue
            _keep(built, path)
            return Availability(loaded, f"compiled for this processor by {Path(compiler[0]).name}")
    tried = " and ".join(Path(command[0]).name for command in found)
    return Availability(None, f"no kernels compiled by {tried} work here; the log says why")


def compilers() -> list[list[str]]:
    """Commands of the C compilers of this machine, the usual one first."""
    found = [[path] for name in _COMPILERS if (path := shutil.which(name)) is not None]
    if importlib.util.find_spec("ziglang") is not None:
        found.append([sys.executable, "-m", "ziglang", "cc"])
    return found


def _unsupported() -> str:
    """Why this processor or system cannot use the kernels; empty if it can."""
    if platform.machine().lower() not in {"x86_64", "amd64"} or sys.platform == "win32":
        return f"they are for x86-64 on Linux and macOS, not for {platform.machine()} on {platform.system()}"
    flags = _processor_flags()
    lacking = sorted(_FEATURES - set(flags.split())) if flags else []
    return f"this processor lacks {', '.join(lacking)}" if lacking else ""


def _processor_flags() -> str:
    """The processor's features as Linux lists them; empty elsewhere."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("flags"):
                return line.partition(":")[2].strip()
    return ""


def _compiled(folder: Path) -> Path:
    """The file for these sources and flags and this processor: machines of several kinds may share a home folder."""
    digest = hashlib.sha256(" ".join(_FLAGS).encode())
    digest.update((_processor_flags() or platform.node()).encode())
    for path in sorted(_SOURCES.glob("*.[ch]")):
        digest.update(path.read_bytes())
    return folder / f"step-{digest.hexdigest()[:24]}.so"


def _compile(compiler: Sequence[str], target: Path) -> bool:
    command = [*compiler, *_FLAGS, "-o", str(target), str(_SOURCES / _MAIN), *_LIBRARIES]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_LIMIT_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("%s cannot compile the kernels: %s", compiler[0], type(error).__name__)
        return False
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        logger.warning("%s cannot compile the kernels: %s", compiler[0], lines[-1] if lines else done.returncode)
    return done.returncode == 0


def _keep(built: Path, path: Path) -> None:
    """Move a compiled file to its place as a whole, so that no process loads half of it."""
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(built, temporary)
        temporary.replace(path)
    except OSError as error:
        logger.warning("%s cannot be written (%s); kernels are compiled at every start", path.parent, error.strerror)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _load(path: Path) -> Kernels | None:
    """The functions of a compiled file if they compute what they should; ``None`` otherwise."""
    try:
        kernels = Kernels.of(ctypes.CDLL(os.fspath(path)))
    except (OSError, AttributeError) as error:
        logger.warning("cannot load %s: %s", path.name, type(error).__name__)
        return None
    if not is_right(kernels):
        logger.warning("the compiled kernels compute something else than torch; they are not used")
        return None
    return kernels
