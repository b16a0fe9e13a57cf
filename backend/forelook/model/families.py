"""The model families that Forelook runs, as one table.

A new architecture is one :class:`Family`, plus its mathematics in ``model/forward`` where that differs from Llama's.
The infill formats are in :mod:`forelook.model.infill_templates`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any


class Activation(Enum):
    """The nonlinearity of a feed-forward layer."""

    SILU = "silu"
    GELU_TANH = "gelu_pytorch_tanh"  # the approximation by a hyperbolic tangent


_SILU = MappingProxyType({"silu": Activation.SILU, "swish": Activation.SILU})
_GELU = MappingProxyType({"gelu_pytorch_tanh": Activation.GELU_TANH})


@dataclass(frozen=True, slots=True)
class Family:
    """How one ``model_type`` of ``config.json`` differs from plain Llama.

    Attributes:
        model_type: as in ``config.json``.
        defaults: transformers' defaults of the fields that a config may leave out.
        activations: names of the activation in the config, and what they mean in this family.
        attention_bias, mlp_bias: the config fields that say whether the projections have biases.
        qkv_bias: whether query, key and value projections always have a bias.
        reads_scales: whether the config scales embeddings, residuals, attention and logits.
        scales_embedding: whether embeddings are multiplied by the square root of their size.
        has_window: whether ``sliding_window`` in the config counts.
        window_switch: the config field that must be true for that.
        mlp: modules of the feed-forward layer; without a gate there are two.
        layer_norms: whether norms subtract the mean and have a bias, rather than divide by the root mean square.
        norm_eps: the config field of the norms' epsilon.
        norm_offset: what the weights of norms are stored without.
        head_norms: whether every query and key head is normalized before it is rotated.
    """

    model_type: str
    defaults: Mapping[str, Any]
    activations: Mapping[str, Activation] = field(default_factory=lambda: _SILU)
    attention_bias: str | None = None
    mlp_bias: str | None = None
    qkv_bias: bool = False
    reads_scales: bool = False
    scales_embedding: bool = False
    has_window: bool = False
    window_switch: str | None = None
    mlp: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    layer_norms: bool = False
    norm_eps: str = "rms_norm_eps"
    norm_offset: float = 0.0
    head_norms: bool = False


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.model_type: family
        for family in (
            Family(
                "llama",
                {"max_position_embeddings": 2048},
                attention_bias="attention_bias",
                mlp_bias="mlp_bias",
            ),
            Family("mistral", {"max_position_embeddings": 131072}, has_window=True),
            Family(
                "qwen2",
                {"max_position_embeddings": 32768, "max_window_layers": 28},
                qkv_bias=True,
                has_window=True,
                window_switch="use_sliding_window",
            ),
            Family(
                "qwen3",
                {"max_position_embeddings": 32768, "max_window_layers": 28, "head_dim": 128},
                attention_bias="attention_bias",
                has_window=True,
                window_switch="use_sliding_window",
                head_norms=True,
            ),
            Family(
                "granite",
                {"max_position_embeddings": 2048},
                attention_bias="attention_bias",
                mlp_bias="mlp_bias",
                reads_scales=True,
            ),
            # Early configs say "gelu" and mean its approximation, as transformers knows.
            Family(
                "gemma",
                {
                    "max_position_embeddings": 8192,
                    "head_dim": 256,
                    "hidden_act": "gelu_pytorch_tanh",
                    "tie_word_embeddings": True,
                },
                activations=MappingProxyType({**_GELU, "gelu": Activation.GELU_TANH}),
                attention_bias="attention_bias",
                scales_embedding=True,
                norm_offset=1.0,
            ),
            Family(
                "starcoder2",
                {
                    "max_position_embeddings": 4096,
                    "hidden_act": "gelu_pytorch_tanh",
                    "norm_epsilon": 1e-5,
                    "tie_word_embeddings": True,
                    "use_bias": True,
                },
                activations=_GELU,
                attention_bias="use_bias",
                mlp_bias="use_bias",
                has_window=True,
                mlp=("c_fc", "c_proj"),
                layer_norms=True,
                norm_eps="norm_epsilon",
            ),
        )
    }
)
