"""Joins screenshots into one animated GIF: ``animate.py frames.json out.gif``.

``frames.json`` is a list of ``{"file": NAME, "ms": TIME}``, the files beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image

NUM_COLOURS = 96  # of text in a few shades each; more only makes the file bigger


def animate(frames_file: Path, out: Path) -> None:
    """Write the frames as a GIF that repeats, each frame holding only what changed since the one before."""
    frames = json.loads(frames_file.read_text())
    images = [Image.open(frames_file.parent / frame["file"]).convert("RGB") for frame in frames]
    # One palette for all: with one of its own, every frame would differ from the last in every pixel.
    width, height = images[0].size
    samples = images[:: max(1, len(images) // 8)]
    sheet = Image.new("RGB", (width, height * len(samples)))
    for index, image in enumerate(samples):
        sheet.paste(image, (0, height * index))
    palette = sheet.quantize(NUM_COLOURS, method=Image.Quantize.MEDIANCUT)
    first, *rest = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    durations_ms = [frame["ms"] for frame in frames]
    first.save(out, save_all=True, append_images=rest, duration=durations_ms, loop=0, optimize=True)


if __name__ == "__main__":
    animate(Path(sys.argv[1]), Path(sys.argv[2]))
