"""Lookahead decoding: one decode step reads draft → lay out → forward → verify → commit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.draft import DraftSource
from forelook.decoding.drafting.drafter import Drafter, StepPlan, StepState
from forelook.decoding.drafting.sources.prompt import PromptNgrams
from forelook.decoding.drafting.tree import DraftTree
from forelook.decoding.drafting.tree_drafter import DraftMemory, TreeDrafter
from forelook.decoding.layout import StepModel, lay_out
from forelook.decoding.limits import GREEDY, FinishReason, Limits, SamplingParams, TokenConstraint
from forelook.decoding.prefill import DRAFTED_TAIL, PREFILL_CHUNK, begin_prompt, run_leading_chunks
from forelook.decoding.stats import DecodingStats
from forelook.decoding.verification import TargetChooser, verify


class DecodeLoop(Protocol):
    """``decode``, or what stands in for it, such as the loop of several ranks."""

    def __call__(
        self,
        model: StepModel,
        prompt_ids: Sequence[int],
        limits: Limits,
        drafter: Drafter,
        *,
        sampling: SamplingParams = ...,
        constraint: TokenConstraint | None = ...,
        prefill_chunk: int = ...,
        stats: DecodingStats | None = ...,
    ) -> Iterator[list[int]]:
        """Generate with a drafter's guesses."""
        ...


def lookahead(
    model: StepModel,
    prompt_ids: Sequence[int],
    limits: Limits,
    *,
    sampling: SamplingParams = GREEDY,
    constraint: TokenConstraint | None = None,
    sources: Sequence[DraftSource] = (),
    context: Sequence[int] | None = None,
    boundary_ids: frozenset[int] = frozenset(),
    budget: StepBudget | None = None,
    memory: DraftMemory | None = None,
    prefill_chunk: int = PREFILL_CHUNK,
    stats: DecodingStats | None = None,
    loop: DecodeLoop | None = None,
) -> Iterator[list[int]]:
    """Generate with drafts from the prompt, the output, the model's earlier choices and further sources.

    Args:
        model: its cached tokens are kept as far as they agree with the prompt.
        prompt_ids: the whole prompt, at least one token.
        limits: when to stop.
        sampling: how a token is chosen.
        constraint: which tokens may come next.
        sources: more drafts, for instance the workspace pool's and the previous suggestion.
        context: the tokens before the cursor that the output continues, without sentinels or other files' tokens;
            by default the prompt behind its last boundary token.
        boundary_ids: sentinels and file separators, which drafts never contain or cross.
        budget: measured step costs and the most drafts of a step.
        memory: what earlier requests to this model taught; kept up to date. By default this call starts afresh.
        prefill_chunk: most prompt tokens per forward; a short last chunk carries the first drafts.
        stats: filled as generation goes.
        loop: runs the steps; ``decode`` by default.

    Yields:
        The tokens each step accepted, its bonus token included; never an empty list.

    Raises:
        DecodingError: the prompt is empty or too long.
    """
    if context is None:
        start = len(prompt_ids)
        while start > 0 and prompt_ids[start - 1] not in boundary_ids:
            start -= 1
        context = prompt_ids[start:]
    own = PromptNgrams(prompt_ids, context, limits.max_new_tokens, boundary_ids)
    drafter = TreeDrafter(
        [own, *sources],
        context,
        StepBudget() if budget is None else budget,
        DraftMemory() if memory is None else memory,
        model.tail_sizes,
        boundary_ids,
    )
    return (loop or decode)(
        model,
        prompt_ids,
        limits,
        drafter,
        sampling=sampling,
        constraint=constraint,
        prefill_chunk=prefill_chunk,
        stats=stats,
    )


def decode(
    model: StepModel,
    prompt_ids: Sequence[int],
    limits: Limits,
    drafter: Drafter,
    *,
    sampling: SamplingParams = GREEDY,
    constraint: TokenConstraint | None = None,
    prefill_chunk: int = PREFILL_CHUNK,
    stats: DecodingStats | None = None,
) -> Iterator[list[int]]:
    """Generate with a drafter's guesses; the output is what ``autoregressive`` gives, in fewer steps.

    Args:
        model: its cached tokens are kept as far as they agree with the prompt.
        prompt_ids: the whole prompt, at least one token.
        limits: when to stop.
        drafter: where drafts come from.
        sampling: how a token is chosen; greedy and sampling share this loop.
        constraint: which tokens may come next.
        prefill_chunk: most prompt tokens per forward; a short last chunk carries the first drafts.
        stats: filled as generation goes.

    Yields:
        The tokens each step accepted, its bonus token included; never an empty list.

    Raises:
        DecodingError: the prompt is empty or too long.
    """
    stats = DecodingStats() if stats is None else stats
    started = time.perf_counter()
    chooser = TargetChooser(sampling, constraint)
    generated: list[int] = []
    if limits.max_new_tokens == 0:
        stats.finish_reason = FinishReason.MAX_TOKENS
        return
    pending = begin_prompt(model, prompt_ids, stats)
    pending, reason = run_leading_chunks(model, pending, prefill_chunk, limits, stats)
    num_cached = len(prompt_ids) - len(pending)
    while reason is None:
        reason = limits.interrupted()
        room = model.max_positions - num_cached - len(pending)
        if reason is None and room < 0:
            reason = FinishReason.CONTEXT_FULL
        if reason is not None:
            break
        # draft
        max_depth = limits.max_new_tokens - len(generated) - 1
        if len(pending) <= DRAFTED_TAIL:
            plan = drafter.plan(StepState(generated, num_cached, len(pending), max_depth, room, chooser.constraint))
        else:
            plan = StepPlan(DraftTree())
        # lay out
        layout = lay_out(pending, num_cached, plan.tree.token_ids, plan.tree.parents, plan.window)
        # forward
        forward_started = time.perf_counter()
        argmax = chooser.observe(model.forward(layout))
        stats.forward_s += time.perf_counter() - forward_started
        # verify
        verified = verify(plan.tree, chooser, generated, limits)
        # commit
        root = len(pending) - 1
        model.commit([*range(len(pending)), *(root + node for node in verified.node_path)])
        num_cached += len(pending) + len(verified.node_path)
        generated += verified.token_ids
        reason = verified.finish_reason
        stats.num_forwards += 1
        stats.num_steps += 1
        stats.num_generated_tokens += len(verified.token_ids)
        stats.num_drafted_tokens += len(plan.tree)
        stats.num_accepted_tokens += len(verified.node_path)
        drafter.learn(plan, verified, argmax, stats)
        elapsed = time.perf_counter() - started
        if stats.num_steps == 1:
            stats.prefill_s += elapsed
        else:
            stats.decode_s += elapsed
        if verified.token_ids:
            stats.finish_reason = FinishReason.CLOSED if reason is None else reason
            yield verified.token_ids
            started = time.perf_counter()
        pending = generated[-1:]
    stats.finish_reason = reason
