"""The methods that the decoding benchmark compares, ours and transformers', behind one signature."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forelook.completion.engine.drafting import restore_drafting
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.calibration import Calibrations
from forelook.decoding.drafting.costs import COMMON_COSTS
from forelook.decoding.drafting.drafter import Drafter
from forelook.decoding.drafting.sources.pool import PoolSource
from forelook.decoding.drafting.tree_drafter import DraftMemory, TreeDrafter
from forelook.decoding.layout import StepModel
from forelook.decoding.limits import GREEDY, Limits, SamplingParams
from forelook.decoding.lookahead.published import PublishedSettings
from forelook.decoding.loop import decode
from forelook.decoding.ngrams.pool import NgramPool
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.model.loading import LoadedModel

from bench.datasets import BenchPrompt
from bench.transformers_model import transformers_model


@dataclass(frozen=True)
class Run:
    """One method on one prompt."""

    token_ids: tuple[int, ...]
    total_s: float
    first_s: float
    num_steps: int
    host_s: float | None = None

    @property
    def tokens_per_step(self) -> float:
        return len(self.token_ids) / self.num_steps

    @property
    def ms_per_token(self) -> float:
        """End to end, prefill included."""
        return 1e3 * self.total_s / max(1, len(self.token_ids))

    @property
    def decode_ms_per_token(self) -> float | None:
        """After the first forward that yielded tokens; none where there was nothing left to decode."""
        if len(self.token_ids) < 2:
            return None
        return 1e3 * (self.total_s - self.first_s) / (len(self.token_ids) - 1)


Method = Callable[[BenchPrompt], Run]
MAX_DRAFTS = 15
"""Drafts per step where steps are counted."""


def fixed_budget(max_drafts: int) -> StepBudget:
    """Return a budget of drafts that no measured cost changes: counts of steps are then the same on every machine."""
    return StepBudget(COMMON_COSTS, max_draft_tokens=max_drafts)


@dataclass(frozen=True)
class MethodSettings:
    """Settings of our methods; ``published`` is for ``lookahead_published``."""

    max_new_tokens: int
    published: PublishedSettings = field(default_factory=PublishedSettings)
    sampling: SamplingParams = GREEDY


def timed_run(sequence: StepModel, start: Callable[[DecodingStats], Iterator[list[int]]]) -> Run:
    """Decode from an empty sequence and time it."""
    sequence.truncate(0)
    stats, ids = DecodingStats(), list[int]()
    first_s = None
    started_s = time.perf_counter()
    for tokens in start(stats):
        if first_s is None:
            first_s = time.perf_counter() - started_s
        ids += tokens
    total_s = time.perf_counter() - started_s
    host_s = stats.prefill_s + stats.decode_s - stats.forward_s
    return Run(tuple(ids), total_s, total_s if first_s is None else first_s, stats.num_steps, host_s)


class OurMethods:
    """Autoregressive, published lookahead and forelook over one sequence of our engine.

    Args:
        model: what to run.
        settings: limits, W, N and G, sampling.
        pool_documents: text in the pool besides each prompt's own documents.
        budget: drafts per step; by default the product's, which follows the steps.
        calibrations: of ``forelook``; new ones by default.
        learns: whether successors of tokens and pairs are known: the model's published ones, and what half a minute of
            idle time brings.
    """

    def __init__(
        self,
        model: LoadedModel,
        settings: MethodSettings,
        pool_documents: dict[str, list[int]] | None = None,
        *,
        budget: StepBudget | None = None,
        calibrations: Calibrations | None = None,
        learns: bool = True,
    ) -> None:
        self.sequence = model.new_sequence()
        self.settings = settings
        self.limits = Limits(settings.max_new_tokens, model.stop_token_ids)
        self.boundary_ids = frozenset(model.tokenizer.special_ids)
        drafting = restore_drafting(model, cache_dir=None)
        self.budget = budget or drafting.budget
        self.seeds = drafting.seeds if learns else None
        if learns and drafting.learning is not None:
            while drafting.learning.run_slice(model, lambda vocab_size: np.zeros(vocab_size, dtype=np.int64)):
                pass
        self.calibrations = calibrations or Calibrations()
        self.warm = DraftMemory(self.seeds)
        self.pool = WarmPool(pool_documents or {})

    def methods(self) -> dict[str, Method]:
        return {
            "autoregressive": self.autoregressive,
            "lookahead_published": self.lookahead_published,
            "forelook": self.forelook,
            "forelook_warm": self.forelook_warm,
        }

    def autoregressive(self, prompt: BenchPrompt) -> Run:
        request = self._request(prompt)
        return timed_run(self.sequence, lambda stats: autoregressive(request, self.sequence, stats))

    def lookahead_published(self, prompt: BenchPrompt, settings: PublishedSettings | None = None) -> Run:
        """With other W, N and G than those of this object where they are given."""
        request = self._request(prompt)
        published = settings or self.settings.published  # its drafter reads the prompt, which is part of the time
        return timed_run(self.sequence, lambda stats: decode(request, self.sequence, published.drafter(request), stats))

    def forelook(self, prompt: BenchPrompt) -> Run:
        return self.with_memory(prompt, DraftMemory(self.seeds, self.calibrations))

    def forelook_warm(self, prompt: BenchPrompt) -> Run:
        return self.with_memory(prompt, self.warm)

    def with_memory(
        self, prompt: BenchPrompt, memory: DraftMemory, watched: Callable[[Drafter], Drafter] | None = None
    ) -> Run:
        """With what earlier prompts taught.

        Args:
            prompt: to continue.
            memory: kept up to date.
            watched: wraps the drafter.
        """
        sources = [] if prompt.documents is None else [self.pool.knowing(prompt.documents)]
        request = replace(
            self._request(prompt),
            context=prompt.context,
            after=prompt.after,
            is_infilling=bool(prompt.after),
            boundary_ids=self.boundary_ids,
        )

        def start(stats: DecodingStats) -> Iterator[list[int]]:
            drafter: Drafter = TreeDrafter(request, self.sequence, sources=sources, budget=self.budget, memory=memory)
            return decode(request, self.sequence, drafter if watched is None else watched(drafter), stats)

        return timed_run(self.sequence, start)

    def _request(self, prompt: BenchPrompt) -> DecodeRequest:
        return DecodeRequest(prompt.prompt_ids, self.limits, self.settings.sampling)


class WarmPool:
    """The workspace pool, changed only where one prompt's documents differ from the last one's.

    Args:
        always: documents of no prompt that are in it throughout.
    """

    def __init__(self, always: dict[str, list[int]] | None = None) -> None:
        self._pool = NgramPool(1 << 22)
        self._known: dict[str, list[int]] = {}
        for key, ids in (always or {}).items():
            self._pool.set_document(f"always:{key}", ids)
        self._pool.settle()

    def knowing(self, documents: dict[str, list[int]]) -> PoolSource:
        for key in [key for key in self._known if key not in documents]:
            self._pool.remove_document(key)
            del self._known[key]
        for key, ids in documents.items():
            if self._known.get(key) != ids:
                self._pool.set_document(key, ids)
                self._known[key] = ids
        self._pool.settle()
        return PoolSource(self._pool)


class HuggingFaceMethods:
    """transformers' generate on the same weights, greedily: plain, with prompt lookup, with its own first layers.

    Args:
        path: folder, GGUF file or hub id of the weights.
        model: ours; its dtype, device and stop tokens are used.
        max_new_tokens: per prompt.
        adapter: folder of what is merged into the weights of a GGUF file.

    Attributes:
        model: transformers' model.
    """

    def __init__(self, path: str, model: LoadedModel, max_new_tokens: int, adapter: Path | None = None) -> None:
        self.model = transformers_model(path, model.dtype, model.device, adapter)
        self._num_early = max(1, model.config.num_layers // 4)
        self._max_new_tokens = max_new_tokens
        self._stops = sorted(model.stop_token_ids)

    def methods(self) -> dict[str, Method]:
        return {
            "hf_greedy": lambda prompt: self._generate(prompt),
            "hf_prompt_lookup": lambda prompt: self._generate(prompt, prompt_lookup_num_tokens=10),
            "hf_early_exit": lambda prompt: self._generate(prompt, assistant_early_exit=self._num_early),
        }

    def _generate(self, prompt: BenchPrompt, **options: Any) -> Run:
        import transformers

        marks: list[float] = []

        class Clock(transformers.StoppingCriteria):  # type: ignore[misc]
            """Called once a step: when, and how often, is all that is wanted of it."""

            def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
                del scores, kwargs
                marks.append(time.perf_counter())
                return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

        ids = torch.tensor([prompt.prompt_ids], device=self.model.device)
        started = time.perf_counter()
        with torch.inference_mode():
            output = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self._max_new_tokens,
                do_sample=False,
                eos_token_id=self._stops,
                pad_token_id=self._stops[0],
                stopping_criteria=transformers.StoppingCriteriaList([Clock()]),
                **options,
            )
        total_s = time.perf_counter() - started
        new = itertools.takewhile(lambda token: token not in self._stops, output[0, ids.shape[1] :].tolist())
        first_s = marks[0] - started if marks else total_s
        return Run(tuple(new), total_s, first_s, len(marks))
