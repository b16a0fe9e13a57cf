#!/usr/bin/env python3
"""Compare Forelook with transformers and llama.cpp on one model in one run, on a CPU.

    python scripts/bench_peers.py --model smollm2-base --llama-server llama.cpp/build/bin/llama-server --limit 12
    python scripts/bench_peers.py --smoke                  the same code on the starter model, with tiny settings

All methods get the same weights, prompts and limits and take turns on every prompt. ``--model`` is a folder or a GGUF
file, which llama.cpp needs; ``smollm2-base`` is one. Its other formats are made by the ``llama-quantize`` next to the
server, so that each method runs what is left of the same weights. Figures are of decoding alone, after the first token.
``methods`` in the result is the first data set's; clean prompts are those whose output has no token 8-gram three times.
Prints tables, and one JSON object as its last line.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from bench.arguments import benchmark_parser, executable, settings_of
from bench.models import DEFAULT_BASE, default_base_path
from bench.peer_costs import measure_costs
from bench.peers import (
    LLAMA_CPP,
    METHODS,
    TRANSFORMERS_EXTRA,
    PeerPlan,
    best_ratios,
    compare_on,
    load_contestants,
    report_skipped,
)
from bench.plots import Line, Panel, draw
from bench.results import REPOSITORY, print_result, provenance, public_name
from bench.tables import print_rows
from forelook.model.device_file import device_key

SMOKE = {"datasets": ["workspace"], "limit": 1, "max_new_tokens": 4, "prompt_tokens": 96, "tails": [1, 4],
         "step_prefix": 16, "prefills": [32], "rounds": 1, "no_learning": True}  # fmt: skip
"""Options of ``--smoke``."""


def parse_arguments() -> argparse.Namespace:
    names = ("model", "data", "limit", "max-new-tokens", "threads", "plot", "llama-server")
    parser = benchmark_parser(__doc__, *names, limit=12)
    parser.add_argument("--methods", nargs="+", choices=METHODS, metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--datasets", nargs="+", default=["humaneval", "humaneval-infilling", "workspace"])
    parser.add_argument("--workspace", type=Path, default=REPOSITORY / "backend", help="folder of that data set")
    parser.add_argument("--prompt-tokens", type=int, default=1024, help="longest prompt (default: %(default)s)")
    parser.add_argument("--tails", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="tokens of the timed steps")
    parser.add_argument("--step-prefix", type=int, default=256, help="cached tokens before them (default: %(default)s)")
    parser.add_argument("--prefills", type=int, nargs="+", default=[256, 512, 1024], help="lengths of timed prompts")
    parser.add_argument("--rounds", type=int, default=6, help="of timed steps, half as many of prompts")
    parser.add_argument("--no-learning", action="store_true", help="measure Forelook as without idle time before")
    parser.add_argument("--smoke", action="store_true", help="tiny settings, without llama.cpp and data sets")
    return parser.parse_args()


def make_plan(arguments: argparse.Namespace) -> PeerPlan:
    """Return what the command line asks for."""
    default = [name for name in METHODS if name not in (*LLAMA_CPP, *TRANSFORMERS_EXTRA)]
    if arguments.llama_server is not None:
        default += LLAMA_CPP
    if arguments.smoke:
        default = ["autoregressive_bf16", "forelook_bf16", "hf_greedy", "hf_prompt_lookup"]
        vars(arguments).update(SMOKE)
    return settings_of(
        PeerPlan,
        arguments,
        model=_model_path(arguments.model),
        methods=arguments.methods or default,
        llama_server=executable(arguments.llama_server) or arguments.llama_server,
        learns=not arguments.no_learning,
    )


def _model_path(model: str | None) -> str | None:
    """Return where a model is: that of a name, otherwise what was given."""
    if model != DEFAULT_BASE:
        return model
    path = default_base_path()
    if path is None:
        raise SystemExit("the default model's base is not on this machine; run `forelook pull smollm2-135m`")
    return str(path)


def measure(plan: PeerPlan) -> dict[str, Any]:
    """Return all figures, and print the tables on the way."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = load_contestants(plan, stack, folder)
        report_skipped(found)
        if not found.methods:
            raise SystemExit("none of the methods takes part")
        costs = measure_costs(plan, found)
        for title, table in (("step, ms by tokens", costs["steps"]), ("prompt, tokens/s by length", costs["prefill"])):
            print(f"\n{title}")
            print_rows({"method": name, **row} for name, row in table.items())
        datasets: dict[str, Any] = {}
        for dataset in plan.datasets:
            part = compare_on(dataset, plan, found)
            name = public_name(dataset)
            for title, figures in (("all", part), ("clean", part["clean"])):
                figures["ratios"] = best_ratios(figures["methods"])
                print(f"\n{name}, {title} prompts: {figures['num_prompts']}; decoding alone")
                print_rows({"method": method, **row} for method, row in figures["methods"].items())
                print_rows([figures["ratios"]] if figures["ratios"] else [])
            datasets[name] = part
        first = next(iter(datasets.values()))
        return {
            "model": public_name(plan.model or found.prompts_model.name),
            "weights": {f"forelook_{form}": model.weight_format for form, model in found.ours.items()},
            "methods": (first["clean"] if first["clean"]["num_prompts"] else first)["methods"],
            **costs,
            "datasets": datasets,
            "left_out": found.skipped,
        }


def plot(path: Path, result: dict[str, Any]) -> None:
    """Write a plot of steps, prompts and decode speed."""
    panels = []
    for title, key, x, y in (
        ("one step", "steps", "tokens", "ms"),
        ("prompt", "prefill", "tokens of the prompt", "tokens/s"),
    ):
        lines: list[Line] = [
            (name, [int(size) for size in row], list(row.values()), "o-") for name, row in result[key].items()
        ]
        panels.append(Panel(x, y, lines, title))
    for name, part in result["datasets"].items():
        speeds = {method: row["tokens_per_s"] for method, row in part["methods"].items() if row["tokens_per_s"]}
        line: Line = (None, list(speeds.values()), list(speeds), "o")
        panels.append(Panel("tokens/s", "", [line], name))
    draw(path, *panels)


def main() -> None:
    arguments = parse_arguments()
    result = measure(make_plan(arguments))
    if arguments.plot:
        plot(arguments.plot, result)
    machine = device_key(torch.device("cpu"))
    print_result("peers", {**result, "machine": machine, "commit": provenance()["commit"]}, arguments.json, machine)


if __name__ == "__main__":
    main()
