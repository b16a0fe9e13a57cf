"""What a progress bar of an editor takes."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A progress bar of the editor."""

    def report(self, share: float | None, message: str) -> None:
        """Say how far it is, from 0 to 1."""

    def end(self, message: str) -> None:
        """Take it away."""
