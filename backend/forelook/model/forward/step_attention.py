"""Attention of a captured step: the number of committed tokens is a tensor on the device, not a Python number.

One captured step must serve every prefix length, so nothing here may look at that number on the host. Every function
has one signature: queries [T, H, D]; the layer's whole cache [2 Hkv, capacity, D], keys first, in which the step's own
keys and values stand right behind the committed ones; the prefix length as an int32 tensor of one element; who sees
whom within the tail, [T, T] bool; the scale of the scores. The result is [T, H D].
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch

from forelook.model.forward.attention import choose_attention, merge_by_log_sum_exp

StepAttention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
# (queries [rows, Hkv, D], keys [capacity, Hkv, D], values, prefix length, scale) → ([rows, Hkv, D], log-sum-exp
# [Hkv, rows] in float32): all rows over the first `prefix length` keys, unmasked.
PrefixKernel = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]
]


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
    """Every way to attend in a captured step, each usable one with its function, the presumably fastest first."""
    return [
        _triton_choice(device, head_size),
        _flash_attn_choice(device, dtype),
        _varlen_choice(device, dtype),
        StepAttentionChoice("masked", attend_masked),
    ]


def describe_attention(device: torch.device, dtype: torch.dtype, head_size: int = 128) -> str:
    """Which ways to attend a device has and why not the others, for ``forelook doctor``."""
    if device.type != "cuda":
        chosen = choose_attention(device, dtype)
        return f"{chosen.name}: {chosen.reason}"
    choices = step_attention_choices(device, dtype, head_size)
    usable = ", ".join(choice.name for choice in choices if choice.attend is not None)
    missing = [f"{choice.name}: {choice.reason}" for choice in choices if choice.attend is None]
    return "; ".join([f"the fastest of {usable} on this device, timed when a model is loaded", *missing])


def attend_masked(
    queries: torch.Tensor, cache: torch.Tensor, prefix_length: torch.Tensor, visible: torch.Tensor, scale: float
) -> torch.Tensor:
    """Matmul–softmax–matmul over the whole cache with a materialised mask: the plain way, which runs anywhere."""
    num_tokens, heads, size = queries.shape
    kv_heads, capacity = cache.shape[0] // 2, cache.shape[1]
    rows = fold_rows(queries, kv_heads)  # [T * groups, Hkv, D]
    seen = whole_visibility(prefix_length, visible, capacity).repeat_interleave(heads // kv_heads, dim=0)
    scores = _wide(rows.transpose(0, 1) @ cache[:kv_heads].transpose(1, 2)) * scale  # [Hkv, T * groups, capacity]
    shares = scores.masked_fill_(~seen, float("-inf")).softmax(dim=-1).to(cache.dtype)
    return unfold_rows((shares @ cache[kv_heads:]).transpose(0, 1), num_tokens).reshape(num_tokens, heads * size)


def attend_captured_prefix_and_tail(
    kernel: PrefixKernel,
    queries: torch.Tensor,
    cache: torch.Tensor,
    prefix_length: torch.Tensor,
    visible: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """A flash kernel over the prefix, the tail beside it, merged by their log-sum-exps."""
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
    # Over an empty prefix kernels return anything, NaN included, and differ in its log-sum-exp.
    merged = torch.where(prefix_length == 0, attended, merged)
    unfolded = unfold_rows(merged.transpose(0, 1), num_tokens)
    return unfolded.reshape(num_tokens, heads * size).to(queries.dtype)


def whole_visibility(prefix_length: torch.Tensor, visible: torch.Tensor, capacity: int) -> torch.Tensor:
    """[T, capacity]: the prefix, and of the tail behind it what ``visible`` says."""
    num_tokens = visible.shape[0]
    columns = torch.arange(capacity, device=visible.device) - prefix_length
    in_tail = (columns >= 0) & (columns < num_tokens)
    return (columns < 0) | (in_tail & visible.index_select(1, columns.clamp(0, num_tokens - 1)))


def _wide(scores: torch.Tensor) -> torch.Tensor:
    """At least float32."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def fold_rows(queries: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """[T, H, D] → [T * groups, Hkv, D]: a key head is then read once for all query heads that share it."""
    num_tokens, heads, size = queries.shape
    groups = heads // kv_heads
    return queries.view(num_tokens, kv_heads, groups, size).transpose(1, 2).reshape(-1, kv_heads, size)


def unfold_rows(rows: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """[T * groups, Hkv, D] → [T, H, D]."""
    count, kv_heads, size = rows.shape
    return rows.reshape(num_tokens, count // num_tokens, kv_heads, size).transpose(1, 2).flatten(1, 2)


def attend_captured_flash_attn(
    queries: torch.Tensor, cache: torch.Tensor, prefix_length: torch.Tensor, visible: torch.Tensor, scale: float
) -> torch.Tensor:
    """The flash-attn package over the prefix; it reads the length from the device."""
    return attend_captured_prefix_and_tail(_flash_attn_prefix, queries, cache, prefix_length, visible, scale)


def attend_varlen(
    queries: torch.Tensor, cache: torch.Tensor, prefix_length: torch.Tensor, visible: torch.Tensor, scale: float
) -> torch.Tensor:
    """Torch's variable-length flash kernel over the prefix; ``seqused_k`` is the length on the device."""
    return attend_captured_prefix_and_tail(_varlen_prefix, queries, cache, prefix_length, visible, scale)


def _flash_attn_prefix(
    rows: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, prefix_length: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
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
    rows: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, prefix_length: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
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
    # [Hkv, rows], whatever its documentation says: so do the operator's own shape rules.
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
    return StepAttentionChoice(name, attend_captured_flash_attn)


def _varlen_choice(device: torch.device, dtype: torch.dtype) -> StepAttentionChoice:
    name = "torch-varlen"
    if reason := _no_flash(device, dtype):
        return StepAttentionChoice(name, None, reason)
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return StepAttentionChoice(name, None, f"torch {torch.__version__} has no variable-length attention")
    if "seqused_k" not in inspect.signature(varlen_attn).parameters:
        reason = f"variable-length attention of torch {torch.__version__} takes no length from the device"
        return StepAttentionChoice(name, None, reason)
    return StepAttentionChoice(name, attend_varlen)


def _no_flash(device: torch.device, dtype: torch.dtype) -> str:
    if device.type != "cuda":
        return f"flash kernels run on CUDA, not on {device.type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"flash kernels do not compute in {str(dtype).removeprefix('torch.')}"
    return ""
