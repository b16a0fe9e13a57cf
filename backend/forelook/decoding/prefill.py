"""From a prompt to its last uncached chunk: prefix reuse and chunked prefill."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from forelook.decoding.layout import StepModel, causal_layout
from forelook.decoding.stats import DecodingStats
from forelook.errors import ContextOverflowError, DecodingError
from forelook.finish_reason import FinishReason
from forelook.text import common_prefix

DRAFTED_TAIL = 64
"""Maximum number of uncached prompt tokens that carry drafts. Chosen, not measured.

Drafts need a mask, which makes a long forward several times slower. Splitting the prompt for them would cost another
forward, which a drafted step uses better. A keystroke leaves a few tokens to run, and they carry drafts.
"""


def begin_prompt(model: StepModel, prompt_ids: Sequence[int], stats: DecodingStats) -> list[int]:
    """Keep what the cache already has of the prompt and return the tokens still to run, at least one.

    Raises:
        DecodingError: the prompt is empty.
        ContextOverflowError: the prompt alone exceeds the model's positions.
    """
    if len(prompt_ids) == 0:
        raise DecodingError("prompt_ids is empty; give at least one token, for instance the start token")
    if len(prompt_ids) > model.max_positions:
        raise ContextOverflowError(
            f"prompt_ids has {len(prompt_ids)} tokens, over the limit of {model.max_positions}; shorten the prompt"
        )
    num_reused = min(common_prefix(list(model.cached_ids), list(prompt_ids)), len(prompt_ids) - 1)
    model.truncate(num_reused)
    stats.num_prompt_tokens = len(prompt_ids)
    stats.num_reused_tokens = num_reused
    return list(prompt_ids[num_reused:])


def num_last_chunk(num_pending: int, chunk_size: int) -> int:
    """How many of ``num_pending`` tokens, at least one, ``run_leading_chunks`` leaves."""
    return (num_pending - 1) % chunk_size + 1


def run_leading_chunks(
    model: StepModel,
    pending: list[int],
    chunk_size: int,
    interrupted: Callable[[], FinishReason | None],
    stats: DecodingStats,
) -> tuple[list[int], FinishReason | None]:
    """Run and commit all but the last chunk of ``pending``.

    Args:
        model: the sequence.
        pending: prompt tokens to run.
        chunk_size: maximum number of tokens per forward.
        interrupted: called before every forward; the reason to stop, if there is one.
        stats: forwards and their time are added.

    Returns:
        What is left to run, 1 to ``chunk_size`` tokens, and the reason to stop before it, if there is one.
    """
    num_cached = len(model.cached_ids)
    while len(pending) > chunk_size:
        reason = interrupted()
        if reason is not None:
            return pending, reason
        started_s = time.perf_counter()
        model.forward(causal_layout(pending[:chunk_size], num_cached))
        model.commit(range(chunk_size))
        stats.forward_s += time.perf_counter() - started_s
        stats.num_forwards += 1
        num_cached += chunk_size
        pending = pending[chunk_size:]
    return pending, None
