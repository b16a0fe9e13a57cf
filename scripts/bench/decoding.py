"""Comparison of decoding methods: runs in turns, divergences from greedy output, and the figures of a report."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from forelook.decoding.layout import StepModel, causal_layout
from forelook.model.loading import LoadedModel, load_model
from forelook.text import common_prefix

from bench.datasets import BenchPrompt, has_repetition
from bench.methods import Method, Run
from bench.results import public_name
from bench.summary import median_interval, rounded_percentile
from bench.turns import rotated, with_progress

PAIRS = (
    ("autoregressive", "hf_greedy"),
    ("lookahead_published", "autoregressive"),
    ("forelook", "autoregressive"),
    ("forelook_warm", "autoregressive"),
    ("forelook", "hf_prompt_lookup"),
    ("forelook", "hf_greedy"),
    ("forelook", "lookahead_published"),
)
GOLDEN = (5**0.5 - 1) / 2


@dataclass
class Comparison:
    """All runs of one data set on one model."""

    dataset: str
    model: str
    device: str
    dtype: str
    prompts: list[BenchPrompt] = field(default_factory=list)
    runs: dict[str, list[Run]] = field(default_factory=dict)
    divergences: list[dict[str, Any]] = field(default_factory=list)

    @property
    def clean(self) -> list[int]:
        """Indices of the prompts whose output does not loop: the autoregressive one, or without it the first."""
        reference = self.runs.get("autoregressive") or next(iter(self.runs.values()))
        return [index for index, run in enumerate(reference) if not has_repetition(run.token_ids)]


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        seconds: time limit. Prompts then run in a scattered order until it is reached, so that those left out are not
            the last ones of the data set.
        warms_up: whether each method first runs once without being counted; only times need that.
    """

    seconds: float | None = None
    warms_up: bool = True


def compare(
    dataset: str, model: LoadedModel, prompts: list[BenchPrompt], methods: dict[str, Method], effort: Effort
) -> Comparison:
    """Run every method on every prompt, in turns."""
    result = Comparison(dataset, model.name, str(model.device), str(model.dtype).removeprefix("torch."))
    if effort.seconds is not None:
        prompts = [prompts[index] for index in sorted(range(len(prompts)), key=lambda index: index * GOLDEN % 1.0)]
    result.runs = {name: [] for name in methods}
    for method in methods.values() if effort.warms_up else ():
        method(prompts[0])
    deadline = time.monotonic() + (math.inf if effort.seconds is None else effort.seconds)
    for index, prompt in enumerate(with_progress(prompts, dataset)):
        if time.monotonic() > deadline:
            break
        result.prompts.append(prompt)
        for name in rotated(list(methods), index):
            result.runs[name].append(methods[name](prompt))
    return result


def find_divergences(result: Comparison, source: str | None) -> None:
    """Record outputs that differ from the autoregressive one, with the float64 margin of the top two tokens there."""
    oracle: StepModel | None = None
    for name, runs in result.runs.items():
        if name == "autoregressive" or "autoregressive" not in result.runs:
            continue
        for prompt, run, expected in zip(result.prompts, runs, result.runs["autoregressive"], strict=True):
            if run.token_ids == expected.token_ids:
                continue
            place = common_prefix(run.token_ids, expected.token_ids)
            if oracle is None:
                oracle = load_model(source, device="cpu", dtype="float64").new_sequence()
            oracle.truncate(0)
            layout = causal_layout([*prompt.prompt_ids, *expected.token_ids[:place]], 0)
            top = oracle.forward(layout)[0].topk(2).values
            row = {"prompt": prompt.name, "method": name, "position": place}
            result.divergences.append({**row, "float64_margin": float(top[0] - top[1])})


def summarize(result: Comparison, kept: Sequence[int]) -> dict[str, Any]:
    """Return the figures over the prompts with these indices."""
    methods: dict[str, Any] = {}
    for name, all_runs in result.runs.items():
        runs = [all_runs[index] for index in kept]
        tokens = sum(len(run.token_ids) for run in runs)
        if not tokens:
            continue
        total = sum(run.total_s for run in runs)
        decode_tokens = sum(max(0, len(run.token_ids) - 1) for run in runs)
        decode = sum(run.total_s - run.first_s for run in runs)
        steps = sum(run.num_steps for run in runs)
        per_token = [run.ms_per_token for run in runs if run.token_ids]
        figures: dict[str, Any] = {
            "tokens_per_s": round(tokens / total, 1),
            "ms_per_token_p50": rounded_percentile(per_token, 50, 3),
            "ms_per_token_p95": rounded_percentile(per_token, 95, 3),
            "tokens_per_step": round(tokens / steps, 3),
            "ms_per_step": round(1e3 * total / steps, 3),
            "decode_tokens_per_s": round(decode_tokens / decode, 1) if decode > 0 else None,
            "ttft_ms_p50": rounded_percentile([1e3 * run.first_s for run in runs], 50),
        }
        if "autoregressive" in result.runs:
            same = [all_runs[i].token_ids == result.runs["autoregressive"][i].token_ids for i in kept]
            figures["identical_share"] = round(sum(same) / len(same), 4)
        if all(run.host_s is not None for run in runs):
            host = [1e3 * run.host_s / run.num_steps for run in runs if run.host_s is not None and run.num_steps]
            figures["host_ms_per_step_p50"] = rounded_percentile(host, 50, 3)
        methods[name] = figures
    ratios: dict[str, Any] = {}
    for fast, slow in PAIRS:
        if fast not in methods or slow not in methods:
            continue
        pairs = [(result.runs[fast][index], result.runs[slow][index]) for index in kept]
        pairs = [(left, right) for left, right in pairs if left.token_ids and right.token_ids]
        decode_ratios = []
        for left, right in pairs:
            left_ms, right_ms = left.decode_ms_per_token, right.decode_ms_per_token
            # An output complete after the first forward has no decode time to compare.
            if left_ms is not None and right_ms is not None and left_ms > 0:
                decode_ratios.append(right_ms / left_ms)
        ratios[f"{fast}/{slow}"] = {
            "end_to_end": median_interval([right.ms_per_token / left.ms_per_token for left, right in pairs]),
            "decode": median_interval(decode_ratios),
        }
    return {"num_prompts": len(kept), "methods": methods, "ratios": ratios}


def report(result: Comparison) -> dict[str, Any]:
    """Return the figures of one data set on one model, over all prompts and over the clean ones."""
    return {
        "dataset": public_name(result.dataset),
        "model": public_name(result.model),
        "device": result.device,
        "dtype": result.dtype,
        **summarize(result, range(len(result.prompts))),
        "clean": summarize(result, result.clean),
        "divergences": result.divergences,
    }
