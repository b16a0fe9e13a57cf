"""The small operators of a step between its matrix products, each one Triton kernel.

A step of one token is bound by reading the weights. Between the products torch runs about twenty operators per layer of
about two microseconds each, however small they are: a third of the time of a 7B model's step. This module has four.
Each computes what its plain counterpart in :mod:`forelook.model.forward.step_ops` does, with the same roundings.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from forelook.model.forward.layers import Norm


def add_norm(hidden: Tensor, update: Tensor | None, multiplier: float, norm: Norm) -> tuple[Tensor, Tensor]:
    """The residual sum and its root-mean-square norm; see :func:`forelook.model.forward.step_ops.add_norm`."""
    num_tokens, width = hidden.shape
    summed = hidden if update is None else torch.empty_like(hidden)
    normed = torch.empty_like(hidden)
    _add_norm[(num_tokens,)](
        hidden,
        hidden if update is None else update,
        summed,
        normed,
        norm.weight,
        multiplier,
        norm.eps,
        WIDTH=width,
        BLOCK=triton.next_power_of_2(width),
        HAS_UPDATE=update is not None,
        num_warps=8 if width >= 2048 else 4,
    )
    return summed, normed


def rotate_and_store(qkv: Tensor, rotations: Tensor, positions: Tensor, cache: Tensor, prefix_length: Tensor) -> Tensor:
    """Rotated queries; keys and values into the cache; see :func:`forelook.model.forward.step_ops.rotate_and_store`."""
    num_tokens = qkv.shape[0]
    kv_heads, size = cache.shape[0] // 2, cache.shape[2]
    heads = qkv.shape[1] // size - 2 * kv_heads
    queries = torch.empty(num_tokens, heads, size, dtype=cache.dtype, device=qkv.device)
    _rotate_and_store[(num_tokens, heads + 2 * kv_heads)](
        qkv,
        torch.view_as_real(rotations),
        positions,
        cache,
        prefix_length,
        queries,
        cache.stride(0),
        HEADS=heads,
        KV_HEADS=kv_heads,
        HALF=size // 2,
        BLOCK=triton.next_power_of_2(size // 2),
        num_warps=1,
    )
    return queries


def gate(gate_up: Tensor) -> Tensor:
    """SiLU of the first half times the second; see :func:`forelook.model.forward.step_ops.gate`."""
    num_tokens, width = gate_up.shape
    output = torch.empty(num_tokens, width // 2, dtype=gate_up.dtype, device=gate_up.device)
    block = 1024
    _gate[(num_tokens, triton.cdiv(width // 2, block))](gate_up, output, WIDTH=width // 2, BLOCK=block, num_warps=4)
    return output


@triton.jit
def _add_norm(
    hidden,
    update,
    summed,
    normed,
    weight,
    multiplier,
    eps,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_UPDATE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * WIDTH
    columns = tl.arange(0, BLOCK)
    is_column = columns < WIDTH
    value = tl.load(hidden + row + columns, mask=is_column, other=0.0)
    if HAS_UPDATE:
        more = tl.load(update + row + columns, mask=is_column, other=0.0).to(tl.float32)
        value = (value.to(tl.float32) + more * multiplier).to(value.dtype)
        tl.store(summed + row + columns, value, mask=is_column)
    wide = value.to(tl.float32)
    mean_square = tl.sum(wide * wide, 0) / WIDTH
    scale = tl.load(weight + columns, mask=is_column, other=0.0).to(tl.float32)
    result = wide / tl.sqrt(mean_square + eps) * scale
    tl.store(normed + row + columns, result.to(value.dtype), mask=is_column)


@triton.jit
def _rotate_and_store(
    qkv,
    rotations,
    positions,
    cache,
    prefix_length,
    queries,
    head_stride,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0)
    head = tl.program_id(1)
    pairs = tl.arange(0, BLOCK)
    is_pair = pairs < HALF
    source = qkv + (token * (HEADS + 2 * KV_HEADS) + head).to(tl.int64) * 2 * HALF + 2 * pairs
    first = tl.load(source, mask=is_pair, other=0.0).to(tl.float32)
    second = tl.load(source + 1, mask=is_pair, other=0.0).to(tl.float32)
    if head < HEADS + KV_HEADS:
        turn = rotations + tl.load(positions + token) * 2 * HALF + 2 * pairs
        cosine = tl.load(turn, mask=is_pair, other=0.0)
        sine = tl.load(turn + 1, mask=is_pair, other=0.0)
        rotated = first * cosine - second * sine
        second = first * sine + second * cosine
        first = rotated
    if head < HEADS:
        target = queries + (token * HEADS + head) * 2 * HALF + 2 * pairs
    else:
        slot = tl.load(prefix_length).to(tl.int64) + token
        target = cache + (head - HEADS).to(tl.int64) * head_stride + slot * 2 * HALF + 2 * pairs
    tl.store(target, first.to(target.dtype.element_ty), mask=is_pair)
    tl.store(target + 1, second.to(target.dtype.element_ty), mask=is_pair)


@triton.jit
def _gate(gate_up, output, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_column = columns < WIDTH
    opened = tl.load(gate_up + token * 2 * WIDTH + columns, mask=is_column, other=0.0)
    value = tl.load(gate_up + token * 2 * WIDTH + WIDTH + columns, mask=is_column, other=0.0)
    wide = opened.to(tl.float32)
    silu = (wide / (1.0 + tl.exp(-wide))).to(opened.dtype)
    tl.store(
        output + token * WIDTH + columns, (silu.to(tl.float32) * value.to(tl.float32)).to(opened.dtype), mask=is_column
    )
