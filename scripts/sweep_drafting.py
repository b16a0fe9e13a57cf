#!/usr/bin/env python3
"""What other constants of drafting would bring: decode the same prompts with each, and compare.

    python scripts/sweep_drafting.py FOLDER [FOLDER ...] --limit 12 --set calibration._PRIOR_WEIGHT=8 \\
        --set tree_drafter._MAX_CANDIDATES=4 tree_drafter._MAX_LENGTH=12

Folders of Python sources that no benchmark reads. Each ``--set`` is a variant: constants of the modules below
``forelook.decoding.drafting`` with other values. Costs of steps are fixed, by a shape: ``cpu`` is that of eight bits on
two cores, ``flat`` that of a GPU; so nothing here is a time. ``speed`` is tokens over the costs of all steps, a plain
step being 1, and its ratio the median of the prompts' with a bootstrap 95% interval. What drafting learns goes from
prompt to prompt, as in a session. Prints tables, and one JSON object as its last line.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.arguments import benchmark_parser
from bench.datasets import BenchPrompt
from bench.methods import MethodSettings, OurMethods
from bench.models import load_named
from bench.results import print_result, public_name
from bench.summary import median_interval
from bench.tables import print_rows
from bench.tuning import tuning_prompts
from bench.window import CountingDrafter, Counts
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.costs import StepCosts
from forelook.decoding.drafting.drafter import Drafter
from forelook.model.catalogue import DEFAULT_MODEL
from forelook.model.loading import LoadedModel

SHAPES = {
    "cpu": StepCosts((1, 4, 8, 16, 32), (4.5e-3, 5.4e-3, 9.1e-3, 16.9e-3, 32.7e-3), (0.0,) * 5),
    "flat": StepCosts((1, 64), (8.0e-3, 8.2e-3), (0.0, 0.0)),
}
"""Seconds by tokens of a step, for a model of 135M parameters."""
MAX_DRAFTS = 16
KINDS = ("continuing", "infilling")


def variant(text: str) -> tuple[str, str, Any]:
    """Parse ``module.NAME=VALUE``."""
    name, _, value = text.partition("=")
    module, _, constant = name.rpartition(".")
    return module, constant, json.loads(value)


@contextlib.contextmanager
def constants(changes: Sequence[tuple[str, str, Any]]) -> Iterator[None]:
    """Give constants other values for a while.

    Raises:
        SystemExit: a module has no such constant.
    """
    before: list[tuple[Any, str, Any]] = []
    try:
        for name, constant, value in changes:
            module = importlib.import_module(f"forelook.decoding.drafting.{name}")
            if not hasattr(module, constant):
                raise SystemExit(f"--set {name}.{constant}: forelook.decoding.drafting.{name} has no such constant")
            before.append((module, constant, getattr(module, constant)))
            setattr(module, constant, value)
        yield
    finally:
        for module, constant, value in reversed(before):
            setattr(module, constant, value)


def counted(model: LoadedModel, prompts: Sequence[BenchPrompt], shape: str, max_new_tokens: int) -> list[Counts]:
    """Decode all prompts with what earlier ones taught, and count."""
    costs = SHAPES[shape]
    methods = OurMethods(model, MethodSettings(max_new_tokens), budget=StepBudget(costs, max_draft_tokens=MAX_DRAFTS))
    curve = costs.curve(0, MAX_DRAFTS + 64)
    found: list[Counts] = []
    for prompt in prompts:
        counts = Counts()

        def watched(drafter: Drafter, counts: Counts = counts) -> Drafter:
            return CountingDrafter(drafter, counts, lambda num_tokens: curve[num_tokens] / curve[1])

        methods.with_memory(prompt, methods.warm, watched)
        found.append(counts)
    return found


def rate(counts: Counts) -> float:
    """Return tokens per cost of a plain step."""
    return counts.num_tokens / counts.cost


def row(name: str, shape: str, kind: str, found: list[Counts], reference: list[Counts]) -> dict[str, Any]:
    """Return a variant's figures for a kind of prompts."""
    pairs = [pair for pair in zip(found, reference, strict=True) if all(each.num_tokens for each in pair)]
    tokens, steps = sum(each.num_tokens for each in found), sum(each.num_steps for each in found)
    return {
        "set": name,
        "costs": shape,
        "prompts": kind,
        "n": len(found),
        "tokens_per_step": round(tokens / max(1, steps), 3),
        "drafts_per_step": round(sum(each.num_drafts for each in found) / max(1, steps), 2),
        "speed": round(tokens / max(1e-9, sum(each.cost for each in found)), 3),
        "ratio": median_interval([rate(own) / rate(theirs) for own, theirs in pairs]),
    }


def main() -> None:
    parser = benchmark_parser(
        __doc__,
        "model",
        "dtype",
        "limit",
        "max-new-tokens",
        "threads",
        model=DEFAULT_MODEL,
        limit=12,
        max_new_tokens=48,
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--set", dest="sets", nargs="+", action="append", default=[], metavar="MODULE.NAME=VALUE")
    parser.add_argument("--costs", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--prompt-tokens", type=int, default=512, help="longest prompt (default: %(default)s)")
    arguments = parser.parse_args()
    model = load_named(arguments.model, device="cpu", dtype=arguments.dtype)
    prompts = list(
        tuning_prompts(
            arguments.folders,
            model,
            limit=arguments.limit,
            max_new_tokens=arguments.max_new_tokens,
            max_prompt_tokens=arguments.prompt_tokens,
        )
    )
    variants = {"as they are": [], **{" ".join(texts): [variant(text) for text in texts] for texts in arguments.sets}}
    rows: list[dict[str, Any]] = []
    for shape in arguments.costs:
        reference: list[Counts] = []
        for name, changes in variants.items():
            with constants(changes):
                found = counted(model, prompts, shape, arguments.max_new_tokens)
            reference = reference or found
            for kind in KINDS:
                chosen = [place for place, prompt in enumerate(prompts) if bool(prompt.after) == (kind == "infilling")]
                rows.append(row(name, shape, kind, [found[at] for at in chosen], [reference[at] for at in chosen]))
    print_rows(rows)
    content = {
        "model": public_name(model.name),
        "dtype": model.weight_format,
        "num_prompts": len(prompts),
        "rows": rows,
    }
    print_result("sweep_drafting", content, arguments.json)


if __name__ == "__main__":
    main()
