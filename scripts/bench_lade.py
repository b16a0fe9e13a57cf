#!/usr/bin/env python3
"""Compare Forelook with the authors' own lookahead decoding (lade) on the same weights, prompts and limits.

    python scripts/bench_lade.py --lade-python lade/bin/python             times and steps; wants a quiet machine
    python scripts/bench_lade.py --lade-python lade/bin/python --counts    steps alone; a busy machine is no matter

``lade`` needs a transformers that Forelook cannot use, so it runs in an interpreter of its own, which
docs/benchmarks.md says how to make; LADE_PYTHON names it too. It gets token ids, and a copy of the weights in float32
as a folder. All methods take turns on every prompt, with the same number of threads; never do two compute at once.

Every W, N, G runs without and with the prompt as reference, the authors' and ours. ``forelook`` starts each prompt with
nothing learned, as they do; with ``--counts`` its steps have at most 15 drafts and a common shape of costs.
Prints tables, and one JSON object as its last line.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench.arguments import benchmark_parser
from bench.datasets import asked_prompts
from bench.decoding import Effort, compare
from bench.lade import LadeError, LadeWorker, lade_worker, methods_of, save_for_lade, summarize, windows
from bench.methods import MAX_DRAFTS, MethodSettings, OurMethods, fixed_budget
from bench.models import DEFAULT_BASE, limited, load_with_source
from bench.results import print_result, public_name, write_result
from bench.tables import print_rows
from forelook.model.device_file import device_key

MAX_POSITIONS = 2048
VARIABLE = "LADE_PYTHON"


def parse_arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__, "data", "limit", "max-new-tokens", "threads", limit=6)
    parser.add_argument("--model", default=DEFAULT_BASE, help="(default: %(default)s)")
    parser.add_argument(
        "--lade-python", type=Path, metavar="PATH", default=os.environ.get(VARIABLE), help=f"(default: ${VARIABLE})"
    )
    parser.add_argument("--without-lade", action="store_true", help="run Forelook's methods alone")
    parser.add_argument("--datasets", nargs="+", default=["humaneval", "mtbench"])
    parser.add_argument("--windows", nargs="+", default=["5,3,5", "15,5,15", "10,7,10"], metavar="W,N,G")
    parser.add_argument("--counts", action="store_true", help="count steps, with a fixed budget; report no times")
    parser.add_argument("--seconds", type=float, help="time limit per data set: start no prompt after it")
    return parser.parse_args()


def interpreter(arguments: argparse.Namespace) -> Path | None:
    """Return the interpreter with lade; ``None`` where it is not wanted."""
    if arguments.without_lade:
        return None
    found = shutil.which(arguments.lade_python) if arguments.lade_python else None
    if found is None:
        raise SystemExit(
            f"no interpreter with lade: {arguments.lade_python}; make one as docs/benchmarks.md says, and give "
            f"--lade-python PATH or set {VARIABLE}"
        )
    return Path(found)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return all figures; print them and write them to ``--json`` on the way."""
    python = interpreter(arguments)
    bench_model = load_with_source(arguments.model, device="cpu", dtype="float32")
    bench_model = replace(bench_model, model=limited(bench_model.model, MAX_POSITIONS))
    model, limit = bench_model.model, arguments.max_new_tokens
    settings = windows([[int(number) for number in text.split(",")] for text in arguments.windows])
    budget = fixed_budget(MAX_DRAFTS) if arguments.counts else None
    ours = OurMethods(model, MethodSettings(limit), budget=budget, learns=False)
    with ExitStack() as stack:
        worker: LadeWorker | None = None
        if python is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            save_for_lade(bench_model, folder)
            threads, stop_ids = torch.get_num_threads(), sorted(model.stop_token_ids)
            worker = stack.enter_context(lade_worker(python, folder, stop_ids, num_threads=threads))
        methods = methods_of(ours, worker, settings, limit)
        content: dict[str, Any] = {
            "is_timed": not arguments.counts,
            "model": public_name(model.name),
            "dtype": "float32",
            "max_new_tokens": limit,
            "peer": None if worker is None else dict(worker.versions),
            "windows": [window.suffix for window in settings],
            "datasets": {},
        }
        effort = Effort(seconds=arguments.seconds, warms_up=not arguments.counts)
        for dataset in arguments.datasets:
            prompts = asked_prompts(dataset, model, arguments)
            found = summarize(compare(dataset, model, prompts, methods, effort), is_timed=not arguments.counts)
            content["datasets"][public_name(dataset)] = found
            print(f"\n{public_name(dataset)}: {found['num_prompts']} prompts")
            print_rows({"method": name, **row} for name, row in found["methods"].items())
            print_rows({"pair": name, **row} for name, row in found["ratios"].items())
            write_result("lade", content, arguments.json, device_key(model.device))
    return content


def main() -> None:
    arguments = parse_arguments()
    try:
        content = measure(arguments)
    except LadeError as error:
        raise SystemExit(str(error)) from error
    print_result("lade", content, arguments.json, device_key(torch.device("cpu")))


if __name__ == "__main__":
    main()
