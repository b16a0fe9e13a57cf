"""Queries that the cache answers, and those that it must not."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from forelook.protocol.messages import CompletionParams, MultiLine, SelectedCompletion
from forelook_lsp.suggestions.cache import LINE_STEP, Continuation, Place, SuggestionCache
from forelook_lsp.suggestions.condition import Condition, Selection
from forelook_lsp.suggestions.machine import (
    Answer,
    Ask,
    Source,
)

from tests.lsp.suggestions.desk import Desk


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
    desk.request(selected=SelectedCompletion(4, 6, "format"))
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


# --- What an answer depends on beyond the text -----------------------------------------------------------------

BASE = Condition("python", multi_line=MultiLine.AUTO, max_new_tokens=64, deadline_ms=500, model="starter")
OTHERS = {
    "language_id": replace(BASE, language_id="ruby"),
    "invoked": replace(BASE, invoked=True),
    "num_wanted": replace(BASE, num_wanted=2),
    "selected": replace(BASE, selected=Selection(4, 0, "format")),
    "multi_line": replace(BASE, multi_line=MultiLine.NEVER),
    "confidence": replace(BASE, confidence=0.5),
    "max_new_tokens": replace(BASE, max_new_tokens=None),
    "deadline_ms": replace(BASE, deadline_ms=501),
    "model": replace(BASE, model="another"),
    "epoch": replace(BASE, epoch=1),
}


def test_every_part_of_the_condition_is_varied() -> None:
    assert OTHERS.keys() == {field.name for field in fields(Condition)}


def test_a_request_contains_nothing_that_is_not_in_the_condition() -> None:
    """A new field of the request must be derived from the condition, or be about the place."""
    about_the_place = {"uri", "version", "offset", "partial"}
    from_the_condition = {
        "trigger": "invoked",
        "num_suggestions": "num_wanted",
        "selected": "selected",
        "multi_line": "multi_line",
        "confidence": "confidence",
        "max_new_tokens": "max_new_tokens",
        "deadline_ms": "deadline_ms",
    }
    assert {field.name for field in fields(CompletionParams)} == about_the_place | from_the_condition.keys()
    desk = Desk("a = fo")
    desk.request(condition=BASE)
    (asked,) = (query.request() for query in desk.asks.values())
    for name, source in from_the_condition.items():
        other = replace(desk.asks[1], condition=OTHERS[source]).request()
        assert getattr(other, name) != getattr(asked, name)


@pytest.mark.parametrize("name", OTHERS)
def test_an_answer_is_not_served_under_another_condition(name: str) -> None:
    desk = Desk("a = fo")
    desk.request(condition=BASE)
    desk.answer("rmat(x)", "rmat(y)")
    desk.request(condition=BASE)
    assert desk.last.source is Source.HIT
    assert isinstance(desk.request(condition=OTHERS[name])[0], Ask)


@pytest.mark.parametrize("name", sorted(OTHERS.keys() - {"invoked", "num_wanted"}))
def test_an_answer_under_another_condition_is_not_served(name: str) -> None:
    desk = Desk("a = fo")
    desk.request(condition=OTHERS[name])
    desk.answer("rmat(x)")
    assert isinstance(desk.request(condition=BASE)[0], Ask)


@pytest.mark.parametrize("name", OTHERS)
def test_a_running_request_does_not_serve_another_condition(name: str) -> None:
    desk = Desk("a = fo")
    desk.request(condition=BASE)
    desk.request(condition=OTHERS[name])
    assert desk.withdrawn == [1]
    assert [query.condition for query in desk.asks.values()] == [OTHERS[name]]


def test_what_a_command_brought_stays_while_the_user_types() -> None:
    desk = Desk("a = ")
    desk.request(condition=replace(BASE, invoked=True, num_wanted=2))
    desk.answer("f(1)", "g(2)")
    desk.type("f")
    desk.request(condition=BASE)
    assert (desk.last.source, desk.shown()) == (Source.HIT, ["(1)"])


def test_what_was_computed_for_the_popups_selection_is_right_once_it_is_accepted_and_not_before() -> None:
    desk = Desk("a = fo")
    desk.request(condition=OTHERS["selected"])
    desk.answer("rmat(x)")
    desk.type("r")
    desk.request(condition=OTHERS["selected"])
    assert desk.last.source is Source.HIT
    assert isinstance(desk.request(condition=BASE)[0], Ask)
    desk.type("mat")
    desk.request(condition=BASE)
    assert (desk.last.source, desk.shown()) == (Source.HIT, ["(x)"])


def test_the_answer_of_a_request_that_ran_when_answers_were_forgotten_is_not_kept() -> None:
    desk = Desk("a = ")
    desk.request(condition=BASE)
    desk.machine.forget_answers()
    desk.answer("1")
    assert isinstance(desk.request(condition=OTHERS["epoch"])[0], Ask)


def test_another_text_in_the_document_is_another_place() -> None:
    """Of a notebook the text includes the other cells."""
    cache = SuggestionCache()
    text = "def f(): pass\nx = "
    cache.add(Place.of("n", text, 14, 18), BASE, [Continuation("f()")])
    assert cache.find(Place.of("n", text, 14, 18), BASE)
    assert not cache.find(Place.of("n", "def g(): pass\nx = ", 14, 18), BASE)
    assert not cache.find(Place.of("n", text + "\n", 14, 18), BASE)


# --- Long lines ------------------------------------------------------------------------------------------------


def test_on_a_long_line_the_range_starts_at_the_cursor_and_typing_still_hits() -> None:
    desk = Desk("x = [" + "1, " * 2 * LINE_STEP)
    desk.request()
    desk.answer("22222, 3")
    assert desk.last.query.start == len(desk.text)
    for typed in "22222":
        desk.type(typed)
        assert desk.request()[0].source is Source.HIT
        assert (desk.last.query.before, desk.last.query.start) == ("", len(desk.text))
    assert desk.shown() == [", 3"]


def test_typing_over_a_step_of_a_long_line_still_hits() -> None:
    desk = Desk("y" * (3 * LINE_STEP - 2))
    desk.request()
    desk.answer("abcdef")
    anchors = set()
    for typed in "abcde":
        desk.type(typed)
        assert desk.request()[0].source is Source.HIT
        anchors.add(desk.place.anchor)
    assert anchors == {LINE_STEP, 2 * LINE_STEP}


def test_the_cache_keeps_little_of_a_long_line() -> None:
    cache = SuggestionCache()
    text = "z" * 1_000_000
    cache.add(Place.of("a", text, 0, len(text)), BASE, [Continuation("f()")])
    (entry,) = cache._entries.values()
    assert len(entry.span.line_before) <= 2 * LINE_STEP
