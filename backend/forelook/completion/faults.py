"""Errors on the engine's thread."""

from __future__ import annotations

from collections.abc import Callable

from forelook.failures import describe as where
from forelook.failures import logged

__all__ = ["guarded", "where"]


def guarded(what: str, work: Callable[[], None]) -> None:
    """Run background work; log an exception instead of letting it end the thread."""
    with logged(what):
        work()
