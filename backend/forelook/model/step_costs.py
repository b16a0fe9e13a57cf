"""Cost of a decode step on this device, measured once and stored per device, model and dtype."""

from __future__ import annotations

import hashlib
import io
import json
import math
import platform
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch

from forelook.decoding.drafting.budget import StepBudget, StepCosts
from forelook.decoding.drafting.sources.successors import SuccessorSeeds, measure_successor_seeds
from forelook.decoding.layout import StepModel, lay_out
from forelook.local.files import read_or_set_aside, write_atomically

_FORMAT = 3
# Measured step sizes in tokens, and the longer of two prefixes. Chosen, not measured.
_SIZES = (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64)
_LONG_PREFIX = 768
_MAX_DRAFTS_ON_CPU = 12
"""Measured on non-repetitive prompts: at most 48 drafts gave 1.62 times the speed of plain decoding, at most 11 gave
1.71. On a CPU the cost of a step rises from the first token on."""


def device_key(device: torch.device) -> str:
    """Identifies a device and its speed: its name and, for a CPU, the number of threads."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()} {_cpu_name()} x{torch.get_num_threads()}"


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "cpu"


def measured_budget(costs: StepCosts, device: torch.device) -> StepBudget:
    """The budget of a device whose step costs were measured."""
    return StepBudget(costs, max_draft_tokens=_MAX_DRAFTS_ON_CPU) if device.type == "cpu" else StepBudget(costs)


def measure_step_costs(model: StepModel, *, repeats: int = 12) -> StepCosts:
    """Time steps of several sizes on a short and on a long prefix; leaves the model's cache empty.

    Each step is laid out as a tree and run, and its argmax is copied to the host, as in decoding. Sizes alternate in
    random order, so that load from other programs affects all of them, and the lower quartile is used because such load
    only adds time. Work similar to drafting precedes each step: without it, a step of eight tokens measured 0.24 ms
    more than a plain one, but 0.7 ms more in decoding.
    """
    room = model.max_positions
    sizes = tuple(size for size in _SIZES if size + 8 <= room)
    long_prefix = min(_LONG_PREFIX, room - sizes[-1])
    seconds = {
        length: _time_steps(model, sizes, length, repeats) for length in (min(64, long_prefix // 2), long_prefix)
    }
    model.truncate(0)
    (short, at_short), (long, at_long) = seconds.items()
    slopes = tuple(
        max(0.0, (far - near) / (long - short)) if long > short else 0.0
        for near, far in zip(at_short, at_long, strict=True)
    )
    fixed = tuple(max(near - slope * short, near * 0.5) for near, slope in zip(at_short, slopes, strict=True))
    return StepCosts(sizes, fixed, slopes)


def _time_steps(model: StepModel, sizes: tuple[int, ...], num_cached: int, repeats: int) -> list[float]:
    model.truncate(0)
    cached = 0
    while cached < num_cached:
        count = min(128, num_cached - cached)
        model.forward(lay_out([0] * count, cached))
        model.commit(range(count))
        cached += count
    times: dict[int, list[float]] = {size: [] for size in sizes}
    order = np.random.default_rng(0)
    table: dict[int, list[int]] = {}
    for repeat in range(repeats + 2):
        for size in order.permutation(sizes).tolist():
            _work_as_drafting_does(table)
            started_s = time.perf_counter()
            # two branches, so that the step needs a mask, like most steps with drafts
            layout = lay_out([0], num_cached, [0] * (size - 1), [max(0, node - 1) for node in range(size - 1)])
            model.forward(layout).argmax(dim=-1).tolist()
            if repeat >= 2:  # the first rounds warm up caches and kernels
                times[size].append(time.perf_counter() - started_s)
    return [float(np.percentile(times[size], 25)) for size in sizes]


def _work_as_drafting_does(table: dict[int, list[int]]) -> None:
    """About 0.3 ms of dictionary and list operations, after which caches are colder than between consecutive steps."""
    for number in range(2000):
        table[number * 7919 % 8192] = [number, number + 1]


def step_costs(
    model: StepModel,
    *,
    cache_dir: Path | None,
    fingerprint: str,
    device: torch.device,
    dtype: torch.dtype,
    may_measure: bool = True,
) -> StepCosts | None:
    """The device's step costs, from the cache folder or else measured and stored there.

    Args:
        model: an idle sequence to measure on; its cache is emptied.
        cache_dir: folder to store them in; ``None`` to measure every time.
        fingerprint: of the model.
        device: of the model.
        dtype: of its weights.
        may_measure: whether to measure if none are stored; otherwise the result is ``None``.
    """
    text = f"{_FORMAT} {fingerprint} {device_key(device)} {dtype} torch {torch.__version__}"
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    path = None if cache_dir is None else cache_dir / f"step-costs-{key}.json"
    costs = None if path is None else read_or_set_aside(path, _parse_costs)
    if costs is None and may_measure:
        costs = measure_step_costs(model)
        if path is not None:
            content = {"format": _FORMAT, "device": device_key(device), "dtype": str(dtype), **asdict(costs)}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(content, allow_nan=False))
    return costs


def successor_seeds(
    model: StepModel, start_ids: list[int], *, cache_dir: Path | None, fingerprint: str
) -> SuccessorSeeds:
    """The model's successors of single tokens, from the cache folder or else computed and stored there.

    Args:
        model: an idle sequence; its cache is emptied.
        start_ids: ids that start every prompt.
        cache_dir: folder to store them in; ``None`` to compute them every time.
        fingerprint: of the model.
    """
    name = hashlib.sha256(f"{_FORMAT} {fingerprint} {start_ids}".encode()).hexdigest()[:24]
    path = None if cache_dir is None else cache_dir / f"successors-{name}.npz"
    if path is not None:
        stored = read_or_set_aside(path, partial(_parse_seeds, vocab_size=model.vocab_size))
        if stored is not None:
            return stored
    seeds = measure_successor_seeds(model, start_ids)
    if path is not None:
        _write_seeds(path, seeds)
    return seeds


def _parse_costs(data: bytes) -> StepCosts:
    content = json.loads(data)
    seconds = [tuple(float(value) for value in content[name]) for name in ("seconds", "seconds_per_cached")]
    if not all(math.isfinite(value) for values in seconds for value in values):
        raise ValueError("a cost that is not finite")
    return StepCosts(tuple(int(size) for size in content["sizes"]), *seconds)


def _parse_seeds(data: bytes, vocab_size: int) -> SuccessorSeeds:
    with np.load(io.BytesIO(data), allow_pickle=False) as content:
        seeds = SuccessorSeeds(content["token_ids"].astype(np.int64), content["probabilities"].astype(np.float32))
    ids = seeds.token_ids
    if len(ids) != vocab_size or ids.min() < 0 or ids.max() >= vocab_size:
        raise ValueError("seeds of another vocabulary")
    return seeds


def _write_seeds(path: Path, seeds: SuccessorSeeds) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, token_ids=seeds.token_ids.astype(np.int32), probabilities=seeds.probabilities.astype(np.float16)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
