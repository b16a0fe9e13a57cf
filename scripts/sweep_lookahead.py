#!/usr/bin/env python3
"""The paper's ablation of lookahead decoding: a grid over W, N, G, prompt as reference and warm pool.

    python scripts/sweep_lookahead.py --limit 8 --out docs/images

For each setting: step compression (tokens per step), speed-up over our own autoregressive loop, and relative FLOPs per
step. A warm pool outlives its prompts. Plots step compression against log2 of the FLOPs per step, fits the paper's α
(acceptance per token) and f (one step in f finds a candidate), and prints one JSON object as its last line.
"""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path

import numpy as np
from bench import plots
from bench.datasets import has_repetition, load_prompts
from bench.results import DATA, REPOSITORY, add_json_argument, print_result, public_name
from bench.sweep import Setting, expected_accepted, fit, group, sweep, timed
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.limits import Limits
from forelook.decoding.request import DecodeRequest
from forelook.model.loading import load_model
from forelook.model.step_costs import device_key


def plot(settings: list[Setting], fits: dict[str, dict[str, float] | None], folder: Path) -> list[str]:
    """Plot step compression and speed-up against log2 of the FLOPs per step; return the files' names."""
    written = []
    groups = group(settings)
    for name, label, value in (
        ("step-compression", "step compression (tokens per step)", lambda s: s.compression),
        ("speed-up", "speed-up over autoregressive", lambda s: s.speedup),
    ):
        figure, axes = plots.subplots()
        for title, members in groups.items():
            ordered = sorted(members, key=lambda s: s.nominal_tail)
            # x: FLOPs per step in units of one token's forward, as published (full window and all candidates)
            points = axes.plot(
                [math.log2(s.nominal_tail) for s in ordered], [value(s) for s in ordered], "o", label=title, alpha=0.7
            )
            fitted = fits.get(title)
            if name == "step-compression" and fitted is not None:
                widths = np.geomspace(1, 64, 40)
                gamma = 4
                axes.plot(
                    [math.log2(1 + 2 * width * gamma) for width in widths],
                    [
                        (fitted["f"] - 1 + expected_accepted(fitted["alpha"], gamma, width)) / fitted["f"]
                        for width in widths
                    ],
                    color=points[0].get_color(),
                    linewidth=1,
                )
        axes.axhline(1.0, color="grey", linewidth=0.8)
        axes.set_xlabel("log2 (FLOPs per step / FLOPs of one token)")
        axes.set_ylabel(label)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
        written.append(f"sweep-{name}.png")
        plots.save(figure, folder / written[-1])
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="humaneval")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--model")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--window-sizes", type=int, nargs="+", default=[1, 3, 7, 15])
    parser.add_argument("--ngram-sizes", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 3, 7, 15])
    parser.add_argument("--only-equal", action="store_true", help="only settings with W = G")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "images", help="folder of the plots")
    add_json_argument(parser)
    arguments = parser.parse_args()
    model = load_model(arguments.model, device=arguments.device, dtype=arguments.dtype)
    prompts = load_prompts(
        arguments.dataset,
        model,
        data_dir=arguments.data,
        limit=arguments.limit,
        max_new_tokens=arguments.max_new_tokens,
    )
    # Small models loop, which flatters every setting: leave out prompts whose output does.
    sequence = model.new_sequence()
    limits = Limits(arguments.max_new_tokens, model.stop_token_ids)
    clean = [
        p
        for p in prompts
        if not has_repetition(timed(autoregressive(DecodeRequest(p.prompt_ids, limits), sequence))[0])
    ]
    settings = [
        Setting(window, ngram, candidates, reference, warm)
        for window, ngram, candidates, reference, warm in itertools.product(
            arguments.window_sizes, arguments.ngram_sizes, arguments.candidates, (False, True), (False, True)
        )
        if window == candidates or not arguments.only_equal
    ]
    num_different = sweep(model, clean or prompts, settings, arguments.max_new_tokens)
    fits = {title: fit(members) for title, members in group(settings).items()}
    for title, members in group(settings).items():
        print(f"\n{title}: fitted {fits[title]}")
        print(f"  {'W':>3}{'N':>3}{'G':>4}{'FLOPs/step':>12}{'mean T':>8}{'compression':>13}{'speed-up':>10}")
        for s in sorted(members, key=lambda s: (s.ngram_size, s.window_size, s.max_candidates)):
            print(
                f"  {s.window_size:>3}{s.ngram_size:>3}{s.max_candidates:>4}{s.nominal_tail:>12}{s.mean_tail:>8.1f}"
                f"{s.compression:>13.3f}{s.speedup:>10.3f}"
            )
    written = plot(settings, fits, arguments.out)
    content = {
        "dataset": public_name(arguments.dataset),
        "model": public_name(model.name),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "num_prompts": len(prompts),
        "num_clean": len(clean),
        "used": "clean" if clean else "all",
        "num_outputs_different": num_different,
        "settings": [setting.result() for setting in settings],
        "fits": fits,
        "plots": written,
    }
    print_result("sweep", content, arguments.json, device_key(model.device))


if __name__ == "__main__":
    main()
