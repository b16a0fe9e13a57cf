"""Lookahead decoding: one decode step reads draft → lay out → forward → verify → commit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from forelook.decoding.drafting.drafter import Drafter, StepPlan, StepState
from forelook.decoding.drafting.tree import DraftTree
from forelook.decoding.layout import StepModel, lay_out
from forelook.decoding.limits import FinishReason
from forelook.decoding.prefill import DRAFTED_TAIL, begin_prompt, run_leading_chunks
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.decoding.verification import TargetChooser, verify


class DecodeLoop(Protocol):
    """``decode``, or a function that replaces it, such as the loop of several ranks."""

    def __call__(
        self, request: DecodeRequest, model: StepModel, drafter: Drafter, stats: DecodingStats | None = ...
    ) -> Iterator[list[int]]:
        """Generate with a drafter's guesses."""
        ...


def decode(
    request: DecodeRequest, model: StepModel, drafter: Drafter, stats: DecodingStats | None = None
) -> Iterator[list[int]]:
    """Generate with a drafter's guesses: the output of ``autoregressive`` in fewer steps.

    Args:
        request: what to generate; greedy and sampling share this loop.
        model: cached tokens that agree with the prompt are kept.
        drafter: plans each step's drafts.
        stats: updated with every step.

    Yields:
        The tokens each step accepted, its bonus token included; never an empty list.

    Raises:
        DecodingError: the prompt is empty or too long.
    """
    stats = DecodingStats() if stats is None else stats
    started_s = time.perf_counter()
    prompt_ids, limits = request.prompt_ids, request.limits
    chooser = TargetChooser(request.sampling, request.constraint)
    generated: list[int] = []
    if limits.max_new_tokens == 0:
        stats.finish_reason = FinishReason.MAX_TOKENS
        return
    pending = begin_prompt(model, prompt_ids, stats)
    pending, reason = run_leading_chunks(model, pending, request.prefill_chunk, limits, stats)
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
        forward_started_s = time.perf_counter()
        argmax = chooser.observe(model.forward(layout))
        stats.forward_s += time.perf_counter() - forward_started_s
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
        elapsed_s = time.perf_counter() - started_s
        if stats.num_steps == 1:
            stats.prefill_s += elapsed_s
        else:
            stats.decode_s += elapsed_s
        if verified.token_ids:
            stats.finish_reason = FinishReason.CLOSED if reason is None else reason
            yield verified.token_ids
            started_s = time.perf_counter()
        pending = generated[-1:]
    stats.finish_reason = reason
