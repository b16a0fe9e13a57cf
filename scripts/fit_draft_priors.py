#!/usr/bin/env python3
"""Fit the priors of draft acceptance (``decoding/drafting/calibration.py``) on text that no benchmark reads.

    python scripts/fit_draft_priors.py FOLDER [FOLDER ...] --limit 150

Folders of Python sources, packages of the standard library for instance. Half of the prompts end at a seeded place of
a file, half are infilling with the rest of the folder as warm documents. Every guess whose parent was accepted counts,
chosen for its step or not. Prints the acceptance rate per kind of guess, tokens matched and share of the evidence, made
monotonous, and as its last line one JSON object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.arguments import benchmark_parser
from bench.datasets import workspace_prompts
from bench.methods import MethodSettings, OurMethods
from bench.results import print_result, public_name
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.calibration import AcceptanceCalibration
from forelook.decoding.drafting.draft import DraftOrigin
from forelook.model.loading import load_model

NUM_BUCKETS = 8
MATCHED = (DraftOrigin.PROMPT, DraftOrigin.OUTPUT, DraftOrigin.WORKSPACE)


class CountingCalibration(AcceptanceCalibration):
    """Counts, per (origin, tokens matched up to three, share bucket), guesses and hits."""

    def __init__(self) -> None:
        super().__init__()
        self.cell_of = {
            self.cell(origin, match, (bucket + 0.5) / NUM_BUCKETS): (origin, min(match, 3), bucket)
            for origin in DraftOrigin
            for match in range(16)
            for bucket in range(NUM_BUCKETS)
        }
        self.counts: dict[tuple[DraftOrigin, int, int], list[int]] = {}

    def observe(self, cell: int, accepted: bool) -> None:
        super().observe(cell, accepted)
        counts = self.counts.setdefault(self.cell_of[cell], [0, 0])
        counts[0] += 1
        counts[1] += accepted


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
    parser = benchmark_parser(__doc__, "model", "limit", "max-new-tokens", limit=150, max_new_tokens=48)
    parser.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    model = load_model(arguments.model, device="cpu", dtype="auto")
    bos = [] if model.config.bos_token_id is None else [model.config.bos_token_id]
    room = model.max_positions - arguments.max_new_tokens - len(bos)
    calibration = CountingCalibration()
    settings = MethodSettings(arguments.max_new_tokens)
    methods = OurMethods(model, settings, budget=StepBudget(), calibration=calibration)
    num_prompts = 0
    for folder in arguments.folders:
        prompts = workspace_prompts(folder, model, limit=arguments.limit, max_new_tokens=arguments.max_new_tokens)
        for index, prompt in enumerate(prompts):
            ids = prompt.context[-room:]
            plain = replace(prompt, prompt_ids=[*bos, *ids], context=ids, documents=None)
            methods.forelook(prompt if index % 2 else plain)
            num_prompts += 1
    counts = calibration.counts
    tables: dict[str, list[list[float]]] = {}
    tries_of: dict[str, list[list[int]]] = {}
    for name, origins in (("matched", MATCHED), ("successor", (DraftOrigin.SUCCESSOR,))):
        for match in range(4):
            cells = [
                [sum(counts.get((origin, match, bucket), [0, 0])[index] for origin in origins) for index in (0, 1)]
                for bucket in range(NUM_BUCKETS)
            ]
            rates = monotonous([(tries, hits) for tries, hits in cells], (0.02, 0.97))
            if match > 1:  # one more token matched never makes a guess less likely
                rates = [max(pair) for pair in zip(rates, tables[name][-1], strict=True)]
            tables.setdefault(name, []).append(rates)
            tries_of.setdefault(name, []).append([tries for tries, _ in cells])
            print(f"{name:<10} matched {match}{'+' if match == 3 else ' '} {rates}  of {[tries for tries, _ in cells]}")
    content = {"model": public_name(model.name), "num_prompts": num_prompts, "tables": tables, "tries": tries_of}
    print_result("draft_priors", content, arguments.json)


if __name__ == "__main__":
    main()
