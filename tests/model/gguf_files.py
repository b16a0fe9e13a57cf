"""Small GGUF files, written with the gguf package from the random checkpoints of the other tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import PreTrainedModel

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}
_PERMUTED = ("llama", "granite")
Edit = Callable[[gguf.GGUFWriter], None]


def permute(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """The order of rows of llama.cpp's rotation, as its converter makes it."""
    return weight.reshape(num_heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def unpermute(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """The reverse."""
    return weight.reshape(num_heads, -1, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def stored_name(name: str) -> str:
    """A tensor's name in GGUF."""
    module, _, kind = name.rpartition(".")
    if module in _NAMES:
        return f"{_NAMES[module]}.{kind}"
    _, _, index, part = module.split(".", 3)
    return f"blk.{index}.{_NAMES[part]}.{kind}"


def write_model(
    model: PreTrainedModel,
    path: Path,
    *,
    tokenizer: Path | None = None,
    kind: str = "F32",
    pre: str = "default",
    metadata: Mapping[str, Any] | None = None,
    leave_out: tuple[str, ...] = (),
    edit: Edit | None = None,
) -> PreTrainedModel:
    """Write a model, and put the weights that the file now has into it: quantized ones are not the original ones.

    Args:
        model: of transformers.
        path: of the file.
        tokenizer: a byte-level ``tokenizer.json``; without one, the vocabulary has one entry per byte and one merge.
        kind: type of the matrices.
        pre: name of the pre-tokenizer.
        metadata: further metadata; ``None`` as a value leaves a key out.
        leave_out: tensors to leave out, by their name in GGUF.
        edit: called with the writer before it writes.
    """
    config = model.config
    architecture = {"mistral": "llama"}.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(path, architecture)
    overrides = dict(metadata or {})
    values: dict[str, Any] = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "block_count": config.num_hidden_layers,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "rope.freq_base": float(config.rope_parameters["rope_theta"]),
    }
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    values["attention.key_length"] = values["rope.dimension_count"] = head_size
    if architecture == "starcoder2":
        values["attention.layer_norm_epsilon"] = float(config.norm_epsilon)
    else:
        values["attention.layer_norm_rms_epsilon"] = float(config.rms_norm_eps)
    if getattr(config, "sliding_window", None):
        values["attention.sliding_window"] = config.sliding_window
    if architecture == "granite":
        values |= {
            "embedding_scale": config.embedding_multiplier,
            "residual_scale": config.residual_multiplier,
            "attention.scale": config.attention_multiplier,
            "logit_scale": config.logits_scaling,
        }
    named = {f"{architecture}.{key}": value for key, value in values.items()} | overrides
    add_vocabulary(named, tokenizer, config.vocab_size, pre, set(overrides))
    for key, value in named.items():
        add_value(writer, key, value)
    _add_rope_factors(writer, config, head_size)
    _add_tensors(writer, model, kind, architecture in _PERMUTED, leave_out)
    if edit is not None:
        edit(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def add_value(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def add_vocabulary(named: dict[str, Any], path: Path | None, vocab_size: int, pre: str, given: set[str]) -> None:
    """The metadata of a byte-level vocabulary, padded to a size with unused tokens."""
    prefix = "tokenizer.ggml."
    if path is None:
        tokens = ["<s>", "</s>", *_byte_characters(), "ab"]
        control, merges = {0, 1}, ["a b"]  # the package does not write an empty array
    else:
        raw = json.loads(path.read_text(encoding="utf-8"))
        ids = dict(raw["model"]["vocab"])
        ids |= {token["content"]: token["id"] for token in raw["added_tokens"]}
        tokens = sorted(ids, key=ids.__getitem__)
        control = {token["id"] for token in raw["added_tokens"] if token["special"]}
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in raw["model"]["merges"]]
    tokens += [f"[unused{index}]" for index in range(len(tokens), vocab_size)]
    defaults = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [3 if index in control else 1 for index in range(len(tokens))],
        "merges": merges,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "add_bos_token": True,
    }
    for name, value in defaults.items():
        if prefix + name not in given:
            named[prefix + name] = value


def _byte_characters() -> list[str]:
    from forelook.model.tokenizer import _BYTE_OF_CHARACTER

    return list(_BYTE_OF_CHARACTER)


def _add_rope_factors(writer: gguf.GGUFWriter, config: Any, head_size: int) -> None:
    """Scaled rotation, as llama.cpp's converter writes it."""
    rope, prefix = config.rope_parameters, f"{writer.arch}.rope.scaling."
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_string(f"{prefix}type", rope["rope_type"])
        writer.add_float32(f"{prefix}factor", rope["factor"])
        if "original_max_position_embeddings" in rope:
            writer.add_uint32(f"{prefix}original_context_length", rope["original_max_position_embeddings"])
    if rope["rope_type"] == "llama3":
        frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, head_size, 2) / head_size)
        original = rope["original_max_position_embeddings"]
        factors = []
        for frequency in frequencies:
            wavelength = 2 * np.pi / frequency
            if wavelength < original / rope["high_freq_factor"]:
                factors.append(1.0)
            elif wavelength > original / rope["low_freq_factor"]:
                factors.append(rope["factor"])
            else:
                share = (original / wavelength - rope["low_freq_factor"]) / (
                    rope["high_freq_factor"] - rope["low_freq_factor"]
                )
                factors.append(1 / ((1 - share) / rope["factor"] + share))
        writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))


def _add_tensors(
    writer: gguf.GGUFWriter, model: PreTrainedModel, kind: str, permuted: bool, leave_out: tuple[str, ...]
) -> None:
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    quantized = gguf.GGMLQuantizationType[kind]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if stored_name(name) in leave_out:
                continue
            values = parameter.numpy()
            if model.config.model_type == "gemma" and "norm" in name:
                values = values + 1  # as llama.cpp's converter stores it
            num_heads = next((count for part, count in heads.items() if permuted and f".{part}." in name), None)
            if num_heads is not None:
                values = permute(values, num_heads)
            if values.ndim == 1 or kind == "F32":
                writer.add_tensor(stored_name(name), np.ascontiguousarray(values))
                continue
            data = gguf.quantize(values, quantized)
            writer.add_tensor(stored_name(name), data, raw_dtype=quantized)
            read = gguf.dequantize(data, quantized).reshape(values.shape)
            parameter.copy_(torch.from_numpy(read if num_heads is None else unpermute(read, num_heads)))


def split_in_two(path: Path, folder: Path, stem: str = "model") -> list[Path]:
    """Two parts, as llama.cpp's own tool makes them: the first has all metadata."""
    reader = gguf.GGUFReader(path)
    names = [tensor.name for tensor in reader.tensors]
    writer = gguf.GGUFWriter(folder / f"{stem}.gguf", "llama", split_max_tensors=len(names) // 2 + 1)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = field.contents()
        kind, sub = field.types[0], field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(field.name, value, kind, sub)
    for tensor in reader.tensors:
        is_plain = tensor.tensor_type in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=None if is_plain else tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("*.gguf"))
