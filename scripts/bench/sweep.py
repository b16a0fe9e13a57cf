"""The published method over a grid of W, N and G: step compression, speed-up and the paper's fit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.limits import Limits
from forelook.decoding.lookahead.published import PublishedDrafter, PublishedSettings
from forelook.decoding.lookahead.published_pool import PublishedPool
from forelook.decoding.loop import decode
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.model.forward.llama import LlamaSequence
from forelook.model.loading import LoadedModel

from bench.datasets import BenchPrompt, has_repetition
from bench.methods import Run, timed_run
from bench.turns import rotated, with_progress


@dataclass
class Setting:
    """One point of the grid and its counts."""

    window_size: int
    ngram_size: int
    max_candidates: int
    prompt_as_reference: bool
    warm_pool: bool
    num_tokens: int = 0
    num_steps: int = 0
    num_tail_tokens: int = 0
    speedups: list[float] = field(default_factory=list)

    @property
    def published(self) -> PublishedSettings:
        return PublishedSettings(self.window_size, self.ngram_size, self.max_candidates, self.prompt_as_reference)

    @property
    def compression(self) -> float:
        return self.num_tokens / self.num_steps if self.num_steps else math.nan

    @property
    def nominal_tail(self) -> int:
        """Tokens of a full published step: window and candidates; the current token is column 0 of the window."""
        return (self.window_size + self.max_candidates) * (self.ngram_size - 1)

    @property
    def mean_tail(self) -> float:
        return self.num_tail_tokens / self.num_steps if self.num_steps else math.nan

    @property
    def speedup(self) -> float:
        return float(np.median(self.speedups)) if self.speedups else math.nan

    def result(self) -> dict[str, Any]:
        content = asdict(self)
        del content["speedups"]
        return {
            **content,
            "step_compression": round(self.compression, 4),
            "speedup": round(self.speedup, 4) if self.speedups else None,
            "nominal_tail_tokens": self.nominal_tail,
            "mean_tail_tokens": round(self.mean_tail, 2),
        }


class CountedSequence:
    """A sequence that counts the tail tokens it runs."""

    def __init__(self, sequence: LlamaSequence) -> None:
        self._sequence = sequence
        self.num_tail_tokens = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sequence, name)

    def forward(self, layout: Any) -> torch.Tensor:
        self.num_tail_tokens += len(layout)
        return self._sequence.forward(layout)


def expected_accepted(alpha: float, gamma: int, width: int) -> float:
    """Return the expected tokens of a step with ``width`` drafts of ``gamma`` tokens and acceptance ``alpha``."""
    return (gamma + 1) - sum((1.0 - alpha**index) ** width for index in range(1, gamma + 1))


def fit(settings: Sequence[Setting]) -> dict[str, float] | None:
    """Return the α and f that fit the settings with W = G best, by least squares over a grid."""
    points = [(s.ngram_size - 1, s.window_size, s.compression) for s in settings if s.window_size == s.max_candidates]
    if len(points) < 3:
        return None
    wanted = np.array([compression for _, _, compression in points])
    alphas, steps = np.linspace(0.02, 0.98, 97), np.linspace(1.0, 20.0, 191)
    expected = np.array([[expected_accepted(alpha, gamma, width) for gamma, width, _ in points] for alpha in alphas])
    f = steps[None, :, None]
    errors = (((f - 1 + expected[:, None]) / f - wanted) ** 2).mean(axis=2)
    place = np.unravel_index(errors.argmin(), errors.shape)
    return {
        "alpha": round(float(alphas[place[0]]), 3),
        "f": round(float(steps[place[1]]), 2),
        "rmse": round(math.sqrt(errors[place]), 4),
    }


def group(settings: Sequence[Setting]) -> dict[str, list[Setting]]:
    """Return the settings by prompt reference and pool."""
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        reference = "prompt as reference" if setting.prompt_as_reference else "no reference"
        pool = "warm pool" if setting.warm_pool else "cold pool"
        groups.setdefault(f"{reference}, {pool}", []).append(setting)
    return groups


def sweep(
    model: LoadedModel,
    prompts: list[BenchPrompt],
    settings: list[Setting],
    max_new_tokens: int,
    *,
    is_timed: bool = True,
    seconds: float = math.inf,
) -> Iterator[int]:
    """Run every setting on every prompt, and yield after each prompt how many outputs have differed so far.

    Args:
        model: what to run.
        prompts: what to continue.
        settings: points of the grid; they collect their counts.
        max_new_tokens: per prompt.
        is_timed: whether autoregressive decoding takes turns with them, for the speed-up.
        seconds: start no prompt after this time.
    """
    deadline = time.monotonic() + seconds
    sequence = model.new_sequence()
    limits = Limits(max_new_tokens, model.stop_token_ids)
    boundaries = frozenset(model.tokenizer.special_ids)
    pools = {id(s): PublishedPool(s.ngram_size, s.max_candidates) for s in settings if s.warm_pool}

    def run_plain(prompt: BenchPrompt) -> Run:
        request = DecodeRequest(prompt.prompt_ids, limits)
        return timed_run(sequence, lambda stats: autoregressive(request, sequence, stats))

    def run_published(prompt: BenchPrompt, setting: Setting) -> Run:
        request = DecodeRequest(prompt.prompt_ids, limits, boundary_ids=boundaries)
        counted, pool = CountedSequence(sequence), pools.get(id(setting))

        def start(stats: DecodingStats) -> Iterator[list[int]]:
            return decode(request, counted, PublishedDrafter(request, setting.published, pool), stats)

        run = timed_run(counted, start)
        setting.num_tokens += len(run.token_ids)
        setting.num_steps += run.num_steps
        setting.num_tail_tokens += counted.num_tail_tokens - len(prompt.prompt_ids) + 1
        return run

    if is_timed:
        run_plain(prompts[0])  # warm-up
    num_different = 0
    for number, prompt in enumerate(with_progress(prompts, "sweep")):
        if time.monotonic() > deadline:
            return
        for index, setting in enumerate(rotated(settings, number * 7)):
            if index == 0 or (is_timed and index % 16 == 0):  # repeatedly, so that a slow moment hits both sides
                expected = run_plain(prompt)
            run = run_published(prompt, setting)
            num_different += run.token_ids != expected.token_ids
            if run.token_ids and is_timed:
                setting.speedups.append(expected.ms_per_token / run.ms_per_token)
        yield num_different


def clean_prompts(model: LoadedModel, prompts: list[BenchPrompt], max_new_tokens: int) -> list[BenchPrompt]:
    """Return the prompts whose output does not loop: small models loop, which flatters every setting."""
    sequence, limits = model.new_sequence(), Limits(max_new_tokens, model.stop_token_ids)
    outputs = (autoregressive(DecodeRequest(prompt.prompt_ids, limits), sequence) for prompt in prompts)
    return [
        prompt
        for prompt, output in zip(prompts, outputs, strict=True)
        if not has_repetition([token for tokens in output for token in tokens])
    ]
