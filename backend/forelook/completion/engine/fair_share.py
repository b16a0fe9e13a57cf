"""Whose turn it is: the user who has had the least of the device lately."""

from __future__ import annotations

from collections.abc import Callable, Iterable

_HALF_LIFE_S = 10.0  # chosen, not measured: what a user did a minute ago hardly counts
_FORGOTTEN_S = 1e-6
_SLACK_S = 0.05  # chosen, not measured: finishing a short request first is better than two that both take twice as long


class FairShare:
    """Seconds of the device per user, which fade with time.

    Whoever uses little is served first, so a user who floods the engine delays the others by at most the forward that
    runs; users who all want more than there is get equal shares.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._used: dict[str, tuple[float, float]] = {}  # seconds, and when they were counted

    def charge(self, user: str, seconds: float) -> None:
        """Count time that was spent for a user."""
        now_s = self._clock()
        self._used[user] = (self._recent(user, now_s) + seconds, now_s)
        for other in [other for other in self._used if self._recent(other, now_s) < _FORGOTTEN_S]:
            del self._used[other]

    def first(self, users: Iterable[str], current: str | None = None) -> str:
        """The one of at least one user who has had the least; the first of equal ones.

        Args:
            users: who waits.
            current: whose request runs; it goes on unless another has had clearly less.
        """
        now_s = self._clock()
        return min(users, key=lambda user: self._recent(user, now_s) - _SLACK_S * (user == current))

    def has_company(self, user: str) -> bool:
        """Whether anybody else has had the device lately; a short request is remembered for about two minutes."""
        now_s = self._clock()
        return any(other != user and self._recent(other, now_s) >= _FORGOTTEN_S for other in self._used)

    def _recent(self, user: str, now_s: float) -> float:
        seconds, counted_s = self._used.get(user, (0.0, now_s))
        return float(seconds * 0.5 ** ((now_s - counted_s) / _HALF_LIFE_S))
