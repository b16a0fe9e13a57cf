#!/usr/bin/env python3
"""Fit the priors of draft acceptance (``decoding/drafting/calibration.py``) on text that no benchmark reads.

    python scripts/fit_draft_priors.py FOLDER [FOLDER ...] --model smollm2-135m --limit 150

Folders of Python sources, packages for instance. Half of the prompts end at a seeded place of a file, half are
infilling; every second one of both has the rest of the folder as warm documents. Every guess whose parent was accepted
counts, chosen for its step or not. Prints, for both halves, the acceptance rate per origin, tokens matched and share of
the evidence, made monotonous, and as its last line one JSON object.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.arguments import benchmark_parser
from bench.methods import MethodSettings, OurMethods
from bench.models import load_named
from bench.results import print_result, public_name
from bench.tuning import tuning_prompts
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.calibration import AcceptanceCalibration, Calibrations
from forelook.decoding.drafting.draft import DraftOrigin
from forelook.model.catalogue import DEFAULT_MODEL

NUM_BUCKETS = 8
KINDS = ("continuing", "infilling")
ROWS = {DraftOrigin.PROMPT: 4, DraftOrigin.OUTPUT: 4, DraftOrigin.WORKSPACE: 4, DraftOrigin.SUCCESSOR: 16}
"""Origins that are fitted, and in how many rows: by tokens matched, the last one for more, or by kind of guess."""


class CountingCalibration(AcceptanceCalibration):
    """Counts, per (origin, tokens matched, share bucket), guesses and hits."""

    def __init__(self) -> None:
        super().__init__()
        self.cell_of = {
            self.cell(origin, match, (bucket + 0.5) / NUM_BUCKETS): (origin, min(match, rows - 1), bucket)
            for origin, rows in ROWS.items()
            for match in range(16)
            for bucket in range(NUM_BUCKETS)
        }
        self.counts: dict[tuple[DraftOrigin, int, int], list[int]] = {}

    def observe(self, cell: int, accepted: bool) -> None:
        super().observe(cell, accepted)
        if cell in self.cell_of:
            counts = self.counts.setdefault(self.cell_of[cell], [0, 0])
            counts[0] += 1
            counts[1] += accepted

    def rates(self, origin: DraftOrigin, row: int) -> tuple[list[float], list[int]]:
        """Return the rates by share, and how many guesses each has."""
        cells = [self.counts.get((origin, row, bucket), [0, 0]) for bucket in range(NUM_BUCKETS)]
        return monotonous([(tries, hits) for tries, hits in cells], (0.01, 0.97)), [tries for tries, _ in cells]


def monotonous(rates: Sequence[tuple[int, int]], between: tuple[float, float]) -> list[float]:
    """Rates from (tries, hits), pooled so that none falls; two guesses of the overall rate are added to each."""
    total = sum(tries for tries, _ in rates)
    overall = sum(hits for _, hits in rates) / total if total else sum(between) / 2
    pools: list[list[float]] = []  # tries, hits, buckets
    for tries, hits in rates:
        pools.append([tries + 2.0, hits + 2.0 * overall, 1.0])
        while len(pools) > 1 and pools[-2][1] / pools[-2][0] >= pools[-1][1] / pools[-1][0]:
            last = pools.pop()
            pools[-1] = [left + right for left, right in zip(pools[-1], last, strict=True)]
    return [
        round(min(max(hits / tries, between[0]), between[1]), 2)
        for tries, hits, width in pools
        for _ in range(int(width))
    ]


def main() -> None:
    parser = benchmark_parser(
        __doc__, "model", "limit", "max-new-tokens", model=DEFAULT_MODEL, limit=150, max_new_tokens=48
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--prompt-tokens", type=int, default=512, help="longest prompt (default: %(default)s)")
    arguments = parser.parse_args()
    model = load_named(arguments.model, device="cpu")
    counting = {kind: CountingCalibration() for kind in KINDS}
    methods = OurMethods(
        model,
        MethodSettings(arguments.max_new_tokens),
        budget=StepBudget(),
        calibrations=Calibrations(**counting),
    )
    prompts = tuning_prompts(
        arguments.folders,
        model,
        limit=arguments.limit,
        max_new_tokens=arguments.max_new_tokens,
        max_prompt_tokens=arguments.prompt_tokens,
    )
    num_prompts = 0
    for prompt in prompts:
        methods.forelook(prompt)
        num_prompts += 1
    tables: dict[str, dict[str, list[list[float]]]] = {}
    tries_of: dict[str, dict[str, list[list[int]]]] = {}
    for kind, calibration in counting.items():
        for origin, num_rows in ROWS.items():
            for row in range(num_rows):
                rates, tries = calibration.rates(origin, row)
                tables.setdefault(kind, {}).setdefault(origin.value, []).append(rates)
                tries_of.setdefault(kind, {}).setdefault(origin.value, []).append(tries)
                print(f"{kind:<10} {origin.value:<9} {row:>2} {rates}  of {tries}")
    content = {"model": public_name(model.name), "num_prompts": num_prompts, "tables": tables, "tries": tries_of}
    print_result("draft_priors", content, arguments.json)


if __name__ == "__main__":
    main()
