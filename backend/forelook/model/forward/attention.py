"""Attention of a step's queries over the committed prefix and the step's own tail: one signature, several backends.

Every row of a step sees the whole prefix, so only the small tail needs a mask. A CPU runs prefix and tail of a decode
step in one call with an additive bias. On a GPU, and for a prompt's chunks on a CPU, a flash kernel computes the prefix
without a mask, the tail is computed separately, and their log-sum-exps merge the two.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from forelook.decoding.layout import StepLayout


@dataclass(frozen=True, slots=True)
class Visibility:
    """Which keys a step's rows see: all of the prefix, and of the tail what the layout says.

    Attributes:
        prefix_length: committed tokens.
        num_tokens: rows of the tail.
        bias: 0 where a row sees a column and -inf where not, [T, prefix_length + T] or [T, T] for the tail's columns
            alone; ``None`` when the tail is causal.
        windowed: the same in the layers that see a window only; ``None`` where no row is beyond its window.
    """

    prefix_length: int
    num_tokens: int
    bias: Tensor | None
    windowed: Visibility | None = None


# (queries [T, H, D], keys [Hkv, prefix + T, D], values likewise, visibility, scale of the scores) → [T, H * D]
Attention = Callable[[Tensor, Tensor, Tensor, Visibility, float], Tensor]
# (queries [1, H, T, D], keys [1, H, S, D], values, causal, scale) → ([1, H, T, D], log-sum-exp [1, H, T] in float32)
FlashKernel = Callable[[Tensor, Tensor, Tensor, bool, float], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class AttentionBackend:
    """A way to attend.

    Attributes:
        name: for ``forelook doctor``.
        reason: why it was chosen, likewise.
        attend: the function.
        masks_prefix: whether it needs the bias over all columns, once for all layers.
        masks_causal: whether it needs that for a causal tail, too.
    """

    name: str
    reason: str
    attend: Attention
    masks_prefix: bool
    masks_causal: bool


def step_visibility(
    layout: StepLayout,
    prefix_length: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    masks_prefix: bool,
    masks_causal: bool,
    window: int | None = None,
) -> Visibility:
    """A layout's visibility on a device, in the dtype of the scores, as a backend needs it.

    Args:
        layout: of the step.
        prefix_length: committed tokens.
        dtype: of the scores.
        device: of the result.
        masks_prefix: whether the backend needs the bias over all columns.
        masks_causal: whether it needs that for a causal tail after a prefix, too.
        window: number of tokens, its own included, that a token sees in the layers with a window.
    """
    num_tokens = len(layout)
    causal = layout.visibility is None
    windowed = None
    if window is not None and int(layout.positions.max()) >= window:
        bias = _window_bias(layout, prefix_length, window, dtype).to(device)
        windowed = Visibility(prefix_length, num_tokens, bias)
    if num_tokens == 1 or (causal and (prefix_length == 0 or not masks_causal)):
        return Visibility(prefix_length, num_tokens, None, windowed)
    bias = _bias(_hidden(layout), prefix_length if masks_prefix else 0, dtype).to(device)
    return Visibility(prefix_length, num_tokens, bias, windowed)


def _hidden(layout: StepLayout) -> Tensor:
    """What the rows of a tail do not see of it, [T, T]."""
    return _future(len(layout)) if layout.visibility is None else torch.from_numpy(layout.visibility).logical_not()


def _window_bias(layout: StepLayout, prefix_length: int, window: int, dtype: torch.dtype) -> Tensor:
    """[T, prefix + T]: the bias of a layout in which a row sees the tokens of its window only."""
    positions = torch.from_numpy(layout.positions)
    columns = torch.cat([torch.arange(prefix_length), positions])
    bias = _bias(_hidden(layout), prefix_length, dtype)
    return bias.masked_fill_(columns <= positions.unsqueeze(1) - window, float("-inf"))


def choose_attention(device: torch.device, dtype: torch.dtype) -> AttentionBackend:
    """The fastest backend that a device, a dtype and the installed packages allow."""
    if device.type != "cuda":
        reason = "on a CPU torch's attention is fastest: with an additive mask in steps, without one in prompts"
        return AttentionBackend("torch", reason, attend_torch, masks_prefix=True, masks_causal=False)
    if dtype not in (torch.float16, torch.bfloat16):
        reason = f"flash kernels do not compute in {dtype}"
        return AttentionBackend("torch", reason, attend_torch, masks_prefix=True, masks_causal=True)
    if importlib.util.find_spec("flash_attn") is not None:
        reason = "flash-attn is installed; its kernel reads the KV cache in place"
        return AttentionBackend("flash-attn", reason, attend_flash_attn, masks_prefix=False, masks_causal=False)
    reason = "torch's own flash kernel; flash-attn is not installed (extra forelook[flash])"
    return AttentionBackend("torch-flash", reason, attend_torch_flash, masks_prefix=False, masks_causal=False)


def attend_torch(queries: Tensor, keys: Tensor, values: Tensor, visibility: Visibility, scale: float) -> Tensor:
    """Torch's fused attention over prefix and tail at once, with an additive bias where there is one."""
    num_tokens, heads, size = queries.shape
    groups = heads // keys.shape[0]
    causal = visibility.bias is None and num_tokens > 1
    if causal and visibility.prefix_length > 0:
        return _attend_chunk(queries, keys, values, visibility.prefix_length, scale)
    bias = None if visibility.bias is None else whole_bias(visibility, queries.device, queries.dtype)
    if groups == 1 or causal:
        attended = F.scaled_dot_product_attention(
            queries.transpose(0, 1).unsqueeze(0),
            keys.unsqueeze(0),
            values.unsqueeze(0),
            attn_mask=bias,
            is_causal=causal,
            scale=scale,
            enable_gqa=groups > 1,
        )
        return attended.transpose(1, 2).reshape(num_tokens, heads * size)
    attended = F.scaled_dot_product_attention(
        _fold_groups(queries, groups),
        keys.unsqueeze(0),
        values.unsqueeze(0),
        attn_mask=None if bias is None else bias.repeat_interleave(groups, dim=0),
        scale=scale,
    )
    return _unfold_groups(attended, num_tokens).reshape(num_tokens, heads * size)


def _attend_chunk(queries: Tensor, keys: Tensor, values: Tensor, prefix_length: int, scale: float) -> Tensor:
    """A causal tail after a prefix on a CPU, without a mask: prefix and tail apart, merged.

    The kernel shares a key head among its query heads by itself.
    """
    num_tokens, heads, size = queries.shape
    rows = queries.transpose(0, 1).unsqueeze(0)
    (prefix, prefix_lse), (tail, tail_lse) = (
        _torch_flash(rows, keys[:, part].unsqueeze(0), values[:, part].unsqueeze(0), causal, scale)
        for part, causal in ((slice(prefix_length), False), (slice(prefix_length, None), True))
    )
    merged = merge_by_log_sum_exp(prefix, prefix_lse.unsqueeze(-1), tail, tail_lse.unsqueeze(-1))
    return merged.transpose(1, 2).reshape(num_tokens, heads * size).to(queries.dtype)


def attend_prefix_and_tail(
    kernel: FlashKernel, queries: Tensor, keys: Tensor, values: Tensor, visibility: Visibility, scale: float
) -> Tensor:
    """Attend to the prefix with a flash kernel and to the tail with its mask, and merge the two.

    Args:
        kernel: computes the prefix, and a causal tail.
        queries: [T, H, D].
        keys: [Hkv, prefix + T, D].
        values: likewise.
        visibility: which rows see which keys.
        scale: of the scores.

    Returns:
        [T, H * D].
    """
    num_tokens, heads, size = queries.shape
    prefix_length, groups = visibility.prefix_length, heads // keys.shape[0]
    if visibility.bias is not None and visibility.bias.shape[1] > num_tokens:
        # A window hides a part of the prefix, which the kernel cannot.
        return attend_torch(queries, keys, values, visibility, scale)
    tail_keys, tail_values = (part[:, prefix_length:].repeat_interleave(groups, dim=0) for part in (keys, values))
    rows = queries.transpose(0, 1)  # [H, T, D]
    if visibility.bias is None:
        tail, tail_lse = kernel(rows.unsqueeze(0), tail_keys.unsqueeze(0), tail_values.unsqueeze(0), True, scale)
        tail, tail_lse = tail[0].float(), tail_lse[0]
    else:
        scores = (rows @ tail_keys.transpose(1, 2)).float() * scale + visibility.bias[:, -num_tokens:]
        tail_lse = scores.logsumexp(dim=-1)
        tail = (scores - tail_lse.unsqueeze(-1)).exp().to(queries.dtype) @ tail_values
    if prefix_length == 0:
        # There is nothing to merge with, and kernels differ in their log-sum-exp of an empty set.
        return tail.transpose(0, 1).reshape(num_tokens, heads * size).to(queries.dtype)

    folded, folded_lse = kernel(
        _fold_groups(queries, groups),
        keys[:, :prefix_length].unsqueeze(0),
        values[:, :prefix_length].unsqueeze(0),
        False,
        scale,
    )
    prefix = _unfold_groups(folded, num_tokens)  # [T, H, D]
    prefix_lse = _unfold_groups(folded_lse.unsqueeze(-1), num_tokens)  # [T, H, 1]
    merged = merge_by_log_sum_exp(prefix, prefix_lse, tail.transpose(0, 1), tail_lse.transpose(0, 1).unsqueeze(-1))
    return merged.reshape(num_tokens, heads * size).to(queries.dtype)


def merge_by_log_sum_exp(first: Tensor, first_lse: Tensor, second: Tensor, second_lse: Tensor) -> Tensor:
    """Softmax averages over two disjoint sets of keys → the average over both, in float32 or wider.

    Args:
        first: [..., D] average over the first set.
        first_lse: [..., 1] natural log of the sum of its exponentiated scores; -inf for an empty set.
        second: likewise over the second set.
        second_lse: likewise.
    """
    # The share of the second set is a sigmoid of the difference: no exponent overflows, -inf means a share of 0.
    wide = torch.promote_types(first.dtype, torch.float32)
    share = torch.sigmoid(second_lse.to(wide) - first_lse.to(wide))
    return torch.lerp(first.to(wide), second.to(wide), share)


def _fold_groups(queries: Tensor, groups: int) -> Tensor:
    """[T, H, D] → [1, Hkv, T * groups, D]: a key head is then read once for all query heads that share it."""
    num_tokens, heads, size = queries.shape
    rows = queries.view(num_tokens, heads // groups, groups, size).transpose(0, 1)
    return rows.reshape(1, heads // groups, num_tokens * groups, size)


def _unfold_groups(folded: Tensor, num_tokens: int) -> Tensor:
    """[1, Hkv, T * groups, D] → [T, H, D]."""
    _, kv_heads, rows, size = folded.shape
    unfolded = folded.view(kv_heads, num_tokens, rows // num_tokens, size).transpose(0, 1)
    return unfolded.reshape(num_tokens, -1, size)


def _bias(hidden: Tensor, prefix_length: int, dtype: torch.dtype) -> Tensor:
    """[T, prefix + T] from the tail's [T, T]: -inf where hidden."""
    num_tokens = hidden.shape[0]
    bias = torch.zeros(num_tokens, prefix_length + num_tokens, dtype=dtype, device=hidden.device)
    bias[:, prefix_length:].masked_fill_(hidden, float("-inf"))
    return bias


def _future(num_tokens: int) -> Tensor:
    """What a causal tail hides."""
    return torch.ones(num_tokens, num_tokens, dtype=torch.bool).triu_(1)


def whole_bias(visibility: Visibility, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[T, prefix + T]: The bias over all columns; the visibility already has it if it was made for such a backend."""
    bias, prefix_length = visibility.bias, visibility.prefix_length
    if bias is None:
        return _bias(_future(visibility.num_tokens), prefix_length, dtype).to(device)
    missing = prefix_length + visibility.num_tokens - bias.shape[1]
    return F.pad(bias, (missing, 0)) if missing else bias


def _torch_flash(queries: Tensor, keys: Tensor, values: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Torch's flash kernel of the tensors' device; only the operator itself returns the log-sum-exp."""
    if queries.device.type == "cuda":
        output = torch.ops.aten._scaled_dot_product_flash_attention(  # noqa: SLF001
            queries, keys, values, 0.0, causal, False, scale=scale
        )
    else:
        output = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001
            queries, keys, values, 0.0, causal, scale=scale
        )
    return output[0], output[1]


def _flash_attn(queries: Tensor, keys: Tensor, values: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    # An optional extra that exists for CUDA only.
    from flash_attn import flash_attn_with_kvcache  # type: ignore[import-not-found]

    output, lse = flash_attn_with_kvcache(
        queries.transpose(1, 2),
        keys.transpose(1, 2),
        values.transpose(1, 2),
        softmax_scale=scale,
        causal=causal,
        return_softmax_lse=True,
    )
    return output.transpose(1, 2), lse


attend_torch_flash = partial(attend_prefix_and_tail, _torch_flash)
"""Torch's flash kernel over the prefix, merged with the tail."""

attend_flash_attn = partial(attend_prefix_and_tail, _flash_attn)
"""The flash-attn package over the prefix, merged with the tail."""
