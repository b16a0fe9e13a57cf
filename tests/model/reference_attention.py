"""Attention as plain softmax, which every backend is compared with."""

from __future__ import annotations

import torch
from forelook.model.forward.attention import Visibility, whole_bias
from torch import Tensor


def attend_reference(queries: Tensor, keys: Tensor, values: Tensor, visibility: Visibility, scale: float) -> Tensor:
    """Softmax over materialized scores, in float32 or wider."""
    num_tokens, heads, size = queries.shape
    wide = torch.promote_types(queries.dtype, torch.float32)
    groups = heads // keys.shape[0]
    keys, values = (part.to(wide).repeat_interleave(groups, dim=0) for part in (keys, values))
    scores = queries.transpose(0, 1).to(wide) @ keys.transpose(1, 2) * scale + whole_bias(
        visibility, queries.device, queries.dtype
    )
    attended = torch.softmax(scores, dim=-1) @ values
    return attended.transpose(0, 1).reshape(num_tokens, heads * size).to(queries.dtype)
