"""Requests, plans and reports as integers and back."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from forelook.decoding.limits import Limits, SamplingParams
from forelook.decoding.lookahead.published import PublishedSettings
from forelook.decoding.parallel.messages import (
    Report,
    RequestMessage,
    plan_from_ints,
    plan_to_ints,
    recipe_from_json,
    recipe_to_json,
    report_ints,
)
from forelook.decoding.request import DecodeRequest
from forelook.errors import DecodingError
from forelook.finish_reason import FinishReason
from hypothesis import given
from hypothesis import strategies as st

from tests.decoding.parallel.plans import plans


@given(plans())
def test_a_plan_survives_the_wire(plan):
    copy = plan_from_ints(plan_to_ints(plan))
    assert (copy.tree.token_ids, copy.tree.parents, copy.tree.children) == (
        plan.tree.token_ids,
        plan.tree.parents,
        plan.tree.children,
    )
    assert (copy.window is None) == (plan.window is None)
    if plan.window is not None:
        assert copy.window.token_ids == plan.window.token_ids
        assert (copy.window.offsets == plan.window.offsets).all()


@given(
    st.builds(
        Report,
        error_code=st.integers(-(2**31), 2**31),
        ended=st.sampled_from([None, *FinishReason]),
        is_constrained=st.booleans(),
        num_accepted=st.integers(0, 9),
        token_ids=st.lists(st.integers(0, 2**20), max_size=20),
        finish_reason=st.sampled_from([None, *FinishReason]),
        argmax=st.lists(st.integers(0, 2**20), max_size=80),
        log_probs=st.lists(st.integers(-(2**30), 0).map(lambda millionths: millionths / 1e6), max_size=21),
    )
)
def test_a_report_survives_the_wire(report):
    assert Report.from_ints(report.to_ints(512)) == report


def test_a_report_over_the_limit_is_an_error():
    with pytest.raises(DecodingError, match="has 28 numbers, over the limit of 27"):
        Report(argmax=range(20)).to_ints(27)


def test_a_request_survives_the_wire_without_what_rank_0_alone_knows():
    request = DecodeRequest(
        [1, 2, 3],
        Limits(7, frozenset({5})),
        SamplingParams(0.5, 3, 0.9, 2),
        boundary_ids=frozenset({0}),
        is_scored=True,
        prefill_chunk=9,
    )
    recipe = PublishedSettings(5, 4, 3, prompt_as_reference=True)
    message = RequestMessage(
        number=4,
        sequence=2,
        live_sequences=[1, 2],
        max_positions=512,
        prompt_ids=[1, 2, 3],
        max_new_tokens=7,
        stop_token_ids=[5],
        boundary_ids=[0],
        sampling=asdict(request.sampling),
        prefill_chunk=9,
        is_constrained=True,
        is_scored=True,
        recipe=recipe_to_json(recipe),
        report_ints=report_ints(recipe),
        drafts_on_prompt=True,
    )
    copy = RequestMessage.from_ints(message.to_ints())
    assert replace(copy, recipe=message.recipe) == message
    assert recipe_from_json(copy.recipe) == recipe
    same = replace(copy.request, limits=request.limits)  # two cancel flags are never equal
    assert same == request
    assert copy.request.limits.stop_token_ids == {5}


def test_a_drafter_without_a_recipe_has_its_plans_sent_and_an_unknown_recipe_is_an_error():
    assert recipe_from_json(recipe_to_json(None)) is None
    with pytest.raises(DecodingError, match="SamplingParams is not a known drafter recipe"):
        recipe_to_json(SamplingParams())
