"""What became of a suggestion, read off the edits that follow it."""

from __future__ import annotations

import pytest
from forelook.protocol.events import EventKind
from forelook.protocol.messages import TextChange
from forelook_lsp.suggestions.cache import Continuation, Place
from forelook_lsp.suggestions.machine import Answer, Query, Source
from forelook_lsp.suggestions.outcomes import Outcome, Outcomes
from hypothesis import given
from hypothesis import strategies as st

URI = "file:///a.py"


class Page:
    """A document whose edits are told to ``Outcomes``."""

    def __init__(self, before: str, after: str = "") -> None:
        self.text = before + after
        self.cursor = len(before)
        self.now_s = 0.0
        self.outcomes = Outcomes()
        self.seen: list[Outcome] = []

    def show(self, *continuations: str, entry: int = 1, num_replaced: int = 0) -> None:
        self.answer(*continuations, entry=entry, num_replaced=num_replaced)
        self.seen += self.outcomes.shown(f"{entry}.0")

    def answer(self, *continuations: str, entry: int = 1, num_replaced: int = 0) -> None:
        anchor = self.text.rfind("\n", 0, self.cursor) + 1
        query = Query(1, Place.of(URI, self.text, anchor, self.cursor), 1)
        found = tuple(Continuation(text, num_replaced, f"{entry}.{index}") for index, text in enumerate(continuations))
        self.seen += self.outcomes.answered(Answer(query, found, Source.NEW, 0.012), self.now_s)

    def withhold(self) -> None:
        anchor = self.text.rfind("\n", 0, self.cursor) + 1
        query = Query(1, Place.of(URI, self.text, anchor, self.cursor), 1)
        self.seen += self.outcomes.answered(Answer(query, (), Source.NEW, 0.012, is_unsure=True), self.now_s)

    def edit(self, start: int, end: int, text: str) -> None:
        self.seen += self.outcomes.edited(URI, self.text, TextChange(start, end, text), self.now_s)
        self.text = self.text[:start] + text + self.text[end:]
        self.cursor = start + len(text)

    def insert(self, text: str) -> None:
        self.edit(self.cursor, self.cursor, text)

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.seen += self.outcomes.tick({URI: self.text}, self.now_s)

    @property
    def kinds(self) -> list[str]:
        return [outcome.kind.value for outcome in self.seen]


def test_a_suggestion_taken_whole_is_counted_once_whoever_says_so() -> None:
    page = Page("a = ")
    page.show("f(1)")
    page.insert("f(1)")
    page.seen += page.outcomes.accepted("1.0")
    page.wait(5)
    assert page.kinds == ["shown", "accepted"]
    assert (page.seen[1].num_chars, page.seen[1].text) == (4, "f(1)")
    assert page.outcomes.statistics.num_keystrokes_saved == 3
    assert page.outcomes.statistics.accept_rate == 1.0


@pytest.mark.parametrize(
    "edit",
    [(6, 6, "f(1)"), (2, 6, "a = f(1)"), (0, 6, "\n\na = f(1)"), (2, 8, "a = f(1)\nx"), (6, 8, "f(1)\nx")],
    ids=["as it is", "from the line's start", "from the file's start", "with what follows", "before what follows"],
)
def test_an_accepting_edit_is_known_however_the_editor_puts_it(edit: tuple[int, int, str]) -> None:
    page = Page("\n\na = ", "\nx\n")
    page.show("f(1)")
    page.edit(*edit)
    assert page.kinds == ["shown", "accepted"]


def test_a_suggestion_that_replaces_what_follows_is_known() -> None:
    page = Page("f(", ")\n")
    page.show("1, 2)", num_replaced=1)
    page.edit(0, 3, "f(1, 2)")
    assert page.kinds == ["shown", "accepted"]


def test_windows_line_ends_do_not_hide_an_acceptance() -> None:
    page = Page("if a:\r\n    ")
    page.show("b()\n    c()")
    page.insert("b()\r\n    c()")
    assert page.kinds == ["shown", "accepted"]


def test_words_and_lines_are_told_from_the_whole() -> None:
    page = Page("")
    page.show("return total\n    # end")
    page.insert("return")
    page.show(" total\n    # end")
    page.insert(" total")
    page.insert("\n    # end")
    page.wait(5)
    assert page.kinds == ["shown", "accepted_word", "accepted_line", "accepted"]
    assert page.outcomes.statistics.accept_rate == 1.0


def test_typing_a_suggestion_out_is_typing_through_it() -> None:
    page = Page("a = ")
    page.show("foo")
    for left in ("oo", "o", ""):
        page.insert("foo"[2 - len(left)])
        if left:
            page.show(left)
    page.wait(5)
    assert page.kinds == ["shown", "typed_through"]
    assert page.outcomes.statistics.num_keystrokes_saved == 0


def test_a_bracket_the_editor_closes_is_still_typing_through() -> None:
    page = Page("a = ")
    page.show("f(1)")
    page.insert("f")
    page.edit(5, 5, "()")
    page.cursor = 6
    page.show("1)", num_replaced=1)
    page.edit(6, 7, "1)")
    assert page.kinds == ["shown", "accepted"]


def test_what_never_came_on_the_screen_is_neither_shown_nor_turned_down_nor_typed_through() -> None:
    page = Page("a = ")
    page.answer("f(1)")
    page.insert("g")
    page.answer("(2)", entry=2)
    for character in "(2)":
        page.insert(character)
    page.wait(2)
    assert page.kinds == []
    page.answer("x", entry=3)
    page.insert("y")
    page.seen += page.outcomes.shown("3.0")  # too late: another text stands there
    page.wait(2)
    assert page.kinds == []
    assert page.outcomes.statistics.accept_rate is None


def test_what_comes_on_the_screen_later_is_counted_once_then_with_what_is_left_of_it() -> None:
    page = Page("a = ")
    page.answer("f(1)")
    page.insert("f")
    page.answer("(1)")  # the same one, typed on
    page.seen += page.outcomes.shown("1.0")
    page.seen += page.outcomes.shown("1.0")
    assert [(outcome.kind, outcome.num_chars) for outcome in page.seen] == [(EventKind.SHOWN, 3)]
    page.insert("x")
    page.wait(2)
    assert page.kinds == ["shown", "rejected"]


@pytest.mark.parametrize("how", ["edit", "word", "part"])
def test_what_is_taken_was_shown_whoever_says_so(how: str) -> None:
    page = Page("a = ")
    page.answer("f(1) + 2")
    if how == "edit":
        page.insert("f(1) + 2")
    elif how == "word":
        page.seen += page.outcomes.accepted("1.0")
    else:
        page.seen += page.outcomes.partly_accepted("1.0", len("a = f(1)"))
    assert page.kinds == ["shown", "accepted_word" if how == "part" else "accepted"]
    assert page.outcomes.statistics.accept_rate == 1.0


def test_typing_something_else_turns_it_down_after_a_moment() -> None:
    page = Page("a = ")
    page.show("foo")
    page.insert("b")
    assert page.kinds == ["shown"]
    page.wait(1.1)
    assert page.kinds == ["shown", "rejected"]
    assert page.outcomes.statistics.accept_rate == 0.0


def test_a_report_of_the_editor_overrules_a_presumed_rejection() -> None:
    page = Page("a = ")
    page.show("foo")
    page.edit(0, 4, "b = bar")
    page.seen += page.outcomes.accepted("1.0")
    page.wait(5)
    assert page.kinds == ["shown", "accepted"]


def test_another_suggestion_in_its_place_turns_the_first_down() -> None:
    page = Page("a = ")
    page.show("foo", entry=1)
    page.show("bar", entry=2)
    page.wait(2)
    assert page.kinds == ["shown", "shown", "rejected"]


def test_the_rest_of_a_cut_suggestion_is_no_other_suggestion() -> None:
    page = Page("a = ")
    page.show("f(one, two")
    page.insert("f")
    page.show("(one, two, three)", entry=2)
    page.insert("(one, two, three)")
    page.wait(5)
    assert page.kinds == ["shown", "accepted"]
    assert page.outcomes.statistics.accept_rate == 1.0


def test_a_longer_answer_to_nothing_typed_is_another_suggestion() -> None:
    page = Page("a = ")
    page.show("f(one")
    page.show("f(one, two)", entry=2)
    page.wait(5)
    assert page.kinds == ["shown", "shown", "rejected"]


def test_stepping_back_over_typed_text_keeps_the_suggestion() -> None:
    page = Page("a = ")
    page.show("foo")
    page.insert("f")
    page.edit(4, 5, "")
    page.insert("foo")
    page.wait(5)
    assert page.kinds == ["shown", "accepted"]


def test_an_edit_elsewhere_turns_it_down() -> None:
    page = Page("a = ", "\nb\n")
    page.show("foo")
    page.edit(5, 6, "c")
    page.wait(2)
    assert page.kinds == ["shown", "rejected"]


def test_copilots_report_of_a_part_is_not_counted_again_when_the_edit_comes() -> None:
    page = Page("a = ")
    page.show("foo bar")
    page.seen += page.outcomes.partly_accepted("1.0", len("a = foo"))
    page.insert("foo")
    page.seen += page.outcomes.partly_accepted("1.0", len("a = foo"))
    assert page.kinds == ["shown", "accepted_word"]
    page.insert(" bar")
    assert page.kinds == ["shown", "accepted_word", "accepted"]


def test_an_alternative_is_known_by_its_own_text_once_typing_has_ruled_out_the_others() -> None:
    page = Page("a = ")
    page.show("bar(1)", "foo(2)", "fob")
    page.insert("f")
    page.seen += page.outcomes.accepted("1.2")
    assert page.kinds == ["shown", "accepted"]
    assert page.seen[1].text == "ob"


def test_a_reported_part_is_one_of_the_alternative_that_was_on_the_screen() -> None:
    page = Page("a = ")
    page.show("bar(1)", "foo(2)")
    page.seen += page.outcomes.partly_accepted("1.1", len("a = foo"))
    assert (page.seen[-1].kind, page.seen[-1].text) == (EventKind.ACCEPTED_WORD, "foo")


@pytest.mark.parametrize(
    ("edits", "kinds"),
    [
        ([], ["retained_30s", "retained_300s"]),
        ([(0, 0, "import os\n\n")], ["retained_30s", "retained_300s"]),
        ([(8, 9, "_")], ["retained_30s", "retained_300s"]),
        ([(4, 20, "")], ["removed_30s", "removed_300s"]),
        ([(0, 24, "")], ["removed_30s", "removed_300s"]),
        ([(6, 22, "")], ["removed_30s", "removed_300s"]),
        ([(24, 24, " + 1")], ["retained_30s", "retained_300s"]),
    ],
    ids=["left alone", "moved", "touched", "mostly deleted", "all deleted", "hollowed out", "added to"],
)
def test_accepted_text_is_looked_for_where_it_moved_to(edits: list[tuple[int, int, str]], kinds: list[str]) -> None:
    page = Page("a = ", "\n")
    page.show("some_function(value)")
    page.insert("some_function(value)")
    for edit in edits:
        page.edit(*edit)
    page.wait(29)
    assert len(page.seen) == 2
    page.wait(2)
    page.wait(271)
    assert page.kinds[2:] == kinds
    assert page.outcomes.next_wake_s() is None


def test_a_closed_document_teaches_nothing_more() -> None:
    page = Page("a = ")
    page.show("foo")
    page.insert("foo")
    page.outcomes.closed(URI, page.now_s)
    page.wait(400)
    assert page.kinds == ["shown", "accepted"]


def test_only_accepted_text_leaves() -> None:
    page = Page("a = ")
    page.show("foo bar")
    page.insert("foo")
    page.insert("!")
    page.wait(400)
    assert {outcome.kind for outcome in page.seen if outcome.text is not None} == {EventKind.ACCEPTED_WORD}


@given(
    st.lists(
        st.tuples(st.sampled_from(["show", "insert", "delete", "elsewhere", "wait", "take"]), st.integers(0, 6)),
        max_size=40,
    )
)
def test_every_suggestion_shown_ends_in_one_way_at_most(operations: list[tuple[str, int]]) -> None:
    page = Page("x = 1\ny = ", "\nz = 3\n")
    suggestion = "alpha(beta)"
    left = ""
    entry = 0
    for name, number in operations:
        if name == "show":
            entry += 1
            left = suggestion
            page.show(left, entry=entry)
        elif name in ("insert", "take"):
            text = left[:number] if name == "take" and left[:number] else "#"
            page.insert(text)
            left = left[len(text) :] if left.startswith(text) else ""
        elif name == "delete" and page.cursor > 0:
            page.edit(page.cursor - 1, page.cursor, "")
            left = ""
        elif name == "elsewhere":
            page.edit(0, 1, "xy"[number % 2])
            left = ""
        elif name == "wait":
            page.wait(number)
    page.wait(1000)
    counts = page.outcomes.statistics.counts
    ended = counts["used"] + counts["rejected"]
    still_shown = 1
    assert counts["shown"] - still_shown <= ended <= counts["shown"]


def test_a_withheld_suggestion_counts_once_however_often_it_is_asked_for_in_its_line() -> None:
    page = Page("a = ")
    page.withhold()
    page.insert("f")
    page.withhold()
    assert page.kinds == ["withheld"]
    page.insert("(1)\n")
    page.withhold()
    assert page.kinds == ["withheld"] * 2
    assert page.outcomes.statistics.accept_rate is None, "nothing was shown"


def test_a_suggestion_that_is_shown_ends_what_was_withheld_before_it() -> None:
    page = Page("a = ")
    page.withhold()
    page.show("f(1)")
    page.insert("g")
    page.withhold()
    page.wait(5)
    assert page.kinds == ["withheld", "shown", "withheld", "rejected"]
    page.outcomes.closed(URI, page.now_s)
    page.withhold()
    assert page.kinds[-1] == "withheld"
