"""The default model as one GGUF file for other servers: its base with the adapter merged and its sentinels named."""

from __future__ import annotations

from pathlib import Path

import gguf
import torch
from forelook.model.adapter import read_adapter
from forelook.model.gguf.tensors import gguf_name

from bench.transformers_model import transformers_model

_TOKENS, _EOS = "tokenizer.ggml.tokens", "tokenizer.ggml.eos_token_id"
_SET_BY_WRITER = ("GGUF.", "general.architecture", "general.file_type")


def write_merged(base: Path, adapter: Path, target: Path) -> None:
    """Write a Llama base with an adapter merged into it, matrices in float16.

    Args:
        base: a GGUF file with a head of its own or a tied one.
        adapter: folder in PEFT's layout; its names of control tokens replace the base's.
        target: the file to write.

    Raises:
        CheckpointError: the adapter does not fit the base.
        UnsupportedArchitectureError: the base is of another family than the plain ones.
    """
    change = read_adapter(adapter).config
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for field in gguf.GGUFReader(base).fields.values():
        if field.name.startswith(_SET_BY_WRITER):
            continue
        value = field.contents()
        if field.name == _TOKENS:
            for name, token_id in change.tokens.items():
                value[token_id] = name
        elif field.name == _EOS and change.eos_token_ids:
            value = change.eos_token_ids[0]
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(field.name, value, field.types[0], field.types[-1] if is_array else None)
    model = transformers_model(str(base), torch.float32, torch.device("cpu"), adapter)
    config = model.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        rows = _rotation_pairs(weight, heads.get(name.split(".")[-2], 0))
        writer.add_tensor(gguf_name(name), (rows.half() if rows.ndim == 2 else rows).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _rotation_pairs(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Put the two rows of a head that rotate together next to each other, as llama.cpp has them."""
    if num_heads == 0:
        return weight
    return weight.view(num_heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape).contiguous()
