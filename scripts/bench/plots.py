"""Plots, where matplotlib is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def subplots(num_columns: int = 1, size: tuple[float, float] = (7, 4.5)) -> tuple[Any, Any]:
    """Return a figure and its axes, drawn without a display.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, num_columns, figsize=size)
    return figure, axes


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, bbox_inches="tight")
