"""From the counts of generations to those of a request."""

from __future__ import annotations

import time
from dataclasses import fields

from forelook.decoding.stats import DecodingStats
from forelook.protocol.messages import RequestStats

# The counts that a generation and a request have in common.
_COUNTS = {item.name for item in fields(DecodingStats) if item.name.startswith("num_")}


def request_stats(stats: DecodingStats, arrived_s: float, started_s: float, ready_s: float) -> RequestStats:
    """The cost of a request; all times are of ``time.monotonic()``."""
    return RequestStats(
        queue_ms=(started_s - arrived_s) * 1e3,
        prompt_ms=(ready_s - started_s) * 1e3,
        prefill_ms=stats.prefill_s * 1e3,
        decode_ms=stats.decode_s * 1e3,
        total_ms=(time.monotonic() - arrived_s) * 1e3,
        num_prefill_tokens=max(0, stats.num_prompt_tokens - stats.num_reused_tokens),
        tokens_per_step=stats.tokens_per_step,
        accepted_by_origin={origin.value: count for origin, count in stats.accepted_by_origin.items()},
        **{name: getattr(stats, name) for name in _COUNTS},
    )
