"""Writes what training exports: a model's folder, or an adapter's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from training.bases import config_fields
from training.network import Network, saved_name
from training.sentinels import ADAPTER_FORMAT, Vocabulary


def save_network(network: Network, folder: Path, tokenizer_json: str, fields: Mapping[str, Any] | None = None) -> None:
    """Write a folder that ``forelook serve --model`` loads: bf16 safetensors, config.json, tokenizer.json.

    Args:
        network: all of whose weights are trained.
        folder: to write.
        tokenizer_json: its vocabulary.
        fields: the ``config.json`` of what it was trained from; by default that of its shapes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        saved_name(name): value.detach().to("cpu", torch.bfloat16).contiguous()
        for name, value in network.named_parameters()
    }
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = dict(fields or config_fields(network.config))
    config |= {"max_position_embeddings": network.config.max_positions, "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    (folder / "tokenizer.json").write_text(tokenizer_json, "utf-8")
    special = {
        token["id"]: token["content"] for token in json.loads(tokenizer_json)["added_tokens"] if token["special"]
    }
    kinds = {kind: config.get(f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    ids = {kind: value[0] if isinstance(value, list) else value for kind, value in kinds.items()}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{kind}_token": special[token_id] for kind, token_id in ids.items() if token_id in special},
        "clean_up_tokenization_spaces": False,
        "model_max_length": network.config.max_positions,
        "additional_special_tokens": [name for token_id, name in special.items() if token_id not in ids.values()],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=1) + "\n", "utf-8")


def trained_fields(fields: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """The ``config.json`` of a model whose control tokens have their names from the trainer."""
    if not vocabulary.renamed:
        return dict(fields)
    names = {"bos_token_id": vocabulary.bos_id, "eos_token_id": vocabulary.eos_id, "_name_or_path": ADAPTER_FORMAT}
    return {**fields, **names}


def replacing(name: str, write: Callable[[Path], None]) -> Callable[[Path], None]:
    """A function that writes a folder of a name under a run's, so that a kill leaves its old files or its new ones."""

    def export(run: Path) -> None:
        folder, partial = run / name, run / f"{name}.partial"
        write(partial)
        folder.mkdir(exist_ok=True)
        for path in partial.iterdir():
            path.replace(folder / path.name)
        partial.rmdir()

    return export
