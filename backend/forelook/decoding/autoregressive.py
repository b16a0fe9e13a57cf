"""The baseline: one token per forward. The oracle of every losslessness test, so it shares no drafting code."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from forelook.decoding.layout import StepModel, causal_layout
from forelook.decoding.limits import GREEDY, FinishReason, Limits, SamplingParams, TokenConstraint
from forelook.decoding.prefill import PREFILL_CHUNK, begin_prompt, run_leading_chunks
from forelook.decoding.stats import DecodingStats
from forelook.decoding.verification import TargetChooser


def autoregressive(
    model: StepModel,
    prompt_ids: Sequence[int],
    limits: Limits,
    *,
    sampling: SamplingParams = GREEDY,
    constraint: TokenConstraint | None = None,
    prefill_chunk: int = PREFILL_CHUNK,
    stats: DecodingStats | None = None,
) -> Iterator[list[int]]:
    """Generate one token per step.

    Args:
        model: its cached tokens are kept as far as they agree with the prompt.
        prompt_ids: the whole prompt, at least one token.
        limits: when to stop.
        sampling: how a token is chosen.
        constraint: which tokens may come next.
        prefill_chunk: most prompt tokens per forward.
        stats: filled as generation goes.

    Yields:
        The next output token, as a list of one.

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
        if reason is None and num_cached + len(pending) > model.max_positions:
            reason = FinishReason.CONTEXT_FULL
        if reason is not None:
            break
        layout = causal_layout(pending, num_cached)
        forward_started = time.perf_counter()
        chooser.observe(model.forward(layout))
        stats.forward_s += time.perf_counter() - forward_started
        token = chooser.choose(0, generated)
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
        elapsed = time.perf_counter() - started
        if stats.num_steps == 1:
            stats.prefill_s += elapsed
        else:
            stats.decode_s += elapsed
        pending = [token]
        if reason is not FinishReason.STOP_TOKEN:
            stats.finish_reason = FinishReason.CLOSED if reason is None else reason
            yield [token]
            started = time.perf_counter()
    stats.finish_reason = reason
