"""How much each user of a team may ask, and has asked; counts only, never text."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from forelook.errors import QuotaError
from forelook.local.usage_ledger import UsageLedger
from forelook.local.user_keys import KeyRing

REQUESTS, TOKENS = "requests_per_minute", "tokens_per_day"
"""Reasons of a refusal."""
_MINUTE_S = 60.0


@dataclass(slots=True)
class _Allowance:
    """How many requests a user may send at once, and when that was counted."""

    requests: float
    counted_s: float


class Quotas:
    """Admits the requests of users with keys, and counts what they cost. Others are neither limited nor counted.

    Requests per minute are those of this server; tokens are those of all servers that share the ledger.

    Args:
        keys: the users' quotas.
        ledger: what they did.
        clock: monotonic seconds.
    """

    def __init__(self, keys: KeyRing, ledger: UsageLedger, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._ledger = ledger
        self._clock = clock
        self._allowances: dict[str, _Allowance] = {}
        self._costs: dict[str, Mapping[str, int]] = {}  # since the process started, as counted last
        self._active: dict[str, float] = {}  # when each user asked last

    def admit(self, principal: str) -> None:
        """Count a request.

        Raises:
            QuotaError: the user has used up a quota; with the time after which to ask again.
        """
        key = self._keys.of(principal)
        if key is None:
            return
        now_s = self._clock()
        try:
            if key.tokens_per_day is not None and self._ledger.today_of(principal).tokens >= key.tokens_per_day:
                message = f"this key has used its {key.tokens_per_day} tokens of today; ask again after 00:00 UTC"
                raise QuotaError(message, TOKENS, self._ledger.seconds_left_today)
            if key.requests_per_minute is not None:
                self._take_one(principal, key.requests_per_minute, now_s)
        except QuotaError:
            self._ledger.add(principal, refused=1)
            raise
        self._active[principal] = now_s
        self._ledger.add(principal, requests=1)

    def _take_one(self, principal: str, per_minute: int, now_s: float) -> None:
        most = float(per_minute)
        allowance = self._allowances.setdefault(principal, _Allowance(most, now_s))
        grown = allowance.requests + (now_s - allowance.counted_s) * per_minute / _MINUTE_S
        allowance.requests, allowance.counted_s = min(most, grown), now_s
        if allowance.requests < 1.0:
            wait_s = (1.0 - allowance.requests) * _MINUTE_S / per_minute
            message = f"this key may send {per_minute} requests per minute; ask again in {wait_s:.1f} s"
            raise QuotaError(message, REQUESTS, wait_s)
        allowance.requests -= 1.0

    def active(self, within_s: float) -> list[str]:
        """The users who have asked lately; the others are forgotten here."""
        since_s = self._clock() - within_s
        self._active = {user: asked_s for user, asked_s in self._active.items() if asked_s >= since_s}
        return list(self._active)

    def charge(self, principal: str, costs: Mapping[str, int]) -> None:
        """Count what a user's requests have cost.

        Args:
            principal: the user.
            costs: sums since the process started, by the names of the ledger's counts.
        """
        before = self._costs.get(principal, {})
        self._costs[principal] = dict(costs)
        self._ledger.add(principal, **{name: max(0, count - before.get(name, 0)) for name, count in costs.items()})
