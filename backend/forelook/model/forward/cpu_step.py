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
from forelook.model.forward.attention import Visibility, whole_bias
from forelook.model.forward.kv_cache import KVCache
from forelook.model.forward.layers import LlamaWeights, Norm, feed_forward_activation, normalize_heads_

MAX_TOKENS = 64
"""Largest tail run this way; beyond it the arithmetic dominates. Chosen, not measured."""


class _Scratch:
    """Tensors of one tail size, and the views of them that the operators read and write.

    A key head is read once for all query heads that share it (G of them): these are further rows of its queries.

    Attributes:
        qkv: [T, (H + 2 Hkv) D] projected queries, keys and values, in the dtype of the KV cache.
        heads: [T, H + Hkv, D] of it: queries and keys.
        rotations: pairs of views as complex numbers, of what is to be rotated and where the result belongs.
        queries: [1, Hkv, G T, D], rotated.
        keys_values: [2 Hkv, T, D] of ``qkv``.
        attended: [T, H D] in the weights' dtype.
        attended_heads: [Hkv, G, T, D] of that.
    """

    def __init__(self, config: LlamaConfig, num_tokens: int, dtype: torch.dtype, kv_dtype: torch.dtype) -> None:
        heads, kv_heads, size = config.num_heads, config.num_kv_heads, config.head_size
        groups = heads // kv_heads
        self.qkv = torch.zeros(num_tokens, (heads + 2 * kv_heads) * size, dtype=kv_dtype)
        by_head = self.qkv.view(num_tokens, heads + 2 * kv_heads, size)
        pairs = torch.view_as_complex(by_head.view(num_tokens, -1, size // 2, 2))
        self.heads = by_head[:, : heads + kv_heads]
        self.keys_values = by_head[:, heads:].transpose(0, 1)
        self.rotations: tuple[tuple[Tensor, Tensor], ...]
        if groups == 1 or num_tokens == 1:
            self.rotations = ((pairs[:, : heads + kv_heads],) * 2,)
            self.queries = (
                by_head[:, :heads].view(num_tokens, kv_heads, groups, size).permute(1, 2, 0, 3).flatten(1, 2)[None]
            )
        else:
            self.queries = torch.zeros(1, kv_heads, groups * num_tokens, size, dtype=kv_dtype)
            folded = self.queries.view(kv_heads, groups, num_tokens, size // 2, 2).permute(2, 0, 1, 3, 4)
            # One head after the other, as in `pairs`; no dimension can hold both of its strides.
            self.rotations = (
                (pairs[:, :heads].view(num_tokens, kv_heads, groups, size // 2), torch.view_as_complex(folded)),
                (pairs[:, heads : heads + kv_heads].unsqueeze(2),) * 2,
            )
        self.attended = torch.zeros(num_tokens, heads * size, dtype=dtype)
        self.attended_heads = self.attended.view(num_tokens, kv_heads, groups, size).permute(1, 2, 0, 3)


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
        self._groups = weights.config.num_heads // weights.config.num_kv_heads
        self._activate = feed_forward_activation(weights.config)
        self._scratch: dict[int, _Scratch] = {}

    def _of_stream(self, norm: Norm) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in the shape of the residual stream."""
        return norm.weight.view(self._shape), None if norm.bias is None else norm.bias.view(self._shape)

    def _folded_bias(self, visibility: Visibility, dtype: torch.dtype) -> Tensor | None:
        """[G T, prefix + T], or ``None`` where each row sees all: the bias once per query head of a key head."""
        if self._groups == 1 or visibility.num_tokens == 1:
            return visibility.bias
        # The operator masks a causal tail itself only where there is one query row per key row.
        return whole_bias(visibility, self._signs.device, dtype).repeat(self._groups, 1)

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
        qkv, rotated, fresh, queries = scratch.qkv, scratch.rotations, scratch.keys_values, scratch.queries
        attended, attended_heads = scratch.attended, scratch.attended_heads
        folded_shape = attended_heads.shape
        tails, (keys, values) = cache.tails(num_tokens), cache.batched(num_tokens)
        layer_norm, addcmul, attend = F.layer_norm, torch.addcmul, F.scaled_dot_product_attention
        signs, eps, scale = self._signs, config.norm_eps, config.attention_scale
        multiplier, shape, activate = config.residual_multiplier, self._shape, self._activate
        bias = self._folded_bias(visibility, cache.dtype)
        windowed_bias = bias if visibility.windowed is None else self._folded_bias(visibility.windowed, cache.dtype)

        rotations = weights.rotations.index_select(0, positions).unsqueeze(1)  # [T, 1, D / 2]
        if len(rotated) > 1:
            rotations = rotations.unsqueeze(1)
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
            for pairs, target in rotated:
                torch.mul(pairs, rotations, out=target)
            tails[index].copy_(fresh)
            seen = windowed_bias if layer.is_windowed else bias
            is_causal = seen is None and num_tokens > 1
            found = attend(queries, keys[index], values[index], seen, 0.0, is_causal, scale=scale)
            attended_heads.copy_(found.view(folded_shape))
            if logit_rows is not None and index == last:
                # After the last attention no row reads another.
                attended, stream = attended.index_select(0, logit_rows), stream.index_select(0, logit_rows)
            stream = addcmul(stream, layer.output(attended).unsqueeze(1), signs, value=multiplier)
            activated = activate(layer.gate_up(layer_norm(stream, shape, *mlp_norm, eps).select(1, 0)))
            stream = addcmul(stream, layer.down(activated).unsqueeze(1), signs, value=multiplier)
        normed = layer_norm(stream, shape, *self._final_norm, eps).select(1, 0)
        logits = weights.head(normed).to(cache.dtype)
        return logits if config.logits_divisor == 1.0 else logits / config.logits_divisor
