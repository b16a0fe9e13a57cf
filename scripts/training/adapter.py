"""Adapters in the usual PEFT layout: ``adapter_model.safetensors`` and ``adapter_config.json``.

Beside PEFT's names there are ``sentinel_rows`` (and ``sentinel_head_rows`` of a head of its own), which replace rows of
the embedding, and in the configuration a field ``forelook``: the base's shapes and some of its weights, names of
control tokens, and the infill format. docs/training.md describes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from bench.llama_fields import llama_fields
from forelook.errors import CheckpointError
from forelook.model.adapter_config import CONFIG_NAME, SHAPES, WEIGHTS_NAME, read_adapter_config
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.bases import Base
from training.low_rank import LowRankTable
from training.network import Network, module_name, saved_name
from training.sentinels import Vocabulary

_PREFIX = "base_model.model."


def save_adapter(network: Network, folder: Path, config: dict[str, Any]) -> None:
    """Write an adapter folder, in bfloat16.

    Args:
        network: with low-rank parts.
        folder: to write.
        config: from :func:`adapter_config`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous().clone() for name, tensor in _tensors(network)
    }
    save_file(tensors, folder / WEIGHTS_NAME, {"format": "pt"})
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=1) + "\n", "utf-8")


def adapter_config(
    network: Network, base: Base, vocabulary: Vocabulary, sample: Sequence[float], *, rank: int, alpha: float
) -> dict[str, Any]:
    """The ``adapter_config.json``.

    Args:
        network: with low-rank parts.
        base: what it is trained on.
        vocabulary: the names of its control tokens.
        sample: some of the base's weights, from :func:`forelook.model.adapter.base_sample`.
        rank: of the low-rank parts.
        alpha: their scale is ``alpha / rank``.
    """
    first = next(network.each_layer())
    tables = ["embed_tokens"] if network.head_table is None else ["embed_tokens", "lm_head"]
    shapes = llama_fields(base.config)
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": base.path.name,
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": [*first.parts, *tables],
        "modules_to_save": ["input_layernorm", "post_attention_layernorm", "norm"],
        "bias": "none",
        "forelook": {
            "base": {**{name: shapes[name] for name in SHAPES}, "sample": list(sample)},
            "infill": vocabulary.infill.name,
            "tokens": dict(vocabulary.renamed),
            "bos_token_id": vocabulary.bos_id,
            "eos_token_ids": [vocabulary.eos_id],
            "sentinel_ids": list(vocabulary.row_ids),
        },
    }


@torch.no_grad()
def load_adapter(network: Network, folder: Path, row_ids: Sequence[int]) -> None:
    """Take over an adapter's factors, norms and rows; what it lacks stays as it is.

    Args:
        network: with low-rank parts of the adapter's rank.
        folder: in PEFT's layout.
        row_ids: the network's whole rows.

    Raises:
        ModelError: a subclass; the folder is no adapter, is of another shape than the network, or has rows that the
            network does not train.
    """
    config, stored = read_adapter_config(folder), load_file(folder / WEIGHTS_NAME)
    for name, mine in _tensors(network):
        tensor = stored.pop(name, None)
        if tensor is None:
            continue
        if name.startswith("sentinel"):
            ids = list(config.token_rows or range(len(tensor)))
            if not set(ids) <= set(row_ids):
                raise CheckpointError(
                    f"{folder}: it has rows of the tokens {ids}, and {list(row_ids)} are trained; "
                    "start from an adapter of the same tokens"
                )
            places = [list(row_ids).index(token_id) for token_id in ids]
            mine[places] = tensor.to(mine)
            continue
        if mine.shape != tensor.shape:
            raise CheckpointError(
                f"{folder}: {name} has shape {list(tensor.shape)}, and the network's is {list(mine.shape)}; "
                "base, rank and adapter must be of one shape"
            )
        is_second = ".lora_B." in name or name.endswith("lora_embedding_B")
        assert network.table is not None
        theirs = config.scale_of(name.removeprefix(_PREFIX).partition(".lora_")[0])
        mine.copy_(tensor.float() * (theirs / network.table.scale if is_second else 1.0))
    if stored:
        raise CheckpointError(
            f"{folder}: it changes {', '.join(sorted(stored)[:3])}, which the network does not have or does not train; "
            "choose the base that it was trained on"
        )
    network.merge()


def _tensors(network: Network) -> Iterator[tuple[str, Tensor]]:
    """What is trained, by its name in the file; each a view of the parameter."""
    for number, layer in enumerate(network.each_layer()):
        for name in layer.parts:
            part = layer.part(name)
            yield f"{_PREFIX}{module_name(number, name)}.lora_A.weight", part.down
            yield f"{_PREFIX}{module_name(number, name)}.lora_B.weight", part.up
    for name, parameter in network.named_parameters():
        if name.endswith("norm"):
            yield _PREFIX + saved_name(name), parameter
    table, head_table = network.table, network.head_table
    assert isinstance(table, LowRankTable)
    yield f"{_PREFIX}model.embed_tokens.lora_embedding_A", table.left.T
    yield f"{_PREFIX}model.embed_tokens.lora_embedding_B", table.right.T
    yield "sentinel_rows", table.rows
    if head_table is not None:
        yield f"{_PREFIX}lm_head.lora_A.weight", head_table.right
        yield f"{_PREFIX}lm_head.lora_B.weight", head_table.left
        yield "sentinel_head_rows", head_table.rows
