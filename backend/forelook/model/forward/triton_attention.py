"""Tree attention in one pass over prefix and tail: split over the keys, merged by log-sum-exp, in Triton.

After *Flash-Decoding* (Dao et al., 2023): a step has few queries and many keys, so the keys are split over as many
programs as fill the device, and a second kernel merges their partial results. Committed keys need no mask. The step's
own keys follow them in the same cache, and ``visible`` says which of them a row sees. The prefix length is read from
the device, so one captured step runs for every prefix.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_NUM_PROGRAMS = 264
"""Two per multiprocessor of an H100 or H200; smaller devices run them in waves. Chosen, not measured."""
_MAX_SPLITS = 64  # chosen, not measured


def attend_tree(
    queries: Tensor,
    cache: Tensor,
    prefix_length: Tensor,
    visible: Tensor,
    scale: float,
    *,
    num_programs: int = _NUM_PROGRAMS,
) -> Tensor:
    """Attend to the prefix and the tail; see :mod:`forelook.model.forward.step_attention`.

    Args:
        queries: [T, H, D], D a power of two from 16.
        cache: [2 Hkv, capacity, D].
        prefix_length: [1] int32.
        visible: [T, T] bool.
        scale: of the scores.
        num_programs: about how many programs the keys are split over.
    """
    num_tokens, heads, size = queries.shape
    kv_heads = cache.shape[0] // 2
    groups = heads // kv_heads
    queries = queries.contiguous()
    block_rows = min(128, max(16, triton.next_power_of_2(num_tokens * groups)))
    num_blocks = triton.cdiv(num_tokens * groups, block_rows)
    num_splits = min(_MAX_SPLITS, triton.next_power_of_2(triton.cdiv(num_programs, num_blocks * kv_heads)))
    partial = torch.empty(num_splits, num_tokens, heads, size, dtype=torch.float32, device=queries.device)
    sums = torch.empty(num_splits, num_tokens, heads, dtype=torch.float32, device=queries.device)
    wide = queries.dtype.itemsize > 2
    _attend_split[(num_splits, kv_heads, num_blocks)](
        queries,
        cache,
        prefix_length,
        visible.view(torch.uint8),
        partial,
        sums,
        scale * 1.4426950408889634,
        cache.stride(0),
        cache.stride(0) * kv_heads,
        num_tokens,
        HEADS=heads,
        GROUPS=groups,
        SIZE=size,
        BLOCK_ROWS=block_rows,
        BLOCK_KEYS=32 if wide else 64,
        SPLITS=num_splits,
        PRECISION="ieee" if wide else "tf32",
        num_warps=8 if block_rows == 128 else 4,
    )
    output = torch.empty(num_tokens, heads * size, dtype=queries.dtype, device=queries.device)
    _merge_splits[(num_tokens * heads,)](
        partial, sums, output, num_tokens * heads, SIZE=size, SPLITS=num_splits, num_warps=4
    )
    return output


@triton.jit
def _attend_split(
    queries,
    cache,
    prefix_length,
    visible,
    partial,
    sums,
    scale,
    head_stride,
    values_offset,
    num_tokens,
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    SPLITS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One block of rows of one key head over one split of the keys; scores are in units of log 2."""
    split = tl.program_id(0)
    kv_head = tl.program_id(1)
    prefix = tl.load(prefix_length).to(tl.int32)
    total = prefix + num_tokens
    # Not tl.cdiv, a kernel of its own, which Triton 3.6 does not interpret once torch has imported it.
    num_blocks = (total + SPLITS * BLOCK_KEYS - 1) // (SPLITS * BLOCK_KEYS)
    share = num_blocks * BLOCK_KEYS
    start = split * share
    end = tl.minimum(start + share, total)

    rows = tl.program_id(2) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    is_row = rows < num_tokens * GROUPS
    tokens = rows // GROUPS
    heads = kv_head * GROUPS + rows % GROUPS
    dims = tl.arange(0, SIZE)
    query = tl.load(queries + (tokens * HEADS + heads)[:, None] * SIZE + dims[None, :], mask=is_row[:, None], other=0.0)
    keys = cache + kv_head.to(tl.int64) * head_stride
    values = keys + values_offset

    highest = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
    weight = tl.zeros([BLOCK_ROWS], tl.float32)
    average = tl.zeros([BLOCK_ROWS, SIZE], tl.float32)
    for first in range(start, end, BLOCK_KEYS):
        columns = first + tl.arange(0, BLOCK_KEYS)
        is_column = columns < end
        key = tl.load(keys + columns[:, None] * SIZE + dims[None, :], mask=is_column[:, None], other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
        behind = columns - prefix
        is_tail = (behind >= 0) & is_column
        seen = tl.load(
            visible + tokens[:, None] * num_tokens + behind[None, :],
            mask=is_row[:, None] & is_tail[None, :],
            other=0,
        )
        scores = tl.where(is_column[None, :] & ((behind < 0)[None, :] | (seen != 0)), scores, float("-inf"))
        new_highest = tl.maximum(highest, tl.max(scores, 1))
        # A row may see nothing of a split: -inf minus -inf must not become NaN.
        base = tl.where(new_highest == float("-inf"), 0.0, new_highest)
        shares = tl.exp2(scores - base[:, None])
        shrink = tl.exp2(highest - base)
        value = tl.load(values + columns[:, None] * SIZE + dims[None, :], mask=is_column[:, None], other=0.0)
        weight = weight * shrink + tl.sum(shares, 1)
        average = average * shrink[:, None] + tl.dot(shares.to(value.dtype), value, input_precision=PRECISION)
        highest = new_highest

    some = tl.where(weight > 0.0, weight, 1.0)
    places = (split * num_tokens + tokens) * HEADS + heads
    tl.store(partial + places[:, None] * SIZE + dims[None, :], average / some[:, None], mask=is_row[:, None])
    tl.store(sums + places, tl.where(weight > 0.0, highest + tl.log2(some), float("-inf")), mask=is_row)


@triton.jit
def _merge_splits(partial, sums, output, num_rows, SIZE: tl.constexpr, SPLITS: tl.constexpr):
    """Softmax averages over disjoint sets of keys → the average over all of them."""
    row = tl.program_id(0)
    splits = tl.arange(0, SPLITS)
    dims = tl.arange(0, SIZE)
    sizes = tl.load(sums + splits * num_rows + row)
    shares = tl.exp2(sizes - tl.max(sizes, 0))
    shares = shares / tl.sum(shares, 0)
    parts = tl.load(partial + (splits * num_rows + row)[:, None] * SIZE + dims[None, :])
    merged = tl.sum(parts * shares[:, None], 0)
    tl.store(output + row * SIZE + dims, merged.to(output.dtype.element_ty))
