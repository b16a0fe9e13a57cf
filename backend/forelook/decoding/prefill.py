"""From a prompt to its last uncached chunk: prefix reuse, chunked prefill and its speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from forelook.decoding.layout import StepModel, causal_layout
from forelook.decoding.request import PREFILL_CHUNK
from forelook.decoding.stats import DecodingStats
from forelook.errors import ContextOverflowError, DecodingError
from forelook.finish_reason import FinishReason
from forelook.text import common_prefix

DRAFTED_TAIL = 64
"""Maximum number of uncached prompt tokens that carry drafts. Chosen, not measured.

Drafts need a mask, which makes a long forward several times slower. Splitting the prompt for them would cost another
forward, which a drafted step uses better. A keystroke leaves a few tokens to run, and they carry drafts.
"""

_MIN_TIMED = 64
"""Shortest forward that says how fast a prefill is: below it, reading the weights dominates. Chosen, not measured."""

_CHUNK_S = 0.25
"""What a cancelled request or a passed deadline may wait for. Chosen; what it costs: docs/decisions.md, "Chunks of a
quarter of a second"."""

_SHARED_CHUNK_S = 0.02
"""What another request may wait for. Chosen: docs/decisions.md, "Chunks where users share a device"."""

_CHUNK_STEP = 64
"""A chunk is a multiple: a CPU compiles its products for every number of rows. The least, too: the weights are read,
or dequantized, once per chunk."""

# Other programs only add time. Chosen, not measured.
_FASTER_SHARE, _SLOWER_SHARE = 0.5, 0.1


class PrefillSpeed:
    """Tokens of a prompt per second: an estimate that every long forward of a prompt corrects.

    Attributes:
        tokens_per_s: the estimate.

    Args:
        tokens_per_s: to start with.
        is_measured: whether that was measured on this device.
    """

    def __init__(self, tokens_per_s: float, *, is_measured: bool = False) -> None:
        self.tokens_per_s = tokens_per_s
        self._is_measured = is_measured

    def observe(self, stats: DecodingStats) -> None:
        """Correct the estimate by the prompt of a generation, if it had long forwards."""
        if stats.timed_prefill_s <= 0.0:
            return
        measured = stats.timed_prefill_tokens / stats.timed_prefill_s
        if not self._is_measured:
            self.tokens_per_s, self._is_measured = measured, True
            return
        ratio = measured / self.tokens_per_s
        self.tokens_per_s *= ratio ** (_FASTER_SHARE if ratio > 1.0 else _SLOWER_SHARE)

    @property
    def chunk_size(self) -> int:
        """Tokens of a chunk that takes about a quarter of a second."""
        return self._chunk_of(_CHUNK_S)

    @property
    def shared_chunk_size(self) -> int:
        """Tokens of a chunk that other requests can wait for."""
        return self._chunk_of(_SHARED_CHUNK_S)

    def _chunk_of(self, seconds: float) -> int:
        wanted = round(self.tokens_per_s * seconds / _CHUNK_STEP) * _CHUNK_STEP
        return min(max(wanted, _CHUNK_STEP), PREFILL_CHUNK)


def count_prefill(stats: DecodingStats, num_tokens: int, seconds: float) -> None:
    """Count a forward of prompt tokens alone, if it is long enough to say how fast a prefill is."""
    if num_tokens >= _MIN_TIMED:
        stats.timed_prefill_tokens += num_tokens
        stats.timed_prefill_s += seconds


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
        forward_s = time.perf_counter() - started_s
        count_prefill(stats, chunk_size, forward_s)
        stats.forward_s += forward_s
        stats.num_forwards += 1
        num_cached += chunk_size
        pending = pending[chunk_size:]
    return pending, None
