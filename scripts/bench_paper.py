#!/usr/bin/env python3
"""The paper's table on the default model: speed-up and step compression per data set.

    python scripts/bench_paper.py --seconds 60                      times and steps; wants a quiet machine
    python scripts/bench_paper.py --counts --limit 8                steps alone, which a busy machine does not change

Prompts with text before the cursor alone run on the default model's base (MT-Bench in its chat format), infilling on
the default model. transformers gets the same weights, in floats; ``--dtype int8`` is what ``auto`` takes on a CPU
without bfloat16, so there the two differ in format too.

Infilling has four times the number of prompts: its answers are one line, and many are empty.

With ``--counts`` the budget of forelook's steps is fixed (at most 15 drafts, a common shape of costs): measured costs
would make the number of drafts depend on the machine; nothing is learned in idle time. ``forelook_warm`` keeps what
earlier prompts of the data set taught.

After each data set ``--json`` has what is measured so far. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
from typing import Any

from bench.arguments import benchmark_parser
from bench.datasets import DATASET_FILES, load_prompts
from bench.decoding import Comparison, Effort, compare, report
from bench.methods import MAX_DRAFTS, HuggingFaceMethods, Method, MethodSettings, OurMethods, fixed_budget
from bench.models import DEFAULT_BASE, BenchModel, limited, load_with_source
from bench.results import print_result, write_result
from bench.summary import median_interval
from bench.tables import print_rows
from forelook.decoding.limits import GREEDY, SamplingParams
from forelook.decoding.lookahead.published import PublishedSettings
from forelook.model.catalogue import DEFAULT_MODEL
from forelook.model.device_file import device_key

INFILLING = ("humaneval-infilling",)
METHODS = ("hf_greedy", "hf_prompt_lookup", "autoregressive", "lookahead_published", "forelook", "forelook_warm")
TIMED = ("hf_greedy", "hf_prompt_lookup", "autoregressive", "forelook")
COUNTED = ("hf_prompt_lookup", "autoregressive", "lookahead_published", "forelook", "forelook_warm")
INFILL_SHARE = 4  # prompts of infilling per prompt of text: answers are one line, and many are empty
COUNTS = ("tokens_per_step", "identical_share")


def parse_arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__, "data", "limit", "max-new-tokens", "dtype", "device", "threads", dtype="float32")
    parser.add_argument("--dataset", nargs="+", default=list(DATASET_FILES), choices=list(DATASET_FILES))
    parser.add_argument("--model", default=DEFAULT_BASE, help="of text (default: %(default)s)")
    parser.add_argument("--infill-model", default=DEFAULT_MODEL, help="of infilling (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="(default: all that the mode needs)")
    parser.add_argument("--counts", action="store_true", help="count steps, with a fixed budget; report no times")
    parser.add_argument("--seconds", type=float, help="time limit per data set: start no prompt after it")
    parser.add_argument("--published", type=int, nargs=3, metavar=("W", "N", "G"), default=(15, 5, 15))
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0], help="0 is greedy")
    return parser.parse_args()


def model_of(dataset: str, arguments: argparse.Namespace) -> str:
    """Return the name of the model that a data set runs on."""
    name: str = arguments.infill_model if dataset in INFILLING else arguments.model
    return name


def methods_of(bench_model: BenchModel, settings: MethodSettings, arguments: argparse.Namespace) -> dict[str, Method]:
    """Return the methods by name; transformers' are greedy, so they run at temperature 0 alone."""
    names = arguments.methods or (COUNTED if arguments.counts else TIMED)
    budget = fixed_budget(MAX_DRAFTS) if arguments.counts else None
    ours = OurMethods(bench_model.model, settings, budget=budget, learns=not arguments.counts)
    available = ours.methods()
    if settings.sampling is GREEDY and any(name.startswith("hf_") for name in names):
        theirs = HuggingFaceMethods(bench_model.source, bench_model.model, settings.max_new_tokens, bench_model.adapter)
        available |= theirs.methods()
    return {name: available[name] for name in names if name in available}


def counted(result: Comparison) -> dict[str, Any]:
    """Return the counts of a comparison: nothing in it is a time."""
    content = report(result)
    for part in (content, content["clean"]):
        part["methods"] = {
            name: {key: figures[key] for key in COUNTS if key in figures} for name, figures in part["methods"].items()
        }
        del part["ratios"]
    for name, figures in content["methods"].items():
        runs = [run for run in result.runs[name] if run.token_ids]
        figures["per_prompt"] = median_interval([run.tokens_per_step for run in runs])
    return content


def num_answered(result: Comparison) -> int:
    """Return the number of prompts that the model did not answer with nothing."""
    return sum(bool(run.token_ids) for run in next(iter(result.runs.values())))


def main() -> None:
    arguments = parse_arguments()
    effort = Effort(seconds=arguments.seconds, warms_up=not arguments.counts)
    content: dict[str, Any] = {
        "is_timed": not arguments.counts,
        "max_new_tokens": arguments.max_new_tokens,
        "published": list(arguments.published),
        "max_drafts": MAX_DRAFTS if arguments.counts else None,
        "runs": [],
    }
    machine = None
    for source in dict.fromkeys((arguments.model, arguments.infill_model)):
        datasets = [name for name in arguments.dataset if source == model_of(name, arguments)]
        if not datasets:
            continue
        bench_model = load_with_source(source, device=arguments.device, dtype=arguments.dtype)
        machine = device_key(bench_model.model.device)
        for temperature in arguments.temperatures:
            sampling = SamplingParams(temperature, seed=7) if temperature else GREEDY
            settings = MethodSettings(arguments.max_new_tokens, PublishedSettings(*arguments.published), sampling)
            methods = methods_of(bench_model, settings, arguments)
            for dataset in datasets:
                prompts = load_prompts(
                    dataset,
                    limited(bench_model.model, 2048),
                    data_dir=arguments.data,
                    limit=arguments.limit and arguments.limit * (INFILL_SHARE if dataset in INFILLING else 1),
                    max_new_tokens=arguments.max_new_tokens,
                )
                result = compare(dataset, bench_model.model, prompts, methods, effort)
                found = counted(result) if arguments.counts else report(result)
                found["num_answered"] = num_answered(result)
                content["runs"].append({**found, "format": bench_model.model.weight_format, "temperature": temperature})
                print(f"\n{dataset}, {found['model']}, temperature {temperature}: {found['num_prompts']} prompts")
                print_rows({"method": name, **figures} for name, figures in found["methods"].items())
                write_result("paper", content, arguments.json, machine)
    print_result("paper", content, arguments.json, machine)


if __name__ == "__main__":
    main()
