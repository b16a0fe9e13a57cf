"""Attention of a step's queries over the committed prefix and the step's own tail."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from forelook.decoding.step_layout import StepLayout


@dataclass(frozen=True, slots=True)
class Visibility:
    """Which keys a step's rows see: the whole prefix, and of the tail what the layout says.

    Attributes:
        prefix_length: committed tokens.
        bias: [T, prefix_length + T], 0 where a row sees a column and -inf where not; ``None`` when it is causal from
            the first token on, or a single row.
    """

    prefix_length: int
    bias: torch.Tensor | None


def step_visibility(layout: StepLayout, prefix_length: int, dtype: torch.dtype, device: torch.device) -> Visibility:
    """A layout's visibility as the attention backends want it."""
    num_tokens = len(layout)
    if num_tokens == 1 or (layout.visibility is None and prefix_length == 0):
        return Visibility(prefix_length, None)
    if layout.visibility is None:
        hidden = torch.ones(num_tokens, num_tokens, dtype=torch.bool).triu_(1)
    else:
        hidden = torch.from_numpy(layout.visibility).logical_not()
    bias = torch.zeros(num_tokens, prefix_length + num_tokens, dtype=dtype)
    bias[:, prefix_length:].masked_fill_(hidden, float("-inf"))
    return Visibility(prefix_length, bias.to(device))


def attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visibility: Visibility, scale: float
) -> torch.Tensor:
    """Attention of T rows over prefix and tail.

    Args:
        queries: [T, H, D].
        keys: [Hkv, prefix + T, D]; the tail's own rows come last.
        values: likewise.
        visibility: who sees what.
        scale: factor on the scores.

    Returns:
        [T, H * D].
    """
    num_tokens, heads, size = queries.shape
    groups = heads // keys.shape[0]
    bias = visibility.bias
    causal = bias is None and num_tokens > 1
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

    # Query heads of one group become rows of their key head, which is then read once for all of them.
    rows = queries.view(num_tokens, -1, groups, size).permute(1, 0, 2, 3).reshape(1, -1, num_tokens * groups, size)
    attended = F.scaled_dot_product_attention(
        rows,
        keys.unsqueeze(0),
        values.unsqueeze(0),
        attn_mask=None if bias is None else bias.repeat_interleave(groups, dim=0),
        scale=scale,
    )
    return attended.view(-1, num_tokens, groups, size).transpose(0, 1).reshape(num_tokens, heads * size)
