"""Lookahead decoding: one decode step reads draft → lay out → forward → verify → commit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from forelook.decoding.draft_tree import DraftTree
from forelook.decoding.generation import GREEDY, FinishReason, Limits, SamplingParams, TokenConstraint
from forelook.decoding.lookahead_window import LookaheadWindow
from forelook.decoding.prefill import PREFILL_CHUNK, begin_prompt, run_leading_chunks
from forelook.decoding.stats import DecodingStats
from forelook.decoding.step_layout import StepModel, lay_out
from forelook.decoding.verification import TargetChooser, Verified, verify


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What a step verifies besides the tokens it must run: a draft tree, and a lookahead window or none."""

    tree: DraftTree
    window: LookaheadWindow | None = None


@dataclass(frozen=True, slots=True)
class StepState:
    """What a drafter is told about the step to plan.

    Attributes:
        generated: all output so far; the drafter does not change it.
        num_cached: committed tokens.
        num_pending: tokens the step runs in any case.
        max_depth: most draft tokens in a row that could still be accepted.
        max_tokens: most tail tokens, drafts and window together, that fit.
        constraint: which tokens may come next, while one applies.
    """

    generated: list[int]
    num_cached: int
    num_pending: int
    max_depth: int
    max_tokens: int
    constraint: TokenConstraint | None


class Drafter(Protocol):
    """Decides each step's drafts and learns from its outcome."""

    def plan(self, state: StepState) -> StepPlan:
        """Choose the drafts of the next step."""
        ...

    def learn(self, plan: StepPlan, verified: Verified, argmax: list[int], stats: DecodingStats) -> None:
        """Take in what the step yielded; ``argmax`` belongs to the layout's logit rows."""
        ...


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
        prefill_chunk: most prompt tokens per forward; the last chunk carries the first drafts.
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
        plan = drafter.plan(StepState(generated, num_cached, len(pending), max_depth, room, chooser.constraint))
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
