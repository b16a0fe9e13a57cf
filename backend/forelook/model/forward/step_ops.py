"""The operators of a captured step between its matrix products, in plain torch or fused, and the choice between them.

The choice is made on the device itself. Operators that do not compile there, or that differ from the plain ones, are
skipped, with the reason. Of the ways to attend that agree with the reference, the fastest is used.
"""

from __future__ import annotations

import importlib.util
import logging
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from forelook.model.config import LlamaConfig
from forelook.model.families import Activation
from forelook.model.forward.layers import Norm, add_residual, feed_forward_activation, norm_weight
from forelook.model.forward.step_attention import (
    StepAttention,
    StepAttentionChoice,
    attend_masked,
    step_attention_choices,
)

logger = logging.getLogger(__name__)

AddNorm = Callable[[Tensor, "Tensor | None", float, Norm], tuple[Tensor, Tensor]]
RotateAndStore = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
Gate = Callable[[Tensor], Tensor]

# Prefix and tail on which the ways to attend are compared: an editor's prompt, and a step with drafts. Chosen, not
# measured, like the tolerances and the number of repeats.
_PREFIX, _TAIL = 2048, 16
_TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 3e-2}
_OTHER_TOLERANCE = 1e-4
_REPEATS = 15


@dataclass(frozen=True, slots=True)
class StepOps:
    """The operators of a step.

    Attributes:
        add_norm: residual sum and norm.
        rotate_and_store: splits a fused projection: returns rotated queries, writes keys and values to the cache.
        gate: the activation of the feed-forward layer, with its gate.
        attend: queries against the cache.
        attention_name: name of ``attend``, for ``forelook doctor``.
        reason: why these were chosen, likewise.
    """

    add_norm: AddNorm
    rotate_and_store: RotateAndStore
    gate: Gate
    attend: StepAttention
    attention_name: str
    reason: str


def add_norm(hidden: Tensor, update: Tensor | None, multiplier: float, norm: Norm) -> tuple[Tensor, Tensor]:
    """Residual sum [T, C] and its norm; without an update ``hidden`` itself and its norm."""
    if update is not None:
        hidden = add_residual(hidden, update, multiplier)
    return hidden, norm(hidden)


def rotate_and_store(qkv: Tensor, rotations: Tensor, positions: Tensor, cache: Tensor, prefix_length: Tensor) -> Tensor:
    """Rotate queries and keys, and write keys and values after the committed ones.

    Args:
        qkv: [T, (H + 2 Hkv) D] of the fused projection.
        rotations: [positions, D / 2] complex.
        positions: [T].
        cache: [2 Hkv, capacity, D] of the layer; rows ``prefix_length`` to ``prefix_length + T`` are written.
        prefix_length: [1] int32.

    Returns:
        [T, H, D] queries in the cache's dtype.
    """
    num_tokens, kv_heads, size = qkv.shape[0], cache.shape[0] // 2, cache.shape[2]
    wide = torch.float64 if qkv.dtype == torch.float64 else torch.float32
    heads = qkv.shape[1] // size - 2 * kv_heads
    by_head = qkv.to(wide, copy=True).view(num_tokens, heads + 2 * kv_heads, size)
    pairs = torch.view_as_complex(by_head.view(num_tokens, -1, size // 2, 2))
    pairs[:, : heads + kv_heads].mul_(rotations.index_select(0, positions).unsqueeze(1))
    slots = prefix_length + torch.arange(num_tokens, device=qkv.device)
    cache.index_copy_(1, slots, by_head[:, heads:].transpose(0, 1).to(cache.dtype))
    return by_head[:, :heads].to(cache.dtype)


def plain_ops(config: LlamaConfig) -> StepOps:
    """Torch's own operators, which compute every family anywhere."""
    return StepOps(
        add_norm,
        rotate_and_store,
        feed_forward_activation(config),
        attend_masked,
        "masked",
        "torch's own operators, which run anywhere",
    )


def choose_step_ops(config: LlamaConfig, device: torch.device, dtype: torch.dtype) -> StepOps:
    """The fastest operators that a device runs and that agree there with the plain ones."""
    plain = plain_ops(config)
    if device.type != "cuda":
        return plain
    attend, name, reason = choose_step_attention(config, device, dtype)
    fused, why = _fused_ops(config, device, dtype)
    add, rotate, open_gate = fused or (plain.add_norm, plain.rotate_and_store, plain.gate)
    if config.layer_norms:
        add = plain.add_norm  # only the root-mean-square norm is fused
    if not config.is_gated or config.activation is not Activation.SILU:
        open_gate = plain.gate  # likewise only the gated SiLU
    return StepOps(add, rotate, open_gate, attend, name, f"{reason}; {why}")


def choose_step_attention(
    config: LlamaConfig,
    device: torch.device,
    dtype: torch.dtype,
    *,
    choices: list[StepAttentionChoice] | None = None,
    measure: Callable[[Callable[[], object]], float] | None = None,
) -> tuple[StepAttention, str, str]:
    """The fastest way to attend among those that agree with the plain one on this device.

    Args:
        config: head counts and size.
        device: to try them on.
        dtype: of queries, keys and values.
        choices: what to try; all ways by default.
        measure: milliseconds of a function; CUDA events by default.

    Returns:
        The function, its name, and the reason: the times of all, and why the others were not timed.
    """
    timed: list[tuple[float, str, StepAttention]] = []
    skipped: list[str] = []
    queries, cache, prefix_length, visible = _example(config, device, dtype)
    scale = config.attention_scale
    wide = torch.promote_types(dtype, torch.float32)
    expected = attend_masked(queries.to(wide), cache.to(wide), prefix_length, visible, scale)
    for choice in step_attention_choices(device, dtype, config.head_size) if choices is None else choices:
        if choice.attend is None:
            skipped.append(f"{choice.name}: {choice.reason}")
            continue
        attend = choice.attend

        def run(attend: StepAttention = attend) -> Tensor:
            return attend(queries, cache, prefix_length, visible, scale)

        try:
            error = float((run().to(wide) - expected).abs().max())
            if not error <= _TOLERANCE.get(dtype, _OTHER_TOLERANCE):
                skipped.append(f"{choice.name}: differs from the reference by {error:.2g} on this device")
                continue
            timed.append(((measure or _cuda_ms)(run), choice.name, attend))
        except Exception as fault:  # noqa: BLE001 - border to kernels that may not build here; another one is used
            logger.warning("attention by %s fails on %s: %s", choice.name, device, type(fault).__name__)
            skipped.append(f"{choice.name}: fails on this device with {type(fault).__name__}")
    if not timed:
        return attend_masked, "masked", "; ".join(["nothing faster agrees with it", *skipped])
    timed.sort(key=lambda row: row[0])
    times = ", ".join(f"{name} {ms * 1e3:.0f} µs" for ms, name, _ in timed)
    _, name, attend = timed[0]
    reason = f"fastest here over {_PREFIX} + {_TAIL} tokens ({times})"
    return attend, name, "; ".join([reason, *skipped])


def _example(config: LlamaConfig, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = _random_values(torch.Generator(device=device).manual_seed(0), dtype)
    queries = random(_TAIL, config.num_heads, config.head_size)
    cache = random(2 * config.num_kv_heads, _PREFIX + 2 * _TAIL, config.head_size)
    visible = torch.ones(_TAIL, _TAIL, dtype=torch.bool, device=device).tril()
    visible[_TAIL // 2 :, 1 : _TAIL // 2] = False
    return queries, cache, torch.tensor([_PREFIX], dtype=torch.int32, device=device), visible


def _random_values(generator: torch.Generator, dtype: torch.dtype) -> Callable[..., Tensor]:
    """Makes tensors of a shape on the generator's device."""

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=generator.device, dtype=torch.float32).to(dtype)

    return random


def _cuda_ms(run: Callable[[], object]) -> float:
    """Milliseconds of a function in a captured step, that is, without launching its kernels."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    times: list[float] = []
    for repeat in range(_REPEATS + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        if repeat >= 3:
            times.append(start.elapsed_time(end))
    return statistics.median(times)


def _fused_ops(
    config: LlamaConfig, device: torch.device, dtype: torch.dtype
) -> tuple[tuple[AddNorm, RotateAndStore, Gate] | None, str]:
    """The fused operators if they compile and agree with the plain ones; and the reason."""
    if importlib.util.find_spec("triton") is None:
        return None, "the package triton is not installed; small operators are torch's"
    if dtype == torch.float64:
        return None, "small operators are torch's in float64"
    try:
        from forelook.model.forward import triton_step

        fused = (triton_step.add_norm, triton_step.rotate_and_store, triton_step.gate)
        error = fused_error(config, device, dtype, *fused)
    except Exception as fault:  # noqa: BLE001 - border to kernels that may not build here; plain torch is used
        logger.warning("fused operators fail on %s: %s", device, type(fault).__name__)
        return None, f"fused operators fail on this device with {type(fault).__name__}"
    if not error <= _TOLERANCE.get(dtype, _OTHER_TOLERANCE):
        return None, f"fused operators differ from torch's by {error:.2g} on this device"
    return fused, "small operators are fused"


def fused_error(
    config: LlamaConfig, device: torch.device, dtype: torch.dtype, add: AddNorm, rotate: RotateAndStore, open_gate: Gate
) -> float:
    """The largest difference of given operators from the plain ones on random values of about 1."""
    generator = torch.Generator(device=device).manual_seed(1)
    heads, kv_heads, size = config.num_heads, config.num_kv_heads, config.head_size
    random = _random_values(generator, dtype)
    num_tokens, num_slots = 5, 12
    plain = feed_forward_activation(replace(config, activation=Activation.SILU, is_gated=True, intermediate_size=384))
    hidden, update, weight = random(num_tokens, 256), random(num_tokens, 256), random(256)
    norm, plain_norm = Norm(weight, None, 1e-5), Norm(norm_weight(weight), None, 1e-5)
    qkv = random(num_tokens, (heads + 2 * kv_heads) * size)
    angles = torch.rand(16, size // 2, generator=generator, device=device) * 6
    rotations = torch.polar(torch.ones_like(angles), angles)
    positions = torch.tensor([3, 4, 5, 5, 6], device=device)
    prefix_length = torch.tensor([3], dtype=torch.int32, device=device)
    caches = [torch.zeros(2 * kv_heads, num_slots, size, dtype=dtype, device=device) for _ in range(2)]
    wide_gate = random(num_tokens, 2 * 384)
    pairs = [
        *zip(add(hidden, update, 0.5, norm), add_norm(hidden, update, 0.5, plain_norm), strict=True),
        (
            rotate(qkv, rotations, positions, caches[0], prefix_length),
            rotate_and_store(qkv, rotations, positions, caches[1], prefix_length),
        ),
        (caches[0], caches[1]),
        (open_gate(wide_gate), plain(wide_gate)),
        (add(hidden, None, 1.0, norm)[1], add_norm(hidden, None, 1.0, plain_norm)[1]),
    ]
    # Relative to the size of a value: one unit in the last place of a large one is no error.
    return max(
        float(((found.float() - meant.float()).abs() / meant.float().abs().clamp(min=1.0)).max())
        for found, meant in pairs
    )
