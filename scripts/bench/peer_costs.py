"""What a step of T tokens and a prompt cost Forelook, transformers and llama.cpp, in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.limits import Limits
from forelook.decoding.request import DecodeRequest
from forelook.model.forward.llama import LlamaSequence

from bench.llama_server import SPECULATION
from bench.peers import Contestants, PeerPlan
from bench.steps import branched_layout, fill, hf_branched_step, random_ids
from bench.turns import step_times, take_turns, timed

_STEPS_PER_TURN = 5
_READ_BYTES = 384 * 2**20  # more than any cache; chosen, not measured

Turn = Callable[[], Sequence[float]]


def measure_costs(plan: PeerPlan, found: Contestants) -> dict[str, Any]:
    """Return milliseconds per step by tail, tokens per second of prompts by length, and the time to read the weights.

    Forelook and transformers compute the logits of every row of a step, as a verification needs them, llama.cpp's
    server those of the last row only.
    """
    vocab_size = found.prompts_model.config.vocab_size
    prefix = random_ids(plan.step_prefix, vocab_size)
    prompts = {length: random_ids(length, vocab_size, seed=1) for length in plan.prefills}
    steps: dict[tuple[str, int], Turn] = {}
    prefills: dict[tuple[str, int], Turn] = {}
    for form, model in found.ours.items():
        sequence = model.new_sequence()
        for tail in plan.tails:
            steps[f"forelook_{form}", tail] = _our_steps(sequence, prefix, tail)
        for length, ids in prompts.items():
            prefills[f"forelook_{form}", length] = _our_prefill(sequence, ids)
    if found.transformers is not None:
        for tail in plan.tails:
            step = hf_branched_step(found.transformers, prefix, tail)
            steps["hf_greedy", tail] = partial(step_times, step, _STEPS_PER_TURN)
        for length, ids in prompts.items():
            prefills["hf_greedy", length] = _their_prefill(found.transformers, ids)
    for name, server in found.servers.items():
        if name.endswith(tuple(SPECULATION)):
            continue  # the same weights and kernels as the plain one
        for tail in plan.tails:
            ids = random_ids(tail, vocab_size, seed=2)
            steps[name, tail] = lambda server=server, ids=ids: [server.step_s(prefix, ids)]  # type: ignore[misc]
        for length, ids in prompts.items():
            prefills[name, length] = lambda server=server, ids=ids: [server.prefill_s(ids)]  # type: ignore[misc]
    read: dict[tuple[str, int], Turn] = {("read", 0): _Reader()}
    with torch.inference_mode():
        step_s = _taken(steps | read, plan.rounds)
        prefill_s = _taken(prefills, max(1, plan.rounds // 2))
    bytes_per_s = _READ_BYTES / min(step_s.pop(("read", 0)))
    return {
        "steps": _by_name({key: round(1e3 * statistics.median(times), 3) for key, times in step_s.items()}),
        "prefill": _by_name({key: round(key[1] / statistics.median(times), 1) for key, times in prefill_s.items()}),
        "read_gb_per_s": round(bytes_per_s / 1e9, 1),
        "read_weights_ms": {
            f"forelook_{form}": round(1e3 * model.weights.nbytes / bytes_per_s, 3) for form, model in found.ours.items()
        },
    }


def _taken(turns: Mapping[tuple[str, int], Turn], rounds: int) -> dict[tuple[str, int], list[float]]:
    named = {f"{name}/{size}": turn for (name, size), turn in turns.items()}
    taken = take_turns(named, rounds)
    return {key: taken[f"{key[0]}/{key[1]}"] for key in turns}


def _by_name(values: Mapping[tuple[str, int], float]) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for (name, size), value in values.items():
        table.setdefault(name, {})[str(size)] = value
    return table


def _our_steps(sequence: LlamaSequence, prefix: Sequence[int], tail: int) -> Turn:
    layout = branched_layout(tail, len(prefix), sequence.vocab_size)

    def turn() -> Sequence[float]:
        if list(sequence.cached_ids) != list(prefix):
            fill(sequence, prefix)
        return step_times(lambda: sequence.forward(layout), _STEPS_PER_TURN)

    return turn


def _our_prefill(sequence: LlamaSequence, ids: Sequence[int]) -> Turn:
    """To the first token, as a request has it."""

    def turn() -> Sequence[float]:
        sequence.truncate(0)
        return [timed(lambda: list(autoregressive(DecodeRequest(ids, Limits(1)), sequence)))[1]]

    return turn


def _their_prefill(model: torch.nn.Module, ids: Sequence[int]) -> Turn:
    tensor = torch.tensor([list(ids)])
    return lambda: [timed(lambda: model(tensor, logits_to_keep=1))[1]]


class _Reader:
    """Reads memory that is in no cache, on all threads."""

    def __init__(self) -> None:
        self._data = torch.ones(_READ_BYTES // 4)

    def __call__(self) -> Sequence[float]:
        return [timed(self._data.sum)[1] for _ in range(3)]
