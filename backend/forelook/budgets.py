"""Memory that is divided: a limit per user, so that none takes what the others need, and one for all of them."""

from __future__ import annotations

import sys
import threading
from collections import Counter

from forelook.errors import LimitError


def text_bytes(text: str) -> int:
    """Memory of a text: one, two or four bytes per code point."""
    return sys.getsizeof(text)


class ByteBudget:
    """Bytes that are in use, per user and in all. Any thread may call it.

    Args:
        what: what takes the memory, in the plural, for the error.
        fix: what makes room, for the error.
        user_bytes: limit of one user.
        total_bytes: limit of all users together.
    """

    def __init__(self, what: str, fix: str, user_bytes: int, total_bytes: int) -> None:
        self._what = what
        self._fix = fix
        self._user_bytes = user_bytes
        self._total_bytes = total_bytes
        self._used: Counter[str] = Counter()
        self._total_used = 0
        self._lock = threading.Lock()

    def used(self, user: str | None = None) -> int:
        """Bytes in use by a user; ``None`` for all."""
        return self._total_used if user is None else self._used[user]

    def resize(self, user: str, before: int, after: int) -> None:
        """Something of a user's has another size now; 0 is nothing. Shrinking always succeeds.

        Raises:
            LimitError: it grows beyond a limit; nothing has changed.
        """
        growth = after - before
        with self._lock:
            for used, limit, whose in (
                (self._used[user], self._user_bytes, "yours"),
                (self._total_used, self._total_bytes, "all users'"),
            ):
                if growth > 0 and used + growth > limit:
                    raise LimitError(
                        f"{self._what} would take {used + growth} bytes of memory, over the limit of {limit} for "
                        f"{whose}; {self._fix}"
                    )
            self._total_used += growth
            self._used[user] += growth
            if not self._used[user]:
                del self._used[user]
