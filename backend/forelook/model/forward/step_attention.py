"""Attention of a captured step: the number of committed tokens is a tensor on the device, not a Python number.

One captured step runs for every prefix length, so nothing in this module may read that number on the host. All
functions have one signature: queries [T, H, D]; the layer's whole cache [2 Hkv, capacity, D], keys first, in which the
step's own keys and values follow the committed ones; the prefix length as an int32 tensor of one element; which tail
token sees which, [T, T] bool; the scale of the scores. The result is [T, H D].
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from forelook.model.forward.attention import choose_attention, merge_by_log_sum_exp

StepAttention = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
# (queries [rows, Hkv, D], keys [capacity, Hkv, D], values, prefix length, scale) → ([rows, Hkv, D], log-sum-exp
# [Hkv, rows] in float32): all rows over the first `prefix length` keys, unmasked.
PrefixKernel = Callable[[Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class StepAttentionChoice:
    """A way to attend in a captured step, or the reason why it cannot be used here.

    Attributes:
        name: for ``forelook doctor``.
        attend: the function; ``None`` where it cannot be used.
        reason: why not.
    """

    name: str
    attend: StepAttention | None
    reason: str = ""


def step_attention_choices(device: torch.device, dtype: torch.dtype, head_size: int) -> list[StepAttentionChoice]:
    """Every way to attend in a captured step, the presumably fastest first; each usable one has its function."""
    return [
        _triton_choice(device, head_size),
        _flash_attn_choice(device, dtype),
        _varlen_choice(device, dtype),
        StepAttentionChoice("masked", attend_masked),
    ]


def describe_attention(device: torch.device, dtype: torch.dtype, head_size: int = 128) -> str:
    """The ways to attend on a device, and why the others are missing, for ``forelook doctor``."""
    if device.type != "cuda":
        chosen = choose_attention(device, dtype)
        return f"{chosen.name}: {chosen.reason}"
    choices = step_attention_choices(device, dtype, head_size)
    usable = ", ".join(choice.name for choice in choices if choice.attend is not None)
    missing = [f"{choice.name}: {choice.reason}" for choice in choices if choice.attend is None]
    return "; ".join([f"the fastest of {usable} on this device, timed when a model is loaded", *missing])


def attend_masked(queries: Tensor, cache: Tensor, prefix_length: Tensor, visible: Tensor, scale: float) -> Tensor:
    """Matmul–softmax–matmul over the whole cache with a materialized mask: the plain way, which runs anywhere."""
    num_tokens, heads, size = queries.shape
    kv_heads, capacity = cache.shape[0] // 2, cache.shape[1]
    rows = fold_rows(queries, kv_heads)  # [T * groups, Hkv, D]
    seen = whole_visibility(prefix_length, visible, capacity).repeat_interleave(heads // kv_heads, dim=0)
    scores = _wide(rows.transpose(0, 1) @ cache[:kv_heads].transpose(1, 2)) * scale  # [Hkv, T * groups, capacity]
    shares = scores.masked_fill_(~seen, float("-inf")).softmax(dim=-1).to(cache.dtype)
    return unfold_rows((shares @ cache[kv_heads:]).transpose(0, 1), num_tokens).reshape(num_tokens, heads * size)


def attend_captured_prefix_and_tail(
    kernel: PrefixKernel, queries: Tensor, cache: Tensor, prefix_length: Tensor, visible: Tensor, scale: float
) -> Tensor:
    """A flash kernel over the prefix, merged with the tail by their log-sum-exps."""
    num_tokens, heads, size = queries.shape
    kv_heads = cache.shape[0] // 2
    rows = fold_rows(queries, kv_heads)
    slots = prefix_length + torch.arange(num_tokens, device=queries.device)
    tail = cache.index_select(1, slots)  # [2 Hkv, T, D]
    seen = visible.repeat_interleave(heads // kv_heads, dim=0)
    scores = _wide(rows.transpose(0, 1) @ tail[:kv_heads].transpose(1, 2)) * scale
    scores = scores.masked_fill_(~seen, float("-inf"))
    tail_lse = scores.logsumexp(dim=-1, keepdim=True)  # [Hkv, rows, 1]
    attended = ((scores - tail_lse).exp().to(cache.dtype) @ tail[kv_heads:]).float()

    prefix, prefix_lse = kernel(
        rows, cache[:kv_heads].transpose(0, 1), cache[kv_heads:].transpose(0, 1), prefix_length, scale
    )
    merged = merge_by_log_sum_exp(prefix.transpose(0, 1), prefix_lse.unsqueeze(-1), attended, tail_lse)
    # Over an empty prefix kernels return arbitrary values, NaN included, and differ in the log-sum-exp.
    merged = torch.where(prefix_length == 0, attended, merged)
    unfolded = unfold_rows(merged.transpose(0, 1), num_tokens)
    return unfolded.reshape(num_tokens, heads * size).to(queries.dtype)


def whole_visibility(prefix_length: Tensor, visible: Tensor, capacity: int) -> Tensor:
    """[T, capacity]: all of the prefix, and of the tail after it what ``visible`` says."""
    num_tokens = visible.shape[0]
    columns = torch.arange(capacity, device=visible.device) - prefix_length
    in_tail = (columns >= 0) & (columns < num_tokens)
    return (columns < 0) | (in_tail & visible.index_select(1, columns.clamp(0, num_tokens - 1)))


def _wide(scores: Tensor) -> Tensor:
    """At least float32."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def fold_rows(queries: Tensor, kv_heads: int) -> Tensor:
    """[T, H, D] → [T * groups, Hkv, D]: a key head is then read once for all query heads that share it."""
    num_tokens, heads, size = queries.shape
    groups = heads // kv_heads
    return queries.view(num_tokens, kv_heads, groups, size).transpose(1, 2).reshape(-1, kv_heads, size)


def unfold_rows(rows: Tensor, num_tokens: int) -> Tensor:
    """[T * groups, Hkv, D] → [T, H, D]."""
    count, kv_heads, size = rows.shape
    return rows.reshape(num_tokens, count // num_tokens, kv_heads, size).transpose(1, 2).flatten(1, 2)


def _flash_attn_prefix(
    rows: Tensor, keys: Tensor, values: Tensor, prefix_length: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    # An optional extra that exists for CUDA only.
    from flash_attn import flash_attn_with_kvcache  # type: ignore[import-not-found]

    output, lse = flash_attn_with_kvcache(
        rows.unsqueeze(0),
        keys.unsqueeze(0),
        values.unsqueeze(0),
        cache_seqlens=prefix_length,
        softmax_scale=scale,
        causal=False,
        return_softmax_lse=True,
    )
    return output[0], lse[0]


def _varlen_prefix(
    rows: Tensor, keys: Tensor, values: Tensor, prefix_length: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    count, capacity = rows.shape[0], keys.shape[0]
    borders = torch.arange(2, dtype=torch.int32, device=rows.device)
    output, lse = varlen_attn(
        rows,
        keys,
        values,
        borders * count,
        borders * capacity,
        count,
        capacity,
        return_aux=AuxRequest(lse=True),
        scale=scale,
        seqused_k=prefix_length,
    )
    # The shape is [Hkv, rows], as in the operator's own shape rules; its documentation differs.
    return output, lse


def _triton_choice(device: torch.device, head_size: int) -> StepAttentionChoice:
    name = "triton-tree"
    if device.type != "cuda":
        return StepAttentionChoice(name, None, f"Triton compiles for CUDA, not for {device.type}")
    if importlib.util.find_spec("triton") is None:
        return StepAttentionChoice(name, None, "the package triton is not installed; torch for CUDA on Linux brings it")
    if head_size < 16 or head_size & (head_size - 1):
        return StepAttentionChoice(name, None, f"heads of size {head_size}, not a power of two from 16")
    from forelook.model.forward.triton_attention import attend_tree

    return StepAttentionChoice(name, attend_tree)


def _flash_attn_choice(device: torch.device, dtype: torch.dtype) -> StepAttentionChoice:
    name = "flash-attn"
    if reason := _no_flash(device, dtype):
        return StepAttentionChoice(name, None, reason)
    if importlib.util.find_spec("flash_attn") is None:
        return StepAttentionChoice(name, None, "the package flash-attn is not installed (extra forelook[flash])")
    # It reads the length from the device.
    return StepAttentionChoice(name, partial(attend_captured_prefix_and_tail, _flash_attn_prefix))


def _varlen_choice(device: torch.device, dtype: torch.dtype) -> StepAttentionChoice:
    name = "torch-varlen"
    if reason := _no_flash(device, dtype):
        return StepAttentionChoice(name, None, reason)
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return StepAttentionChoice(name, None, f"torch {torch.__version__} has no variable-length attention")
    if "seqused_k" not in inspect.signature(varlen_attn).parameters:
        reason = f"variable-length attention of torch {torch.__version__} does not read the length from the device"
        return StepAttentionChoice(name, None, reason)
    # ``seqused_k`` is the length on the device.
    return StepAttentionChoice(name, partial(attend_captured_prefix_and_tail, _varlen_prefix))


def _no_flash(device: torch.device, dtype: torch.dtype) -> str:
    if device.type != "cuda":
        return f"flash kernels run on CUDA, not on {device.type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"flash kernels do not compute in {str(dtype).removeprefix('torch.')}"
    return ""
