"""Whatever happens in whatever order: every query ends, and no suggestion contradicts what was typed."""

from __future__ import annotations

from forelook_lsp.suggestions.machine import (
    Query,
)
from forelook_lsp.suggestions.pacing import Timing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lsp.suggestions.desk import Desk

TARGET = "def f(a, b):\n    total = f(a[1], g(b))\n    return (total + 1)\n\n\nprint(f(2, [3]))\n"

OPERATIONS = st.sampled_from(
    [
        *("type", "type", "type", "wrong", "back"),
        *("request", "request", "request", "invoke", "cancel"),
        *("say", "answer", "answer", "nothing", "fail", "lost", "wait", "wait_long"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(OPERATIONS, st.integers(1, 9)), max_size=60),
    st.sampled_from([Timing(), Timing(delay_s=0.1), Timing(grace_s=0.0)]),
)
def test_whatever_happens_every_request_ends_and_no_suggestion_contradicts_what_was_typed(
    operations: list[tuple[str, int]], timing: Timing
) -> None:
    desk = Desk("", timing=timing)
    num_requests = num_cancelled = 0

    def truth(query: Query) -> str:
        """What the scripted model says: the target where the text is its beginning, else something of its own."""
        before = query.place.text[: query.place.offset]
        return TARGET[len(before) :][:25] if TARGET.startswith(before) else f"<{len(before)}>"

    for name, number in operations:
        if name == "type":
            on_target = TARGET.startswith(desk.text)
            desk.type(TARGET[len(desk.text) :][:number] if on_target else "z")
        elif name == "wrong":
            desk.type("?!"[number % 2])
        elif name == "back":
            desk.text = desk.text[:-number]
            desk.edited()
        elif name in ("request", "invoke"):
            num_requests += 1
            desk.request(invoked=name == "invoke", num_wanted=3 if name == "invoke" else 1)
        elif name == "cancel" and desk.open_queries:
            num_cancelled += 1
            desk.cancel()
        elif name in ("say", "answer", "nothing", "fail") and desk.asks:
            (request_id,) = desk.asks
            said = truth(desk.asks[request_id])
            if name == "say":
                desk.say(said[:number])
            elif name == "answer":
                desk.answer(said, next_line="" if number % 2 else TARGET[:number])
            elif name == "nothing":
                desk.answer()
            else:
                desk.asks.clear()
                desk.do(desk.machine.failed(request_id, desk.now_s))
        elif name == "lost":
            desk.asks.clear()
            desk.do(desk.machine.backend_lost(desk.now_s))
        elif name.startswith("wait"):
            desk.wait(number / 20 if name == "wait" else number)
        assert len(desk.open_queries) <= 1
        for answer in desk.answers:
            place = answer.query.place
            assert (answer.query.start, answer.query.before) == (place.anchor, place.line_before)
            for continuation in answer.continuations:
                assert continuation.text
                assert continuation.num_replaced == 0
    desk.wait(60)
    desk.wait(60)
    assert desk.open_queries == {}
    assert desk.asks == {}
    assert desk.machine.next_wake_s() is None
    assert len(desk.answers) + len(desk.discarded) + num_cancelled == num_requests


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=5, max_size=40), st.integers(0, 30))
def test_a_typist_who_follows_the_model_sees_only_the_models_own_text(steps: list[int], start: int) -> None:
    desk = Desk(TARGET[:start])
    for number in steps:
        if desk.text == TARGET:
            break
        desk.request()
        if desk.asks:
            desk.answer(TARGET[len(desk.text) :][:20])
        for text in desk.shown():
            assert TARGET.startswith(desk.text + text)
        desk.type(TARGET[len(desk.text) :][:number])
    # An answer of 20 characters is used up before the next is asked for; a step can overshoot its end by five.
    assert desk.machine.pace.num_asks <= 1 + len(TARGET) / 20
