"""The ``config.json`` of a checkpoint, validated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forelook.errors import CheckpointError, UnsupportedArchitectureError
from forelook.model.families import FAMILIES, Activation, Family


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary embedding (Su et al., RoFormer, 2021) and its scaling to longer contexts.

    Attributes:
        kind: ``"default"``, ``"linear"``, ``"llama3"`` or ``"yarn"``. Dynamic NTK scaling equals ``"default"`` up to
            the model's own maximum, which is Forelook's limit.
        theta: base period.
        parameters: numbers of the scaling, named as in the config.
        frequency_factors: what each frequency is divided by, besides; empty for nothing. Some GGUF files have them.
    """

    kind: str
    theta: float
    parameters: Mapping[str, float]
    frequency_factors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """Shapes and constants of a decoder of one of the families.

    Attributes:
        window: number of tokens, its own included, that a token sees in the windowed layers; ``None`` without such.
        windowed_layers: which layers these are.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    norm_eps: float
    layer_norms: bool
    head_norms: bool
    activation: Activation
    is_gated: bool
    max_positions: int
    window: int | None
    windowed_layers: tuple[bool, ...]
    rope: RopeConfig
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    tied_head: bool
    embedding_multiplier: float
    residual_multiplier: float
    attention_scale: float
    logits_divisor: float
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    dtype: str

    @property
    def kv_values_per_token(self) -> int:
        """Numbers in the KV cache per token."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_size


def parse_config(raw: Mapping[str, Any], where: str) -> LlamaConfig:
    """Read the parts of a ``config.json`` that the forward pass needs.

    Args:
        raw: the parsed file.
        where: name of the file, for error messages.

    Raises:
        UnsupportedArchitectureError: another architecture, or a variant that the forward does not compute correctly.
        CheckpointError: a field is missing or invalid.
    """
    model_type = raw.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise UnsupportedArchitectureError(
            f"{where}: model_type is {model_type!r}; choose a model of one of these families: {', '.join(FAMILIES)}"
        )
    raw = {**family.defaults, **{name: value for name, value in raw.items() if value is not None}}
    if raw.get("quantization_config"):
        settings = raw["quantization_config"]
        method = settings.get("quant_method", "unknown") if isinstance(settings, Mapping) else settings
        raise UnsupportedArchitectureError(
            f"{where}: quantization_config.quant_method is {method!r}, and pre-quantized checkpoints (GPTQ, AWQ, EXL2, "
            "bitsandbytes, FP8 …) are not supported; use the unquantized checkpoint (safetensors in float32, float16 "
            "or bfloat16) and, if memory is short, load it with dtype int8 or int4"
        )
    fields = _Fields(raw, where)
    num_heads = fields.count("num_attention_heads")
    hidden_size = fields.count("hidden_size")
    num_kv_heads = fields.count("num_key_value_heads", num_heads)
    head_size = fields.count("head_dim", hidden_size // num_heads)
    if num_heads % num_kv_heads:
        raise CheckpointError(
            f"{where}: num_attention_heads = {num_heads} is not a multiple of num_key_value_heads = {num_kv_heads}"
        )
    if head_size % 2:
        raise UnsupportedArchitectureError(
            f"{where}: head_dim = {head_size} is odd; rotary embeddings need an even head size"
        )
    activation = family.activations.get(str(raw.get("hidden_act", "silu")))
    if activation is None:
        raise UnsupportedArchitectureError(
            f"{where}: hidden_act is {raw['hidden_act']!r}; {family.model_type} models are supported with "
            f"{' or '.join(family.activations)}"
        )

    num_layers = fields.count("num_hidden_layers")
    max_positions = fields.count("max_position_embeddings")
    window = _sliding_window(raw, family)
    windowed_layers = _windowed_layers(raw, family, num_layers) if window is not None else (False,) * num_layers
    attention_bias = _is_set(raw, family.attention_bias)

    def scale(name: str) -> float:
        return fields.number(name, 1.0) if family.reads_scales else 1.0

    return LlamaConfig(
        model_type=family.model_type,
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=fields.count("intermediate_size"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_size=head_size,
        norm_eps=fields.number(family.norm_eps, 1e-6),
        layer_norms=family.layer_norms,
        head_norms=family.head_norms,
        activation=activation,
        is_gated=len(family.mlp) == 3,
        max_positions=max_positions,
        window=window if any(windowed_layers) else None,
        windowed_layers=windowed_layers,
        rope=_rope(raw, where, max_positions),
        qkv_bias=attention_bias or family.qkv_bias,
        output_bias=attention_bias,
        mlp_bias=_is_set(raw, family.mlp_bias),
        tied_head=bool(raw.get("tie_word_embeddings", False)),
        embedding_multiplier=math.sqrt(hidden_size) if family.scales_embedding else scale("embedding_multiplier"),
        residual_multiplier=scale("residual_multiplier"),
        attention_scale=scale("attention_multiplier") if family.reads_scales else 1.0 / math.sqrt(head_size),
        logits_divisor=scale("logits_scaling"),
        bos_token_id=_optional_id(raw.get("bos_token_id")),
        eos_token_ids=token_ids(raw.get("eos_token_id")),
        dtype=str(raw.get("dtype") or raw.get("torch_dtype") or "float32"),
    )


def token_ids(value: object) -> tuple[int, ...]:
    """The ids in a config field that may contain one id, a list of ids, or none."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return tuple(item for item in values if isinstance(item, int) and not isinstance(item, bool) and item >= 0)


def _optional_id(value: object) -> int | None:
    ids = token_ids(value)
    return ids[0] if ids else None


def _is_set(raw: Mapping[str, Any], name: str | None) -> bool:
    return name is not None and bool(raw.get(name, False))


def _sliding_window(raw: Mapping[str, Any], family: Family) -> int | None:
    window = raw.get("sliding_window")
    if not family.has_window or (family.window_switch is not None and not raw.get(family.window_switch, False)):
        return None
    return window if isinstance(window, int) and window >= 1 else None


def _windowed_layers(raw: Mapping[str, Any], family: Family, num_layers: int) -> tuple[bool, ...]:
    """Which layers see a window only: by default all; in the families that can switch it off, the last ones."""
    kinds = raw.get("layer_types")
    if family.window_switch is None:
        return (True,) * num_layers
    if isinstance(kinds, list) and len(kinds) == num_layers:
        return tuple(kind == "sliding_attention" for kind in kinds)
    first = raw.get("max_window_layers")
    return tuple(isinstance(first, int) and index >= first for index in range(num_layers))


def _rope(raw: Mapping[str, Any], where: str, max_positions: int) -> RopeConfig:
    scaling: Mapping[str, Any] = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    theta = float(scaling.get("rope_theta") or raw.get("rope_theta") or 10000.0)
    if float(scaling.get("partial_rotary_factor") or raw.get("partial_rotary_factor") or 1.0) != 1.0:
        raise UnsupportedArchitectureError(f"{where}: partial_rotary_factor must be 1; choose another model")
    # "dynamic" only changes the base beyond max_position_embeddings, which is Forelook's limit.
    if kind in ("default", "dynamic"):
        return RopeConfig("default", theta, {})
    required: dict[str, tuple[str, ...]] = {
        "linear": ("factor",),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
        "yarn": ("factor",),
    }
    if kind not in required:
        raise UnsupportedArchitectureError(
            f"{where}: rope scaling is {kind!r}; supported are default, dynamic, linear, llama3 and yarn"
        )
    missing = [name for name in required[kind] if not isinstance(scaling.get(name), (int, float))]
    if missing:
        raise CheckpointError(f"{where}: rope scaling {kind!r} lacks {', '.join(missing)}")
    parameters = {name: float(value) for name, value in scaling.items() if isinstance(value, (int, float))}
    original = scaling.get("original_max_position_embeddings") or raw.get("original_max_position_embeddings")
    parameters["original_max_position_embeddings"] = float(original or max_positions)
    return RopeConfig(kind, theta, parameters)


class _Fields:
    """Typed access to the fields of a config, with errors that name field and file."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self._raw = raw
        self._where = where

    def count(self, name: str, default: int | None = None) -> int:
        value = self._raw.get(name)
        if value is None:
            value = default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(f"{self._where}: {name} is {value!r}; it must be a positive whole number")
        return value

    def number(self, name: str, default: float) -> float:
        value = self._raw.get(name, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
            raise CheckpointError(f"{self._where}: {name} is {value!r}; it must be a positive number")
        return float(value)
