"""Returns freed memory to the system. Standard library only."""

from __future__ import annotations

import ctypes
import sys


def trim_heap() -> None:
    """Return what the C library keeps of freed memory; without glibc nothing happens.

    glibc keeps what is freed below a threshold, which rises with the sizes that it has seen.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
