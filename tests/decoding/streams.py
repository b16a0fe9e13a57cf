"""Drafted streams in one call each: the request, the drafter and the loop put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.draft import DraftSource
from forelook.decoding.drafting.tree_drafter import DraftMemory, TreeDrafter
from forelook.decoding.layout import StepModel
from forelook.decoding.lookahead.published import PublishedDrafter, PublishedSettings
from forelook.decoding.loop import DecodeLoop, decode
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats


def drafted(
    request: DecodeRequest,
    model: StepModel,
    stats: DecodingStats | None = None,
    *,
    loop: DecodeLoop = decode,
    sources: Sequence[DraftSource] = (),
    budget: StepBudget | None = None,
    memory: DraftMemory | None = None,
) -> Iterator[list[int]]:
    """With the draft tree."""
    drafter = TreeDrafter(request, model, sources=sources, budget=budget, memory=memory)
    return loop(request, model, drafter, stats)


def published(
    request: DecodeRequest,
    model: StepModel,
    settings: PublishedSettings,
    stats: DecodingStats | None = None,
    *,
    loop: DecodeLoop = decode,
) -> Iterator[list[int]]:
    """With the published drafter."""
    return loop(request, model, PublishedDrafter(request, settings), stats)
