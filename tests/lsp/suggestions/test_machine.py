"""Queries: kept while they fit, delayed on a slow device, and never left without an answer."""

from __future__ import annotations

from forelook.confidence import Confidence
from forelook_lsp.suggestions.cache import Continuation
from forelook_lsp.suggestions.condition import Condition
from forelook_lsp.suggestions.machine import (
    Answer,
    Ask,
    Discard,
    Source,
    Withdraw,
)
from forelook_lsp.suggestions.pacing import Timing

from tests.lsp.suggestions.desk import URI, Desk

# --- Requests that run -----------------------------------------------------------------------------------------


def test_the_latest_request_of_a_document_wins() -> None:
    desk = Desk("a")
    desk.request()
    desk.request()
    assert desk.discarded == [1]
    desk.answer("b")
    assert desk.last.query.query_id == 2
    assert desk.machine.pace.num_asks == 1


def test_a_running_request_is_kept_while_what_it_said_fits_what_is_typed() -> None:
    desk = Desk("ret")
    desk.request()
    desk.say("urn ")
    desk.cancel()
    desk.type("ur")
    desk.request()
    assert desk.withdrawn == []
    desk.say("urn x")
    desk.answer("urn x")
    assert desk.last.source is Source.KEPT
    assert desk.shown() == ["n x"]
    assert desk.machine.pace.num_asks == 1


def test_a_running_request_is_kept_while_it_has_said_nothing_against_it() -> None:
    desk = Desk("ret")
    desk.request()
    desk.type("ur")
    desk.request()
    desk.answer("urn x")
    assert desk.shown() == ["n x"]


def test_typing_something_else_withdraws_at_once_and_asks_again_when_queried() -> None:
    desk = Desk("ret")
    desk.request()
    desk.say("urn")
    assert desk.type("ry") == [Discard(1), Withdraw(1)]
    assert isinstance(desk.request()[0], Ask)


def test_a_request_that_waits_is_moved_when_the_running_one_says_something_else() -> None:
    desk = Desk("ret")
    desk.request()
    desk.type("ry")
    desk.request()
    assert desk.withdrawn == []
    assert [type(action) for action in desk.say("urn")] == [Withdraw, Ask]
    desk.answer("(x)")
    assert desk.shown() == ["(x)"]


def test_an_answer_that_does_not_fit_what_was_typed_since_is_not_shown() -> None:
    desk = Desk("ret")
    desk.request()
    desk.type("ry")
    desk.request()
    assert [type(action) for action in desk.answer("urn x")] == [Ask]
    desk.answer()
    assert desk.last.continuations == ()


def test_a_cancelled_request_runs_on_for_a_moment_and_then_ends() -> None:
    desk = Desk("a", timing=Timing(grace_s=0.3))
    desk.request()
    desk.cancel()
    assert desk.wait(0.29) == []
    assert desk.wait(0.02) == [Withdraw(1)]
    assert desk.machine.next_wake_s() is None


def test_an_answer_nobody_waits_for_any_more_is_there_for_the_next_request() -> None:
    desk = Desk("a")
    desk.request()
    desk.cancel()
    desk.answer("bc")
    desk.type("b")
    assert desk.request()[0].source is Source.HIT


def test_an_edit_elsewhere_withdraws() -> None:
    desk = Desk("a", "\nb")
    desk.request()
    desk.suffix = "\nbc"
    assert Withdraw(1) in desk.edited()


def test_the_editor_never_waits_longer_than_its_patience() -> None:
    desk = Desk("a", timing=Timing(patience_s=2.0, invoked_patience_s=5.0))
    desk.request()
    assert desk.wait(1.9) == []
    actions = desk.wait(0.2)
    assert [type(action) for action in actions] == [Answer, Withdraw]
    assert desk.last.continuations == ()
    desk.request(invoked=True)
    assert desk.wait(4.9) == []
    assert len(desk.wait(0.2)) == 2


def test_a_failure_and_a_lost_backend_answer_with_nothing_at_once() -> None:
    desk = Desk("a")
    desk.request()
    (request_id,) = desk.asks
    desk.asks.clear()
    assert [type(action) for action in desk.do(desk.machine.failed(request_id, desk.now_s))] == [Answer]
    desk.request()
    desk.asks.clear()
    assert [type(action) for action in desk.do(desk.machine.backend_lost(desk.now_s))] == [Answer]
    assert desk.last.source is Source.NONE


def test_closing_a_document_discards_withdraws_and_forgets() -> None:
    desk = Desk("a")
    desk.request()
    assert desk.do(desk.machine.closed(URI)) == [Discard(1), Withdraw(1)]
    desk.request()
    desk.answer("b")
    desk.do(desk.machine.closed(URI))
    assert isinstance(desk.request()[0], Ask)


def test_messages_of_a_withdrawn_request_are_ignored() -> None:
    desk = Desk("ret")
    desk.request()
    desk.machine.progressed(1, "urn", desk.now_s)
    desk.type("x")
    desk.request()
    assert desk.machine.progressed(1, "urn", desk.now_s) == []
    assert desk.machine.answered(1, [Continuation("urn")], "", desk.now_s) == []


# --- Delay -----------------------------------------------------------------------------------------------------


def typed_on(device_latency_s: float, gap_s: float) -> Desk:
    """A desk that has learnt how fast device and typist are."""
    desk = Desk("x = ")
    for _ in range(20):
        desk.type("y")
        desk.wait(gap_s)
        desk.machine.pace.learn_latency(device_latency_s)
    return desk


def test_a_quick_device_is_asked_at_once() -> None:
    desk = typed_on(0.05, 0.15)
    desk.type("z")
    assert isinstance(desk.request()[0], Ask)


def test_a_slow_device_is_asked_once_the_typing_pauses() -> None:
    desk = typed_on(0.6, 0.15)
    desk.type("z")
    assert desk.request() == []
    desk.wait(0.1)
    desk.type("z")
    assert desk.request() == []
    assert desk.machine.pace.num_asks == 0
    assert [type(action) for action in desk.wait(0.25)] == [Ask]
    assert desk.machine.pace.num_asks == 1


def test_a_hit_and_a_command_are_never_delayed() -> None:
    desk = typed_on(0.6, 0.15)
    desk.type("z")
    assert isinstance(desk.request(invoked=True)[0], Ask)
    desk.answer("abc")
    desk.type("a")
    assert desk.request()[0].source is Source.HIT


def test_what_the_editor_waited_itself_counts() -> None:
    desk = typed_on(0.6, 0.1)
    desk.type("z")
    desk.wait(0.2)
    assert isinstance(desk.request()[0], Ask)


def test_a_delay_the_user_set_is_kept_exactly() -> None:
    desk = Desk("a", timing=Timing(delay_s=0.2))
    assert desk.request() == []
    assert desk.wait(0.19) == []
    assert [type(action) for action in desk.wait(0.02)] == [Ask]


def test_a_cancelled_request_is_not_asked_when_its_delay_is_over() -> None:
    desk = Desk("a", timing=Timing(delay_s=0.2))
    desk.request()
    desk.cancel()
    assert desk.machine.next_wake_s() is None
    assert desk.wait(1) == []


# --- Answers that are withheld ---------------------------------------------------------------------------------


def test_a_withheld_answer_answers_the_query_with_nothing_and_says_why() -> None:
    desk = Desk("x = ")
    desk.request()
    desk.answer(is_unsure=True)
    assert desk.shown() == []
    assert desk.last.is_unsure
    assert desk.last.source is Source.NEW


def test_after_a_withheld_answer_every_key_asks_until_the_model_is_sure() -> None:
    desk = Desk("x = ")
    desk.request()
    desk.answer(is_unsure=True)
    desk.type("f")
    desk.request()
    assert desk.machine.pace.num_asks == 2
    desk.answer("oo(1)")
    assert desk.shown() == ["oo(1)"]
    assert not desk.last.is_unsure
    desk.type("o")
    desk.request()
    assert desk.last.source is Source.HIT, "what is on the screen stays there while it is typed"


def test_a_withheld_answer_for_an_earlier_cursor_is_asked_for_again() -> None:
    desk = Desk("x = ")
    desk.request()
    desk.type("f")
    desk.request()
    desk.answer(is_unsure=True)
    assert len(desk.answers) == 0
    assert desk.machine.pace.num_asks == 2


def test_what_one_level_shows_the_cache_does_not_show_under_another() -> None:
    desk = Desk("x = ")
    desk.request(condition=Condition(confidence=Confidence.OFF))
    desk.answer("foo(1)")
    desk.request(condition=Condition(confidence=Confidence.STRICT))
    assert desk.machine.pace.num_asks == 2
    assert desk.asks[2].request().confidence is Confidence.STRICT


def test_what_was_asked_for_stays_while_it_is_typed() -> None:
    desk = Desk("x = ")
    desk.request(condition=Condition(confidence=0.9, invoked=True))
    desk.answer("foo(1)")
    desk.type("f")
    desk.request(condition=Condition(confidence=0.9))
    assert desk.shown() == ["oo(1)"]
