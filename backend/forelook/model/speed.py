"""How fast a machine would run a model, estimated from a measurement of less than a second.

A step of one token reads every weight once, so memory bandwidth bounds it; a prompt is bound by matrix products. Both
also have a cost per layer that does not depend on the size of the matrices. The four rates are measured with the
product's own matrix products and on the starter model, and stored per machine, with what 8 bits save.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from forelook.decoding.layout import causal_layout
from forelook.local.files import read_or_set_aside, write_atomically
from forelook.model.checkpoint import read_weights
from forelook.model.config import LlamaConfig, parse_config
from forelook.model.cpu_threads import ThreadGovernor
from forelook.model.device_file import device_key
from forelook.model.format_choice import LEAST_QUANTIZED_PARAMETERS
from forelook.model.forward.kernel_choice import PLAIN, kernel_choice, native_choice
from forelook.model.forward.layers import LlamaWeights
from forelook.model.forward.llama import LlamaSequence
from forelook.model.forward.native.library import native_kernels
from forelook.model.forward.projection import Projection
from forelook.model.loading import STARTER_MODEL_PATH
from forelook.model.matrix_formats import MatrixFormat, NativeFormat, PlainFormat
from forelook.model.memory import num_parameters

PROMPT_TOKENS = 512
"""Length of the cold prompt whose time is estimated."""

_FORMAT = 3
_INPUTS = 2048
# Some times what the caches of common machines have, in bytes. Chosen, not measured.
_LARGE_BYTES = 96 * 2**20
_PRODUCT_ROWS = 128  # enough to be bound by arithmetic; chosen, not measured
_STARTER_PROMPT_TOKENS = 256
_LEAST_SHARE = 0.1  # of a starter step, for what is not reading weights; chosen, not measured
_BUSY_SHARE = 0.75  # of the processors; chosen, not measured
_PART_S = 0.08  # time per rate; chosen, so that all of it takes less than a second


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a model would do on a machine, without drafts.

    Attributes:
        tokens_per_s: of plain decoding, one token per step; drafts make it faster.
        prompt_s: time of a cold prompt of :data:`PROMPT_TOKENS` tokens.
    """

    tokens_per_s: float
    prompt_s: float


@dataclass(frozen=True, slots=True)
class MachineSpeed:
    """The measured rates of a machine.

    Attributes:
        bytes_per_s: weights that a step of one token reads.
        flops_per_s: of the matrix products of a prompt.
        layer_s: cost of a layer in a step of one token, besides reading its weights.
        row_s: cost of a layer of a prompt, besides its matrix products, per token and hidden unit.
        device: the machine.
        dtype: of the weights.
        num_threads: torch's.
        int8_step_share: time of a step's products in 8 bits over that in ``dtype``, which large models run in where it
            is less than 1.
        measured_on: the date.
        was_busy: whether other programs used the machine, so that it may be faster.
    """

    bytes_per_s: float
    flops_per_s: float
    layer_s: float
    row_s: float
    device: str
    dtype: str
    num_threads: int
    int8_step_share: float
    measured_on: str
    was_busy: bool

    def weight_bytes(self, num_weights: int) -> int:
        """Bytes per weight of a model where the format is left to the machine."""
        return 1 if self._takes_int8(num_weights) else getattr(torch, self.dtype).itemsize

    def _takes_int8(self, num_weights: int) -> bool:
        return self.int8_step_share < 1.0 and num_weights >= LEAST_QUANTIZED_PARAMETERS

    def estimate(self, config: LlamaConfig) -> Estimate:
        """What a model of a shape would do."""
        width = getattr(torch, self.dtype).itemsize
        share = self.int8_step_share if self._takes_int8(num_parameters(config)) else 1.0
        step_s = step_parameters(config) * width / self.bytes_per_s * share + config.num_layers * self.layer_s
        products_s = _products_s(config, self.flops_per_s, PROMPT_TOKENS)
        return Estimate(1 / step_s, products_s + PROMPT_TOKENS * _row_units(config) * self.row_s)


def step_parameters(config: LlamaConfig) -> int:
    """Number of weights that a step of one token reads: all but an embedding that is not also the head."""
    return num_parameters(config) - (0 if config.tied_head else config.vocab_size * config.hidden_size)


def _products_s(config: LlamaConfig, flops_per_s: float, num_tokens: int) -> float:
    """Seconds of the matrix products of a prompt; the head is for its last token only."""
    layers = step_parameters(config) - config.vocab_size * config.hidden_size
    return 2 * num_tokens * layers / flops_per_s


def _row_units(config: LlamaConfig) -> int:
    return config.hidden_size * config.num_layers


def measure_speed(dtype: torch.dtype) -> MachineSpeed:
    """Measure the CPU of this machine, in less than a second.

    Of every duration the shortest counts: other programs only add to it.
    """
    was_busy = _is_busy()
    with torch.inference_mode():
        bytes_per_s, flops_per_s = _time_products(dtype)
        starter = _read_starter(dtype)
        config = starter.config
        step_s, prompt_s = _time_starter(starter)
        # The caches have the starter model's weights, or a part of them.
        read_s = _time_row(_matrix(step_parameters(config) * dtype.itemsize, dtype), dtype)
    return MachineSpeed(
        bytes_per_s=bytes_per_s,
        flops_per_s=flops_per_s,
        layer_s=max(step_s - read_s, _LEAST_SHARE * step_s) / config.num_layers,
        row_s=max(0.0, prompt_s - _products_s(config, flops_per_s, _STARTER_PROMPT_TOKENS))
        / (_STARTER_PROMPT_TOKENS * _row_units(config)),
        device=device_key(torch.device("cpu")),
        dtype=str(dtype).removeprefix("torch."),
        num_threads=torch.get_num_threads(),
        int8_step_share=_int8_step_share(dtype),
        measured_on=datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        was_busy=was_busy,
    )


def _is_busy() -> bool:
    """Whether other programs use so much of the processors that a measurement would be of them."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > _BUSY_SHARE * (os.cpu_count() or 1)


def _time_products(dtype: torch.dtype) -> tuple[float, float]:
    """Bytes of weights per second that a product with one row reads, and operations per second of one with many."""
    matrix = _matrix(_LARGE_BYTES, dtype)
    rows = torch.ones(_PRODUCT_ROWS, _INPUTS, dtype=dtype)
    num_operations = 2 * _PRODUCT_ROWS * _INPUTS * matrix.num_outputs
    return matrix.nbytes / _time_row(matrix, dtype), num_operations / _shortest_s(lambda: matrix(rows))


def _int8_step_share(dtype: torch.dtype) -> float:
    shape = (_INPUTS, _INPUTS)
    choice = kernel_choice("int8", shape, dtype, is_cold=True)
    int8_s, plain_s = choice.step_s, choice.plain_step_s
    native, floats = (native_choice(kind, shape, dtype, is_cold=True) for kind in ("int8", PLAIN))
    if native is not None and floats is not None:
        int8_s, plain_s = native.step_s, floats.step_s
    return min(1.0, sum(int8_s.values()) / sum(plain_s.values()))


def _format(dtype: torch.dtype) -> MatrixFormat:
    """How models that are not quantized keep their matrices here."""
    kernels = native_kernels().functions
    return PlainFormat(dtype) if kernels is None else NativeFormat(PLAIN, dtype, kernels)


def _matrix(num_bytes: int, dtype: torch.dtype) -> Projection:
    return Projection(_format(dtype).layer(torch.ones(num_bytes // _INPUTS // dtype.itemsize, _INPUTS, dtype=dtype)))


def _time_row(matrix: Projection, dtype: torch.dtype) -> float:
    """Seconds of a product with one row."""
    row = torch.ones(1, _INPUTS, dtype=dtype)
    return _shortest_s(lambda: matrix(row))


def _read_starter(dtype: torch.dtype) -> LlamaWeights:
    path = STARTER_MODEL_PATH / "config.json"
    config = parse_config(json.loads(path.read_text(encoding="utf-8")), str(path))
    cpu = torch.device("cpu")
    return read_weights(STARTER_MODEL_PATH, config, dtype, cpu, lambda _share: None, _format(dtype))


def _time_starter(weights: LlamaWeights) -> tuple[float, float]:
    """Seconds of a step of one token, and of a prompt."""
    sequence = LlamaSequence(weights, 2 * _STARTER_PROMPT_TOKENS, ThreadGovernor())
    prompt = causal_layout(list(range(16, 16 + _STARTER_PROMPT_TOKENS)), 0)

    def run_prompt() -> None:
        sequence.truncate(0)
        sequence.forward(prompt)

    prompt_s = _shortest_s(run_prompt)
    sequence.commit(range(_STARTER_PROMPT_TOKENS))
    step = causal_layout([16], _STARTER_PROMPT_TOKENS)
    return _shortest_s(lambda: sequence.forward(step)), prompt_s


def _shortest_s(work: Callable[[], object]) -> float:
    """The shortest duration in a fixed time; at least two runs, as the first one prepares kernels."""
    durations: list[float] = []
    end_s = time.perf_counter() + _PART_S
    while len(durations) < 2 or time.perf_counter() < end_s:
        started_s = time.perf_counter()
        work()
        durations.append(time.perf_counter() - started_s)
    return min(durations)


def machine_speed(dtype: torch.dtype, cache_dir: Path | None, *, remeasure: bool = False) -> MachineSpeed:
    """The speed of this machine, from the cache folder or else measured and stored there.

    A measurement on a busy machine is repeated the next time.

    Args:
        dtype: of the weights.
        cache_dir: folder to store it in; ``None`` to measure every time.
        remeasure: measure in any case.
    """
    text = f"{_FORMAT} {device_key(torch.device('cpu'))} {dtype} torch {torch.__version__}"
    path = None if cache_dir is None else cache_dir / f"speed-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    stored = None if path is None or remeasure else read_or_set_aside(path, _parse)
    if stored is not None and not stored.was_busy:
        return stored
    speed = measure_speed(dtype)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(speed), allow_nan=False))
    return speed


def _parse(data: bytes) -> MachineSpeed:
    speed = MachineSpeed(**json.loads(data))
    rates = (speed.bytes_per_s, speed.flops_per_s, speed.layer_s, speed.int8_step_share, speed.row_s)
    if not all(isinstance(rate, float) and math.isfinite(rate) and rate >= 0 for rate in rates) or not all(rates[:4]):
        raise ValueError("a rate that is no positive number")
    return speed
