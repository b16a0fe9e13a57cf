"""A decode step on a CPU: the same forward as :mod:`forelook.model.forward.llama`, with fewer and cheaper operators.

A small model's step is about a hundred operators of a few microseconds each, and creating views and tensors takes much
of that time. So scratch tensors and their views are created once per tail size, conversions between dtypes write
directly into them, and the residual stream is stored as [x, -x], as a root-mean-square norm needs it. A layer norm
needs x alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from forelook.model.config import LlamaConfig
from forelook.model.forward.attention import Visibility
from forelook.model.forward.kv_cache import KVCache
from forelook.model.forward.layers import LlamaWeights, Norm, feed_forward_activation, normalize_heads_

MAX_TOKENS = 64
"""Largest tail run this way; beyond it the arithmetic dominates. Chosen, not measured."""


class _Scratch:
    """Tensors of one tail size, and the views of them that the operators read and write.

    Attributes:
        qkv: [T, (H + 2 Hkv) D] projected queries, keys and values, in the dtype of the KV cache.
        rotating: [T, H + Hkv, D / 2] of it as complex numbers: queries and keys.
        heads: [T, H + Hkv, D] of it: queries and keys.
        queries: [1, H, T, D] of it.
        keys_values: [2 Hkv, T, D] of it.
        attended: [T, H D] in the weights' dtype.
        attended_heads: [1, H, T, D] of that.
    """

    def __init__(self, config: LlamaConfig, num_tokens: int, dtype: torch.dtype, kv_dtype: torch.dtype) -> None:
        heads, kv_heads, size = config.num_heads, config.num_kv_heads, config.head_size
        self.qkv = torch.zeros(num_tokens, (heads + 2 * kv_heads) * size, dtype=kv_dtype)
        by_head = self.qkv.view(num_tokens, heads + 2 * kv_heads, size)
        pairs = torch.view_as_complex(by_head.view(num_tokens, -1, size // 2, 2))
        self.rotating = pairs[:, : heads + kv_heads]
        self.heads = by_head[:, : heads + kv_heads]
        self.queries = by_head[:, :heads].transpose(0, 1).unsqueeze(0)
        self.keys_values = by_head[:, heads:].transpose(0, 1)
        self.attended = torch.zeros(num_tokens, heads * size, dtype=dtype)
        self.attended_heads = self.attended.view(num_tokens, heads, size).transpose(0, 1).unsqueeze(0)


class CpuStep:
    """Runs the small steps of one sequence.

    Args:
        weights: of a model on the CPU.
    """

    def __init__(self, weights: LlamaWeights) -> None:
        self._weights = weights
        signs = [[1.0]] if weights.config.layer_norms else [[1.0], [-1.0]]
        self._signs = torch.tensor(signs, dtype=weights.dtype)
        self._shape = (len(signs), weights.config.hidden_size)
        self._norms = [
            (self._of_stream(layer.attention_norm), self._of_stream(layer.mlp_norm)) for layer in weights.layers
        ]
        self._final_norm = self._of_stream(weights.final_norm)
        self._activate = feed_forward_activation(weights.config)
        self._scratch: dict[int, _Scratch] = {}

    def _of_stream(self, norm: Norm) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in the shape of the residual stream."""
        return norm.weight.view(self._shape), None if norm.bias is None else norm.bias.view(self._shape)

    @staticmethod
    def serves(weights: LlamaWeights) -> bool:
        """Whether these weights are on a CPU and their attention computes prefix and tail in one masked call."""
        return weights.device.type == "cpu" and weights.attention.masks_prefix

    def forward(
        self, cache: KVCache, token_ids: Tensor, positions: Tensor, visibility: Visibility, logit_rows: Tensor | None
    ) -> Tensor:
        """Run a tail of up to :data:`MAX_TOKENS` tokens, as :func:`forelook.model.forward.llama.forward` would."""
        weights = self._weights
        config = weights.config
        num_tokens = token_ids.shape[0]
        scratch = self._scratch.get(num_tokens)
        if scratch is None:
            scratch = self._scratch[num_tokens] = _Scratch(config, num_tokens, weights.dtype, cache.dtype)
        qkv, rotating, fresh = scratch.qkv, scratch.rotating, scratch.keys_values
        attended, attended_heads = scratch.attended, scratch.attended_heads
        queries = scratch.queries
        is_grouped = config.num_heads != config.num_kv_heads
        tails, keys, values = cache.tails(num_tokens), cache.keys(num_tokens), cache.values(num_tokens)
        layer_norm, addcmul, attend = F.layer_norm, torch.addcmul, F.scaled_dot_product_attention
        signs, eps, scale = self._signs, config.norm_eps, config.attention_scale
        multiplier, shape, activate = config.residual_multiplier, self._shape, self._activate
        in_window = visibility.windowed or visibility

        rotations = weights.rotations.index_select(0, positions).unsqueeze(1)  # [T, 1, D / 2]
        hidden = weights.embedding.rows(token_ids)  # [T, C]
        if config.embedding_multiplier != 1.0:
            hidden = hidden * config.embedding_multiplier
        stream = torch.mul(hidden.unsqueeze(1), signs)  # [T, 2, C]: x and -x; [T, 1, C] for layer norms
        last = config.num_layers - 1
        for index, layer in enumerate(weights.layers):
            (norm_weight, norm_bias), mlp_norm = self._norms[index]
            qkv.copy_(layer.qkv(layer_norm(stream, shape, norm_weight, norm_bias, eps).select(1, 0)))
            if layer.head_norm is not None:
                normalize_heads_(scratch.heads, layer.head_norm, eps)
            rotating.mul_(rotations)
            tails[index].copy_(fresh)
            seen = in_window if layer.is_windowed else visibility
            if is_grouped:
                merged = weights.attention.attend(queries[0].transpose(0, 1), keys[index], values[index], seen, scale)
                attended.copy_(merged)
            else:
                attended_heads.copy_(
                    attend(
                        queries,
                        keys[index].unsqueeze(0),
                        values[index].unsqueeze(0),
                        seen.bias,
                        0.0,
                        # The operator masks only a tail without a prefix.
                        seen.bias is None and num_tokens > 1,
                        scale=scale,
                    )
                )
            if logit_rows is not None and index == last:
                # After the last attention no row reads another.
                attended, stream = attended.index_select(0, logit_rows), stream.index_select(0, logit_rows)
            stream = addcmul(stream, layer.output(attended).unsqueeze(1), signs, value=multiplier)
            activated = activate(layer.gate_up(layer_norm(stream, shape, *mlp_norm, eps).select(1, 0)))
            stream = addcmul(stream, layer.down(activated).unsqueeze(1), signs, value=multiplier)
        normed = layer_norm(stream, shape, *self._final_norm, eps).select(1, 0)
        logits = weights.head(normed).to(cache.dtype)
        return logits if config.logits_divisor == 1.0 else logits / config.logits_divisor
