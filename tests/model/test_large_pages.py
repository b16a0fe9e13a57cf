"""Weights in memory of large pages: copies, as many bytes as they need, gone with their model."""

from __future__ import annotations

import gc
import mmap

import pytest
import torch
from forelook.model.forward.native import large_pages
from forelook.model.forward.native.large_pages import in_large_pages


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.uint8])
@pytest.mark.parametrize("shape", [(3,), (1, 1), (7, 33), (0, 4)])
def test_a_copy_has_the_values_and_is_its_own(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.arange(1000)[: torch.Size(shape).numel()].to(dtype).view(shape)
    copy = in_large_pages(tensor)
    assert copy.dtype is dtype
    assert torch.equal(copy, tensor)
    assert copy.is_contiguous()
    if tensor.numel():
        assert copy.data_ptr() != tensor.data_ptr()


def test_tensors_do_not_overlap_and_start_at_a_cache_line() -> None:
    tensors = [torch.full((length,), length % 100, dtype=torch.int8) for length in (1, 63, 64, 65, 5000, 3 << 20)]
    copies = [in_large_pages(tensor) for tensor in tensors]
    assert all(copy.data_ptr() % 64 == 0 for copy in copies)
    assert all(torch.equal(copy, tensor) for copy, tensor in zip(copies, tensors, strict=True))


def test_one_that_is_not_contiguous_is_copied_by_its_values() -> None:
    tensor = torch.arange(12.0).view(3, 4).T
    assert torch.equal(in_large_pages(tensor), tensor)


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="needs a system with large pages")
def test_a_mapping_ends_with_the_last_tensor_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_pages, "_latest", None)
    first, second = in_large_pages(torch.ones(10)), in_large_pages(torch.ones(10))
    latest = large_pages._latest
    assert latest is not None
    del first
    gc.collect()
    assert latest() is not None, "the second tensor lies in it"
    del second
    gc.collect()
    assert latest() is None


@pytest.mark.parametrize("error", [OSError(12, "Cannot allocate memory"), ValueError("madvise")])
def test_without_such_memory_the_tensor_serves_as_it_is(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(large_pages, "_allocated", fails)
    tensor = torch.arange(6.0).view(2, 3).T
    assert torch.equal(in_large_pages(tensor), tensor)
    assert in_large_pages(tensor).is_contiguous()
