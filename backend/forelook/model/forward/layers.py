"""What every forward shares: the weights of a model, its norms, activation and residual, and its KV cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from forelook.model.config import LlamaConfig
from forelook.model.families import Activation
from forelook.model.forward.attention import AttentionBackend
from forelook.model.forward.kv_cache import KVCache
from forelook.model.forward.matrix import RowTable
from forelook.model.forward.projection import Projection

_SMALL_NORM = 32
"""Rows up to which a CPU's norm is bound by its operators. Measured: 65 rows of 576 take 55 µs as a layer norm and 35
as torch's own, 256 take 181 and 84 (float32, one core of an AMD EPYC with AVX2, 2026-11-29)."""


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm over the last dimension.

    Attributes:
        weight: [C]; of a root-mean-square norm as :func:`norm_weight` lays it out.
        bias: [C] of a layer norm; ``None`` for a root-mean-square norm.
        eps: added to the variance or the mean square.
    """

    weight: Tensor
    bias: Tensor | None
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """[..., C] → the same shape."""
        if self.bias is None:
            return rms_norm(x, self.weight, self.eps)
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias, self.eps)

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.weight.nbytes + (0 if self.bias is None else self.bias.nbytes)


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer; projections that read the same input are one matrix.

    Rows of queries and keys are interleaved: the two numbers that rotate together are adjacent and form one
    complex number. Scores do not change, as queries and keys are permuted alike.
    """

    attention_norm: Norm
    qkv: Projection  # C → (H + 2 Hkv) D
    output: Projection  # H D → C
    mlp_norm: Norm
    gate_up: Projection  # C → 2 I, or I without a gate
    down: Projection  # I → C
    head_norm: Tensor | None = None  # [H + Hkv, D]: weights of the norms of query and key heads, interleaved too
    is_windowed: bool = False  # whether its tokens see the model's window only


@dataclass(frozen=True, slots=True)
class LlamaWeights:
    """A model's weights, shared by all its sequences.

    Attributes:
        config: shapes and constants.
        embedding: V rows of C.
        layers: the decoder layers.
        final_norm: before the head.
        head: C → V.
        rotations: [positions, D / 2] complex numbers that turn queries and keys.
        attention: how queries meet keys and values on this device.
        nbytes: memory in bytes.
    """

    config: LlamaConfig
    embedding: RowTable
    layers: tuple[LayerWeights, ...]
    final_norm: Norm
    head: Projection
    rotations: Tensor
    attention: AttentionBackend
    nbytes: int

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of activations."""
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.embedding.device

    @property
    def kv_dtype(self) -> torch.dtype:
        """The dtype of keys and values."""
        return kv_cache_dtype(self.dtype, self.device)


def kv_cache_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype of keys and values for weights of a dtype.

    A CPU attends in float32 over a float32 cache faster than in bfloat16, several times so for a single token.
    """
    return torch.float32 if device.type == "cpu" and dtype.itemsize < 4 else dtype


def interleave_halves(weight: Tensor, head_size: int) -> Tensor:
    """Put row i of each head's second half after row i of its first: [heads D, …] → the same shape."""
    return weight.view(-1, 2, head_size // 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def norm_weight(weight: Tensor) -> Tensor:
    """A norm's weight as :func:`rms_norm` needs it on the weight's device."""
    return torch.cat([weight, weight]) if weight.device.type == "cpu" else weight


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Root-mean-square norm of [..., C].

    On a CPU torch composes it of eight small operators. [x, -x] has mean 0 and its variance is x's mean square, so that
    the fused layer norm of it computes the same in one. It also moves twice as much memory, which counts in a prompt.
    """
    size = x.shape[-1]
    if x.device.type == "cpu" and x.numel() <= _SMALL_NORM * size:
        return F.layer_norm(torch.cat([x, -x], dim=-1), (2 * size,), weight, None, eps)[..., :size]
    return F.rms_norm(x, (size,), weight if weight is None else weight[:size], eps)


def normalize_heads_(heads: Tensor, weight: Tensor, eps: float) -> None:
    """Root-mean-square norm of every query and key head, in place (Henry et al., 2020: query-key normalization).

    Args:
        heads: [T, H + Hkv, D].
        weight: [H + Hkv, D].
        eps: added to the mean square.
    """
    torch.mul(rms_norm(heads, None, eps), weight, out=heads)


def feed_forward_activation(config: LlamaConfig) -> Callable[[Tensor], Tensor]:
    """What is between the matrices of a feed-forward layer: [T, 2 I] → [T, I], or [T, I] → [T, I] without a gate."""
    activate = _ACTIVATIONS[config.activation]
    if not config.is_gated:
        return activate

    def gate(gate_up: Tensor) -> Tensor:
        gates, up = gate_up.chunk(2, dim=1)
        return activate(gates).mul_(up)

    return gate


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {Activation.SILU: F.silu, Activation.GELU_TANH: _gelu_tanh}


def add_residual(hidden: Tensor, update: Tensor, multiplier: float) -> Tensor:
    """A layer's output added to the residual stream, both [T, C]."""
    return hidden + update if multiplier == 1.0 else torch.add(hidden, update, alpha=multiplier)


CacheKind = TypeVar("CacheKind", bound=KVCache)


def new_cache(kind: type[CacheKind], weights: LlamaWeights, capacity: int) -> CacheKind:
    """An empty cache of a kind for a model's keys and values."""
    return kind(
        num_layers=weights.config.num_layers,
        num_kv_heads=weights.config.num_kv_heads,
        head_size=weights.config.head_size,
        capacity=capacity,
        dtype=weights.kv_dtype,
        device=weights.device,
    )
