"""Plain steps while drafts do not pay."""

from __future__ import annotations

# measured: docs/decisions.md, "Draft backoff" and "Pauses of drafting hid copies": averages over some twenty drafted
# steps, pauses of 1, 3, 7 and 15 plain steps
_RECENT = 0.05
_LONGEST_PAUSE = 15


class DraftBackoff:
    """Leaves steps plain while drafts bring less than they cost, as when sampling at a high temperature.

    Costs and gains of recent drafted steps are averaged, in tokens. While costs exceed gains, the pause between two
    drafted steps grows to its limit, so that a change for the better is still noticed.
    """

    def __init__(self) -> None:
        self._balance = 0.5  # start optimistic: as if a few steps had paid off
        self._pause = 0
        self._left = 0

    def is_plain(self) -> bool:
        """Whether the next step should carry no drafts."""
        if self._left == 0:
            return False
        self._left -= 1
        return True

    def observe(self, num_accepted: int, cost: float) -> None:
        """Count a drafted step: accepted drafts, and what it cost beyond a plain step, in plain steps."""
        self._balance += _RECENT * (num_accepted - cost - self._balance)
        if self._balance >= 0.0:
            self._pause = self._left = 0
        else:
            self._pause = self._left = min(2 * self._pause + 1, _LONGEST_PAUSE)
