"""The decode loop: one step reads draft → lay out → forward → verify → commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from forelook.decoding.drafting.drafter import NO_DRAFTS, Drafter, StepRows, StepState
from forelook.decoding.layout import StepModel, lay_out
from forelook.decoding.prefill import DRAFTED_TAIL, begin_prompt, count_prefill, num_last_chunk, run_leading_chunks
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.decoding.steps import WHOLE_STEPS, Partition
from forelook.decoding.verification import TargetChooser, verify
from forelook.finish_reason import FinishReason

DecodeLoop = Callable[[DecodeRequest, StepModel, Drafter, DecodingStats], Iterator[list[int]]]
"""``decode``, or a function that replaces it, such as the loop of several ranks."""


def decode(
    request: DecodeRequest,
    model: StepModel,
    drafter: Drafter,
    stats: DecodingStats | None = None,
    *,
    partition: Partition = WHOLE_STEPS,
) -> Iterator[list[int]]:
    """Generate with a drafter's guesses: the output of ``autoregressive`` in fewer steps.

    Args:
        request: what to generate; greedy and sampling share this loop.
        model: cached tokens that agree with the prompt are kept.
        drafter: plans each step's drafts.
        stats: updated with every step.
        partition: what this process computes of each step; all of it by default.

    Yields:
        The tokens each step accepted, its bonus token included; never an empty list.

    Raises:
        DecodingError: the prompt is empty or too long.
    """
    stats = DecodingStats() if stats is None else stats
    started_s = time.perf_counter()
    prompt_ids, limits, chunk_size = request.prompt_ids, request.limits, request.prefill_chunk
    num_prompt = len(prompt_ids)
    chooser = TargetChooser(request.sampling, request.constraint, is_scored=request.is_scored)
    generated: list[int] = []
    if limits.max_new_tokens == 0:
        stats.finish_reason = FinishReason.MAX_TOKENS
        return
    pending = begin_prompt(model, prompt_ids, stats)
    drafts_on_prompt = partition.begin(num_last_chunk(len(pending), chunk_size) <= DRAFTED_TAIL)
    pending, reason = run_leading_chunks(
        model, pending, chunk_size, lambda: partition.interrupted(limits, in_prefill=True), stats
    )
    num_cached = num_prompt - len(pending)
    while reason is None:
        room = model.max_positions - num_cached - len(pending)
        reason = FinishReason.CONTEXT_FULL if room < 0 else partition.interrupted(limits)
        if reason is not None:
            break
        # draft
        max_depth = limits.max_new_tokens - len(generated) - 1
        state = StepState(generated, num_cached, len(pending), max_depth, room, chooser.constraint)
        plan = partition.plan(drafter if generated or drafts_on_prompt else NO_DRAFTS, state)
        part = partition.part(plan)
        # lay out
        layout = lay_out(pending, num_cached, part.tree.token_ids, part.tree.parents, part.window)
        # forward
        forward_started_s = time.perf_counter()
        argmax = chooser.observe(model.forward(layout))
        forward_s = time.perf_counter() - forward_started_s
        stats.forward_s += forward_s
        if not generated and len(part.tree) == 0:
            count_prefill(stats, len(pending), forward_s)
        # verify
        walked = verify(part.tree, chooser, generated, limits)
        outcome = partition.join(plan, walked, argmax, is_constrained=chooser.constraint is not None)
        verified = outcome.verified
        # commit
        root = len(pending) - 1
        model.commit([*range(len(pending)), *(root + node for node in outcome.own_path)])
        num_cached += len(pending) + len(outcome.own_path)
        generated += verified.token_ids
        # accepted tokens that this process did not run are run with the next step, and so is the bonus token
        pending = [*prompt_ids[num_cached:], *generated[max(0, num_cached - num_prompt) :]]
        reason = verified.finish_reason
        stats.num_forwards += 1
        stats.num_steps += 1
        stats.num_generated_tokens += len(verified.token_ids)
        stats.num_drafted_tokens += len(plan.tree)
        stats.num_accepted_tokens += len(verified.node_path)
        stats.log_probs += verified.log_probs
        likeliest = chooser.likeliest([0, *verified.node_path], drafter.num_choices) if part is plan else {}
        drafter.learn(plan, verified, StepRows(outcome.argmax, likeliest), stats, forward_s)
        elapsed_s = time.perf_counter() - started_s
        if stats.num_steps == 1:
            stats.prefill_s += elapsed_s
        else:
            stats.decode_s += elapsed_s
        if verified.token_ids:
            stats.finish_reason = FinishReason.CLOSED if reason is None else reason
            yield verified.token_ids
            started_s = time.perf_counter()
    stats.finish_reason = reason
