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
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench.datasets import BenchPrompt, has_repetition, load_prompts
from bench.results import DATA, REPOSITORY, add_json_argument, print_result
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.limits import Limits
from forelook.decoding.lookahead.published import PublishedDrafter, PublishedSettings
from forelook.decoding.lookahead.published_pool import PublishedPool
from forelook.decoding.loop import decode
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.model.forward.llama import LlamaSequence
from forelook.model.loading import LoadedModel, load_model
from forelook.model.step_costs import device_key


@dataclass
class Setting:
    """One point of the grid and what was counted there."""

    window_size: int
    ngram_size: int
    max_candidates: int
    prompt_as_reference: bool
    warm_pool: bool
    num_tokens: int = 0
    num_steps: int = 0
    num_tail_tokens: int = 0
    speedups: list[float] = field(default_factory=list)

    @property
    def compression(self) -> float:
        return self.num_tokens / self.num_steps if self.num_steps else math.nan

    @property
    def nominal_tail(self) -> int:
        """Tokens of a full step as published: the current one, the window and all candidates."""
        return 1 + (self.window_size + self.max_candidates) * (self.ngram_size - 1)

    @property
    def mean_tail(self) -> float:
        return self.num_tail_tokens / self.num_steps if self.num_steps else math.nan

    @property
    def speedup(self) -> float:
        return float(np.median(self.speedups)) if self.speedups else math.nan

    def result(self) -> dict[str, Any]:
        content = asdict(self)
        del content["speedups"]
        return {
            **content,
            "step_compression": round(self.compression, 4),
            "speedup": round(self.speedup, 4),
            "nominal_tail_tokens": self.nominal_tail,
            "mean_tail_tokens": round(self.mean_tail, 2),
        }


class CountedSequence:
    """A sequence that counts the tail tokens it runs, and passes everything else on."""

    def __init__(self, sequence: LlamaSequence) -> None:
        self._sequence = sequence
        self.num_tail_tokens = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sequence, name)

    def forward(self, layout: Any) -> torch.Tensor:
        self.num_tail_tokens += len(layout)
        return self._sequence.forward(layout)


def timed(stream: Iterator[list[int]]) -> tuple[list[int], float]:
    """The output and the seconds it took."""
    started = time.perf_counter()
    ids = [token for tokens in stream for token in tokens]
    return ids, time.perf_counter() - started


def expected_accepted(alpha: float, gamma: int, width: int) -> float:
    """Tokens of a verified step with acceptance ``alpha``, drafts of ``gamma`` tokens and ``width`` of them."""
    return (gamma + 1) - sum((1.0 - alpha**index) ** width for index in range(1, gamma + 1))


def fit(settings: Sequence[Setting]) -> dict[str, float] | None:
    """The α and f that fit best the settings with W = G, by least squares over a grid."""
    points = [(s.ngram_size - 1, s.window_size, s.compression) for s in settings if s.window_size == s.max_candidates]
    if len(points) < 3:
        return None
    best: tuple[float, float, float] | None = None
    for alpha in np.linspace(0.02, 0.98, 97):
        values = np.array([expected_accepted(float(alpha), gamma, width) for gamma, width, _ in points])
        wanted = np.array([compression for _, _, compression in points])
        for steps in np.linspace(1.0, 20.0, 191):
            error = float((((steps - 1 + values) / steps - wanted) ** 2).mean())
            if best is None or error < best[0]:
                best = (error, float(alpha), float(steps))
    assert best is not None
    return {"alpha": round(best[1], 3), "f": round(best[2], 2), "rmse": round(math.sqrt(best[0]), 4)}


def sweep(model: LoadedModel, prompts: list[BenchPrompt], settings: list[Setting], max_new_tokens: int) -> int:
    """Run every setting on every prompt, in turns with autoregressive decoding; returns how many outputs differed."""
    sequence = model.new_sequence()
    limits = Limits(max_new_tokens, model.stop_token_ids)
    boundaries = frozenset(model.tokenizer.special_ids)
    pools = {id(s): PublishedPool(s.ngram_size, s.max_candidates) for s in settings if s.warm_pool}
    timed(autoregressive(DecodeRequest(prompts[0].prompt_ids, limits), sequence))  # warm-up
    num_different = 0
    for number, prompt in enumerate(prompts):
        shift = number * 7 % len(settings)
        baseline_s = math.nan
        for index, setting in enumerate(settings[shift:] + settings[:shift]):
            if index % 16 == 0:  # measured again and again, so that a slow moment hits both sides
                sequence.truncate(0)
                expected, baseline_s = timed(autoregressive(DecodeRequest(prompt.prompt_ids, limits), sequence))
            sequence.truncate(0)
            stats = DecodingStats()
            counted = CountedSequence(sequence)
            chosen = PublishedSettings(
                setting.window_size, setting.ngram_size, setting.max_candidates, setting.prompt_as_reference
            )
            request = DecodeRequest(prompt.prompt_ids, limits, boundary_ids=boundaries)
            drafter = PublishedDrafter(request, chosen, pools.get(id(setting)))
            output, seconds = timed(decode(request, counted, drafter, stats))
            num_different += output != expected
            if not output:
                continue
            setting.num_tokens += len(output)
            setting.num_steps += stats.num_steps
            setting.num_tail_tokens += counted.num_tail_tokens - len(prompt.prompt_ids) + 1
            setting.speedups.append(baseline_s / seconds * len(output) / max(1, len(expected)))
        if sys.stderr.isatty():
            print(f"\r{number + 1}/{len(prompts)}", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return num_different


def plot(settings: list[Setting], fits: dict[str, dict[str, float] | None], folder: Path) -> list[str]:
    """Step compression and speed-up against log2 of the FLOPs per step."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    groups = group(settings)
    for name, label, value in (
        ("step-compression", "step compression (tokens per step)", lambda s: s.compression),
        ("speed-up", "speed-up over autoregressive", lambda s: s.speedup),
    ):
        figure, axes = plt.subplots(figsize=(7, 4.5))
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
        figure.tight_layout()
        path = folder / f"sweep-{name}.png"
        figure.savefig(path, dpi=130)
        plt.close(figure)
        written.append(str(path))
    return written


def group(settings: Sequence[Setting]) -> dict[str, list[Setting]]:
    """Settings by prompt reference and pool."""
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        reference = "prompt as reference" if setting.prompt_as_reference else "no reference"
        pool = "warm pool" if setting.warm_pool else "cold pool"
        groups.setdefault(f"{reference}, {pool}", []).append(setting)
    return groups


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
    # small models loop, which flatters every setting: prompts whose output does are left out
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
        "dataset": arguments.dataset,
        "model": model.name,
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
