"""Counts of events and the figures derived from them."""

from __future__ import annotations

from forelook.completion.engine.usage import UsageCounters
from forelook.protocol.events import EventCounts, EventKind
from forelook.protocol.messages import CompletionEventParams

from tests.lsp.suggestions.test_outcomes import Page


def test_the_accept_rate_counts_each_shown_suggestion_once() -> None:
    counts = EventCounts()
    assert counts.accept_rate is None
    for _ in range(4):
        counts.add(EventKind.SHOWN, 20)
    counts.add(EventKind.ACCEPTED_WORD, 5, first_use=True)
    counts.add(EventKind.ACCEPTED_WORD, 6)
    counts.add(EventKind.ACCEPTED, 9)
    counts.add(EventKind.TYPED_THROUGH, 20, first_use=True)
    counts.add(EventKind.REJECTED, 20)
    assert counts.accept_rate == 2 / 4


def test_keystrokes_saved_are_the_accepted_characters_less_one_key_press_each() -> None:
    counts = EventCounts()
    counts.add(EventKind.ACCEPTED, 20, first_use=True)
    counts.add(EventKind.ACCEPTED_LINE, 4)
    counts.add(EventKind.TYPED_THROUGH, 30, first_use=True)
    assert (counts.num_chars_accepted, counts.num_keystrokes_saved) == (24, 19 + 3)


def test_the_backend_derives_the_figures_of_the_window_from_its_events() -> None:
    page = Page("a = ")
    page.show("return total\n    # end", entry=1)
    page.insert("return")
    page.insert(" total")
    page.insert("\n    # end")
    page.show("foo", entry=2)
    page.insert("b")
    page.show("xy", entry=3)
    page.insert("x")
    page.show("y", entry=3)
    page.insert("y")
    page.wait(5)
    backend = UsageCounters(None)
    for outcome in page.seen:
        backend.record(
            CompletionEventParams("w", "python", outcome.kind, outcome.num_chars, outcome.first_use, outcome.text)
        )
    window, figures = page.outcomes.statistics, backend.to_dict()
    assert (window.accept_rate, window.counts["used"]) == (2 / 3, 2)
    assert figures["accept_rate"] == window.accept_rate
    assert figures["num_keystrokes_saved"] == window.num_keystrokes_saved == len("return total\n    # end") - 3
