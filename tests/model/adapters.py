"""Random low-rank adapters in the layout of the peft package, and what merging them must give."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

PREFIX = "base_model.model."
EMBEDDING = "model.embed_tokens"
LAYER_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK, ALPHA = 4, 6


def make_adapter(
    model: PreTrainedModel,
    folder: Path,
    *,
    targets: Sequence[str] = (*LAYER_TARGETS, "embed_tokens"),
    norms: bool = True,
    rows: Sequence[int] = (),
    scale: float | None = None,
    dtype: torch.dtype = torch.float32,
    config: Mapping[str, Any] | None = None,
) -> dict[str, torch.Tensor]:
    """Write an adapter and merge it into the model, as peft documents: the weight plus scale times B times A.

    Args:
        model: of transformers, which is changed.
        folder: of the adapter.
        targets: last parts of the names of the changed modules.
        norms: whether the norms are stored whole.
        rows: ids of the embedding's rows that are stored whole.
        scale: of the products, by default alpha over the rank.
        dtype: of the stored tensors.
        config: further keys of ``adapter_config.json``.

    Returns:
        The tensors in the file.
    """
    torch.manual_seed(7)
    scale = ALPHA / RANK if scale is None else scale
    tensors: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            module, _, kind = name.rpartition(".")
            if kind != "weight":
                continue
            if "norm" in module and norms:
                value = (parameter + 0.1 * torch.randn_like(parameter)).to(dtype)
                tensors[PREFIX + name] = value
                parameter.copy_(value)
            elif module.rpartition(".")[2] in targets:
                outputs, inputs = parameter.shape
                if module == EMBEDDING:
                    a, b = torch.randn(RANK, outputs), 0.03 * torch.randn(inputs, RANK)
                    names = ("lora_embedding_A", "lora_embedding_B")
                else:
                    a, b = torch.randn(RANK, inputs), 0.03 * torch.randn(outputs, RANK)
                    names = ("lora_A.weight", "lora_B.weight")
                a, b = a.to(dtype), b.to(dtype)
                tensors |= {f"{PREFIX}{module}.{names[0]}": a, f"{PREFIX}{module}.{names[1]}": b}
                product = scale * (b.float() @ a.float())
                parameter.add_(product.t() if module == EMBEDDING else product)
        if rows:
            embedding = model.get_input_embeddings().weight
            tensors["sentinel_rows"] = torch.randn(len(rows), embedding.shape[1]).to(dtype)
            embedding[list(rows)] = tensors["sentinel_rows"].float()
    saved = [name for name in ("input_layernorm", "post_attention_layernorm", "norm") if norms]
    raw = {
        "peft_type": "LORA", "base_model_name_or_path": "own/base", "r": RANK, "lora_alpha": ALPHA, "bias": "none",
        "target_modules": list(targets), "modules_to_save": saved or None, **(config or {}),
    }  # fmt: skip
    write_adapter(folder, tensors, raw)
    return tensors


def write_adapter(folder: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> Path:
    """Write the two files of an adapter."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
