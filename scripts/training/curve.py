"""The curve of a run: quality against tokens, as JSON lines and, where matplotlib is installed, a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.plots import Panel, draw


def write_curve(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write ``curve.jsonl``, and ``curve.png`` where it can be drawn.

    Args:
        folder: of the run.
        history: the run's measurements, first to last.
    """
    if not history:
        return
    partial = folder / "curve.jsonl.partial"
    partial.write_text("".join(json.dumps(point) + "\n" for point in history), "utf-8")
    partial.replace(folder / "curve.jsonl")
    tokens = [point["num_tokens"] / 1e6 for point in history]
    bits = Panel("million tokens", "held-out bits per byte")
    for language in history[0].get("bits_per_byte", {}):
        bits.lines.append((language, tokens, [point["bits_per_byte"][language] for point in history], "-o"))
    panels = [bits]
    asked = [(at, point["infilling"]) for at, point in zip(tokens, history, strict=True) if "infilling" in point]
    if asked:
        shares = Panel("million tokens", "share of held-out lines")
        for name, label in (("truncated", "right first line"), ("raw", "right and ended"), ("ends", "ended, of right")):
            shares.lines.append((label, [at for at, _ in asked], [point[name] for _, point in asked], "-o"))
        panels.append(shares)
    try:
        draw(folder / "curve.png", *panels)
    except ImportError:
        return
