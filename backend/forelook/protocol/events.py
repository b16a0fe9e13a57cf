"""What users do with suggestions: the kinds of events, and the figures derived from their counts."""

from __future__ import annotations

from collections import Counter
from enum import Enum


class EventKind(Enum):
    """What became of a suggestion.

    A withheld one was not shown, because the model was not sure enough of it; counted once per line of text.
    """

    SHOWN = "shown"
    WITHHELD = "withheld"
    ACCEPTED = "accepted"
    ACCEPTED_WORD = "accepted_word"
    ACCEPTED_LINE = "accepted_line"
    TYPED_THROUGH = "typed_through"
    REJECTED = "rejected"
    RETAINED_30S = "retained_30s"
    RETAINED_300S = "retained_300s"
    REMOVED_30S = "removed_30s"
    REMOVED_300S = "removed_300s"


ACCEPTANCES = (EventKind.ACCEPTED, EventKind.ACCEPTED_WORD, EventKind.ACCEPTED_LINE)
"""A key inserted the suggestion, or its next word or line."""


class EventCounts:
    """Counts per kind of event, and the figures that the language server and the backend both report.

    Attributes:
        counts: events per kind, and under ``used`` the suggestions of which at least a part was used.
        chars: characters concerned, per kind.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.chars: Counter[str] = Counter()

    def add(self, kind: EventKind, num_chars: int, *, first_use: bool = False) -> None:
        """Count one event.

        Args:
            kind: what happened.
            num_chars: characters of the suggestion that it concerns.
            first_use: whether the suggestion was not used before, neither by a key nor by typing it to its end.
        """
        self.counts[kind.value] += 1
        self.chars[kind.value] += num_chars
        if first_use:
            self.counts["used"] += 1

    @property
    def accept_rate(self) -> float | None:
        """Share of the shown suggestions of which at least a part was used; ``None`` before the first."""
        shown = self.counts["shown"]
        return min(1.0, self.counts["used"] / shown) if shown else None

    @property
    def num_chars_accepted(self) -> int:
        """Characters inserted by accepting."""
        return sum(self.chars[kind.value] for kind in ACCEPTANCES)

    @property
    def num_keystrokes_saved(self) -> int:
        """Characters inserted by accepting, less one key press per acceptance."""
        return max(0, self.num_chars_accepted - sum(self.counts[kind.value] for kind in ACCEPTANCES))
