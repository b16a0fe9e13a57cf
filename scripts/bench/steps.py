"""Layouts of one decode step, for benchmarks of the forward alone."""

from __future__ import annotations

import numpy as np
from forelook.decoding.layout import StepLayout


def random_ids(count: int, vocab_size: int, seed: int = 0) -> list[int]:
    """Return token ids that are no sentinels of a small vocabulary's start."""
    return np.random.default_rng(seed).integers(16, vocab_size, count).tolist()


def branched_layout(num_tokens: int, start: int, vocab_size: int) -> StepLayout:
    """Return a tail of two branches after its first token, with logits of every row: the shape of a decode step."""
    visibility = np.tri(num_tokens, dtype=np.bool_)
    positions = np.arange(start, start + num_tokens)
    branch = 1 + (num_tokens - 1) // 2
    visibility[branch:, 1:branch] = False
    positions[branch:] -= branch - 1
    ids = np.asarray(random_ids(num_tokens, vocab_size, num_tokens))
    return StepLayout(ids, positions, visibility if num_tokens > 1 else None, np.arange(num_tokens))
