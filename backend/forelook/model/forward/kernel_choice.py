"""Measures on this machine which kernel multiplies with a quantized matrix fastest, by its shape and number of rows.

The kernels for a format are compared with each other and with the matrix that is not quantized, which they must beat;
for many rows, also with a conversion to floats. It takes about a tenth of a second per shape, once per process, on
one thread. Copies of the matrix take turns, so that weights come from memory where a model is larger than the caches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from forelook.model.forward.matrix import Matrix, dense
from forelook.model.forward.native.library import native_kernels
from forelook.model.forward.native.matrices import NativeFloats, NativeGroups4, NativeRows8
from forelook.model.forward.quantized import NEVER, STEP_ROWS, IntegerMatrix8, Matrix4, Matrix8
from forelook.model.quantization import Groups4, Rows8, quantize_groups, quantize_rows

STEP_SIZES = (1, 4, 8)
"""Numbers of rows of a usual decode step, drafts included; chosen, not measured."""

PLAIN = "plain"
"""The matrix without quantization."""

NATIVE = "native"
"""The kernels that are compiled on the machine; a model uses them for all matrices or for none."""

_PREFILL_SIZES = (32, 64, 128)
_PREFILL_OUTPUTS = 256  # such a product is bound by arithmetic, whatever its size; chosen, not measured
# Of a measured matrix; the time of a larger one is proportional to its outputs. Chosen, not measured.
_MAX_OUTPUTS = 2048
_MAX_VALUES = 1 << 22
_COLD_BYTES = 40 * 2**20  # more than most caches; chosen, not measured
_MAX_COPIES = 16
_ROUNDS = 3
_MARGIN = 0.97  # measurements that are closer than this are equal; chosen, not measured
_FINE_S = 1e-5

# CPU time of a thread: other programs disturb it little. Windows counts it in units of 16 ms.
_clock = time.thread_time if time.get_clock_info("thread_time").resolution < _FINE_S else time.perf_counter

Times = Mapping[str, Mapping[int, float]]
"""Seconds of a product by kernel and number of rows."""


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """How to multiply with matrices of a shape.

    Attributes:
        kernel: ``"float"``, ``"integer"``, :data:`NATIVE`, or :data:`PLAIN` where quantization does not pay.
        dense_from: number of rows from which ``"float"`` converts the matrix.
        step_s: seconds of a product of that kernel, by the sizes of a decode step.
        plain_step_s: likewise without quantization.
    """

    kernel: str
    dense_from: int
    step_s: Mapping[int, float]
    plain_step_s: Mapping[int, float]


def kernel_choice(kind: str, shape: tuple[int, int], dtype: torch.dtype, *, is_cold: bool) -> KernelChoice:
    """The measured choice for a format and shape.

    Args:
        kind: ``"int8"`` or ``"int4"``.
        shape: outputs and inputs.
        dtype: of activations, and of weights that are not quantized.
        is_cold: whether the model is larger than the caches.
    """
    outputs = min(shape[0], _MAX_OUTPUTS, max(64, _MAX_VALUES // shape[1] // 64 * 64))
    found = _measured_choice(kind, (outputs, shape[1]), dtype, is_cold=is_cold)
    factor = shape[0] / outputs
    step_s, plain_s = ({size: s * factor for size, s in times.items()} for times in (found.step_s, found.plain_step_s))
    return KernelChoice(found.kernel, found.dense_from, step_s, plain_s)


@lru_cache(maxsize=256)
def _measured_choice(kind: str, shape: tuple[int, int], dtype: torch.dtype, *, is_cold: bool) -> KernelChoice:
    copies = _num_copies(shape, dtype, is_cold=is_cold)
    with torch.inference_mode(), _one_thread():
        # Where all values are equal nothing is slower or faster than with others: no kernel looks at them.
        weight = torch.full(shape, 0.5)
        kernels = {name: [build() for _ in range(copies)] for name, build in _kernels(kind, weight, dtype).items()}
        kernels[PLAIN] = [dense(weight.to(dtype, copy=True)) for _ in range(copies)]
        step_s = _turns(kernels, STEP_SIZES, shape[1], dtype)
        part = weight[:_PREFILL_OUTPUTS]
        many = {"kept": [_kernels(kind, part, dtype)["float"]()], "converted": [_converted(kind, part, dtype)]}
        return choose(step_s, _turns(many, _PREFILL_SIZES, shape[1], dtype))


def native_choice(kind: str, shape: tuple[int, int], dtype: torch.dtype, *, is_cold: bool) -> KernelChoice | None:
    """What the compiled kernels take for a format and shape; ``None`` where they cannot be used.

    Args:
        kind: ``"int8"``, ``"int4"``, or :data:`PLAIN` for floats.
        shape: outputs and inputs.
        dtype: of activations, and of weights that are floats.
        is_cold: whether the model is larger than the caches.
    """
    outputs = min(shape[0], _MAX_OUTPUTS, max(64, _MAX_VALUES // shape[1] // 64 * 64))
    return _measured_native(kind, (outputs, shape[1]), dtype, is_cold=is_cold)


@lru_cache(maxsize=64)
def _measured_native(kind: str, shape: tuple[int, int], dtype: torch.dtype, *, is_cold: bool) -> KernelChoice | None:
    kernels = native_kernels().functions
    if kernels is None:
        return None
    with torch.inference_mode(), _one_thread():
        weight = torch.full(shape, 0.5)
        builds: dict[str, Callable[[], Matrix]] = {
            "int8": lambda: NativeRows8(quantize_rows(weight), dtype, kernels),
            "int4": lambda: NativeGroups4(quantize_groups(weight), dtype, kernels),
            PLAIN: lambda: NativeFloats(weight.to(dtype, copy=True), kernels),
        }
        copies = range(_num_copies(shape, dtype, is_cold=is_cold))
        matrices = {
            NATIVE: [builds[kind]() for _ in copies],
            PLAIN: [dense(weight.to(dtype, copy=True)) for _ in copies],
        }
        times = _turns(matrices, STEP_SIZES, shape[1], dtype)
    return KernelChoice(NATIVE, NEVER, times[NATIVE], times[PLAIN])


def choose(step_s: Times, prefill_s: Times) -> KernelChoice:
    """The choice that follows from measured times.

    Args:
        step_s: of each kernel and :data:`PLAIN`, in decode steps.
        prefill_s: of ``"float"`` with the matrix ``"kept"`` and ``"converted"``, beyond them.
    """
    total_s = {name: sum(times.values()) for name, times in step_s.items()}
    best = min((name for name in total_s if name != PLAIN), key=lambda name: total_s[name])
    kernel = best if total_s[best] < _MARGIN * total_s[PLAIN] else PLAIN
    dense_from = NEVER
    for size in sorted(prefill_s["kept"], reverse=True):
        if prefill_s["converted"][size] >= _MARGIN * prefill_s["kept"][size]:
            break
        dense_from = max(size, STEP_ROWS + 1)
    return KernelChoice(kernel, dense_from, step_s[kernel], step_s[PLAIN])


def matrix8(rows: Rows8, dtype: torch.dtype, choice: KernelChoice) -> Matrix8 | IntegerMatrix8:
    """An 8-bit matrix for the chosen kernel."""
    if choice.kernel == "integer":
        return IntegerMatrix8(rows, dtype)
    return Matrix8(rows, dtype, choice.dense_from)


def matrix4(groups: Groups4, dtype: torch.dtype, choice: KernelChoice) -> Matrix4:
    """A 4-bit matrix for the chosen kernel."""
    return Matrix4(groups, dtype, choice.dense_from)


def _num_copies(shape: tuple[int, int], dtype: torch.dtype, *, is_cold: bool) -> int:
    return max(1, min(_MAX_COPIES, _COLD_BYTES // (shape[0] * shape[1] * dtype.itemsize))) if is_cold else 1


def _kernels(kind: str, weight: Tensor, dtype: torch.dtype) -> dict[str, Callable[[], Matrix]]:
    """What makes a new copy of a matrix for each kernel."""
    if kind == "int4":
        groups = quantize_groups(weight)
        return {"float": lambda: Matrix4(groups, dtype)}
    rows = quantize_rows(weight)
    kernels: dict[str, Callable[[], Matrix]] = {"float": lambda: Matrix8(Rows8(rows.codes.clone(), rows.scales), dtype)}
    if IntegerMatrix8.serves():
        kernels["integer"] = lambda: IntegerMatrix8(rows, dtype)
    return kernels


def _converted(kind: str, weight: Tensor, dtype: torch.dtype) -> Matrix:
    """A matrix that each product converts to floats."""
    return Matrix4(quantize_groups(weight), dtype, 0) if kind == "int4" else Matrix8(quantize_rows(weight), dtype, 0)


def _turns(
    matrices: Mapping[str, Sequence[Matrix]], sizes: Sequence[int], num_inputs: int, dtype: torch.dtype
) -> dict[str, dict[int, float]]:
    """The shortest time of each kind of matrix at each number of rows, in turns: other programs only add to it."""
    times: dict[str, dict[int, float]] = {name: {} for name in matrices}
    next_copy = 0
    for size in sizes:
        x = torch.ones(size, num_inputs, dtype=dtype)
        for turn in range(_ROUNDS + 1):  # the first one prepares kernels
            next_copy += 1
            for name, copies in matrices.items():
                matrix = copies[next_copy % len(copies)]
                started_s = _clock()
                matrix.product(x, None)
                took_s = _clock() - started_s
                if turn:
                    times[name][size] = min(took_s, times[name].get(size, took_s))
    return times


@contextmanager
def _one_thread() -> Iterator[None]:
    # A team of threads waits for each core that another program uses.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
