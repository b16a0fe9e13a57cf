"""Requests: answered at once where the cache can, kept where they fit, and never left hanging."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from forelook.protocol.messages import SelectedCompletion
from forelook_lsp.suggestions.cache import Continuation, Place
from forelook_lsp.suggestions.machine import (
    Action,
    Answer,
    Ask,
    Discard,
    Query,
    Source,
    SuggestionMachine,
    Timing,
    Withdraw,
)
from hypothesis import given, settings
from hypothesis import strategies as st

URI = "file:///a.py"


@dataclass
class Desk:
    """A document, an editor and a scripted backend around ``SuggestionMachine``, with a clock that is told the time."""

    text: str = ""
    suffix: str = ""
    timing: Timing = field(default_factory=Timing)
    now_s: float = 100.0

    def __post_init__(self) -> None:
        self.machine = SuggestionMachine(self.timing)
        self.version = 1
        self.next_query_id = 1
        self.asks: dict[int, Query] = {}
        self.open_queries: dict[int, Query] = {}
        self.answers: list[Answer] = []
        self.discarded: list[int] = []
        self.withdrawn: list[int] = []

    @property
    def place(self) -> Place:
        whole, offset = self.text + self.suffix, len(self.text)
        anchor = max(self.text.rfind("\n"), self.text.rfind("\r")) + 1
        return Place.of(URI, whole, anchor, offset)

    def do(self, actions: list[Action]) -> list[Action]:
        for action in actions:
            if isinstance(action, Ask):
                assert len(self.asks) == 0, "two requests run for one document"
                self.asks[action.request_id] = action.query
            elif isinstance(action, Withdraw):
                del self.asks[action.request_id]
                self.withdrawn.append(action.request_id)
            elif isinstance(action, Answer):
                del self.open_queries[action.query.query_id]
                self.answers.append(action)
            elif isinstance(action, Discard):
                del self.open_queries[action.query_id]
                self.discarded.append(action.query_id)
        return actions

    def request(
        self, *, invoked: bool = False, num_wanted: int = 1, selected: SelectedCompletion | None = None
    ) -> list[Action]:
        query = Query(self.next_query_id, self.place, self.version, invoked, num_wanted, selected)
        self.next_query_id += 1
        self.open_queries[query.query_id] = query
        return self.do(self.machine.queried(query, self.now_s))

    def type(self, text: str, suffix: str | None = None) -> list[Action]:
        self.text += text
        self.suffix = self.suffix if suffix is None else suffix
        return self.edited()

    def edited(self) -> list[Action]:
        self.version += 1
        return self.do(self.machine.edited(URI, self.place, self.now_s))

    def answer(self, *texts: str, next_line: str = "", num_replaced: int = 0, is_cut: bool = False) -> list[Action]:
        request_id = next(iter(self.asks))
        del self.asks[request_id]
        found = [Continuation(text, num_replaced) for text in texts]
        return self.do(self.machine.answered(request_id, found, next_line, self.now_s, is_cut=is_cut))

    def say(self, text: str) -> list[Action]:
        return self.do(self.machine.progressed(next(iter(self.asks)), text, self.now_s))

    def cancel(self) -> None:
        query_id = max(self.open_queries)
        del self.open_queries[query_id]
        self.machine.cancelled(query_id, self.now_s)

    def wait(self, seconds: float) -> list[Action]:
        self.now_s += seconds
        return self.do(self.machine.tick(self.now_s))

    @property
    def last(self) -> Answer:
        return self.answers[-1]

    def shown(self) -> list[str]:
        return [continuation.text for continuation in self.last.continuations]


# --- Hits ----------------------------------------------------------------------------------------------------


def test_typing_what_was_suggested_is_answered_without_the_backend() -> None:
    desk = Desk("    ret")
    desk.request()
    desk.answer("urn total")
    for typed in "urn tota":
        desk.type(typed)
        actions = desk.request()
        assert [type(action) for action in actions] == [Answer]
        assert desk.last.source is Source.HIT
    assert desk.shown() == ["l"]
    assert desk.last.query.before + desk.shown()[0] == "    return total"
    assert desk.machine.pace.num_asks == 1


def test_a_suggestion_typed_to_its_end_is_no_hit_any_more() -> None:
    desk = Desk("x = ")
    desk.request()
    desk.answer("1")
    desk.type("1")
    assert isinstance(desk.request()[0], Ask)


def test_a_cut_suggestion_is_requested_again_before_it_shrinks_to_a_stub() -> None:
    desk = Desk("value = ")
    desk.request()
    desk.answer("compute(first, second_one", is_cut=True)
    desk.type("compute(fi")
    assert desk.request()[0].source is Source.HIT
    assert desk.shown() == ["rst, second_one"]
    desk.type("rst, ")
    assert isinstance(desk.request()[0], Ask)
    desk.answer("second_one, third)")
    assert desk.shown() == ["second_one, third)"]


def test_a_short_cut_suggestion_is_shown_where_it_was_asked_for() -> None:
    desk = Desk("x = ")
    desk.request()
    desk.answer("al", is_cut=True)
    assert desk.shown() == ["al"]
    desk.request()
    assert desk.shown() == ["al"]


def test_a_slow_device_is_not_asked_for_the_rest_of_a_cut_suggestion() -> None:
    desk = Desk("value = ")
    desk.request()
    desk.wait(desk.machine.timing.slow_s + 0.1)
    desk.answer("compute(first", is_cut=True)
    desk.type("compute(fi")
    assert desk.request()[0].source is Source.HIT
    assert desk.shown() == ["rst"]


def test_a_hit_spans_lines_and_line_ends_of_any_kind() -> None:
    desk = Desk("if a:\r\n    b(", ")\r\n")
    desk.request()
    desk.answer("1)\n    c()", num_replaced=1)
    desk.type("1)\r\n    c")
    assert desk.request()[0].source is Source.HIT
    assert desk.shown() == ["()"]


def test_stepping_back_within_the_word_still_hits() -> None:
    desk = Desk("    retu")
    desk.request()
    desk.answer("rn x")
    desk.text = "    re"
    desk.edited()
    desk.request()
    assert desk.shown() == ["turn x"]


def test_deleting_indentation_does_not_bring_it_back() -> None:
    desk = Desk("        ")
    desk.request()
    desk.answer("return x")
    desk.text = "    "
    desk.edited()
    assert isinstance(desk.request()[0], Ask)


@pytest.mark.parametrize("suffix", ["x", "", "\nb", "(\na"])
def test_another_text_after_the_cursor_is_no_hit(suffix: str) -> None:
    desk = Desk("a = ", "\na")
    desk.request()
    desk.answer("f(1)")
    desk.type("f", suffix)
    assert isinstance(desk.request()[0], Ask)


def test_another_text_far_before_the_cursor_is_no_hit() -> None:
    desk = Desk("import a\nx = ")
    desk.request()
    desk.answer("a.b")
    desk.text = "import b\nx = "
    desk.edited()
    assert isinstance(desk.request()[0], Ask)


def test_a_bracket_the_editor_closed_is_replaced_by_the_suggestions_own() -> None:
    desk = Desk("a = ", "\n")
    desk.request()
    desk.answer("f(1)")
    desk.type("f(", ")\n")
    assert desk.request()[0].source is Source.HIT
    (continuation,) = desk.last.continuations
    assert (continuation.text, continuation.num_replaced) == ("1)", 1)


def test_what_the_model_said_beyond_the_suggestion_is_offered_once_it_is_taken() -> None:
    desk = Desk("a = ")
    desk.request()
    desk.answer("1", next_line="\nb = 2")
    desk.type("1")
    assert desk.request()[0].source is Source.HIT
    assert desk.shown() == ["\nb = 2"]


def test_alternatives_are_asked_for_even_where_one_is_cached() -> None:
    desk = Desk("a = ")
    desk.request()
    desk.answer("1")
    assert isinstance(desk.request(invoked=True, num_wanted=3)[0], Ask)
    desk.answer("1", "2", "3")
    assert desk.shown() == ["1", "2", "3"]
    desk.request(invoked=True, num_wanted=3)
    assert desk.last.source is Source.HIT


def test_a_popups_selection_must_be_extended_over_its_own_range() -> None:
    desk = Desk("a = fo")
    desk.request()
    desk.answer("rmat(x)")
    desk.request(selected=SelectedCompletion(4, 6, "format"))
    assert desk.last.source is Source.HIT
    assert (desk.last.query.start, desk.last.query.before, desk.shown()) == (4, "fo", ["rmat(x)"])
    assert isinstance(desk.request(selected=SelectedCompletion(4, 6, "fold"))[0], Ask)
    desk.answer("rmat(x)")
    assert desk.last.continuations == ()
    desk.request(selected=SelectedCompletion(4, 6, "format(x)"))
    desk.answer("rmat(x)")
    assert desk.last.continuations == ()


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


# --- All at once -----------------------------------------------------------------------------------------------

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
