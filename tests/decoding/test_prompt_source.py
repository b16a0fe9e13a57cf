"""Drafts from the text around the cursor and the output, and the origin that they are counted for."""

from __future__ import annotations

from forelook.decoding.drafting.draft import DraftOrigin
from forelook.decoding.drafting.sources.pool import PoolSource
from forelook.decoding.drafting.sources.prompt import PromptSource
from forelook.decoding.limits import Limits
from forelook.decoding.ngrams.pool import NgramPool
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decoding.streams import drafted
from tests.fakes import ScriptedModel

tokens = st.lists(st.integers(0, 5), max_size=60)


def occurs(needle: list[int], text: list[int]) -> bool:
    return any(text[place : place + len(needle)] == needle for place in range(len(text) - len(needle) + 1))


@settings(max_examples=300, deadline=None)
@given(before=tokens, after=tokens, generated=st.lists(st.integers(0, 5), max_size=30))
def test_every_draft_followed_the_contexts_end_somewhere(before, after, generated):
    source = PromptSource(before, after)
    for start in range(0, len(generated), 3):
        source.extend(generated[start : start + 3])
    context = before + generated
    found = source.propose(context, max_candidates=8, max_length=6)
    if not context:
        assert found == []
        return
    for draft in found:
        assert draft.origin in {DraftOrigin.PROMPT, DraftOrigin.OUTPUT}
        assert 1 <= len(draft.token_ids) == len(draft.shares) <= 6
        assert all(0.0 < share <= 1.0 for share in draft.shares)
        needle = [context[-1], *draft.token_ids]
        follows_cursor = not generated and after[: len(draft.token_ids)] == list(draft.token_ids)
        assert occurs(needle, context) or occurs(needle, after) or follows_cursor
    if generated:  # before that, the text after the cursor is a guess of its own
        assert len({draft.token_ids for draft in found}) == len(found)
    if not found:  # nothing was missed: the context's last token never had a follower
        assert context[-1] not in context[:-1]
        assert context[-1] not in after[:-1]
        assert generated or not after


def test_a_longer_match_comes_before_a_nearer_one():
    text = [4, 7, 3, 8] + [7, 0] * 300 + [4, 7]
    best = PromptSource(text).propose(text, max_candidates=8, max_length=2)[0]
    assert best.token_ids == (3, 8)
    assert best.match_length == 2


def test_what_follows_the_cursor_is_told_from_matches():
    source = PromptSource([1, 2, 3], after=[7, 8, 9])
    (found,) = source.propose([1, 2, 3], max_candidates=8, max_length=2)
    assert (found.token_ids, found.match_length, found.origin) == ((7, 8), 0, DraftOrigin.PROMPT)
    assert (
        min(draft.match_length for draft in PromptSource([3, 4, 3]).propose([3, 4, 3], max_candidates=8, max_length=2))
        > 0
    )


def test_of_equal_matches_the_latest_comes_first():
    text = [1, 2, 9, 9, 1, 3, 9, 9, 1]
    found = PromptSource(text).propose(text, max_candidates=8, max_length=1)
    assert [draft.token_ids for draft in found] == [(3,), (2,)]


def test_agreeing_occurrences_make_one_draft_with_a_larger_share():
    text = [9, 1, 2, 3, 9, 1, 2, 3, 9, 1, 2, 4, 9, 1]
    found = PromptSource(text).propose(text, max_candidates=8, max_length=2)
    shares = {draft.token_ids: draft.shares for draft in found}
    assert shares[2, 3][1] > shares[2, 4][1]


def test_text_after_the_cursor_is_drafted_from_and_is_the_first_guess_where_nothing_matches():
    source = PromptSource([1], [2, 3, 4, 5])
    assert source.propose([1], max_candidates=1, max_length=3)[0].token_ids == (2, 3, 4)
    source.extend([9])
    assert source.propose([1, 9], max_candidates=1, max_length=3) == []
    source.extend([3])
    assert source.propose([1, 9, 3], max_candidates=1, max_length=2)[0].token_ids == (4, 5)


def test_output_is_matched_over_the_border_to_the_prompt_and_labeled_output():
    source = PromptSource([5, 6])
    source.extend([7, 8, 5, 6])
    best = source.propose([5, 6, 7, 8, 5, 6], max_candidates=4, max_length=2)[0]
    assert best.token_ids == (7, 8)
    assert best.match_length == 2
    source.extend([7, 8, 1, 7])
    best = source.propose([5, 6, 7, 8, 5, 6, 7, 8, 1, 7], max_candidates=4, max_length=1)[0]
    assert best.token_ids == (8,)
    assert best.origin is DraftOrigin.OUTPUT


def test_a_long_output_makes_room_for_itself():
    source = PromptSource([1, 2, 3])
    output = [token % 50 for token in range(3000)]
    source.extend(output)
    best = source.propose([1, 2, 3, *output], max_candidates=1, max_length=4)[0]
    assert best.token_ids == (0, 1, 2, 3)


def test_accepted_drafts_are_counted_for_the_text_that_they_came_from():
    """The document's own text and the output used to be counted for the workspace."""
    pool = NgramPool()
    pool.set_document("main.py", [10, 11, 12, 13, 14, 15])  # the document itself, as indexed
    pool.set_document("other.py", [30, 31, 32, 33, 34, 35])

    def accepted(prompt: list[int], script: list[int]) -> dict[DraftOrigin, int]:
        stats = DecodingStats()
        model = ScriptedModel.saying(len(prompt), script, then=60)
        request = DecodeRequest(prompt, Limits(len(script)))
        list(drafted(request, model, stats, sources=[PoolSource(pool, "main.py")]))
        return stats.accepted_by_origin

    own = accepted([10, 11, 12, 13, 14, 15, 20, 10, 11], [12, 13, 14, 15])
    assert set(own) == {DraftOrigin.PROMPT}
    other = accepted([1, 2, 30, 31], [32, 33, 34, 35])
    assert set(other) == {DraftOrigin.WORKSPACE}
    output = accepted([1, 2], [40, 41, 42, 43, 44, 40, 41, 42, 43, 44, 40, 41, 42, 43, 44])
    assert DraftOrigin.OUTPUT in output
    assert DraftOrigin.WORKSPACE not in output
