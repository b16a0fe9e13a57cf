"""Chooses the format of a model's weights for a setting: ``auto`` is the fastest within a stated loss."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from forelook.model.config import LlamaConfig
from forelook.model.forward.kernel_choice import PLAIN, STEP_SIZES, KernelChoice, kernel_choice, native_choice
from forelook.model.forward.native.library import native_kernels
from forelook.model.forward.native.step import serves_native
from forelook.model.forward.quantized import Matrix8
from forelook.model.matrix_formats import CpuQuantizedFormat, MatrixFormat, NativeFormat, PlainFormat, TorchaoFormat
from forelook.model.memory import num_parameters
from forelook.model.quantization import QUANTIZED_DTYPES, torchao_quantizer

LEAST_QUANTIZED_PARAMETERS = 100_000_000
"""Smaller models stay as they are: they fit into the caches, where there is less to gain. Chosen with issue figures."""

LOSS = "less than 1% of held-out bits per byte"
"""What 8 bits may cost. measured: docs/decisions.md, "What 8 and 4 bits cost"."""

_CACHE_BYTES = 32 * 2**20  # of large last-level caches; chosen, not measured
_OPERATORS = 1.3
"""A step by torch's operators takes so many times its products or more. measured: docs/decisions.md, "A step in one
call"."""
_LEAST_FOUR_BIT_SHARE = 0.9  # of the layers' weights, to keep a file's own 4 bits; chosen, not measured


@dataclass(frozen=True, slots=True)
class FormatChoice:
    """The format of a model's weights.

    Attributes:
        quantized: ``"int8"`` or ``"int4"``; ``None`` for floats.
        dtype: of activations, and of weights that are floats.
        matrices: how matrices are kept.
        reason: why, for ``forelook doctor``.
    """

    quantized: str | None
    dtype: torch.dtype
    matrices: MatrixFormat
    reason: str

    @property
    def name(self) -> str:
        """As in settings: ``"int8"``, ``"bfloat16"``."""
        return self.quantized or _name(self.dtype)


def choose_format(
    setting: str, plain_dtype: torch.dtype, device: torch.device, config: LlamaConfig, four_bit_share: float = 0.0
) -> FormatChoice:
    """The format for a setting.

    Args:
        setting: of ``dtype``, which exists.
        plain_dtype: the dtype of the setting, or of the device where the setting names none.
        device: of the weights.
        config: the model's shapes.
        four_bit_share: share of the layers' weights that a file has in 4 bits, in groups that int4 keeps as they are.

    Raises:
        ConfigError: torchao is needed and not installed.
    """
    on_cpu = device.type == "cpu"
    if setting in QUANTIZED_DTYPES:
        if on_cpu:
            as_set = f"as set: {setting}"
            return _native(config, plain_dtype, [setting], as_set) or _on_cpu(setting, plain_dtype, config, as_set)
        quantize = torchao_quantizer(setting, device, plain_dtype)
        return FormatChoice(setting, plain_dtype, TorchaoFormat(plain_dtype, quantize), f"as set: {setting}")
    plain = FormatChoice(None, plain_dtype, PlainFormat(plain_dtype), "as set")
    if not on_cpu:
        return plain if setting != "auto" else replace(plain, reason=f"the default of {device.type}")
    if setting != "auto":
        return _native(config, plain_dtype, [PLAIN], "as set") or plain
    if num_parameters(config) < LEAST_QUANTIZED_PARAMETERS:
        small = f"models below {LEAST_QUANTIZED_PARAMETERS // 10**6} million parameters stay as they are"
        return _native(config, plain_dtype, [PLAIN], small) or replace(plain, reason=small)
    if not all(Matrix8.serves(inputs) for inputs in {shape.inputs for shape in _shapes(config)}):
        return replace(plain, reason="the model's shapes suit no 8-bit kernel")
    kinds = ["int8", *(["int4"] if four_bit_share >= _LEAST_FOUR_BIT_SHARE else [])]
    native = _native(config, plain_dtype, kinds)
    if native is not None:
        return native
    plain_ms, times_ms = _step_ms(config, plain_dtype, kinds)
    best = min(times_ms, key=lambda kind: times_ms[kind])
    found = ", ".join(f"{kind} {took:.1f} ms" for kind, took in times_ms.items())
    measured = f"matrix products of a decode step on one thread: {found}, {plain.name} {plain_ms:.1f} ms"
    if times_ms[best] >= plain_ms:
        return replace(plain, reason=measured)
    return _on_cpu(best, plain_dtype, config, f"{measured}; {best} {_loss(best)}")


def _loss(kind: str) -> str:
    return "as in the file" if kind == "int4" else f"costs {LOSS}"


def _native(config: LlamaConfig, dtype: torch.dtype, kinds: list[str], why: str | None = None) -> FormatChoice | None:
    """The fastest of some formats by the compiled kernels; ``None`` where these cannot serve or torch's are faster.

    Measured is the largest matrix of a layer, in relation to the same matrix without quantization.
    """
    if not serves_native(config) or dtype not in (torch.float32, torch.bfloat16):
        return None
    availability = native_kernels()
    if availability.functions is None:
        return None
    shape = max((shape for shape in _shapes(config) if shape.in_layers), key=lambda shape: shape.outputs * shape.inputs)
    size, is_cold = (shape.outputs, shape.inputs), _is_cold(config, dtype)
    shares: dict[str, float] = {}
    for kind in kinds:
        choice = native_choice(kind, size, dtype, is_cold=is_cold)
        if choice is not None:
            shares[kind] = _share(choice)
    best = min(shares, key=lambda kind: shares[kind])
    others = [_share(kernel_choice(kind, size, dtype, is_cold=is_cold)) for kind in kinds if kind != PLAIN]
    if shares[best] >= _OPERATORS * min([1.0, *others]):
        return None
    quantized = None if best == PLAIN else best
    found = f"kernels {availability.reason} take {shares[best]:.0%} of the time of torch's {_name(dtype)} products"
    return FormatChoice(
        quantized, dtype, NativeFormat(best, dtype, availability.functions), f"{found}; {why or _loss(best)}"
    )


def _share(choice: KernelChoice) -> float:
    """A decode step's products in relation to those without quantization."""
    return sum(choice.step_s.values()) / sum(choice.plain_step_s.values())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _on_cpu(kind: str, dtype: torch.dtype, config: LlamaConfig, reason: str) -> FormatChoice:
    matrices = CpuQuantizedFormat(kind, dtype, is_cold=_is_cold(config, dtype))
    return FormatChoice(kind, dtype, matrices, reason)


def _is_cold(config: LlamaConfig, dtype: torch.dtype) -> bool:
    return num_parameters(config) * dtype.itemsize > _CACHE_BYTES


@dataclass(frozen=True, slots=True)
class _Shape:
    """Matrices of one shape.

    Attributes:
        outputs, inputs: of each.
        count: how many the model has.
        in_layers: whether they are in its layers.
    """

    outputs: int
    inputs: int
    count: int
    in_layers: bool = True


def _shapes(config: LlamaConfig) -> list[_Shape]:
    hidden, inner, size, layers = config.hidden_size, config.intermediate_size, config.head_size, config.num_layers
    heads = config.num_heads * size
    return [
        _Shape(heads + 2 * config.num_kv_heads * size, hidden, layers),
        _Shape(hidden, heads, layers),
        _Shape((2 if config.is_gated else 1) * inner, hidden, layers),
        _Shape(hidden, inner, layers),
        _Shape(config.vocab_size, hidden, 1, in_layers=False),
    ]


def _step_ms(config: LlamaConfig, dtype: torch.dtype, kinds: list[str]) -> tuple[float, dict[str, float]]:
    """Milliseconds of a step's products, on average over its sizes: without quantization, and of each kind."""
    is_cold = _is_cold(config, dtype)
    plain_s, times_s = 0.0, dict.fromkeys(kinds, 0.0)
    for shape in _shapes(config):
        for kind in kinds:
            used = kind if shape.in_layers else "int8"
            choice = kernel_choice(used, (shape.outputs, shape.inputs), dtype, is_cold=is_cold)
            times_s[kind] += shape.count * sum(choice.step_s.values()) / len(STEP_SIZES)
        plain_s += shape.count * sum(choice.plain_step_s.values()) / len(STEP_SIZES)
    return plain_s * 1e3, {kind: seconds * 1e3 for kind, seconds in times_s.items()}
