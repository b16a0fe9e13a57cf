"""The compiled kernels of this processor, checked against torch.

Torch's kernels for few rows are written for AVX-512, and a step of a small model is some two thousand operators of a
few microseconds. ``step.c`` is one call per step. It needs a C compiler, which the machine may lack: without one,
torch's kernels run all the same.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from forelook.compiled import CSource, compilers, load_compiled, processor_flags
from forelook.model.forward.native.check import is_right
from forelook.model.forward.native.kernels import Kernels

logger = logging.getLogger(__name__)

_SOURCE = CSource(
    Path(__file__).parent / "step.c",
    ("-std=gnu11", "-O3", "-march=native", "-shared", "-fPIC"),
    libraries=("-lm", "-lpthread"),
    variants=("-fopenmp", ""),  # with torch's threads, or with threads of our own where a compiler has no OpenMP
)
_FEATURES = {"avx2", "fma", "f16c"}


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
    return load_kernels(_SOURCE.folder, compilers())


def must_compile() -> bool:
    """Whether the first use of the kernels compiles them, which takes some seconds."""
    return not _unsupported() and not _SOURCE.compiled_path(_SOURCE.folder).is_file() and bool(compilers())


def load_kernels(folder: Path, found: Sequence[Sequence[str]]) -> Availability:
    """Load the compiled file of a folder, or compile it with the first compiler that can.

    Args:
        folder: where the file is kept.
        found: commands of compilers.
    """
    compiled = load_compiled(_SOURCE, _load, folder, found)
    return Availability(compiled.functions, compiled.reason)


def _unsupported() -> str:
    """Why this processor or system cannot use the kernels; empty if it can."""
    if platform.machine().lower() not in {"x86_64", "amd64"} or sys.platform == "win32":
        return f"they are for x86-64 on Linux and macOS, not for {platform.machine()} on {platform.system()}"
    flags = processor_flags()
    lacking = sorted(_FEATURES - set(flags.split())) if flags else []
    return f"this processor lacks {', '.join(lacking)}" if lacking else ""


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
