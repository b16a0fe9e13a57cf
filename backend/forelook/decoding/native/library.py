"""The compiled scan of this machine, checked against numpy's before it is used."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

from forelook.compiled import Compiled, CSource, compilers, load_compiled

Scan = Callable[[torch.Tensor, Sequence[int], int], "list[tuple[list[int], list[float]]] | None"]
"""(logits [R, V], rows, count) → token ids and logits of each row's ``count`` largest, the largest first, of equal ones
the first; ``None`` for logits that it does not serve."""

_SOURCE = CSource(
    Path(__file__).parent / "likeliest.c",
    ("-std=c11", "-O3", "-shared", "-fPIC"),
    variants=("-march=native", "-mcpu=native", ""),
)


@cache
def native_likeliest() -> Compiled[Scan]:
    """The compiled scan, compiled now if need be; the engine does so before there are requests."""
    if sys.platform == "win32":
        return Compiled(None, "it is not compiled on Windows")
    return load_likeliest(_SOURCE.folder, compilers())


def load_likeliest(folder: Path, found: Sequence[Sequence[str]]) -> Compiled[Scan]:
    """Load the compiled file of a folder, or compile it with the first compiler that can.

    Args:
        folder: where the file is kept.
        found: commands of compilers.
    """
    return load_compiled(_SOURCE, _open, _is_right, folder, found)


def _open(path: Path) -> Scan:
    function = ctypes.PyDLL(os.fspath(path)).forelook_likeliest  # with the GIL: a call takes some ten microseconds
    function.restype = ctypes.c_int64
    function.argtypes = [
        *(ctypes.c_void_p, ctypes.c_int64),
        *(ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64),
        *(ctypes.c_void_p, ctypes.c_void_p),
    ]

    def scan(logits: torch.Tensor, rows: Sequence[int], count: int) -> list[tuple[list[int], list[float]]] | None:
        if logits.dtype != torch.float32 or not logits.is_contiguous():
            return None
        num_rows, size = len(rows), logits.shape[1]
        asked = (ctypes.c_int64 * num_rows)(*rows)
        places, values = (ctypes.c_int32 * (num_rows * count))(), (ctypes.c_float * (num_rows * count))()
        if not function(logits.data_ptr(), size, asked, num_rows, count, places, values):
            return None
        ends = range(count, len(places) + 1, count)
        return [(places[end - count : end], values[end - count : end]) for end in ends]

    return scan


def _is_right(scan: Scan) -> bool:
    logits = np.random.default_rng(0).integers(0, 90, (3, 1000)).astype(np.float32)
    order = np.argsort(-logits, axis=1, kind="stable")[[2, 0], :5]
    expected = [(ids.tolist(), logits[row][ids].tolist()) for row, ids in zip((2, 0), order, strict=True)]
    return scan(torch.from_numpy(logits), [2, 0], 5) == expected
