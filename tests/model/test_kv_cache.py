"""Room for the keys and values of a sequence, and the memory that it has."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
import torch
from forelook.errors import InsufficientMemoryError
from forelook.model.forward.kv_cache import KVCache
from forelook.model.memory import out_of_memory_named


def cache_of(capacity: int, dtype: torch.dtype = torch.float32) -> KVCache:
    return KVCache(
        num_layers=8, num_kv_heads=4, head_size=64, capacity=capacity, dtype=dtype, device=torch.device("cpu")
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cache_counts_what_was_written_of_it(dtype: torch.dtype) -> None:
    cache = cache_of(32, dtype)
    assert cache.nbytes == 0
    cache.commit(range(10))
    assert cache.nbytes == 10 * 8 * 2 * 4 * 64 * dtype.itemsize
    cache.truncate(4)
    assert cache.nbytes == 10 * 8 * 2 * 4 * 64 * dtype.itemsize, "its pages stay"
    cache.commit(range(7))
    assert cache.nbytes == 11 * 8 * 2 * 4 * 64 * dtype.itemsize


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_empty_cache_has_no_pages() -> None:
    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident_bytes()
    cache = cache_of(32_768)
    assert cache.storage.nbytes == 2**29
    assert resident_bytes() - before < 2**26
    assert not cache.storage[3, 2, 1000].any()


def test_a_cache_that_cannot_be_mapped_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("forelook.model.forward.kv_cache.mmap.mmap", refuse)
    with pytest.raises(InsufficientMemoryError, match="a KV cache"), out_of_memory_named("a KV cache"):
        cache_of(8)
