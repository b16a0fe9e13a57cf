#!/usr/bin/env python3
"""Measure when the lookahead window pays next to Forelook's other drafts: by the cost of a further token in a step.

Three variants differ in the window alone: ``shut`` never has one, ``auto`` is the product, ``open`` has the largest
that fits into every step. They run the same prompts, nothing of a workspace is known, and what they learn is kept from
prompt to prompt.

- simulated: on devices on which each further token of a step costs a share of a plain step, 0 for a GPU whose weights
  dominate. Up to 48 drafts and window tokens, as the product has on a GPU; steps are counted, in float32, and every
  output is compared with the autoregressive one. Time is that of the simulated steps; the host costs nothing.
- this machine: the product's budget, which learns what steps cost here; times are real, so the machine must be quiet.

Prints tables, and one JSON object as its last line.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from bench import cost_tables
from bench.arguments import benchmark_parser
from bench.datasets import asked_prompts
from bench.models import DEFAULT_BASE, load_with_source
from bench.results import print_result, public_name, write_result
from bench.window import WindowContest
from forelook.model.device_file import device_key

PARTS = ("simulated", "timed")
SLOPES = (0.0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)


def parse_arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__, "data", "limit", "max-new-tokens", "threads", limit=4)
    parser.add_argument("--model", default=DEFAULT_BASE, help="(default: %(default)s)")
    parser.add_argument("--dtype", default="auto", help="of the timed part (default: %(default)s)")
    parser.add_argument("--datasets", nargs="+", default=["humaneval", "mtbench"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="(default: both)")
    parser.add_argument("--slopes", nargs="*", type=float, default=SLOPES, help="shares of a plain step")
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return all figures; write them to ``--json`` on the way."""
    content: dict[str, Any] = {
        "model": public_name(arguments.model),
        "max_new_tokens": arguments.max_new_tokens,
    }
    for kind in arguments.parts:
        content[kind] = {}
        dtype = "float32" if kind == "simulated" else arguments.dtype
        model = load_with_source(arguments.model, device="cpu", dtype=dtype).model
        contest = WindowContest(model, arguments.max_new_tokens)
        for dataset in arguments.datasets:
            prompts = asked_prompts(dataset, model, arguments)
            name = public_name(dataset)
            if kind == "timed":
                content["timed"][name] = contest.timed(name, prompts)
            else:
                content["simulated"][name] = contest.simulated(name, prompts, arguments.slopes)
            write_result("window", content, arguments.json, device_key(model.device))
    return content


def main() -> None:
    arguments = parse_arguments()
    content = measure(arguments)
    print(*cost_tables.window(content), sep="\n")
    print_result("window", content, arguments.json, device_key(torch.device("cpu")))


if __name__ == "__main__":
    main()
