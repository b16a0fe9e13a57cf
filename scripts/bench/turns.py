"""Interleaving: whatever is compared takes turns, so that all of it meets the same machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

Step = Callable[[], object]


def rotated(items: Sequence[T], shift: int) -> list[T]:
    """Return the items in an order that begins ``shift`` places later."""
    shift %= max(1, len(items))
    return [*items[shift:], *items[:shift]]


def take_turns(turns: Mapping[str, Callable[[], Iterable[T]]], rounds: int, *, warmup: int = 1) -> dict[str, list[T]]:
    """Run every turn once per round and collect what it yields.

    Every round begins one place later, so that no turn always follows the same neighbor.

    Args:
        turns: name → one turn, which returns its measurements.
        rounds: rounds that count.
        warmup: rounds before them, whose measurements are dropped.
    """
    results: dict[str, list[T]] = {name: [] for name in turns}
    for number in range(-warmup, rounds):
        for name in rotated(list(turns), number):
            values = turns[name]()
            if number >= 0:
                results[name] += values
    return results


def with_progress(items: Sequence[T], title: str) -> Iterator[T]:
    """Yield the items, counting them on a terminal's standard error."""
    for number, item in enumerate(items, start=1):
        yield item
        if sys.stderr.isatty():
            print(f"\r{title}: {number}/{len(items)}", end="\n" if number == len(items) else "", file=sys.stderr)


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """Return the result of a call and its seconds."""
    started_s = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started_s


def step_times(step: Step, count: int, synchronize: Step | None = None) -> list[float]:
    """Return the seconds of ``count`` steps in a row, each with what ``synchronize`` waits for."""

    def whole() -> None:
        step()
        if synchronize is not None:
            synchronize()

    return [timed(whole)[1] for _ in range(count)]


def compare_steps(steps: Mapping[str, Step], repeats: int, synchronize: Step | None = None) -> dict[str, list[float]]:
    """Return the seconds of ``repeats`` steps of each kind, taken in turns of at most ten."""
    count = min(10, repeats)
    turns = {name: lambda step=step: step_times(step, count, synchronize) for name, step in steps.items()}
    return take_turns(turns, max(1, repeats // 10))
