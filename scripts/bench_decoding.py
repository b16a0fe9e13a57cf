#!/usr/bin/env python3
"""Compare decoding methods on one model in one run: methods take turns on every prompt.

    python scripts/bench_decoding.py --dataset humaneval --limit 40

Prints tables, and one JSON object as its last line. ``forelook`` starts every prompt cold: nothing of an earlier prompt
is kept except how reliable each kind of draft has been. ``forelook_warm`` also keeps the model's own choices, as the
engine does. In ``workspace`` runs the pool has the other files and the rest of the same file.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from bench.datasets import DATASETS, BenchPrompt, load_prompts, workspace_prompts
from bench.decoding import (
    NEAR_TIE,
    compare,
    find_divergences,
    folder_documents,
    random_checkpoint,
    report,
    sampling_rows,
)
from bench.methods import HuggingFaceMethods, OurMethods
from bench.results import DATA, REPOSITORY, add_json_argument, print_result
from bench.summary import shown
from forelook.decoding.limits import GREEDY
from forelook.decoding.lookahead.published import PublishedSettings
from forelook.model.loading import STARTER_MODEL_PATH, LoadedModel, load_model
from forelook.model.step_costs import device_key

METHODS = ("hf_greedy", "hf_prompt_lookup", "autoregressive", "lookahead_published", "forelook")
EXTRA_METHODS = ("forelook_warm",)


def print_report(content: dict[str, Any]) -> None:
    """Print the tables of one data set."""
    print(f"\n{content['dataset']} · {content['model']} · {content['device']} · {content['dtype']}")
    for title, part in (("all prompts", content), ("clean prompts (no token 8-gram three times)", content["clean"])):
        print(f"\n{title}: {part['num_prompts']}")
        if not part["methods"]:
            continue
        print(f"  {'method':<20}{'tok/s':>8}{'decode':>8}{'ms/tok':>8}{'p95':>8}{'tok/step':>9}{'ms/step':>8}", end="")
        print(f"{'ttft':>8}{'host':>7}{'same':>7}")
        for name, figures in part["methods"].items():
            print(
                f"  {name:<20}{figures['tokens_per_s']:>8.0f}{figures['decode_tokens_per_s'] or 0:>8.0f}"
                f"{figures['ms_per_token_p50']:>8.2f}{figures['ms_per_token_p95']:>8.2f}"
                f"{figures['tokens_per_step']:>9.2f}{figures['ms_per_step']:>8.2f}{figures['ttft_ms_p50']:>8.1f}"
                f"{figures.get('host_ms_per_step_p50', math.nan):>7.2f}{figures.get('identical_share', math.nan):>7.3f}"
            )
        print(f"  {'median paired ratio':<40}{'end to end':>22}{'decode only':>22}")
        for name, ratio in part["ratios"].items():
            print(f"  {name:<40}{shown(ratio['end_to_end']):>22}{shown(ratio['decode']):>22}")
    for divergence in content["divergences"]:
        note = "near tie" if divergence["float64_margin"] < NEAR_TIE else f"margin {divergence['float64_margin']:.2e}"
        print(f"  differs: {divergence['method']} on {divergence['prompt']} at token {divergence['position']}, {note}")


def print_side_by_side(contents: Sequence[dict[str, Any]]) -> None:
    """Print one line per model and data set."""
    print(f"\n{'model':<28}{'data set':<22}{'forelook tok/s':>15}{'tok/step':>10}{'speed-up (decode, clean)':>32}")
    for content in contents:
        figures = content["methods"].get("forelook", {})
        part = content["clean"] if content["clean"]["num_prompts"] else content
        ratio = part["ratios"].get("forelook/autoregressive", {}).get("decode")
        print(
            f"{content['model']:<28}{content['dataset']:<22}{figures.get('tokens_per_s', 0):>15.0f}"
            f"{figures.get('tokens_per_step', 0):>10.2f}{'' if ratio is None else shown(ratio):>32}"
        )


def print_sampling(rows: Sequence[dict[str, Any]]) -> None:
    print(f"  {'temperature':<14}{'tok/s':>8}{'tok/step':>10}{'clean':>7}{'decode speed-up':>22}{'same stream':>13}")
    for row in rows:
        print(
            f"  {row['temperature']:<14}{row['tokens_per_s']:>8.0f}{row['tokens_per_step']:>10.2f}"
            f"{row['num_clean']:>7}{shown(row['decode']):>22}{row['identical_share']:>13.3f}"
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset",
        nargs="+",
        default=["humaneval"],
        help=f"{', '.join(DATASETS)}, all, a data file, a folder of sources or a hub id",
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of data sets")
    parser.add_argument(
        "--workspace", type=Path, default=REPOSITORY / "backend", help="folder of the workspace data set"
    )
    parser.add_argument("--model", "--models", nargs="+", default=[], help="folders or hub ids, side by side")
    parser.add_argument(
        "--random", nargs="+", default=[], metavar="LAYERSxHIDDEN", help="also random weights of these shapes"
    )
    parser.add_argument("--pool-folder", type=Path, help="sources in the pool besides a prompt's own documents")
    parser.add_argument("--pool-tokens", type=int, default=1_000_000, help="number of their tokens")
    parser.add_argument("--limit", type=int, help="maximum number of prompts per data set, evenly spread")
    parser.add_argument("--seconds", type=float, help="time limit per data set: start no prompt after it")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--dtype", default="auto", help="auto, bfloat16, float16, float32 or float64")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="torch threads")
    parser.add_argument("--repeats", type=int, default=1, help="runs per method and prompt; the median counts")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *EXTRA_METHODS])
    parser.add_argument(
        "--published",
        type=int,
        nargs=3,
        metavar=("W", "N", "G"),
        default=(15, 5, 15),
        help="of lookahead_published",
    )
    parser.add_argument("--sampling", action="store_true", help="add the table of sampling against greedy")
    add_json_argument(parser)
    arguments = parser.parse_args()
    window_size, ngram_size, max_candidates = arguments.published
    arguments.published = PublishedSettings(window_size, ngram_size, max_candidates)
    if arguments.dataset == ["all"]:
        arguments.dataset = list(DATASETS)
    return arguments


def prompts_of(dataset: str, model: LoadedModel, arguments: argparse.Namespace) -> list[BenchPrompt]:
    if dataset == "workspace":
        return workspace_prompts(
            arguments.workspace, model, limit=arguments.limit or 100, max_new_tokens=arguments.max_new_tokens
        )
    return load_prompts(
        dataset, model, data_dir=arguments.data, limit=arguments.limit, max_new_tokens=arguments.max_new_tokens
    )


def run_model(source: str | None, model: LoadedModel, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the report of each data set."""
    pool_documents = None
    if arguments.pool_folder is not None:
        pool_documents = folder_documents(arguments.pool_folder, model, arguments.pool_tokens)
    available = OurMethods(model, arguments.max_new_tokens, arguments.published, GREEDY, pool_documents).methods()
    if any(name.startswith("hf_") for name in arguments.methods):
        path = str(STARTER_MODEL_PATH) if source is None else source
        available |= HuggingFaceMethods(path, model, arguments.max_new_tokens).methods()
    methods = {name: available[name] for name in arguments.methods}
    for dataset in arguments.dataset:
        prompts = prompts_of(dataset, model, arguments)
        result = compare(dataset, model, prompts, methods, arguments.repeats, arguments.seconds)
        find_divergences(result, source, None)
        content = {**report(result), "max_new_tokens": arguments.max_new_tokens}
        print_report(content)
        if arguments.sampling:
            print(f"\nsampling against greedy · {dataset} · {model.name}")
            content["sampling"] = sampling_rows(
                model,
                dataset,
                prompts,
                max_new_tokens=arguments.max_new_tokens,
                published=arguments.published,
                repeats=arguments.repeats,
                seconds=arguments.seconds,
            )
            print_sampling(content["sampling"])
        yield content


def main() -> None:
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    contents = []
    with tempfile.TemporaryDirectory() as scratch:
        random_sources = [random_checkpoint(shape, Path(scratch)) for shape in arguments.random]
        for source in [*(arguments.model or [None]), *random_sources]:
            model = load_model(source, device=arguments.device, dtype=arguments.dtype)
            contents += run_model(source, model, arguments)
    if len(contents) > 1:
        print_side_by_side(contents)
    last = contents[0] if len(contents) == 1 else {"runs": contents}
    print_result("decoding", last, arguments.json, device_key(model.device))


if __name__ == "__main__":
    main()
