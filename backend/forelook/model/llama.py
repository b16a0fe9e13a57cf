"""The Llama family's forward pass as plain functions, and one sequence of it as a :class:`StepModel`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from forelook.decoding.step_layout import StepLayout
from forelook.errors import ConfigError, ContextOverflowError
from forelook.model.config import LlamaConfig
from forelook.model.kv_cache import KVCache
from forelook.model.rope import rope_tables


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer; projections that read the same input are one matrix."""

    attention_norm: torch.Tensor  # [C]
    qkv: torch.Tensor  # [(H + 2 Hkv) D, C]
    qkv_bias: torch.Tensor | None
    output: torch.Tensor  # [C, H D]
    output_bias: torch.Tensor | None
    mlp_norm: torch.Tensor  # [C]
    gate_up: torch.Tensor  # [2 I, C]
    gate_up_bias: torch.Tensor | None
    down: torch.Tensor  # [C, I]
    down_bias: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class LlamaWeights:
    """A model's weights, shared by all its sequences."""

    config: LlamaConfig
    embedding: torch.Tensor  # [V, C]
    layers: tuple[LayerWeights, ...]
    final_norm: torch.Tensor  # [C]
    head: torch.Tensor  # [V, C]
    cos: torch.Tensor  # [positions, D]
    sin: torch.Tensor  # [positions, D], first half negated: see rotate

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the matrices."""
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.embedding.device

    @property
    def nbytes(self) -> int:
        """Bytes of the weights; a tied head counts once."""
        tensors = [self.embedding, self.final_norm, self.cos, self.sin]
        if self.head is not self.embedding:
            tensors.append(self.head)
        for layer in self.layers:
            fields = (getattr(layer, name) for name in LayerWeights.__slots__)
            tensors.extend(tensor for tensor in fields if tensor is not None)
        return sum(tensor.nbytes for tensor in tensors)


def rotary_tables(config: LlamaConfig, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine per position, doubled to full head size, the sine's first half negated as ``rotate`` wants it."""
    cos, sin = rope_tables(config.rope, config.head_size, config.max_positions)
    return (
        torch.cat([cos, cos], dim=-1).to(dtype).to(device),
        torch.cat([-sin, sin], dim=-1).to(dtype).to(device),
    )


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Apply rotary embeddings to [T, heads, D] with [T, 1, D] tables: halves swap, the sine carries the sign."""
    half = x.shape[-1] // 2
    swapped = torch.cat([x[..., half:], x[..., :half]], dim=-1)
    return x * cos + swapped * sin


def forward(
    weights: LlamaWeights,
    cache: KVCache,
    token_ids: torch.Tensor,
    positions: torch.Tensor,
    mask: torch.Tensor | None,
    logit_rows: torch.Tensor,
) -> torch.Tensor:
    """Run a tail of T tokens; its keys and values are written behind the cache's committed rows.

    Args:
        weights: the model.
        cache: the sequence's keys and values, of which ``length`` rows are committed.
        token_ids: [T].
        positions: [T].
        mask: [T, length + T] added to the scores; ``None`` when every row sees every column.
        logit_rows: [R] rows to compute logits for.

    Returns:
        [R, V] logits, float32 or wider.
    """
    config = weights.config
    num_tokens = token_ids.shape[0]
    start, end = cache.length, cache.length + num_tokens
    heads, kv_heads, size = config.num_heads, config.num_kv_heads, config.head_size

    hidden = F.embedding(token_ids, weights.embedding)  # [T, C]
    if config.embedding_multiplier != 1.0:
        hidden = hidden * config.embedding_multiplier
    cos = weights.cos[positions].unsqueeze(1)  # [T, 1, D]
    sin = weights.sin[positions].unsqueeze(1)

    for index, layer in enumerate(weights.layers):
        normed = F.rms_norm(hidden, (config.hidden_size,), layer.attention_norm, config.norm_eps)
        qkv = F.linear(normed, layer.qkv, layer.qkv_bias).view(num_tokens, heads + 2 * kv_heads, size)
        rotated = rotate(qkv[:, : heads + kv_heads], cos, sin)
        keys, values = cache.keys[index], cache.values[index]
        keys[:, start:end] = rotated[:, heads:].transpose(0, 1)
        values[:, start:end] = qkv[:, heads + kv_heads :].transpose(0, 1)
        queries = rotated[:, :heads].transpose(0, 1)  # [H, T, D]
        attended = F.scaled_dot_product_attention(
            queries.to(keys.dtype).unsqueeze(0),
            keys[:, :end].unsqueeze(0),
            values[:, :end].unsqueeze(0),
            attn_mask=mask,
            scale=config.attention_scale,
            enable_gqa=heads != kv_heads,
        )[0]
        attended = attended.transpose(0, 1).reshape(num_tokens, heads * size).to(hidden.dtype)
        hidden = _add(hidden, F.linear(attended, layer.output, layer.output_bias), config.residual_multiplier)

        normed = F.rms_norm(hidden, (config.hidden_size,), layer.mlp_norm, config.norm_eps)
        gate, up = F.linear(normed, layer.gate_up, layer.gate_up_bias).chunk(2, dim=-1)
        hidden = _add(hidden, F.linear(F.silu(gate) * up, layer.down, layer.down_bias), config.residual_multiplier)

    hidden = F.rms_norm(hidden[logit_rows], (config.hidden_size,), weights.final_norm, config.norm_eps)
    logits = F.linear(hidden, weights.head)
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return logits if config.logits_divisor == 1.0 else logits / config.logits_divisor


def _add(hidden: torch.Tensor, update: torch.Tensor, multiplier: float) -> torch.Tensor:
    return hidden + update if multiplier == 1.0 else hidden + update * multiplier


class LlamaSequence:
    """One sequence over shared weights: its tokens, and their keys and values."""

    def __init__(self, weights: LlamaWeights, max_positions: int | None = None) -> None:
        """Allocate the cache.

        Args:
            weights: shared with other sequences.
            max_positions: most tokens, the model's own maximum by default.

        Raises:
            ConfigError: more positions than the model has, or none.
        """
        config = weights.config
        if max_positions is None:
            max_positions = config.max_positions
        if not 1 <= max_positions <= config.max_positions:
            raise ConfigError("max_positions", max_positions, f"between 1 and the model's {config.max_positions}")
        self._weights = weights
        self._max_positions = max_positions
        self._cache = KVCache(
            num_layers=config.num_layers,
            num_kv_heads=config.num_kv_heads,
            head_size=config.head_size,
            capacity=max_positions,
            dtype=weights.dtype,
            device=weights.device,
        )
        self._ids: list[int] = []
        self._tail: list[int] = []

    @property
    def cached_ids(self) -> Sequence[int]:
        """Committed tokens."""
        return self._ids

    @property
    def vocab_size(self) -> int:
        """Logits per row."""
        return self._weights.config.vocab_size

    @property
    def max_positions(self) -> int:
        """Most tokens the cache holds, a step's tail included."""
        return self._max_positions

    @property
    def tail_sizes(self) -> Sequence[int] | None:
        """Every tail size runs as it is."""
        return None

    @property
    def nbytes(self) -> int:
        """Bytes of the KV cache."""
        return self._cache.nbytes

    def forward(self, layout: StepLayout) -> torch.Tensor:
        """Run one step; see :class:`~forelook.decoding.step_layout.StepModel`."""
        num_tokens, length = len(layout), self._cache.length
        if length + num_tokens > self._max_positions:
            raise ContextOverflowError(
                f"{length} cached and {num_tokens} new tokens exceed the sequence's {self._max_positions} positions"
            )
        device = self._weights.device
        with torch.inference_mode():
            logits = forward(
                self._weights,
                self._cache,
                torch.from_numpy(layout.token_ids).to(device),
                torch.from_numpy(layout.positions).to(device),
                self._mask(layout),
                torch.from_numpy(layout.logit_rows).to(device),
            )
        self._tail = layout.token_ids.tolist()
        return logits

    def commit(self, rows: Sequence[int]) -> None:
        """Append rows of the last forward's tail to the committed tokens."""
        rows = list(rows)
        with torch.inference_mode():
            self._cache.commit(rows)
        self._ids.extend(self._tail[row] for row in rows)
        self._tail = []

    def truncate(self, length: int) -> None:
        """Forget committed tokens from ``length`` on."""
        del self._ids[length:]
        self._cache.truncate(length)
        self._tail = []

    def _mask(self, layout: StepLayout) -> torch.Tensor | None:
        num_tokens, length = len(layout), self._cache.length
        if num_tokens == 1:
            return None
        dtype, device = self._weights.dtype, self._weights.device
        mask = torch.zeros(num_tokens, length + num_tokens, dtype=dtype)
        if layout.visibility is None:
            hidden = torch.ones(num_tokens, num_tokens, dtype=torch.bool).triu(1)
        else:
            hidden = ~torch.from_numpy(layout.visibility)
        mask[:, length:].masked_fill_(hidden, float("-inf"))
        return mask.to(device)
