"""A model that cannot fit is refused before it is read, with what would fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from forelook.errors import InsufficientMemoryError
from forelook.model.config import LlamaConfig, parse_config
from forelook.model.forward.llama import LlamaSequence
from forelook.model.loading import LoadedModel, load_model
from forelook.model.memory import (
    available_memory,
    check_memory,
    num_parameters,
    out_of_memory_named,
    positions_that_fit,
)
from safetensors.torch import load_file

from tests.model.checkpoints import build_reference, save

GIB = 2**30
CODELLAMA_7B = {
    "model_type": "llama",
    "vocab_size": 32016,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 16384,
    "rms_norm_eps": 1e-5,
}


@pytest.fixture
def codellama() -> LlamaConfig:
    return parse_config(CODELLAMA_7B, "config.json")


def check(config: LlamaConfig, free_gib: float, dtype: torch.dtype = torch.bfloat16, device: str = "cuda") -> None:
    check_memory(config, dtype, dtype, torch.device(device), "codellama", int(free_gib * GIB))


def test_parameters_are_those_of_the_checkpoint(tmp_path: Path, codellama: LlamaConfig) -> None:
    folder = save(build_reference("grouped_queries"), tmp_path)
    tensors = load_file(folder / "model.safetensors")
    config = load_model(str(folder), device="cpu", dtype="float32").config
    assert num_parameters(config) == sum(tensor.numel() for tensor in tensors.values() if tensor.ndim == 2)
    assert 6.7e9 < num_parameters(codellama) < 6.75e9


def test_codellama_7b_needs_its_weights_and_a_cache(codellama: LlamaConfig) -> None:
    check(codellama, 16)  # 12.6 GiB of weights and 2 GiB of cache
    with pytest.raises(InsufficientMemoryError, match=r"6\.7 billion parameters in bfloat16 .* 14\.0 GiB are free"):
        check(codellama, 14)


def test_refusal_suggests_what_would_help(codellama: LlamaConfig) -> None:
    with pytest.raises(InsufficientMemoryError, match="load it with dtype bfloat16, or free memory"):
        check(codellama, 20, torch.float32)
    with pytest.raises(InsufficientMemoryError, match=r"about 3\.0 billion parameters fit") as refused:
        check(codellama, 8, torch.float32)
    assert "load it with dtype int4 (extra forelook[quantize])" in str(refused.value)
    with pytest.raises(InsufficientMemoryError, match="load it with dtype int8"):
        check(codellama, 10)
    with pytest.raises(InsufficientMemoryError, match=r"about 0\.0 billion") as refused:
        check(codellama, 1, device="cpu")
    assert "nvidia-smi" not in str(refused.value)


def test_nothing_is_refused_where_the_system_does_not_tell(codellama: LlamaConfig) -> None:
    check_memory(codellama, torch.float32, torch.float32, torch.device("cpu"), "codellama", None)


def test_available_memory_of_this_machine_is_plausible() -> None:
    available = available_memory(torch.device("cpu"))
    assert available is None or 2**26 < available < 2**46


def test_only_out_of_memory_is_renamed() -> None:
    errors = (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    for error in errors:
        with pytest.raises(InsufficientMemoryError, match="a step of 5"), out_of_memory_named("a step of 5 tokens"):
            raise error
    with pytest.raises(RuntimeError, match="shape"), out_of_memory_named("a step"):
        raise RuntimeError("shape mismatch")


def test_cache_too_large_for_the_machine_is_refused_and_the_model_stays_usable(starter: LoadedModel) -> None:
    with pytest.raises(InsufficientMemoryError, match="out of memory"), out_of_memory_named("a KV cache"):
        torch.empty(2**60, dtype=torch.uint8)
    assert isinstance(starter.new_sequence(8), LlamaSequence)


def test_quantized_weights_are_counted_as_such(codellama: LlamaConfig) -> None:
    cuda, bfloat16 = torch.device("cuda"), torch.bfloat16
    check_memory(codellama, bfloat16, bfloat16, cuda, "codellama", 10 * GIB, "int8")
    check_memory(codellama, bfloat16, bfloat16, cuda, "codellama", 7 * GIB, "int4")
    with pytest.raises(InsufficientMemoryError, match=r"parameters in int8 and a cache") as refused:
        check_memory(codellama, bfloat16, bfloat16, cuda, "codellama", 7 * GIB, "int8")
    assert "load it with" not in str(refused.value)


def test_cache_is_as_long_as_the_device_has_memory_for(codellama: LlamaConfig) -> None:
    """CodeLlama's 16 k positions take 8 GiB, which a device that its weights fit on need not have."""
    cuda, bfloat16 = torch.device("cuda"), torch.bfloat16
    assert positions_that_fit(codellama, bfloat16, cuda, 60 * GIB) == 16384
    assert positions_that_fit(codellama, bfloat16, cuda, 4 * GIB) == 6553
    assert positions_that_fit(codellama, bfloat16, cuda, GIB) == 4096
    assert positions_that_fit(codellama, bfloat16, torch.device("cpu"), GIB) == 16384
    assert positions_that_fit(codellama, bfloat16, cuda, None) == 16384
