"""Queries that the cache answers, and those that it must not."""

from __future__ import annotations

import pytest
from forelook.protocol.messages import SelectedCompletion
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
