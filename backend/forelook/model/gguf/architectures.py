"""The architectures of GGUF files that Forelook runs, and their metadata as the fields of a ``config.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from forelook.errors import CheckpointError, UnsupportedArchitectureError
from forelook.model.config import LlamaConfig, parse_config
from forelook.model.families import FAMILIES
from forelook.model.gguf.header import GgufFile


@dataclass(frozen=True, slots=True)
class Architecture:
    """How llama.cpp stores one architecture.

    Attributes:
        name: value of ``general.architecture``.
        model_type: the family of ``model/families.py`` that computes it.
        permutes_heads: whether the rows of queries and keys are in the order of llama.cpp's own rotation.
        norm_offset: what the converter has added to the weights of norms.
        fields: fields of ``config.json`` that the metadata does not contain.
    """

    name: str
    model_type: str
    permutes_heads: bool = False
    norm_offset: float = 0.0
    fields: Mapping[str, Any] = field(default_factory=dict)


_ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        row.name: row
        for row in (
            Architecture("llama", "llama", permutes_heads=True),
            Architecture("qwen2", "qwen2"),
            Architecture("qwen3", "qwen3"),
            Architecture("granite", "granite", permutes_heads=True),
            Architecture("gemma", "gemma", norm_offset=1.0),
            # All published sizes have this window; the converter does not write it.
            Architecture("starcoder2", "starcoder2", fields={"sliding_window": 4096}),
        )
    }
)

# Field of config.json -> key of the metadata, behind the architecture's name.
_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "max_position_embeddings": "context_length",
        "hidden_size": "embedding_length",
        "intermediate_size": "feed_forward_length",
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "head_dim": "attention.key_length",
        "rms_norm_eps": "attention.layer_norm_rms_epsilon",
        "norm_epsilon": "attention.layer_norm_epsilon",
        "rope_theta": "rope.freq_base",
        "sliding_window": "attention.sliding_window",
        "embedding_multiplier": "embedding_scale",
        "residual_multiplier": "residual_scale",
        "attention_multiplier": "attention.scale",
        "logits_scaling": "logit_scale",
    }
)
# A rotation is stored per position. No model has more of them; a damaged file may. Chosen, not measured.
_MAX_POSITIONS = 1 << 24
_ROPE_FACTORS = "rope_freqs.weight"


def architecture_of(file: GgufFile) -> Architecture:
    """The architecture of a file.

    Raises:
        CheckpointError: the file names none.
        UnsupportedArchitectureError: Forelook does not compute it.
    """
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise CheckpointError(f"{file.path} names no general.architecture; convert it again with a current llama.cpp")
    return find_architecture(name, str(file.path))


def find_architecture(name: str, where: str) -> Architecture:
    """The architecture of a name.

    Args:
        name: value of ``general.architecture``.
        where: names the model in the error.

    Raises:
        UnsupportedArchitectureError: Forelook does not compute it.
    """
    found = _ARCHITECTURES.get(name)
    if found is not None and found.model_type in FAMILIES:
        return found
    ours = ", ".join(row.name for row in _ARCHITECTURES.values() if row.model_type in FAMILIES)
    raise UnsupportedArchitectureError(
        f"{where}: general.architecture is {name!r}; choose a model of one of these architectures: {ours}"
    )


def read_config(files: Sequence[GgufFile]) -> LlamaConfig:
    """The configuration of a model in one or more files, the first of which has the metadata.

    Raises:
        UnsupportedArchitectureError: an architecture or a variant that is not supported.
        CheckpointError: metadata is missing or invalid.
    """
    first = files[0]
    architecture = architecture_of(first)
    names = {name for file in files for name in file.tensors}
    if not names:
        raise CheckpointError(f"{first.path} has no tensors: it is a vocabulary only; choose a file with weights")
    raw = _raw_config(first, architecture, names)
    embedding = next((file.tensors["token_embd.weight"] for file in files if "token_embd.weight" in file.tensors), None)
    if embedding is not None:
        raw["vocab_size"] = embedding.shape[0]
    config = parse_config(raw, str(first.path))
    factors = next((file for file in files if _ROPE_FACTORS in file.tensors), None)
    if factors is None:
        return config
    return replace(config, rope=replace(config.rope, frequency_factors=_rope_factors(factors, config.head_size)))


def _raw_config(file: GgufFile, architecture: Architecture, names: set[str]) -> dict[str, Any]:
    metadata, prefix = file.metadata, f"{architecture.name}."
    raw: dict[str, Any] = {"model_type": architecture.model_type, **architecture.fields}
    for name, key in _KEYS.items():
        value = _scalar(metadata.get(prefix + key), f"{file.path}: {prefix}{key}")
        if value is not None:
            raw[name] = value
    if metadata.get(f"{prefix}expert_count"):
        raise UnsupportedArchitectureError(
            f"{file.path} is a mixture of {metadata[f'{prefix}expert_count']} experts; choose a dense model"
        )
    positions = raw.get("max_position_embeddings")
    if isinstance(positions, int) and positions > _MAX_POSITIONS:
        raise CheckpointError(f"{file.path}: {prefix}context_length is {positions}; download the file again")
    tokens = metadata.get("tokenizer.ggml.tokens")
    raw["vocab_size"] = metadata.get(f"{prefix}vocab_size") or (len(tokens) if isinstance(tokens, list) else None)
    raw["tie_word_embeddings"] = "output.weight" not in names
    family = FAMILIES[architecture.model_type]
    for field_name, tensor in ((family.attention_bias, "blk.0.attn_q.bias"), (family.mlp_bias, "blk.0.ffn_up.bias")):
        if field_name is not None:
            raw[field_name] = tensor in names
    raw["use_sliding_window"] = "sliding_window" in raw
    rotated, heads = metadata.get(f"{prefix}rope.dimension_count"), raw.get("num_attention_heads")
    hidden = raw.get("hidden_size")
    if isinstance(rotated, int) and isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
        raw["partial_rotary_factor"] = rotated / max(1, raw.get("head_dim") or hidden // heads)
    scaling = _rope_scaling(metadata, prefix)
    if scaling:
        raw["rope_scaling"] = scaling
    if metadata.get("tokenizer.ggml.add_bos_token", metadata.get("tokenizer.ggml.model") == "llama"):
        raw["bos_token_id"] = metadata.get("tokenizer.ggml.bos_token_id")
    ends = (metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
    raw["eos_token_id"] = [end for end in ends if isinstance(end, int)]
    return raw


def _scalar(value: Any, where: str) -> Any:
    """A number that some converters write once per layer."""
    if not isinstance(value, np.ndarray):
        return value
    if len(set(value.tolist())) != 1:
        raise UnsupportedArchitectureError(f"{where} differs between layers; choose a model whose layers are alike")
    return value.tolist()[0]


def _rope_scaling(metadata: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    kind = metadata.get(f"{prefix}rope.scaling.type")
    factor = metadata.get(f"{prefix}rope.scaling.factor", metadata.get(f"{prefix}rope.scale_linear"))
    if kind is None and factor is not None:
        kind = "linear"  # as files had it before rope.scaling.type
    if kind in (None, "none") or (kind == "linear" and factor == 1.0):
        return {}
    scaling: dict[str, Any] = {"rope_type": kind}
    if factor is not None:
        scaling["factor"] = factor
    for name, key in (
        ("original_max_position_embeddings", "original_context_length"),
        ("beta_fast", "yarn_beta_fast"),
        ("beta_slow", "yarn_beta_slow"),
    ):
        if f"{prefix}rope.scaling.{key}" in metadata:
            scaling[name] = metadata[f"{prefix}rope.scaling.{key}"]
    own = metadata.get(f"{prefix}rope.scaling.attn_factor")
    if kind == "yarn" and isinstance(own, float) and isinstance(factor, float) and factor > 1 and own != 1.0:
        # llama.cpp multiplies, transformers replaces.
        scaling["attention_factor"] = own * (0.1 * math.log(factor) + 1.0)
    return scaling


def _rope_factors(file: GgufFile, head_size: int) -> tuple[float, ...]:
    place = file.tensors[_ROPE_FACTORS]
    if place.type.name != "F32" or place.shape != (head_size // 2,):
        raise CheckpointError(
            f"{file.path}: {_ROPE_FACTORS} is {place.type.name} {list(place.shape)}, expected F32 [{head_size // 2}]; "
            "download the file again"
        )
    values = torch.frombuffer(file.data, dtype=torch.uint8, count=place.num_bytes, offset=place.offset)
    factors: list[float] = values.clone().view(torch.float32).tolist()
    if not all(math.isfinite(factor) and factor > 0 for factor in factors):
        raise CheckpointError(f"{file.path}: {_ROPE_FACTORS} has values that are no factors; download the file again")
    return tuple(factors)
