"""Converts the quantized blocks of ggml to floats, exactly as the gguf package does, but several times as fast.

Layouts: ``ggml-common.h`` and ``ggml-quants.c`` of ggml. Every function takes blocks of one type as bytes, [N, bytes],
and returns their values in float32, [N, values]. A block has one or two scales in float16, then small integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from types import MappingProxyType

import torch

from forelook.errors import UnsupportedArchitectureError
from forelook.model.gguf.header import BLOCK_TYPES, BlockType, TensorPlace
from forelook.model.quantization import Groups4

# Values converted at once: intermediate results stay in a core's cache. Measured: docs/decisions.md, "GGUF is read by
# our own code".
_CHUNK_VALUES = 1 << 18
Dequantize = Callable[[torch.Tensor], torch.Tensor]
_Group = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Codes [N, values], and per 32 of them a scale and a minimum in float32, [N, values / 32]."""


def _half(blocks: torch.Tensor, start: int) -> torch.Tensor:
    """The float16 at a byte of each block, [N, 1] in float32."""
    return blocks[:, start : start + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    """Low halves of the bytes, then high halves: [..., B] → [..., 2, B]."""
    return torch.stack((packed & 15, packed >> 4), dim=-2)


def _bits(packed: torch.Tensor, shifts: range, mask: int) -> torch.Tensor:
    """Groups of bits of each byte: [..., B] → [..., shifts, B]."""
    return torch.stack([(packed >> shift) & mask for shift in shifts], dim=-2)


def _fifth_bits(blocks: torch.Tensor, start: int) -> torch.Tensor:
    """The highest bits of 32 five-bit values, from four bytes: [N, 2, 16], as 0 or 16."""
    high = _bits(blocks[:, start : start + 4], range(8), 1)  # [N, 8, 4]
    return (high.transpose(1, 2).reshape(-1, 2, 16)) << 4


def _q4_0(blocks: torch.Tensor) -> torch.Tensor:
    values = _nibbles(blocks[:, 2:]).flatten(1).float().sub_(8)
    return values.mul_(_half(blocks, 0))


def _q4_1(blocks: torch.Tensor) -> torch.Tensor:
    values = _nibbles(blocks[:, 4:]).flatten(1).float()
    return values.mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q5_0(blocks: torch.Tensor) -> torch.Tensor:
    values = (_nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)).flatten(1).float().sub_(16)
    return values.mul_(_half(blocks, 0))


def _q5_1(blocks: torch.Tensor) -> torch.Tensor:
    values = (_nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)).flatten(1).float()
    return values.mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q8_0(blocks: torch.Tensor) -> torch.Tensor:
    return blocks[:, 2:].contiguous().view(torch.int8).float().mul_(_half(blocks, 0))


def _scales_and_minima(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and minimum of each of the 8 sub-blocks of a Q4_K or Q5_K block: two [N, 8, 1] in float32.

    Six bits each, packed in twelve bytes: the first eight bytes have those of sub-blocks 0 to 3 in their low six bits
    and the top two bits of those of sub-blocks 4 to 7; the last four bytes have the latter's low four bits.
    """
    first, second, both = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = torch.cat((first & 63, (both & 15) | ((first >> 2) & 48)), dim=1)
    minima = torch.cat((second & 63, (both >> 4) | ((second >> 2) & 48)), dim=1)
    scale = _half(blocks, 0) * scales.float()
    minimum = _half(blocks, 2) * minima.float()
    return scale.unsqueeze(-1), minimum.unsqueeze(-1)


def _q4_k(blocks: torch.Tensor) -> torch.Tensor:
    scale, minimum = _scales_and_minima(blocks)
    values = _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32).float()
    return values.mul_(scale).sub_(minimum).flatten(1)


def _q5_k(blocks: torch.Tensor) -> torch.Tensor:
    scale, minimum = _scales_and_minima(blocks)
    low = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    high = _bits(blocks[:, 16:48], range(8), 1) << 4
    return (low | high).float().mul_(scale).sub_(minimum).flatten(1)


def _q6_k(blocks: torch.Tensor) -> torch.Tensor:
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 8, 32)
    high = _bits(blocks[:, 128:192].reshape(-1, 2, 32), range(0, 8, 2), 3).reshape(-1, 8, 32) << 4
    scale = _half(blocks, 208) * blocks[:, 192:208].contiguous().view(torch.int8).float()
    values = (low | high).reshape(-1, 16, 16).float().sub_(32)
    return values.mul_(scale.unsqueeze(-1)).flatten(1)


def _groups_q4_0(blocks: torch.Tensor) -> _Group:
    scale = _half(blocks, 0)
    return _nibbles(blocks[:, 2:]).flatten(1), scale, scale * -8


def _groups_q4_1(blocks: torch.Tensor) -> _Group:
    return _nibbles(blocks[:, 4:]).flatten(1), _half(blocks, 0), _half(blocks, 2)


def _groups_q4_k(blocks: torch.Tensor) -> _Group:
    scale, minimum = _scales_and_minima(blocks)
    return _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).flatten(1), scale.flatten(1), minimum.flatten(1).neg_()


GROUP_READERS: Mapping[str, Callable[[torch.Tensor], _Group]] = MappingProxyType(
    {"Q4_0": _groups_q4_0, "Q4_1": _groups_q4_1, "Q4_K": _groups_q4_k}
)
"""The formats whose values are 4-bit codes with a scale and a minimum per 32 of them."""


def read_groups(data: torch.Tensor, place: TensorPlace) -> Groups4:
    """A matrix in one of :data:`GROUP_READERS`, as it is.

    Args:
        data: the tensor's bytes.
        place: its shape and type.
    """
    outputs, inputs = place.shape
    blocks = data.view(-1, place.type.num_bytes)
    codes = torch.empty(len(blocks), place.type.num_values, dtype=torch.uint8)
    per_block = place.type.num_values // 32
    scales, minima = torch.empty(2, len(blocks), per_block).unbind(0)
    step = max(1, _CHUNK_VALUES // place.type.num_values)
    for start in range(0, len(blocks), step):
        part = slice(start, start + step)
        codes[part], scales[part], minima[part] = GROUP_READERS[place.type.name](blocks[part])
    return Groups4(codes.view(outputs, inputs), scales.view(outputs, -1), minima.view(outputs, -1))


DEQUANTIZERS: Mapping[str, Dequantize] = MappingProxyType(
    {
        "F32": lambda blocks: blocks.contiguous().view(torch.float32),
        "F16": lambda blocks: blocks.contiguous().view(torch.float16).float(),
        "BF16": lambda blocks: blocks.contiguous().view(torch.bfloat16).float(),
        "Q4_0": _q4_0,
        "Q4_1": _q4_1,
        "Q5_0": _q5_0,
        "Q5_1": _q5_1,
        "Q8_0": _q8_0,
        "Q4_K": _q4_k,
        "Q5_K": _q5_k,
        "Q6_K": _q6_k,
    }
)


def dequantize(
    data: torch.Tensor, place: TensorPlace, dtype: torch.dtype, where: str, pool: Executor | None = None
) -> tuple[torch.Tensor, bool]:
    """A tensor's values in a dtype, chunk by chunk, so that there is never a second copy of them.

    Args:
        data: the tensor's bytes.
        place: its shape and type.
        dtype: of the result.
        where: file and name, for errors.
        pool: converts the chunks concurrently, if given.

    Returns:
        The values, and whether all of them are finite.

    Raises:
        UnsupportedArchitectureError: a type without a known layout.
    """
    form = place.type
    convert = DEQUANTIZERS.get(form.name) or _package_dequantizer(form, place.code, where)
    blocks = data.view(-1, form.num_bytes)
    values = torch.empty(place.shape, dtype=dtype)
    flat = values.view(-1, form.num_values)
    step = max(1, _CHUNK_VALUES // form.num_values)

    def convert_chunk(start: int) -> bool:
        chunk = convert(blocks[start : start + step]).view(-1, form.num_values)
        kept = flat[start : start + step].copy_(chunk)
        checked = kept if dtype is torch.float16 else chunk  # large values become infinite in float16
        return math.isfinite(float(checked.sum(dtype=torch.float32)))

    starts = range(0, len(blocks), step)
    are_finite = [*(pool.map if pool is not None and len(starts) > 1 else map)(convert_chunk, starts)]
    return values, all(are_finite)


def _package_dequantizer(form: BlockType, code: int, where: str) -> Dequantize:
    """The gguf package's own conversion, for the types that few files use."""
    import gguf

    kind = gguf.GGMLQuantizationType(code)

    def convert(blocks: torch.Tensor) -> torch.Tensor:
        try:
            return torch.from_numpy(gguf.dequantize(blocks.numpy(), kind))
        except (NotImplementedError, ValueError) as error:
            supported = ", ".join(known.name for known in BLOCK_TYPES.values())
            raise UnsupportedArchitectureError(
                f"{where} is in {form.name}, which cannot be read; choose a file in {supported}"
            ) from error

    return convert
