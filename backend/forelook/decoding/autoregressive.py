"""The baseline: one token per forward. Every losslessness test compares with it, so it shares no drafting code."""

from __future__ import annotations

import time
from collections.abc import Iterator

from forelook.decoding.layout import StepModel, causal_layout
from forelook.decoding.prefill import begin_prompt, count_prefill, run_leading_chunks
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.decoding.verification import TargetChooser
from forelook.finish_reason import FinishReason


def autoregressive(request: DecodeRequest, model: StepModel, stats: DecodingStats | None = None) -> Iterator[list[int]]:
    """Generate one token per step.

    Args:
        request: what to generate.
        model: cached tokens that agree with the prompt are kept.
        stats: updated with every step.

    Yields:
        The next output token, as a list of one.

    Raises:
        DecodingError: the prompt is empty or too long.
    """
    stats = DecodingStats() if stats is None else stats
    started_s = time.perf_counter()
    limits = request.limits
    chooser = TargetChooser(request.sampling, request.constraint, is_scored=request.is_scored)
    generated: list[int] = []
    if limits.max_new_tokens == 0:
        stats.finish_reason = FinishReason.MAX_TOKENS
        return
    pending = begin_prompt(model, request.prompt_ids, stats)
    pending, reason = run_leading_chunks(model, pending, request.prefill_chunk, limits.interrupted, stats)
    num_cached = len(request.prompt_ids) - len(pending)
    while reason is None:
        reason = limits.interrupted()
        if reason is None and num_cached + len(pending) > model.max_positions:
            reason = FinishReason.CONTEXT_FULL
        if reason is not None:
            break
        layout = causal_layout(pending, num_cached)
        forward_started_s = time.perf_counter()
        chooser.observe(model.forward(layout))
        forward_s = time.perf_counter() - forward_started_s
        stats.forward_s += forward_s
        count_prefill(stats, len(pending), forward_s)
        token = chooser.choose(0, generated)
        stats.log_probs += chooser.log_probs()
        model.commit(range(len(pending)))
        num_cached += len(pending)
        stats.num_forwards += 1
        stats.num_steps += 1
        if token in limits.stop_token_ids:
            reason = FinishReason.STOP_TOKEN
        else:
            generated.append(token)
            stats.num_generated_tokens += 1
            if len(generated) >= limits.max_new_tokens:
                reason = FinishReason.MAX_TOKENS
        elapsed_s = time.perf_counter() - started_s
        if stats.num_steps == 1:
            stats.prefill_s += elapsed_s
        else:
            stats.decode_s += elapsed_s
        pending = [token]
        if reason is not FinishReason.STOP_TOKEN:
            stats.finish_reason = FinishReason.CLOSED if reason is None else reason
            yield [token]
            started_s = time.perf_counter()
    stats.finish_reason = reason
