#!/usr/bin/env python3
"""What a step and a prompt cost at sizes of which no checkpoint is at hand: random weights of 0.5 B and 1.3 B shapes.

    python scripts/bench_shapes.py [--shapes qwen-0.5b deepseek-1.3b] [--formats float32 auto]

Forelook's formats and transformers, in floats, take turns; medians, on a cache of ``--prefix`` tokens. Speed-ups follow
from tokens per step only where a real model gave them, so none is shown. The last line is one JSON object.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from bench.arguments import benchmark_parser
from bench.cost_tables import shapes
from bench.random_llama import SHAPES, save_shape
from bench.results import print_result
from bench.steps import branched_layout, fill, hf_branched_step, random_ids
from bench.summary import medians_ms
from bench.transformers_model import transformers_model
from bench.turns import Step, compare_steps, take_turns, timed
from forelook.model.forward.llama import LlamaSequence
from forelook.model.loading import load_model


def our_step(sequence: LlamaSequence, prefix: list[int], tail: int) -> Step:
    layout = branched_layout(tail, len(prefix), sequence.vocab_size)

    def step() -> object:
        if list(sequence.cached_ids) != prefix:
            fill(sequence, prefix)
        return sequence.forward(layout)

    return step


def measure(shape: str, folder: Path, options: Any) -> dict[str, Any]:
    """Return the figures of one shape."""
    num_parameters = save_shape(folder, shape)
    ours = {name: load_model(str(folder), device="cpu", dtype=name) for name in options.formats}
    plain = next(iter(ours.values())).dtype
    theirs = transformers_model(str(folder), plain, torch.device("cpu"))
    prefix = random_ids(options.prefix, theirs.config.vocab_size)
    room = options.prefix + max(options.tails)
    sequences = {name: model.new_sequence(room) for name, model in ours.items()}
    for sequence in sequences.values():
        fill(sequence, prefix)
    found: dict[str, dict[str, float]] = {}
    prefill: dict[str, float] = {}
    with torch.inference_mode():
        for tail in options.tails:
            steps = {f"forelook {name}": our_step(sequence, prefix, tail) for name, sequence in sequences.items()}
            steps["transformers"] = hf_branched_step(theirs, prefix, tail)
            found[str(tail)] = medians_ms(compare_steps(steps, options.repeats))

        def prompt(sequence: LlamaSequence) -> list[float]:
            return [timed(lambda: fill(sequence, prefix))[1]]

        ids = torch.tensor([prefix])
        turns = {f"forelook {name}": lambda item=item: prompt(item) for name, item in sequences.items()}
        turns["transformers"] = lambda: [timed(lambda: theirs(ids, logits_to_keep=1))[1]]
        for name, times in take_turns(turns, max(1, options.repeats // 5)).items():
            prefill[name] = round(len(prefix) / statistics.median(times), 1)
    formats = {f"forelook {name}": model.weight_format for name, model in ours.items()}
    return {
        "num_parameters": num_parameters,
        "formats": {**formats, "transformers": str(plain).removeprefix("torch.")},
        "step_ms": found,
        "prompt_tokens_per_s": prefill,
    }


def main() -> None:
    parser = benchmark_parser(__doc__, "threads")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["qwen-0.5b", "deepseek-1.3b"])
    parser.add_argument("--formats", nargs="+", default=["float32", "auto"], help="(default: float32 auto)")
    parser.add_argument("--tails", type=int, nargs="+", default=[1, 4, 8, 16], help="tokens of the timed steps")
    parser.add_argument("--prefix", type=int, default=256, help="cached tokens (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    content: dict[str, Any] = {"prefix": options.prefix, "shapes": {}}
    for shape in options.shapes:
        with tempfile.TemporaryDirectory() as folder:
            content["shapes"][shape] = measure(shape, Path(folder), options)
        gc.collect()
    print(*shapes(content), sep="\n")
    print_result("shapes", content, options.json)


if __name__ == "__main__":
    main()
