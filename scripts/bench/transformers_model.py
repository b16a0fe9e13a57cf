"""A checkpoint in transformers: a folder as it is, a GGUF file with the weights that Forelook reads from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from forelook.errors import UnsupportedArchitectureError
from forelook.model.adapter import read_adapter
from forelook.model.config import LlamaConfig
from forelook.model.gguf.checkpoint import read_checkpoint

from bench.llama_fields import llama_fields

_SUPPORTED = {"llama", "qwen2"}


def transformers_model(path: str, dtype: torch.dtype, device: torch.device, adapter: Path | None = None) -> Any:
    """Return a causal language model of transformers, ready to generate.

    Args:
        path: a folder, a hub id, or a GGUF file.
        dtype: of the weights.
        device: where they are.
        adapter: folder of what is merged into the weights of a GGUF file.

    Raises:
        UnsupportedArchitectureError: a GGUF file of another family than these.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    if Path(path).is_file():
        model = _from_gguf(Path(path), dtype, adapter)
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    return model.to(device).eval()


def _from_gguf(path: Path, dtype: torch.dtype, adapter: Path | None) -> Any:
    import transformers

    checkpoint = read_checkpoint(path)
    config = transformers.AutoConfig.for_model(**plain_fields(checkpoint.config, path.name))
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    change = None if adapter is None else read_adapter(adapter)
    weights = checkpoint.tensors(dtype if change is None else torch.float32)
    tied = {"lm_head.weight"} if checkpoint.config.tied_head else set()
    with weights.opened() as open_file:
        state = {name: open_file(name)[1].get_tensor(name) for name in model.state_dict() if name not in tied}
    if change is not None:
        state = {name: change.merged(name, stored, dtype).to(dtype) for name, stored in state.items()}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    # Frequencies are no part of a checkpoint, and were made without memory.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model


def plain_fields(config: LlamaConfig, name: str) -> dict[str, Any]:
    """Return what transformers' configuration calls these shapes.

    Raises:
        UnsupportedArchitectureError: another family than the plain ones.
    """
    if config.model_type not in _SUPPORTED or config.rope.kind != "default" or config.rope.frequency_factors:
        raise UnsupportedArchitectureError(
            f"{name}: model_type is {config.model_type!r} with {config.rope.kind!r} rotations; for transformers, "
            "benchmarks convert plain llama and qwen2 only: give the folder of the checkpoint"
        )
    return llama_fields(config)
