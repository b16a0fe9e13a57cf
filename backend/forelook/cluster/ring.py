"""Which replica a session belongs to, as Ray's ConsistentHashRouter places it; a test compares the two."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

import mmh3
from ray.serve.experimental.consistent_hash_router import CONSISTENT_HASH_SEED

NUM_VIRTUAL_NODES = 100
"""Places of each replica on the ring; Ray's default, which spreads sessions within about a fifth of the mean."""


class HashRing:
    """The ring of a set of replicas.

    Args:
        replicas: their unique ids.
    """

    def __init__(self, replicas: Iterable[str]) -> None:
        places = sorted(
            (_hash(f"{replica}:{place}"), replica) for replica in set(replicas) for place in range(NUM_VIRTUAL_NODES)
        )
        self._hashes = [number for number, _ in places]
        self._replicas = [replica for _, replica in places]

    def owner(self, session_id: str) -> str | None:
        """The replica of a session; ``None`` if there is none."""
        if not self._hashes:
            return None
        return self._replicas[bisect.bisect_right(self._hashes, _hash(session_id)) % len(self._hashes)]


def _hash(key: str) -> int:
    low: int = mmh3.hash64(key.encode(), seed=CONSISTENT_HASH_SEED, signed=False)[0]
    return low
