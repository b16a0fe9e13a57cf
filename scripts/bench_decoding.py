#!/usr/bin/env python3
"""Compare decoding methods on one model in one run: methods take turns on every prompt.

    python scripts/bench_decoding.py --dataset humaneval --limit 40

Prints a table for people and, as its last line, one JSON object. ``forelook`` starts every prompt cold: nothing of an
earlier prompt is kept but how reliable each kind of draft has been. ``forelook_warm`` also keeps the model's own
choices, as the engine does. In ``workspace`` runs the pool knows the other files and the rest of the same file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench.datasets import DATASETS, BenchPrompt, has_repetition, load_prompts, workspace_prompts
from bench.methods import HuggingFaceMethods, Method, OurMethods, Run
from forelook.decoding.layout import StepModel, causal_layout
from forelook.decoding.limits import GREEDY, SamplingParams
from forelook.decoding.lookahead.published import PublishedSettings
from forelook.model.loading import STARTER_MODEL_PATH, LoadedModel, load_model
from forelook.model.step_costs import device_key

REPOSITORY = Path(__file__).resolve().parents[1]
METHODS = ("hf_greedy", "hf_prompt_lookup", "autoregressive", "lookahead_published", "forelook")
EXTRA_METHODS = ("forelook_warm",)
PAIRS = (
    ("autoregressive", "hf_greedy"),
    ("lookahead_published", "autoregressive"),
    ("forelook", "autoregressive"),
    ("forelook_warm", "autoregressive"),
    ("forelook", "hf_prompt_lookup"),
    ("forelook", "hf_greedy"),
    ("forelook", "lookahead_published"),
)
NEAR_TIE = 1e-4
GOLDEN = (5**0.5 - 1) / 2


@dataclass
class Divergence:
    """Where a method's greedy output leaves the autoregressive one."""

    prompt: str
    method: str
    position: int
    float64_margin: float


@dataclass
class Comparison:
    """All runs of one data set on one model."""

    dataset: str
    model: str
    device: str
    dtype: str
    prompts: list[BenchPrompt] = field(default_factory=list)
    runs: dict[str, list[Run]] = field(default_factory=dict)
    divergences: list[Divergence] = field(default_factory=list)


def compare(
    dataset: str,
    model: LoadedModel,
    prompts: list[BenchPrompt],
    methods: dict[str, Method],
    repeats: int,
    seconds: float | None = None,
) -> Comparison:
    """Run every method on every prompt, in turns; of repeats the median one counts.

    With a time limit in ``seconds`` prompts are taken in a scattered order until it is reached, so that those left out
    are not the last ones of the data set.
    """
    result = Comparison(dataset, model.name, str(model.device), str(model.dtype).removeprefix("torch."))
    if seconds is not None:
        prompts = [prompts[index] for index in sorted(range(len(prompts)), key=lambda index: index * GOLDEN % 1.0)]
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    names = list(methods)
    result.runs = {name: [] for name in names}
    for name in names:  # warm-up, not counted
        methods[name](prompts[0])
    show = sys.stderr.isatty()
    for index, prompt in enumerate(prompts):
        if time.monotonic() > deadline:
            break
        result.prompts.append(prompt)
        taken: dict[str, list[Run]] = {name: [] for name in names}
        for repeat in range(repeats):
            shift = (index + repeat) % len(names)  # nobody always follows the same neighbour
            for name in names[shift:] + names[:shift]:
                taken[name].append(methods[name](prompt))
        for name in names:
            result.runs[name].append(sorted(taken[name], key=lambda run: run.total_s)[len(taken[name]) // 2])
        if show:
            print(f"\r{dataset}: {index + 1}/{len(prompts)}", end="", file=sys.stderr)
    if show:
        print(file=sys.stderr)
    return result


def find_divergences(result: Comparison, source: str | None, revision: str | None) -> None:
    """List outputs that differ from the autoregressive one, each with the float64 top-2 margin where it does."""
    oracle: StepModel | None = None
    for name, runs in result.runs.items():
        if name == "autoregressive" or "autoregressive" not in result.runs:
            continue
        for prompt, run, expected in zip(result.prompts, runs, result.runs["autoregressive"], strict=True):
            if run.token_ids == expected.token_ids:
                continue
            pairs = enumerate(zip(run.token_ids, expected.token_ids, strict=False))
            shorter = min(len(run.token_ids), len(expected.token_ids))
            place = next((place for place, (left, right) in pairs if left != right), shorter)
            if oracle is None:
                oracle = load_model(source, revision=revision, device="cpu", dtype="float64").new_sequence()
            oracle.truncate(0)
            layout = causal_layout([*prompt.prompt_ids, *expected.token_ids[:place]], 0)
            top = oracle.forward(layout)[0].topk(2).values
            result.divergences.append(Divergence(prompt.name, name, place, float(top[0] - top[1])))


def bootstrap(ratios: Sequence[float], seed: int = 0, rounds: int = 2000) -> dict[str, float | int]:
    """Median of paired ratios with its 95% bootstrap interval."""
    values = np.array([ratio for ratio in ratios if math.isfinite(ratio)])
    if len(values) == 0:
        return {"median": math.nan, "low": math.nan, "high": math.nan, "num": 0}
    picks = np.random.default_rng(seed).integers(len(values), size=(rounds, len(values)))
    medians = np.median(values[picks], axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return {
        "median": round(float(np.median(values)), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "num": len(values),
    }


def summarize(result: Comparison, kept: Sequence[int]) -> dict[str, Any]:
    """Figures over the prompts with these indices."""
    methods: dict[str, Any] = {}
    for name, all_runs in result.runs.items():
        runs = [all_runs[index] for index in kept]
        tokens = sum(len(run.token_ids) for run in runs)
        if not tokens:
            continue
        total = sum(run.total_s for run in runs)
        decode_tokens = sum(max(0, len(run.token_ids) - 1) for run in runs)
        decode = sum(run.total_s - run.first_s for run in runs)
        steps = sum(run.num_steps for run in runs)
        per_token = [run.ms_per_token for run in runs if run.token_ids]
        figures: dict[str, Any] = {
            "tokens_per_s": round(tokens / total, 1),
            "ms_per_token_p50": round(float(np.percentile(per_token, 50)), 3),
            "ms_per_token_p95": round(float(np.percentile(per_token, 95)), 3),
            "tokens_per_step": round(tokens / steps, 3),
            "ms_per_step": round(1e3 * total / steps, 3),
            "decode_tokens_per_s": round(decode_tokens / decode, 1) if decode > 0 else None,
            "ttft_ms_p50": round(1e3 * float(np.median([run.first_s for run in runs])), 2),
        }
        if "autoregressive" in result.runs:
            same = [all_runs[i].token_ids == result.runs["autoregressive"][i].token_ids for i in kept]
            figures["identical_share"] = round(sum(same) / len(same), 4)
        if all(run.host_s is not None for run in runs):
            host = [1e3 * run.host_s / run.num_steps for run in runs if run.host_s is not None and run.num_steps]
            figures["host_ms_per_step_p50"] = round(float(np.median(host)), 3)
        methods[name] = figures
    ratios: dict[str, Any] = {}
    for fast, slow in PAIRS:
        if fast not in methods or slow not in methods:
            continue
        pairs = [(result.runs[fast][index], result.runs[slow][index]) for index in kept]
        pairs = [(left, right) for left, right in pairs if left.token_ids and right.token_ids]
        decode_ratios = []
        for left, right in pairs:
            left_ms, right_ms = left.decode_ms_per_token, right.decode_ms_per_token
            # an output that came whole with the first forward has no decode time to compare
            if left_ms is not None and right_ms is not None and left_ms > 0:
                decode_ratios.append(right_ms / left_ms)
        ratios[f"{fast}/{slow}"] = {
            "end_to_end": bootstrap([right.ms_per_token / left.ms_per_token for left, right in pairs]),
            "decode": bootstrap(decode_ratios),
        }
    return {"num_prompts": len(kept), "methods": methods, "ratios": ratios}


def report(result: Comparison, machine: dict[str, Any]) -> dict[str, Any]:
    """The JSON object of one data set on one model."""
    reference = result.runs.get("autoregressive") or next(iter(result.runs.values()))
    clean = [index for index, run in enumerate(reference) if not has_repetition(run.token_ids)]
    whole = summarize(result, range(len(result.prompts)))
    return {
        "dataset": result.dataset,
        "model": result.model,
        "device": result.device,
        "dtype": result.dtype,
        **whole,
        "clean": summarize(result, clean),
        "divergences": [asdict(divergence) for divergence in result.divergences],
        "machine": machine,
    }


def print_report(content: dict[str, Any]) -> None:
    """The table for people."""
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
            cells = "".join(
                f"{value['median']:>8.2f} [{value['low']:.2f}, {value['high']:.2f}]".rjust(22)
                for value in (ratio["end_to_end"], ratio["decode"])
            )
            print(f"  {name:<40}{cells}")
    for divergence in content["divergences"]:
        note = "near tie" if divergence["float64_margin"] < NEAR_TIE else f"margin {divergence['float64_margin']:.2e}"
        print(f"  differs: {divergence['method']} on {divergence['prompt']} at token {divergence['position']}, {note}")


def print_side_by_side(contents: Sequence[dict[str, Any]]) -> None:
    """Speed-up of each model and data set, one line each."""
    print(f"\n{'model':<28}{'data set':<22}{'forelook tok/s':>15}{'tok/step':>10}{'speed-up (decode, clean)':>32}")
    for content in contents:
        figures = content["methods"].get("forelook", {})
        part = content["clean"] if content["clean"]["num_prompts"] else content
        ratio = part["ratios"].get("forelook/autoregressive", {}).get("decode")
        shown = "" if ratio is None else f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
        name = Path(content["model"]).name
        print(
            f"{name:<28}{Path(content['dataset']).name:<22}{figures.get('tokens_per_s', 0):>15.0f}"
            f"{figures.get('tokens_per_step', 0):>10.2f}{shown:>32}"
        )


def sampling_table(
    model: LoadedModel, dataset: str, prompts: list[BenchPrompt], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Forelook over autoregressive, greedy and at rising temperatures, seeds the same for both."""
    rows = []
    print(f"\nsampling against greedy · {dataset} · {model.name}")
    print(f"  {'temperature':<14}{'tok/s':>8}{'tok/step':>10}{'clean':>7}{'decode speed-up':>22}{'same stream':>13}")
    for temperature in (0.0, 0.3, 0.7, 1.0):
        sampling = SamplingParams(temperature, seed=7) if temperature else GREEDY
        ours = OurMethods(model, arguments.max_new_tokens, arguments.published, sampling)
        methods = {name: ours.methods()[name] for name in ("autoregressive", "forelook")}
        content = report(compare(dataset, model, prompts, methods, arguments.repeats, arguments.seconds), {})
        part = content["clean"] if content["clean"]["num_prompts"] else content
        figures, ratio = part["methods"]["forelook"], part["ratios"]["forelook/autoregressive"]["decode"]
        interval = f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
        print(
            f"  {temperature:<14}{figures['tokens_per_s']:>8.0f}{figures['tokens_per_step']:>10.2f}"
            f"{part['num_prompts']:>7}{interval:>22}{figures['identical_share']:>13.3f}"
        )
        rows.append(
            {
                "temperature": temperature,
                "num_clean": content["clean"]["num_prompts"],
                "tokens_per_step": figures["tokens_per_step"],
                "identical_share": figures["identical_share"],
                "decode": ratio,
                "all_prompts_decode": content["ratios"]["forelook/autoregressive"]["decode"],
            }
        )
    return rows


def random_checkpoint(shape: str, folder: Path) -> str:
    """A checkpoint with random weights, the starter model's tokenizer and LAYERSxHIDDEN as its shape.

    It shows what a step of that size costs. What it says is noise or a loop, so its tokens per step mean nothing.
    """
    import shutil

    import transformers

    layers, hidden = (int(part) for part in shape.split("x"))
    config = transformers.LlamaConfig.from_pretrained(STARTER_MODEL_PATH)
    config.num_hidden_layers, config.hidden_size, config.intermediate_size = layers, hidden, hidden * 11 // 4
    config.num_attention_heads = config.num_key_value_heads = hidden // 64
    config.head_dim = 64
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    target = folder / f"random-{sum(part.numel() for part in model.parameters()) / 1e6:.0f}M"
    model.save_pretrained(target)
    for path in STARTER_MODEL_PATH.iterdir():
        if path.is_file() and path.suffix != ".safetensors" and path.name != "config.json":
            shutil.copy(path, target)
    return str(target)


def folder_documents(folder: Path, model: LoadedModel, num_tokens: int) -> dict[str, list[int]]:
    """Python files of a folder as tokens, until there are so many of them."""
    documents: dict[str, list[int]] = {}
    total = 0
    for path in sorted(folder.rglob("*.py")):
        if total >= num_tokens:
            break
        ids = model.tokenizer.encode(path.read_text(encoding="utf-8", errors="replace"))[: num_tokens - total]
        documents[str(path)] = ids
        total += len(ids)
    if total < num_tokens:
        raise SystemExit(f"--pool-folder {folder}: its Python files have {total} tokens, --pool-tokens is {num_tokens}")
    return documents


def describe_machine(model: LoadedModel) -> dict[str, Any]:
    """What the figures were measured on."""
    import transformers

    return {
        "device": device_key(model.device),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset",
        nargs="+",
        default=["humaneval"],
        help=f"{', '.join(DATASETS)}, all, a data file, a folder of sources or a hub id; several are allowed",
    )
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data", help="folder of data sets")
    parser.add_argument(
        "--workspace", type=Path, default=REPOSITORY / "backend", help="folder of the workspace data set"
    )
    parser.add_argument("--model", "--models", nargs="+", default=[], help="folders or hub ids, side by side")
    parser.add_argument(
        "--random", nargs="+", default=[], metavar="LAYERSxHIDDEN", help="also random weights of these shapes"
    )
    parser.add_argument(
        "--pool-folder", type=Path, help="sources that are in the pool besides a prompt's own documents"
    )
    parser.add_argument("--pool-tokens", type=int, default=1_000_000, help="how many of their tokens")
    parser.add_argument("--limit", type=int, help="most prompts per data set, evenly spread")
    parser.add_argument("--seconds", type=float, help="start no further prompt of a data set after this long")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--dtype", default="auto", help="auto, bfloat16, float16, float32 or float64")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="torch threads")
    parser.add_argument("--repeats", type=int, default=1, help="runs per method and prompt, the median counts")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *EXTRA_METHODS])
    parser.add_argument(
        "--published", type=int, nargs=3, metavar=("W", "N", "G"), default=(15, 5, 15), help="of lookahead_published"
    )
    parser.add_argument("--sampling", action="store_true", help="add the table of sampling against greedy")
    parser.add_argument("--json", type=Path, help="also write the JSON object here")
    arguments = parser.parse_args()
    window_size, ngram_size, max_candidates = arguments.published
    arguments.published = PublishedSettings(window_size, ngram_size, max_candidates)
    if arguments.dataset == ["all"]:
        arguments.dataset = list(DATASETS)
    return arguments


def main() -> None:
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    contents = []
    scratch = tempfile.TemporaryDirectory()
    random_sources = [random_checkpoint(shape, Path(scratch.name)) for shape in arguments.random]
    for source in [*(arguments.model or [None]), *random_sources]:
        model = load_model(source, device=arguments.device, dtype=arguments.dtype)
        pool_documents = None
        if arguments.pool_folder is not None:
            pool_documents = folder_documents(arguments.pool_folder, model, arguments.pool_tokens)
        ours = OurMethods(model, arguments.max_new_tokens, arguments.published, GREEDY, pool_documents)
        available = ours.methods()
        if any(name.startswith("hf_") for name in arguments.methods):
            path = str(STARTER_MODEL_PATH) if source is None else source
            available |= HuggingFaceMethods(path, model, arguments.max_new_tokens).methods()
        methods = {name: available[name] for name in arguments.methods}
        for dataset in arguments.dataset:
            if dataset == "workspace":
                prompts = workspace_prompts(
                    arguments.workspace,
                    model,
                    limit=arguments.limit or 100,
                    max_new_tokens=arguments.max_new_tokens,
                )
            else:
                prompts = load_prompts(
                    dataset,
                    model,
                    data_dir=arguments.data,
                    limit=arguments.limit,
                    max_new_tokens=arguments.max_new_tokens,
                )
            result = compare(dataset, model, prompts, methods, arguments.repeats, arguments.seconds)
            find_divergences(result, source, None)
            content = report(result, describe_machine(model))
            content["max_new_tokens"] = arguments.max_new_tokens
            print_report(content)
            if arguments.sampling:
                content["sampling"] = sampling_table(model, dataset, prompts, arguments)
            contents.append(content)
    if len(contents) > 1:
        print_side_by_side(contents)
    scratch.cleanup()
    last: dict[str, Any] = contents[0] if len(contents) == 1 else {"runs": contents}
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(last, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(last))


if __name__ == "__main__":
    main()
