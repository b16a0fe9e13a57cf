"""Compares compiled products with torch's before they are used: a compiler may have a fault too."""

from __future__ import annotations

import torch
from torch import Tensor

from forelook.model.forward.native.kernels import Kernels
from forelook.model.forward.native.matrices import NativeFloats, NativeGroups4, NativeMatrix, NativeRows8, as_stored
from forelook.model.quantization import quantize_groups, quantize_rows

_SHAPE = (27, 96)  # outputs that are computed four or two at once, and a rest
_SIZES = (1, 3, 8, 11)
_TOLERANCE = 1e-4  # of the largest result; float32 sums of a hundred products differ by less


def is_right(kernels: Kernels) -> bool:
    """Whether products in all formats are those of torch."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(*_SHAPE, generator=generator)
    rows, groups = quantize_rows(weight), as_stored(quantize_groups(weight))
    half = weight.to(torch.bfloat16)
    pairs: list[tuple[NativeMatrix, Tensor]] = [
        (NativeRows8(rows, torch.float32, kernels), rows.codes * rows.scales.float().unsqueeze(1)),
        (NativeGroups4(groups, torch.float32, kernels), groups.floats(torch.float32)),
        (NativeFloats(weight, kernels), weight),
        (NativeFloats(half, kernels), half.float()),
    ]
    for matrix, floats in pairs:
        for size in _SIZES:
            x = torch.randn(size, _SHAPE[1], generator=generator)
            expected = x @ floats.t()
            error = (matrix.product(x, None).float() - expected).abs().max()
            limit = (0.01 if matrix.dtype is torch.bfloat16 else _TOLERANCE) * expected.abs().max()
            if not error <= limit:
                return False
    return True
