"""Plots, where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

Line = tuple[str | None, Sequence[float] | Sequence[str], Sequence[float], str]
"""Label, x, y and matplotlib's format."""


@dataclass(frozen=True)
class Panel:
    """Lines over one pair of axes."""

    x_label: str
    y_label: str
    lines: list[Line] = field(default_factory=list)
    title: str = ""
    x_scale: str = "linear"


def draw(path: Path, *panels: Panel) -> None:
    """Write the panels, left to right, as one PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")  # no display
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(5.5 * len(panels) + 1.5, 4.5), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        for label, x, y, style in panel.lines:
            axis.plot(x, y, style, label=label)
        axis.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label, xscale=panel.x_scale, ylim=(0, None))
        axis.grid(alpha=0.3)
        if len(panel.lines) > 1:
            axis.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, bbox_inches="tight")
