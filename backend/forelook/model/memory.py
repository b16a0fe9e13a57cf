"""Checks whether a model fits before its weights are read, and names out-of-memory errors."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from forelook.errors import InsufficientMemoryError
from forelook.heap import trim_heap
from forelook.model.config import LlamaConfig
from forelook.model.quantization import BITS_PER_WEIGHT

# A prompt and its answer in an editor; only longer requests need a longer cache. Chosen, not measured.
_USUAL_POSITIONS = 4096
# For activations of a prefill chunk, library workspaces and allocator rounding. Chosen, not measured.
_HEADROOM = 1.05
_GIB = 2**30


def num_parameters(config: LlamaConfig) -> int:
    """Number of weights of a model, without biases and norms."""
    hidden, size = config.hidden_size, config.head_size
    attention = hidden * size * (2 * config.num_heads + 2 * config.num_kv_heads)
    mlp = (3 if config.is_gated else 2) * hidden * config.intermediate_size
    embeddings = config.vocab_size * hidden * (1 if config.tied_head else 2)
    return config.num_layers * (attention + mlp) + embeddings


def check_memory(
    config: LlamaConfig,
    dtype: torch.dtype,
    kv_dtype: torch.dtype,
    device: torch.device,
    name: str,
    available_bytes: int | None,
    quantized: str | None = None,
) -> None:
    """Raise if a model cannot fit, before minutes are spent reading it.

    Args:
        config: the model's shapes.
        dtype: of the weights.
        kv_dtype: of the cache.
        device: of weights and cache.
        name: of the model, for the message.
        available_bytes: free memory of the device; ``None`` if unknown, which disables the check.
        quantized: ``"int8"`` or ``"int4"`` if the layers' matrices are quantized as they are read.

    Raises:
        InsufficientMemoryError: states the needed and the free memory, and what would fit.
    """
    if available_bytes is None:
        return
    parameters = num_parameters(config)
    positions = min(config.max_positions, _USUAL_POSITIONS)
    cache_bytes = positions * config.kv_values_per_token * kv_dtype.itemsize
    needed_bytes = int((weight_bytes(config, dtype, quantized, device.type) + cache_bytes) * _HEADROOM)
    if needed_bytes <= available_bytes:
        return
    # A CPU keeps a float32 cache for bfloat16 weights; elsewhere the cache shrinks with them.
    half_cache_bytes = cache_bytes if device.type == "cpu" else cache_bytes * 2 // kv_dtype.itemsize
    advice = []
    if dtype.itemsize > 2 and (parameters * 2 + half_cache_bytes) * _HEADROOM <= available_bytes:
        advice.append("load it with dtype bfloat16")
    for smaller in ("int8", "int4"):
        smaller_bytes = weight_bytes(config, torch.bfloat16, smaller, device.type)
        fits = (smaller_bytes + half_cache_bytes) * _HEADROOM <= available_bytes
        if not advice and fits and quantized is None:
            extra = "" if device.type == "cpu" else " (extra forelook[quantize])"
            advice.append(f"load it with dtype {smaller}{extra}")
    if device.type == "cuda":
        advice.append("free memory on the device (nvidia-smi lists its users)")
    fitting = max(0.0, available_bytes / _HEADROOM - half_cache_bytes) / 2e9
    advice.append(f"choose a smaller model (about {fitting:.1f} billion parameters fit in bfloat16)")
    form = quantized or str(dtype).removeprefix("torch.")
    raise InsufficientMemoryError(
        f"{name} does not fit on {device}: {parameters / 1e9:.1f} billion parameters in {form} and a "
        f"cache of {positions} tokens need {needed_bytes / _GIB:.1f} GiB, "
        f"{available_bytes / _GIB:.1f} GiB are free; {', or '.join(advice)}"
    )


def weight_bytes(
    config: LlamaConfig, dtype: torch.dtype, quantized: str | None = None, device_type: str = "cpu"
) -> int:
    """Size of a model's weights in bytes; quantized, embedding and head have 8 bits on a CPU and stay on a GPU."""
    parameters = num_parameters(config)
    if quantized is None:
        return parameters * dtype.itemsize
    embeddings = config.vocab_size * config.hidden_size * (1 if config.tied_head else 2)
    embedding_bits = BITS_PER_WEIGHT["int8"] if device_type == "cpu" else 8 * dtype.itemsize
    return int(((parameters - embeddings) * BITS_PER_WEIGHT[quantized] + embeddings * embedding_bits) / 8)


def positions_that_fit(
    config: LlamaConfig, kv_dtype: torch.dtype, device: torch.device, available_bytes: int | None
) -> int:
    """Maximum number of positions whose KV cache fits after the weights are loaded, up to the model's own maximum.

    At least the usual prompt and answer that :func:`check_memory` has accounted for.
    """
    if available_bytes is None or device.type != "cuda":
        return config.max_positions
    # A fifth stays free for the activations of captured steps and of a prefill. Chosen, not measured.
    fitting = int(0.8 * available_bytes / (config.kv_values_per_token * kv_dtype.itemsize))
    return min(config.max_positions, max(fitting, min(_USUAL_POSITIONS, config.max_positions)))


def available_memory(device: torch.device) -> int | None:
    """Free memory of a device in bytes; ``None`` if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError, IndexError):
        return None


@contextmanager
def out_of_memory_named(what: str) -> Iterator[None]:
    """Convert torch's out-of-memory errors to ``InsufficientMemoryError``: the request fails, the service continues."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        # On a CPU torch raises a plain RuntimeError from its allocator, and a mapping an OSError.
        is_from_torch = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not is_from_torch and getattr(error, "errno", None) != errno.ENOMEM:
            raise
        raise InsufficientMemoryError(
            f"out of memory: {what}; close other programs, shorten the context, or choose a smaller model"
        ) from error


def release_memory() -> None:
    """Return the memory of deleted tensors to the system."""
    gc.collect()
    trim_heap()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
