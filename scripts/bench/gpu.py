"""Measurements of the GPU benchmark; times are medians of steps that end with the chosen tokens on the host."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.costs import StepCostEstimate
from forelook.decoding.drafting.tree_drafter import TreeDrafter
from forelook.decoding.layout import StepLayout, causal_layout
from forelook.decoding.limits import Limits
from forelook.decoding.loop import decode
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.model.forward.cuda_graphs import CudaGraphs
from forelook.model.forward.layers import LlamaWeights
from forelook.model.forward.static_step import BucketedSequence, run_as_it_is
from forelook.model.forward.step_attention import step_attention_choices
from forelook.model.step_costs import estimated_costs
from forelook.text import common_prefix

from bench.gpu_model import Plan, new_sequence, read_bytes
from bench.methods import timed_run
from bench.steps import branched_layout, fill, hf_step, random_ids
from bench.summary import medians_ms
from bench.turns import Step, compare_steps


def step_medians_ms(plan: Plan, steps: dict[str, Step]) -> dict[str, float]:
    return medians_ms(compare_steps(steps, plan.repeats, plan.synchronize))


def device_ms(plan: Plan, step: Step) -> float:
    """Return the median time of a step on the device, between events; on a CPU its wall time."""
    if plan.device.type != "cuda":
        return step_medians_ms(plan, {"step": step})["step"]
    times = []
    for _ in range(plan.repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        step()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def copy_bandwidth(plan: Plan) -> float:
    """Return the bytes per second that a plain copy reads and writes."""
    source = torch.empty(plan.copy_bytes, dtype=torch.uint8, device=plan.device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * plan.copy_bytes / (device_ms(plan, lambda: target.copy_(source)) * 1e-3)


def our_step(sequence: BucketedSequence, layout: StepLayout) -> Step:
    return lambda: sequence.forward(layout).argmax(dim=-1).tolist()


def measure_grid(plan: Plan, weights: LlamaWeights, bandwidth: float, prefixes: Sequence[int]) -> list[dict[str, Any]]:
    """Return step times by prefix and tail, captured and not, with the bandwidth floor."""
    room = max(*plan.prefixes, plan.long_prefix) + plan.tails[-1]
    captured = new_sequence(plan, weights, captured=True, capacity=room)
    uncaptured = new_sequence(plan, weights, captured=False, capacity=room)
    rows = []
    for prefix in prefixes:
        for sequence in (captured, uncaptured):
            fill(sequence, random_ids(prefix, plan.config.vocab_size))
        for tail in plan.tails:
            layout = branched_layout(tail, prefix, weights.config.vocab_size)
            steps = {"captured": our_step(captured, layout), "uncaptured": our_step(uncaptured, layout)}
            medians = step_medians_ms(plan, steps)
            floor_ms = read_bytes(weights, prefix) / bandwidth * 1e3
            rows.append({"prefix": prefix, "tail": tail, "floor_ms": floor_ms, **medians})
            rows[-1]["over_floor"] = medians["captured"] / floor_ms
    return rows


def measure_host_gap(plan: Plan, weights: LlamaWeights) -> dict[str, float]:
    """Return the time between the device's work of two steps in a real loop that chooses and commits."""
    count = 8 if plan.smoke else 64
    sequence = new_sequence(plan, weights, captured=True, capacity=plan.prefix + count + 16)
    fill(sequence, random_ids(plan.prefix, plan.config.vocab_size))
    layout = causal_layout([5], plan.prefix)
    our_step(sequence, layout)()
    queued = 2 if plan.smoke else 20

    def replay() -> None:  # many in a row, so that the device never waits for the host
        for _ in range(queued):
            sequence.repeat_step(1, 1)

    on_device = device_ms(plan, replay) / queued
    plan.synchronize()
    token, started_s = 5, time.perf_counter()
    for index in range(count):
        token = sequence.forward(causal_layout([token], plan.prefix + index)).argmax(dim=-1).tolist()[0]
        sequence.commit([0])
    wall = (time.perf_counter() - started_s) * 1e3 / count
    return {"step_wall_ms": wall, "step_device_ms": on_device, "host_gap_ms": wall - on_device}


def measure_attention(plan: Plan, weights: LlamaWeights) -> list[dict[str, Any]]:
    """Return the time of every attention: alone, and in the same captured step, over a cache of minimal length."""
    prefix, tail, config = plan.long_prefix, min(64, plan.tails[-1]), weights.config
    layout = branched_layout(tail, prefix, config.vocab_size)
    rows: list[dict[str, Any]] = []
    steps: dict[str, Step] = {}
    generator = torch.Generator(device=plan.device).manual_seed(2)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=plan.device).to(weights.kv_dtype)

    queries = random(tail, config.num_heads, config.head_size)
    cache = random(2 * config.num_kv_heads, prefix + tail, config.head_size)
    length = torch.tensor([prefix], dtype=torch.int32, device=plan.device)
    visible = torch.from_numpy(np.tri(tail, dtype=np.bool_)).to(plan.device)
    for choice in step_attention_choices(plan.device, plan.dtype, config.head_size):
        row: dict[str, Any] = {"name": choice.name, "reason": choice.reason}
        rows.append(row)
        if choice.attend is None:
            continue
        try:
            with torch.inference_mode():
                prepare = CudaGraphs(plan.device) if plan.device.type == "cuda" else run_as_it_is
                alone = prepare(partial(choice.attend, queries, cache, length, visible, 0.1))
                row["attention_ms"] = device_ms(plan, alone)
                sequence = new_sequence(plan, weights, captured=True, capacity=prefix + tail, attend=choice.attend)
                fill(sequence, random_ids(prefix, plan.config.vocab_size))
                step = our_step(sequence, layout)
                step()
        except Exception as error:  # noqa: BLE001 - a backend that fails must not cost the others' figures
            row["reason"] = f"fails: {type(error).__name__}: {str(error)[:120]}"
            continue
        steps[choice.name] = step
    medians = step_medians_ms(plan, steps)
    for row in rows:
        row["step_ms"] = medians.get(row["name"])
    return rows


def measure_transformers(plan: Plan, weights: LlamaWeights, attention: str) -> dict[str, float | str]:
    """Return the time of one token after the same prefix, transformers' forward and ours in turns.

    Args:
        plan: prefix and repeats.
        weights: ours.
        attention: transformers' name of its implementation.
    """
    try:
        model = _their_model(plan, attention)
    except (ImportError, ValueError) as error:
        return {f"HF {attention}": f"not available: {str(error)[:80]}"}
    prefix_ids, one, ours = _one_token(plan, weights)

    def run(ids: torch.Tensor, **options: Any) -> None:
        model(ids, **options).logits.argmax(dim=-1).tolist()

    with torch.inference_mode():
        medians = step_medians_ms(plan, {"theirs": hf_step(run, prefix_ids, one), "ours": ours})
    return {f"HF {attention}": medians["theirs"], f"ours next to HF {attention}": medians["ours"]}


def _their_model(plan: Plan, attention: str) -> Any:
    import transformers

    fields = {key: value for key, value in plan.raw.items() if key not in ("model_type", "rope_theta")}
    config = transformers.LlamaConfig(**fields, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    with torch.device(plan.device):
        return transformers.AutoModelForCausalLM.from_config(
            config, dtype=plan.dtype, attn_implementation=attention
        ).eval()


def _one_token(plan: Plan, weights: LlamaWeights) -> tuple[torch.Tensor, torch.Tensor, Step]:
    """Return the prefix, one token, and our step of that token after that prefix."""
    ids = random_ids(plan.prefix, plan.config.vocab_size)
    sequence = new_sequence(plan, weights, captured=True, capacity=plan.prefix + 16)
    fill(sequence, ids)
    ours = our_step(sequence, causal_layout([5], plan.prefix))
    return torch.tensor([ids], device=plan.device), torch.tensor([[5]], device=plan.device), ours


def measure_compiled_transformers(plan: Plan, weights: LlamaWeights) -> dict[str, float | str]:
    """Return the same for transformers' static cache, compiled for low overhead as its documentation says."""
    from transformers import StaticCache

    model = _their_model(plan, "sdpa")
    prefix_ids, one, ours = _one_token(plan, weights)
    with torch.no_grad():
        cache = StaticCache(config=model.config, max_cache_len=plan.prefix + 16)
        model(prefix_ids, past_key_values=cache)
        how = {"backend": "eager"} if plan.smoke else {"mode": "reduce-overhead", "fullgraph": True}
        compiled = torch.compile(model.forward, **how)
        position = torch.tensor([[plan.prefix]], device=plan.device)

        def step() -> None:
            # Always the same slot: a static cache counts its steps and is reset here.
            compiled(one, past_key_values=cache, position_ids=position).logits.argmax(dim=-1).tolist()
            for layer in cache.layers:
                if isinstance(getattr(layer, "cumulative_length", None), torch.Tensor):
                    layer.cumulative_length.fill_(plan.prefix)
                elif hasattr(layer, "cumulative_length"):
                    layer.cumulative_length = plan.prefix

        medians = step_medians_ms(plan, {"theirs": step, "ours": ours})
    return {"HF compiled, static cache": medians["theirs"], "ours next to HF compiled": medians["ours"]}


def measure_generation(plan: Plan, weights: LlamaWeights) -> dict[str, Any]:
    """Return tokens per second after a prompt, autoregressive and with lookahead; outputs agree up to near ties."""
    room = plan.prefix + plan.num_new_tokens + 256
    sequence = new_sequence(plan, weights, captured=True, capacity=room)
    budget = StepBudget(StepCostEstimate(estimated_costs(weights)))
    prompt = random_ids(plan.prefix, plan.config.vocab_size)
    request = DecodeRequest(prompt, Limits(plan.num_new_tokens))
    starts: dict[str, Callable[[DecodingStats], Iterator[list[int]]]] = {
        "autoregressive": lambda stats: autoregressive(request, sequence, stats),
        "lookahead": lambda stats: decode(request, sequence, TreeDrafter(request, sequence, budget=budget), stats),
    }
    results: dict[str, Any] = {}
    outputs: dict[str, tuple[int, ...]] = {}
    for name, start in starts.items():
        timed_run(sequence, start)  # captures
        run = timed_run(sequence, start)
        outputs[name] = run.token_ids
        decode_s = max(run.total_s - run.first_s, 1e-9)
        results[name] = {
            "tokens_per_s": len(run.token_ids) / run.total_s,
            "decode_tokens_per_s": max(0, len(run.token_ids) - 1) / decode_s,
            "tokens_per_step": len(run.token_ids) / run.num_steps,
        }
    return {**results, "common_tokens": common_prefix(outputs["autoregressive"], outputs["lookahead"])}
