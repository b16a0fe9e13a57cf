"""Forelook's drafts with and without a lookahead window: on devices whose step costs are simulated, and on this one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from forelook.completion.engine.drafting import restore_drafting
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.costs import StepCosts
from forelook.decoding.drafting.drafter import Drafter, StepPlan, StepRows, StepState
from forelook.decoding.drafting.tree_drafter import DraftMemory, TreeDrafter
from forelook.decoding.layout import StepModel
from forelook.decoding.limits import Limits
from forelook.decoding.lookahead.filler import WindowYield, WindowYields, unknown_yields
from forelook.decoding.loop import decode
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.decoding.verification import Verified
from forelook.model.loading import LoadedModel

from bench.datasets import BenchPrompt, has_repetition
from bench.summary import mean, median_interval
from bench.turns import rotated, with_progress

PLAIN_STEP_S = 0.02
"""A simulated device's step of one token. Only ratios of costs matter, but second choices want 8 ms."""

MAX_TOKENS = 1024  # beyond any step's


class FixedYield(WindowYield):
    """A window's yield that no step changes: 0 keeps the window shut, 1 open."""

    def __init__(self, per_token: float) -> None:
        super().__init__()
        self._fixed = per_token

    @property
    def per_token(self) -> float:
        return self._fixed

    def observe(self, num_window_tokens: int, num_accepted: int) -> None:
        """Learn nothing."""


def yields_of(variant: str) -> WindowYields:
    """What a variant believes of windows: ``shut``, ``open``, or ``auto``, which learns as the product does."""
    unknown = unknown_yields()
    if variant == "auto":
        return unknown
    return {ngram_size: FixedYield({"shut": 0.0, "open": 1.0}[variant]) for ngram_size in unknown}


VARIANTS = ("shut", "auto", "open")


def simulated_costs(slope: float) -> StepCosts:
    """A device on which each token beyond the first adds ``slope`` of a plain step."""
    return StepCosts((1, MAX_TOKENS), (PLAIN_STEP_S, PLAIN_STEP_S * (1.0 + slope * (MAX_TOKENS - 1))), (0.0, 0.0))


@dataclass
class Counts:
    """One prompt's steps, but for the prompt's own.

    Attributes:
        token_ids: the output.
        num_tokens: of these steps.
        num_steps: all of them, ``num_open`` with a window.
        num_drafts: in all of them, ``num_drafts_open`` in those with a window.
        num_window: tokens of windows.
        cost: of the steps, in plain ones.
        decode_s: what they took here.
    """

    token_ids: list[int] = field(default_factory=list)
    num_tokens: int = 0
    num_steps: int = 0
    num_open: int = 0
    num_drafts: int = 0
    num_drafts_open: int = 0
    num_window: int = 0
    cost: float = 0.0
    decode_s: float = 0.0


class CountingDrafter:
    """A drafter whose planned steps are counted, each at what the device is said to take for its tokens."""

    recipe = None

    def __init__(self, inner: Drafter, counts: Counts, cost_of: Callable[[int], float]) -> None:
        self._inner, self._counts, self._cost_of = inner, counts, cost_of
        self._planned: StepPlan | None = None

    @property
    def num_choices(self) -> int:
        return self._inner.num_choices

    def plan(self, state: StepState) -> StepPlan:
        plan = self._inner.plan(state)
        if not state.generated:
            return plan
        counts, self._planned = self._counts, plan
        num_drafts, num_window = len(plan.tree), 0 if plan.window is None else len(plan.window)
        counts.num_steps += 1
        counts.num_drafts += num_drafts
        counts.num_window += num_window
        if num_window:
            counts.num_open += 1
            counts.num_drafts_open += num_drafts
        counts.cost += self._cost_of(state.num_pending + num_drafts + num_window)
        return plan

    def learn(self, plan: StepPlan, verified: Verified, rows: StepRows, stats: DecodingStats, forward_s: float) -> None:
        if plan is self._planned:
            self._counts.num_tokens += len(verified.token_ids)
        self._inner.learn(plan, verified, rows, stats, forward_s)


class WindowContest:
    """The variants on one model; what each learns lasts from prompt to prompt, as in a session.

    Args:
        model: decodes greedily.
        max_new_tokens: per prompt.
    """

    def __init__(self, model: LoadedModel, max_new_tokens: int) -> None:
        self._sequence: StepModel = model.new_sequence()
        self._limits = Limits(max_new_tokens, model.stop_token_ids)
        self._boundaries = frozenset(model.tokenizer.special_ids)
        self.model = model

    def simulated(self, name: str, prompts: Sequence[BenchPrompt], slopes: Sequence[float]) -> dict[str, Any]:
        """Return the figures of each slope; the product's largest number of drafts on a GPU, no time on the host."""
        found: dict[str, Any] = {}
        for slope in slopes:
            budget = StepBudget(simulated_costs(slope), seconds_per_draft=0.0, seconds_per_plan=0.0)
            counts = self._run(f"{name}, {slope:g} per token", prompts, budget, slope)
            costs = {variant: [one.cost / max(1, one.num_tokens) for one in runs] for variant, runs in counts.items()}
            found[f"{slope:g}"] = {**self._figures(prompts, counts), "speed": _ratios(costs)}
        return found

    def timed(self, name: str, prompts: Sequence[BenchPrompt]) -> dict[str, Any]:
        """Return the figures on this machine with the product's budget, which follows the steps."""
        budget = restore_drafting(self.model, cache_dir=None).budget
        self._run(f"{name}, warm-up", prompts[:1], budget, 0.0)
        counts = self._run(f"{name}, timed", prompts, budget, 0.0)
        times = {variant: [one.decode_s / max(1, one.num_tokens) for one in runs] for variant, runs in counts.items()}
        return {**self._figures(prompts, counts), "speed": _ratios(times)}

    def _run(
        self, name: str, prompts: Sequence[BenchPrompt], budget: StepBudget, slope: float
    ) -> dict[str, list[Counts]]:
        memories = {variant: DraftMemory() for variant in VARIANTS}
        for variant, memory in memories.items():
            memory.window_yields = yields_of(variant)
        runs: dict[str, list[Counts]] = {variant: [] for variant in VARIANTS}
        for index, prompt in enumerate(with_progress(list(prompts), name)):
            for variant in rotated(VARIANTS, index):
                runs[variant].append(self._decoded(prompt, budget, memories[variant], slope))
        return runs

    def _decoded(self, prompt: BenchPrompt, budget: StepBudget, memory: DraftMemory, slope: float) -> Counts:
        request = replace(self._request(prompt), context=prompt.context, boundary_ids=self._boundaries)
        counts, stats = Counts(), DecodingStats()
        self._sequence.truncate(0)
        inner = TreeDrafter(request, self._sequence, budget=budget, memory=memory)
        drafter = CountingDrafter(inner, counts, lambda num_tokens: 1.0 + slope * (num_tokens - 1))
        steps: Iterator[list[int]] = decode(request, self._sequence, drafter, stats)
        started_s: float | None = None
        for tokens in steps:
            started_s = time.perf_counter() if started_s is None else started_s
            counts.token_ids += tokens
        counts.decode_s = 0.0 if started_s is None else time.perf_counter() - started_s
        return counts

    def _request(self, prompt: BenchPrompt) -> DecodeRequest:
        return DecodeRequest(prompt.prompt_ids, self._limits)

    def _greedy(self, prompt: BenchPrompt) -> list[int]:
        self._sequence.truncate(0)
        return [token for tokens in autoregressive(self._request(prompt), self._sequence) for token in tokens]

    def _figures(self, prompts: Sequence[BenchPrompt], counts: Mapping[str, list[Counts]]) -> dict[str, Any]:
        expected = [self._greedy(prompt) for prompt in prompts]
        return {
            "num_prompts": len(prompts),
            "num_clean": sum(not has_repetition(ids) for ids in expected),
            "variants": {variant: _summary(runs, expected) for variant, runs in counts.items()},
        }


def _summary(runs: Sequence[Counts], expected: Sequence[list[int]]) -> dict[str, Any]:
    steps, is_open = sum(one.num_steps for one in runs), sum(one.num_open for one in runs)
    drafts, drafts_open = sum(one.num_drafts for one in runs), sum(one.num_drafts_open for one in runs)
    return {
        "tokens_per_step": round(sum(one.num_tokens for one in runs) / max(1, steps), 3),
        "open_share": round(is_open / max(1, steps), 4),
        "window_tokens": mean([one.num_window / one.num_open for one in runs if one.num_open], 1),
        "drafts_with_window": round(drafts_open / is_open, 2) if is_open else None,
        "drafts_without": round((drafts - drafts_open) / (steps - is_open), 2) if steps > is_open else None,
        "num_outputs_different": sum(one.token_ids != ids for one, ids in zip(runs, expected, strict=True)),
    }


def _ratios(costs: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Speed of each variant over ``shut``, by prompt."""
    return {
        variant: median_interval([shut / own for shut, own in zip(costs["shut"], costs[variant], strict=True) if own])
        for variant in VARIANTS
        if variant != "shut"
    }
