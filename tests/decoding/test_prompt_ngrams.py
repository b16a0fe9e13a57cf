"""Prompt and output n-grams against a naive search."""

from __future__ import annotations

from forelook.decoding.drafting.draft import DraftOrigin
from forelook.decoding.drafting.sources.prompt import PromptNgrams
from hypothesis import given, settings
from hypothesis import strategies as st

tokens = st.lists(st.integers(0, 5), min_size=1, max_size=60)


def longest_match(text: list[int], context: list[int], boundaries: frozenset[int]) -> int:
    """Length of the longest earlier occurrence of the context's end that something follows, by plain comparison."""
    best = 0
    for place in range(len(text) - 1):
        length = 0
        while (
            length <= place
            and length < len(context)
            and text[place - length] == context[-1 - length]
            and text[place - length] not in boundaries
        ):
            length += 1
        if text[place + 1] not in boundaries:
            best = max(best, length)
    return min(best, 16)


@settings(max_examples=300, deadline=None)
@given(prompt=tokens, generated=st.lists(st.integers(0, 5), max_size=30), boundaries=st.frozensets(st.just(5)))
def test_best_draft_follows_the_longest_earlier_match(prompt, generated, boundaries):
    context = [token for token in prompt if token not in boundaries]
    if not context:
        return
    # the prompt's own end must be the context, as in a suffix-first or plain prompt
    while prompt and prompt[-1] in boundaries:
        prompt = prompt[:-1]
    tail = len(prompt)
    while tail and prompt[tail - 1] not in boundaries:
        tail -= 1
    context = prompt[tail:]
    generated = [token for token in generated if token not in boundaries]
    source = PromptNgrams(prompt, context, len(generated), boundaries)
    for start in range(0, len(generated), 3):
        source.extend(generated[start : start + 3])
    context = context + generated
    text = prompt + generated
    found = source.propose(context, max_candidates=8, max_length=6)
    expected = longest_match(text, context, boundaries)
    assert (found[0].match_length if found else 0) == expected
    lengths = [draft.match_length for draft in found]
    assert lengths == sorted(lengths, reverse=True)
    for draft in found:
        assert not boundaries & set(draft.token_ids)
        assert 1 <= len(draft.token_ids) == len(draft.shares) <= 6
        assert all(0.0 < share <= 1.0 for share in draft.shares)
        needle = context[len(context) - draft.match_length :] + list(draft.token_ids)
        places = [place for place in range(len(text) - len(needle) + 1) if text[place : place + len(needle)] == needle]
        assert places, "a draft must stand somewhere behind what it matched"
    assert len({draft.token_ids for draft in found}) == len(found)


def test_a_prompt_that_ends_with_a_sentinel_still_matches_the_prefix_tail():
    pre, suf, mid = 90, 91, 92
    prefix = [1, 2, 3, 4, 1, 2]
    prompt = [pre, *prefix, suf, 7, 8, mid]
    source = PromptNgrams(prompt, prefix, 16, frozenset({pre, suf, mid}))
    assert source.propose(prefix, max_candidates=4, max_length=4)[0].token_ids == (3, 4, 1, 2)
    source.extend([3, 4])
    best = source.propose([*prefix, 3, 4], max_candidates=4, max_length=4)[0]
    assert best.token_ids == (1, 2, 3, 4)  # as the output itself went on, not across the suffix sentinel
    assert best.match_length == 4


def test_output_is_matched_over_the_border_to_the_prefix():
    pre, suf, mid = 90, 91, 92
    prefix = [5, 6]
    source = PromptNgrams([pre, *prefix, suf, mid], prefix, 16, frozenset({pre, suf, mid}))
    source.extend([7, 8, 5, 6])
    best = source.propose([*prefix, 7, 8, 5, 6], max_candidates=4, max_length=2)[0]
    assert best.token_ids == (7, 8)
    assert best.match_length == 2
    assert best.origin is DraftOrigin.OUTPUT


def test_agreeing_occurrences_make_one_draft_with_a_larger_share():
    text = [9, 1, 2, 3, 9, 1, 2, 3, 9, 1, 2, 4, 9, 1]
    best = PromptNgrams(text, text, 4).propose(text, max_candidates=8, max_length=2)
    shares = {draft.token_ids: draft.shares for draft in best}
    assert shares[2, 3][1] > shares[2, 4][1]


def test_of_equal_matches_the_latest_comes_first():
    text = [1, 2, 9, 9, 1, 3, 9, 9, 1]
    best = PromptNgrams(text, text, 4).propose(text, max_candidates=8, max_length=1)
    assert [draft.token_ids for draft in best] == [(3,), (2,)]


def test_a_long_run_of_one_token_does_not_hide_a_longer_match():
    text = [4, 7, 3, 8] + [7, 0] * 300 + [4, 7]
    best = PromptNgrams(text, text, 4).propose(text, max_candidates=8, max_length=2)
    assert best[0].token_ids == (3, 8)
    assert best[0].match_length == 2
