"""Medians and 95% intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from forelook.percentiles import percentile


def medians_ms(times_s: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each list of seconds, in milliseconds."""
    return {name: round(statistics.median(values) * 1e3, 3) for name, values in times_s.items() if values}


def mean(values: Sequence[float], digits: int) -> float | None:
    """Return the mean; ``None`` without values."""
    return round(statistics.fmean(values), digits) if values else None


def rounded_percentile(values: Iterable[float], percent: int, digits: int = 2) -> float | None:
    """Return a percentile; ``None`` without values."""
    value = percentile(values, percent)
    return None if value is None else round(float(value), digits)


def median_interval(values: Sequence[float], seed: int = 0, rounds: int = 2000) -> dict[str, float | int]:
    """Return the median with its 95% bootstrap interval; values that are not finite are left out."""
    finite = np.array([value for value in values if math.isfinite(value)])
    if len(finite) == 0:
        return {"median": math.nan, "low": math.nan, "high": math.nan, "num": 0}
    picks = np.random.default_rng(seed).integers(len(finite), size=(rounds, len(finite)))
    low, high = np.percentile(np.median(finite[picks], axis=1), [2.5, 97.5])
    return {
        "median": round(float(np.median(finite)), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "num": len(finite),
    }


def wilson_interval(successes: int, trials: int) -> list[float] | None:
    """Return the 95% Wilson interval of a share; ``None`` without trials."""
    if trials == 0:
        return None
    z = 1.96
    share, scale = successes / trials, 1 + z * z / trials
    center = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / scale
    return [round(max(0.0, center - half), 4), round(min(1.0, center + half), 4)]


def shown(interval: Mapping[str, float]) -> str:
    """Return an interval as ``median [low, high]``."""
    return f"{interval['median']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"
