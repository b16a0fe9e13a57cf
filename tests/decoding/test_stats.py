"""Statistics of several passes add up to those of one request."""

from __future__ import annotations

from dataclasses import fields

from forelook.decoding.drafting.draft import DraftOrigin
from forelook.decoding.stats import DecodingStats
from forelook.finish_reason import FinishReason


def test_passes_add_up_and_the_first_one_says_how_much_was_reused():
    first = DecodingStats(10, 4, 1, 2, 3, 4, 5, 0.5, 0.25, 0.125, {DraftOrigin.PROMPT: 2}, FinishReason.MAX_TOKENS)
    second = DecodingStats(
        10, 9, 10, 20, 30, 40, 50, 1.5, 1.25, 1.125, {DraftOrigin.PROMPT: 1, DraftOrigin.OUTPUT: 3}, FinishReason.CLOSED
    )
    total = DecodingStats()
    total += first
    total += second
    accepted = {DraftOrigin.PROMPT: 3, DraftOrigin.OUTPUT: 3}
    assert total == DecodingStats(10, 4, 11, 22, 33, 44, 55, 2.0, 1.5, 1.25, accepted, FinishReason.CLOSED)
    assert first.accepted_by_origin == {DraftOrigin.PROMPT: 2}


def test_no_field_is_forgotten_in_the_sum():
    one = DecodingStats(accepted_by_origin={DraftOrigin.PROMPT: 1}, finish_reason=FinishReason.CLOSED)
    for field in fields(one):
        if isinstance(getattr(one, field.name), (int, float)):
            setattr(one, field.name, 1)
    total = DecodingStats()
    total += one
    assert total == one
