"""The compiled kernels of this processor, checked against torch.

Torch's kernels for few rows are written for AVX-512, and a step of a small model is some two thousand operators of a
few microseconds. ``step.c`` is one call per step. It needs a C compiler, which the machine may lack: without one,
torch's kernels run all the same.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from forelook.compiled import Compiled, CSource, compilers, cpu_info, load_compiled
from forelook.model.forward.native.check import is_right
from forelook.model.forward.native.kernels import Kernels

_SOURCE = CSource(
    Path(__file__).parent / "step.c",
    ("-std=gnu11", "-O3", "-march=native", "-shared", "-fPIC"),
    libraries=("-lm", "-lpthread"),
    variants=("-fopenmp", ""),  # with torch's threads, or with threads of our own where a compiler has no OpenMP
)
_FEATURES = {"avx2", "fma", "f16c"}


@cache
def native_kernels() -> Compiled[Kernels]:
    """The kernels, compiled now if need be."""
    missing = _unsupported()
    if missing:
        return Compiled(None, missing)
    return load_kernels(_SOURCE.folder, compilers())


def must_compile() -> bool:
    """Whether the first use of the kernels compiles them, which takes some seconds."""
    return not _unsupported() and not _SOURCE.compiled_path(_SOURCE.folder).is_file() and bool(compilers())


def load_kernels(folder: Path, found: Sequence[Sequence[str]]) -> Compiled[Kernels]:
    """Load the compiled file of a folder, or compile it with the first compiler that can.

    Args:
        folder: where the file is kept.
        found: commands of compilers.
    """
    return load_compiled(_SOURCE, _open, is_right, folder, found)


def _unsupported() -> str:
    """Why this processor or system cannot use the kernels; empty if it can."""
    if platform.machine().lower() not in {"x86_64", "amd64"} or sys.platform == "win32":
        return f"they are for x86-64 on Linux and macOS, not for {platform.machine()} on {platform.system()}"
    flags = cpu_info("flags")
    lacking = sorted(_FEATURES - set(flags.split())) if flags else []
    return f"this processor lacks {', '.join(lacking)}" if lacking else ""


def _open(path: Path) -> Kernels:
    return Kernels.of(ctypes.CDLL(os.fspath(path)))
