"""Counts of events and the figures derived from them."""

from __future__ import annotations

from forelook.protocol.events import EventCounts, EventKind


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
