#!/usr/bin/env python3
"""The paper's ablation of lookahead decoding: a grid over W, N, G, prompt as reference and warm pool.

    python scripts/sweep_lookahead.py --limit 8 --out docs/images

For each setting: step compression (tokens per step), speed-up over our own autoregressive loop, and relative FLOPs per
step. A warm pool outlives its prompts. Plots step compression against log2 of the FLOPs per step, fits the paper's α
(acceptance per token) and f (one step in f finds a candidate), and prints one JSON object as its last line. ``--also``
adds settings to the grid: with W = 1 the verification branch is alone, with G = 1 next to nothing is verified.
``--counts`` leaves out what a busy machine changes. After each prompt ``--json`` has what is measured so far.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from bench.arguments import benchmark_parser
from bench.datasets import asked_prompts
from bench.models import limited, load_with_source
from bench.plots import Line, Panel, draw
from bench.results import print_result, public_name, write_result
from bench.sweep import Setting, clean_prompts, expected_accepted, fit, group, sweep
from bench.tables import print_rows
from forelook.model.device_file import device_key


def plot(settings: list[Setting], fits: dict[str, dict[str, float] | None], folder: Path) -> list[str]:
    """Plot step compression and speed-up against log2 of the FLOPs per step; return the files' names."""
    compression: list[Line] = []
    speedup: list[Line] = []
    for number, (title, members) in enumerate(group(settings).items()):
        ordered = sorted(members, key=lambda s: s.nominal_tail)
        # x: FLOPs per step in units of one token's forward, as published (full window and all candidates)
        flops = [math.log2(s.nominal_tail) for s in ordered]
        compression.append((title, flops, [s.compression for s in ordered], f"C{number}o"))
        if any(s.speedups for s in ordered):
            speedup.append((title, flops, [s.speedup for s in ordered], f"C{number}o"))
        fitted = fits.get(title)
        if fitted is not None:
            gamma, widths = 4, np.geomspace(1, 64, 40)
            expected = [
                (fitted["f"] - 1 + expected_accepted(fitted["alpha"], gamma, width)) / fitted["f"] for width in widths
            ]
            compression.append((None, [math.log2(2 * width * gamma) for width in widths], expected, f"C{number}-"))
    x_label = "log2 (FLOPs per step / FLOPs of one token)"
    panels = {
        "sweep-step-compression.png": Panel(x_label, "step compression (tokens per step)", compression),
        "sweep-speed-up.png": Panel(x_label, "speed-up over autoregressive", speedup),
    }
    drawn = {name: panel for name, panel in panels.items() if panel.lines}
    for name, panel in drawn.items():
        draw(folder / name, panel)
    return list(drawn)


def main() -> None:
    parser = benchmark_parser(__doc__, "data", "model", "dtype", "device", "limit", "max-new-tokens", limit=8)
    parser.add_argument("--dataset", default="humaneval")
    parser.add_argument("--window-sizes", type=int, nargs="+", default=[1, 3, 7, 15])
    parser.add_argument("--ngram-sizes", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 3, 7, 15])
    parser.add_argument("--only-equal", action="store_true", help="only settings with W = G")
    parser.add_argument("--also", nargs="+", default=[], metavar="W,N,G", help="more settings, with a cold pool")
    parser.add_argument("--counts", action="store_true", help="count steps and report no times")
    parser.add_argument("--all-prompts", action="store_true", help="also prompts whose output loops")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no prompt after this time")
    parser.add_argument("--out", type=Path, help="folder of the plots (default: none)")
    arguments = parser.parse_args()
    model = limited(load_with_source(arguments.model, device=arguments.device, dtype=arguments.dtype).model, 2048)
    prompts = asked_prompts(arguments.dataset, model, arguments)
    clean = [] if arguments.all_prompts else clean_prompts(model, prompts, arguments.max_new_tokens)
    settings = [
        Setting(window, ngram, candidates, reference, warm)
        for window, ngram, candidates, reference, warm in itertools.product(
            arguments.window_sizes, arguments.ngram_sizes, arguments.candidates, (False, True), (False, True)
        )
        if window == candidates or not arguments.only_equal
    ]
    for text in arguments.also:
        window, ngram, candidates = (int(part) for part in text.split(","))
        settings += [Setting(window, ngram, candidates, reference, False) for reference in (False, True)]
    content: dict[str, Any] = {}
    used = clean or prompts
    for number, num_different in enumerate(
        sweep(
            model, used, settings, arguments.max_new_tokens, is_timed=not arguments.counts, seconds=arguments.seconds
        ),
        start=1,
    ):
        content = {
            "dataset": public_name(arguments.dataset),
            "model": public_name(model.name),
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "max_new_tokens": arguments.max_new_tokens,
            "num_prompts": len(prompts),
            "num_clean": None if arguments.all_prompts else len(clean),
            "num_run": number,
            "used": "clean" if clean else "all",
            "is_timed": not arguments.counts,
            "num_outputs_different": num_different,
            "settings": [setting.result() for setting in settings],
            "fits": {title: fit(members) for title, members in group(settings).items()},
        }
        write_result("sweep", content, arguments.json, device_key(model.device))
    for title, members in group(settings).items():
        print(f"\n{title}: fitted {content['fits'][title]}")
        ordered = sorted(members, key=lambda s: (s.ngram_size, s.window_size, s.max_candidates))
        print_rows(setting.result() for setting in ordered)
    content["plots"] = plot(settings, content["fits"], arguments.out) if arguments.out else []
    print_result("sweep", content, arguments.json, device_key(model.device))


if __name__ == "__main__":
    main()
