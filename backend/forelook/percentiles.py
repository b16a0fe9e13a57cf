"""Percentiles by one formula, so that figures of different origins can be compared."""

from __future__ import annotations

from collections.abc import Iterable

PERCENTILES = (50, 95, 99)
"""The ones that are reported."""


def percentile(samples: Iterable[float], percent: int) -> float | None:
    """The smallest sample that at least ``percent`` % of the samples do not exceed (nearest rank).

    Args:
        samples: in any order.
        percent: 1 to 100.

    Returns:
        One of the samples, ``None`` without samples.
    """
    ordered = sorted(samples)
    return ordered[-(-len(ordered) * percent // 100) - 1] if ordered else None
