"""The forward pass of all families as a plain function, and one sequence of it as a :class:`StepModel`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from forelook.decoding.layout import StepLayout
from forelook.errors import ConfigError, ContextOverflowError
from forelook.model.cpu_threads import ThreadGovernor
from forelook.model.forward.attention import Visibility, step_visibility
from forelook.model.forward.cpu_step import MAX_TOKENS, CpuStep
from forelook.model.forward.kv_cache import KVCache
from forelook.model.forward.layers import (
    LlamaWeights,
    add_residual,
    feed_forward_activation,
    new_cache,
    normalize_heads_,
)
from forelook.model.forward.native.matrices import MAX_ROWS
from forelook.model.forward.native.step import NativeStep
from forelook.model.memory import out_of_memory_named


def forward(
    weights: LlamaWeights,
    cache: KVCache,
    token_ids: Tensor,
    positions: Tensor,
    visibility: Visibility,
    logit_rows: Tensor | None,
) -> Tensor:
    """Run a tail of T tokens; its keys and values are written after the cache's committed rows.

    Args:
        weights: the model.
        cache: the sequence's keys and values.
        token_ids: [T].
        positions: [T].
        visibility: which rows see which.
        logit_rows: [R] rows to compute logits for, ``None`` for all.

    Returns:
        [R, V] logits, float32 or wider.
    """
    config, dtype = weights.config, weights.dtype
    num_tokens = token_ids.shape[0]
    heads, kv_heads, size = config.num_heads, config.num_kv_heads, config.head_size
    tails, keys, values = cache.tails(num_tokens), cache.keys(num_tokens), cache.values(num_tokens)
    attend, activate = weights.attention.attend, feed_forward_activation(config)
    in_window = visibility.windowed or visibility
    rotations = weights.rotations.index_select(0, positions).unsqueeze(1)  # [T, 1, D / 2]
    wide = torch.float64 if dtype == torch.float64 else torch.float32

    hidden = weights.embedding.rows(token_ids)  # [T, C]
    if config.embedding_multiplier != 1.0:
        hidden = hidden * config.embedding_multiplier

    for index, layer in enumerate(weights.layers):
        qkv = layer.qkv(layer.attention_norm(hidden)).to(wide).view(num_tokens, heads + 2 * kv_heads, size)
        if layer.head_norm is not None:
            normalize_heads_(qkv[:, : heads + kv_heads], layer.head_norm, config.norm_eps)
        pairs = torch.view_as_complex(qkv.view(num_tokens, -1, size // 2, 2))
        pairs[:, : heads + kv_heads].mul_(rotations)
        queries, new = torch.split(qkv, [heads, 2 * kv_heads], dim=1)
        tails[index].copy_(new.transpose(0, 1))
        seen = in_window if layer.is_windowed else visibility
        attended = attend(queries.to(cache.dtype), keys[index], values[index], seen, config.attention_scale)
        if logit_rows is not None and index == config.num_layers - 1:
            # After the last attention no row reads another: continue with the requested rows only.
            attended, hidden = attended.index_select(0, logit_rows), hidden.index_select(0, logit_rows)
        hidden = add_residual(hidden, layer.output(attended.to(dtype)), config.residual_multiplier)
        activated = activate(layer.gate_up(layer.mlp_norm(hidden)))
        hidden = add_residual(hidden, layer.down(activated), config.residual_multiplier)

    logits = weights.head(weights.final_norm(hidden)).to(wide)
    return logits if config.logits_divisor == 1.0 else logits / config.logits_divisor


class LlamaSequence:
    """One sequence over shared weights: its tokens, and their keys and values."""

    def __init__(
        self, weights: LlamaWeights, max_positions: int | None = None, threads: ThreadGovernor | None = None
    ) -> None:
        """Allocate the cache.

        Args:
            weights: shared with other sequences.
            max_positions: maximum number of tokens; the model's own maximum by default.
            threads: chooses the CPU threads of each forward; shared with the other sequences. By default torch's
                setting is not changed.

        Raises:
            ConfigError: more positions than the model has, or none.
            InsufficientMemoryError: the cache does not fit.
        """
        config = weights.config
        if max_positions is None:
            max_positions = config.max_positions
        if not 1 <= max_positions <= config.max_positions:
            raise ConfigError("max_positions", max_positions, f"between 1 and the model's {config.max_positions}")
        self._weights = weights
        self._threads = threads
        self._max_positions = max_positions
        with out_of_memory_named(f"a KV cache of {max_positions} tokens"):
            self._cache = self._new_cache(max_positions)
        self._native_step = NativeStep.of(weights)
        self._cpu_step = CpuStep(weights) if CpuStep.serves(weights) and self._native_step is None else None
        self._ids: list[int] = []
        self._tail: list[int] = []

    def _new_cache(self, max_positions: int) -> KVCache:
        return new_cache(KVCache, self._weights, max_positions)

    @property
    def cached_ids(self) -> Sequence[int]:
        """Committed tokens."""
        return self._ids

    @property
    def vocab_size(self) -> int:
        """Number of logits per row."""
        return self._weights.config.vocab_size

    @property
    def max_positions(self) -> int:
        """Capacity of the cache in tokens, a step's tail included."""
        return self._max_positions

    @property
    def tail_sizes(self) -> Sequence[int] | None:
        """No tail size is special."""
        return None

    @property
    def nbytes(self) -> int:
        """Size of the KV cache in bytes."""
        return self._cache.nbytes

    def forward(self, layout: StepLayout) -> Tensor:
        """Run one step; see :class:`~forelook.decoding.layout.StepModel`."""
        num_tokens, length = len(layout), self._cache.length
        if length + num_tokens > self._max_positions:
            raise ContextOverflowError(
                f"{length} cached and {num_tokens} new tokens exceed the sequence's {self._max_positions} positions"
            )
        if self._threads is None:
            logits = self._run(layout)
        else:
            with self._threads.forward(num_tokens, length):
                logits = self._run(layout)
        self._tail = layout.token_ids.tolist()
        return logits

    def _run(self, layout: StepLayout) -> Tensor:
        num_tokens, device = len(layout), self._weights.device
        if self._native_step is not None and num_tokens <= MAX_ROWS:
            with torch.inference_mode(), out_of_memory_named(f"a step of {num_tokens} tokens"):
                return self._native_step.forward(self._cache, layout)
        every_row = len(layout.logit_rows) == num_tokens
        cpu_step = self._cpu_step if num_tokens <= MAX_TOKENS else None
        attention = self._weights.attention
        with torch.inference_mode(), out_of_memory_named(f"a step of {num_tokens} tokens"):
            run = partial(forward, self._weights) if cpu_step is None else cpu_step.forward
            return run(
                self._cache,
                torch.from_numpy(layout.token_ids).to(device),
                torch.from_numpy(layout.positions).to(device),
                step_visibility(
                    layout,
                    self._cache.length,
                    self._cache.dtype,
                    device,
                    masks_prefix=attention.masks_prefix,
                    masks_causal=cpu_step is not None or attention.masks_causal,
                    window=self._weights.config.window,
                ),
                None if every_row else torch.from_numpy(layout.logit_rows).to(device),
            )

    def commit(self, rows: Sequence[int]) -> None:
        """Append rows of the last forward's tail to the committed tokens."""
        accepted = list(rows)
        if accepted and not (accepted[0] >= 0 and accepted[-1] < len(self._tail)):
            raise ConfigError("rows", accepted, f"rows of the last forward's tail of {len(self._tail)}, committed once")
        if any(later <= earlier for earlier, later in pairwise(accepted)):
            raise ConfigError("rows", accepted, "in ascending order")
        with torch.inference_mode():
            self._cache.commit(accepted)
        self._ids.extend(self._tail[row] for row in accepted)
        self._tail = []

    def truncate(self, length: int) -> None:
        """Drop committed tokens from ``length`` on."""
        if length < 0:
            raise ConfigError("length", length, "0 or more")
        del self._ids[length:]
        self._cache.truncate(length)
        self._tail = []
