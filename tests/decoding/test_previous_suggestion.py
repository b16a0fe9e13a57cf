"""The previous suggestion as a draft source."""

from __future__ import annotations

from forelook.decoding.drafting.draft import DraftOrigin
from forelook.decoding.drafting.sources.previous import PreviousSuggestion
from forelook.decoding.limits import Limits
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats

from tests.decoding.streams import drafted
from tests.fakes import ScriptedModel

BEFORE = [1, 2, 3]
SUGGESTION = [10, 11, 12, 13, 14, 15]


def first_draft(context):
    drafts = PreviousSuggestion(BEFORE, SUGGESTION).propose(context, max_candidates=4, max_length=8)
    return drafts[0].token_ids if drafts else None


def test_at_the_old_cursor_the_whole_suggestion_is_the_draft():
    assert first_draft(BEFORE) == tuple(SUGGESTION)


def test_what_was_typed_of_it_is_skipped():
    assert first_draft([*BEFORE, 10, 11]) == (12, 13, 14, 15)


def test_a_diverging_token_is_overcome_once_the_text_meets_the_suggestion_again():
    assert first_draft([*BEFORE, 10, 99]) is None
    assert first_draft([*BEFORE, 10, 99, 12]) == (13, 14, 15)


def test_the_end_of_the_suggestion_yields_nothing():
    assert first_draft([*BEFORE, *SUGGESTION]) is None


def test_text_before_the_old_cursor_is_never_drafted():
    assert first_draft([0, 1]) is None
    assert PreviousSuggestion([], SUGGESTION).propose([9], max_candidates=2, max_length=4) == []


def test_the_longer_match_comes_first_and_only_two_are_given():
    source = PreviousSuggestion([5], [7, 8, 7, 9, 7, 6])
    found = source.propose([8, 7], max_candidates=8, max_length=2)
    assert [draft.token_ids for draft in found] == [(9, 7), (8, 7)]
    assert found[0].match_length == 2
    assert found[0].shares[0] > found[1].shares[0]


def test_a_kept_suggestion_is_accepted_in_one_forward():
    model = ScriptedModel.saying(4, [11, 12, 13, 14, 15, 50], then=60)
    stats = DecodingStats()
    request = DecodeRequest([*BEFORE, 10], Limits(6))
    stream = drafted(request, model, stats, sources=[PreviousSuggestion(BEFORE, SUGGESTION)])
    assert next(stream) == [11, 12, 13, 14, 15, 50]
    assert stats.accepted_by_origin == {DraftOrigin.PREVIOUS_SUGGESTION: 5}
