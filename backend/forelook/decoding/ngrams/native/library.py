"""The compiled lookup of this machine, checked against Python's."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from forelook.compiled import Compiled, CSource, compilers, load_compiled
from forelook.decoding.ngrams.index import NgramIndex
from forelook.decoding.ngrams.native.check import is_right
from forelook.decoding.ngrams.native.functions import CONSTANTS, Functions
from forelook.decoding.ngrams.native.lookup import NativeLookup

_SOURCE = CSource(
    Path(__file__).parent / "lookup.c",
    # no operation may be fused with another: shares are Python's to the bit
    (
        "-std=c11",
        "-O3",
        "-ffp-contract=off",
        "-shared",
        "-fPIC",
        *(f"-D{name}={CONSTANTS[name]}" for name in CONSTANTS),
    ),
)


@cache
def native_lookup() -> Compiled[Functions]:
    """The compiled functions, compiled now if need be; the engine does so before there are requests."""
    if sys.platform == "win32":
        return Compiled(None, "it is not compiled on Windows")
    return load_lookup(_SOURCE.folder, compilers())


def load_lookup(folder: Path, found: Sequence[Sequence[str]]) -> Compiled[Functions]:
    """Load the compiled file of a folder, or compile it with the first compiler that can.

    Args:
        folder: where the file is kept.
        found: commands of compilers.
    """
    return load_compiled(_SOURCE, _open, is_right, folder, found)


def lookup_in(index: NgramIndex) -> NativeLookup | None:
    """Compiled lookups in an index; ``None`` where Python has to look up."""
    functions = native_lookup().functions
    return None if functions is None else NativeLookup(functions, index)


def _open(path: Path) -> Functions:
    return Functions.of(ctypes.PyDLL(os.fspath(path)))  # with the GIL: a call takes a few microseconds
