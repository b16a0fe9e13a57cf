"""Layouts of one decode step, for benchmarks of the forward alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from forelook.decoding.layout import StepLayout, StepModel, causal_layout

from bench.turns import Step


def random_ids(count: int, vocab_size: int, seed: int = 0) -> list[int]:
    """Return token ids that are no sentinels of a small vocabulary's start."""
    return np.random.default_rng(seed).integers(16, vocab_size, count).tolist()


def fill(sequence: StepModel, ids: Sequence[int]) -> None:
    """Make ``ids`` all that is committed."""
    sequence.truncate(0)
    for start in range(0, len(ids), 512):
        chunk = ids[start : start + 512]
        sequence.forward(causal_layout(chunk, start))
        sequence.commit(range(len(chunk)))


def branched_layout(num_tokens: int, start: int, vocab_size: int) -> StepLayout:
    """Return a tail of two branches after its first token, with logits of every row: the shape of a decode step."""
    visibility = np.tri(num_tokens, dtype=np.bool_)
    positions = np.arange(start, start + num_tokens)
    branch = 1 + (num_tokens - 1) // 2
    visibility[branch:, 1:branch] = False
    positions[branch:] -= branch - 1
    ids = np.asarray(random_ids(num_tokens, vocab_size, num_tokens))
    return StepLayout(ids, positions, visibility if num_tokens > 1 else None, np.arange(num_tokens))


def hf_step(run: Callable[..., object], prefix: torch.Tensor, ids: torch.Tensor, **options: object) -> Step:
    """Return a step of a transformers model: ``ids`` after a cached prefix, whose cache then drops them again.

    Args:
        run: the model, or a function of ids and ``past_key_values``.
        prefix: ``[1, tokens]``; may be empty.
        ids: ``[1, tokens]`` of the step.
        options: further arguments of the step.
    """
    from transformers import DynamicCache

    cache = DynamicCache()
    if prefix.numel():
        run(prefix, past_key_values=cache)

    def step() -> None:
        run(ids, past_key_values=cache, **options)
        cache.crop(-ids.shape[1])

    return step


def hf_branched_step(model: Any, prefix: Sequence[int], num_tokens: int) -> Step:
    """Return the step of :func:`branched_layout` after a prefix, of a transformers model."""
    layout = branched_layout(num_tokens, len(prefix), model.config.vocab_size)
    options: dict[str, torch.Tensor] = {"position_ids": torch.from_numpy(layout.positions)[None]}
    if layout.visibility is not None:
        mask = torch.ones(1, 1, num_tokens, len(prefix) + num_tokens, dtype=torch.bool)
        mask[0, 0, :, len(prefix) :] = torch.from_numpy(layout.visibility)
        options["attention_mask"] = mask
    return hf_step(model, torch.tensor([list(prefix)]), torch.from_numpy(layout.token_ids)[None], **options)
