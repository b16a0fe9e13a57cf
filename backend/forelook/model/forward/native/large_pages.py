"""Memory of large pages for weights.

A step reads every weight once, so with pages of 4 KiB the processor looks up an address for each of them: a step of
SmolLM2-135M in bfloat16 took 15% longer. Matrices share mappings, as most are smaller than two large pages.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from math import prod

import torch
from torch import Tensor

_PAGE_BYTES = 1 << 21  # a large page of x86
_MAPPING_BYTES = 1 << 25  # chosen, not measured: its last part may stay unused
_ALIGNMENT = 64  # a cache line

_lock = threading.Lock()
_latest: weakref.ref[mmap.mmap] | None = None  # weak: a mapping ends with the last tensor in it
_next_byte = 0


def in_large_pages(tensor: Tensor) -> Tensor:
    """A copy of a CPU tensor in memory of large pages, or the tensor itself where the system has none."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return tensor.contiguous()
    try:
        copy = _allocated(tensor.shape, tensor.dtype)
    except (OSError, ValueError):  # no memory left to map, or a kernel without large pages
        return tensor.contiguous()
    return copy.copy_(tensor)


def _allocated(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """An empty tensor in the latest mapping, or in a new one if there is no room."""
    global _latest, _next_byte
    num_values = prod(shape)
    num_bytes = num_values * dtype.itemsize
    with _lock:
        mapping = None if _latest is None else _latest()
        if mapping is None or _next_byte + num_bytes > len(mapping):
            mapping = mmap.mmap(-1, max(_MAPPING_BYTES, -(-num_bytes // _PAGE_BYTES) * _PAGE_BYTES))
            mapping.madvise(mmap.MADV_HUGEPAGE)
            _latest, _next_byte = weakref.ref(mapping), 0
        first = _next_byte
        _next_byte += -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
    if num_values == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(mapping, dtype=dtype, count=num_values, offset=first).view(shape)
