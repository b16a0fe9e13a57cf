"""What a checkpoint's ``config.json`` calls the shapes of a model."""

from __future__ import annotations

from typing import Any

from forelook.model.config import LlamaConfig


def llama_fields(config: LlamaConfig) -> dict[str, Any]:
    """The fields of a ``config.json`` that every Llama-family model has, rotations by their base alone."""
    return {
        "model_type": config.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_size,
        "rms_norm_eps": config.norm_eps,
        "max_position_embeddings": config.max_positions,
        "rope_theta": config.rope.theta,
        "tie_word_embeddings": config.tied_head,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(config.eos_token_ids),
    }
