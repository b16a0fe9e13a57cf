#!/usr/bin/env python3
"""Compare decoding methods on one model in one run: methods take turns on every prompt.

    python scripts/bench_decoding.py --dataset humaneval --limit 40

Prints tables, and one JSON object as its last line. ``forelook`` starts every prompt cold: nothing of an earlier prompt
is kept except how reliable each kind of draft has been. ``forelook_warm`` also keeps the model's own choices, as the
engine does. In ``workspace`` runs the pool has the other files and the rest of the same file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.arguments import benchmark_parser
from bench.datasets import DATASETS, asked_prompts
from bench.decoding import Effort, compare, find_divergences, report
from bench.methods import HuggingFaceMethods, MethodSettings, OurMethods
from bench.results import REPOSITORY, print_result
from bench.tables import print_rows
from forelook.decoding.lookahead.published import PublishedSettings
from forelook.model.device_file import device_key
from forelook.model.loading import STARTER_MODEL_PATH, LoadedModel, load_model

METHODS = ("hf_greedy", "hf_prompt_lookup", "autoregressive", "lookahead_published", "forelook")
EXTRA_METHODS = ("forelook_warm",)


def print_report(content: dict[str, Any]) -> None:
    """Print the tables of one data set."""
    print(f"\n{content['dataset']} · {content['model']} · {content['device']} · {content['dtype']}")
    for title, part in (("all prompts", content), ("clean prompts (no token 8-gram three times)", content["clean"])):
        print(f"\n{title}: {part['num_prompts']}")
        print_rows({"method": name, **figures} for name, figures in part["methods"].items())
        print_rows({"median paired ratio": name, **ratio} for name, ratio in part["ratios"].items())
    if content["divergences"]:
        print("\noutputs that differ from the autoregressive one; a small margin is a near tie")
        print_rows(content["divergences"])


def print_side_by_side(contents: Sequence[dict[str, Any]]) -> None:
    """Print one line per model and data set."""
    rows = []
    for content in contents:
        figures = content["methods"].get("forelook", {})
        part = content["clean"] if content["clean"]["num_prompts"] else content
        row = {name: content[name] for name in ("model", "dataset")}
        row |= {name: figures.get(name) for name in ("tokens_per_s", "tokens_per_step")}
        speedup = part["ratios"].get("forelook/autoregressive", {}).get("decode")
        rows.append({**row, "speed-up (decode, clean)": speedup})
    print()
    print_rows(rows)


def parse_arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__, "data", "limit", "max-new-tokens", "dtype", "device", "threads")
    parser.add_argument(
        "--dataset",
        nargs="+",
        default=["humaneval"],
        help=f"{', '.join(DATASETS)}, all, a data file, a folder of sources or a hub id",
    )
    parser.add_argument(
        "--workspace", type=Path, default=REPOSITORY / "backend", help="folder of the workspace data set"
    )
    parser.add_argument("--model", "--models", nargs="+", default=[], help="folders or hub ids, side by side")
    parser.add_argument("--seconds", type=float, help="time limit per data set: start no prompt after it")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *EXTRA_METHODS])
    parser.add_argument(
        "--published", type=int, nargs=3, metavar=("W", "N", "G"), default=(15, 5, 15), help="of lookahead_published"
    )
    arguments = parser.parse_args()
    arguments.published = PublishedSettings(*arguments.published)
    if arguments.dataset == ["all"]:
        arguments.dataset = list(DATASETS)
    return arguments


def run_model(source: str | None, model: LoadedModel, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the report of each data set."""
    available = OurMethods(model, MethodSettings(arguments.max_new_tokens, arguments.published)).methods()
    if any(name.startswith("hf_") for name in arguments.methods):
        path = str(STARTER_MODEL_PATH) if source is None else source
        available |= HuggingFaceMethods(path, model, arguments.max_new_tokens).methods()
    methods = {name: available[name] for name in arguments.methods}
    for dataset in arguments.dataset:
        prompts = asked_prompts(str(arguments.workspace) if dataset == "workspace" else dataset, model, arguments)
        result = compare(dataset, model, prompts, methods, Effort(arguments.seconds))
        find_divergences(result, source)
        content = {**report(result), "max_new_tokens": arguments.max_new_tokens}
        print_report(content)
        yield content


def main() -> None:
    arguments = parse_arguments()
    contents = []
    for source in arguments.model or [None]:
        model = load_model(source, device=arguments.device, dtype=arguments.dtype)
        contents += run_model(source, model, arguments)
    if len(contents) > 1:
        print_side_by_side(contents)
    last = contents[0] if len(contents) == 1 else {"runs": contents}
    print_result("decoding", last, arguments.json, device_key(model.device))


if __name__ == "__main__":
    main()
