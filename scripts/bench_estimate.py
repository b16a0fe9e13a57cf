"""Compare the speed that `forelook models` estimates with the speed of real models, in one run.

The probe and the models take turns, so that all meet the same machine. Of every duration the shortest counts, as in the
probe. A ratio above 1 means that the model was estimated as faster than it is. Besides models by folder, GGUF file or
hub id there are random weights of a known shape: `qwen-0.5b` is that of Qwen2.5-Coder-0.5B. The last line is one JSON
object.

Usage: python scripts/bench_estimate.py [--models starter model.gguf qwen-0.5b …] [--dtype auto] [--rounds N]
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench.arguments import benchmark_parser
from bench.llama_fields import llama_fields
from bench.random_llama import save_random_llama
from bench.results import print_result, public_name
from bench.steps import random_ids
from bench.turns import step_times, take_turns, timed
from forelook.decoding.layout import causal_layout
from forelook.model.catalogue import CATALOGUE
from forelook.model.checkpoint import read_weights
from forelook.model.config import LlamaConfig, parse_config
from forelook.model.cpu_threads import ThreadGovernor
from forelook.model.forward.llama import LlamaSequence
from forelook.model.loading import choose_dtype, load_model
from forelook.model.speed import PROMPT_TOKENS, measure_speed

RUNS = 5
"""Steps and prompts per turn."""
_SHAPES = {"qwen-0.5b": "Qwen/Qwen2.5-Coder-0.5B"}


def open_model(name: str, dtype: torch.dtype, scratch: Path) -> tuple[LlamaConfig, LlamaSequence]:
    """Return the configuration and an empty sequence of a model."""
    if name in _SHAPES:
        (row,) = [row for row in CATALOGUE if row.model == _SHAPES[name]]
        shape = llama_fields(row.config) | {"model_type": "llama", "max_position_embeddings": 2 * PROMPT_TOKENS}
        save_random_llama(scratch / name, dtype, **shape)
        read = parse_config(shape, name)
        weights = read_weights(scratch / name, read, dtype, torch.device("cpu"), lambda _share: None)
        return read, LlamaSequence(weights, 2 * PROMPT_TOKENS, ThreadGovernor())
    loaded = load_model(None if name == "starter" else name, device="cpu", dtype=str(dtype).removeprefix("torch."))
    return loaded.config, loaded.new_sequence(2 * PROMPT_TOKENS)


def turn_of(sequence: LlamaSequence) -> Callable[[], list[tuple[float, float]]]:
    """Return a turn that yields the seconds of a step of one token and of a cold prompt."""
    ids = random_ids(PROMPT_TOKENS, sequence.vocab_size)

    def turn() -> list[tuple[float, float]]:
        prompts = []
        for _ in range(RUNS):
            sequence.truncate(0)
            prompts.append(timed(lambda: sequence.forward(causal_layout(ids, 0)))[1])
        sequence.commit(range(PROMPT_TOKENS))
        sequence.truncate(PROMPT_TOKENS // 2)
        step = causal_layout(ids[:1], PROMPT_TOKENS // 2)
        return [(min(step_times(lambda: sequence.forward(step), 8 * RUNS)), min(prompts))]

    return turn


def main() -> None:
    parser = benchmark_parser(__doc__, "dtype")
    parser.add_argument("--models", nargs="+", default=["starter"], help="see above (default: starter)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    options = parser.parse_args()
    dtype = choose_dtype(options.dtype, torch.device("cpu"))
    with tempfile.TemporaryDirectory(prefix="fl-") as scratch:
        opened = {name: open_model(name, dtype, Path(scratch)) for name in options.models}
    turns: dict[str, Callable[[], list[Any]]] = {name: turn_of(sequence) for name, (_, sequence) in opened.items()}
    turns["probe"] = lambda: [timed(lambda: measure_speed(dtype))]
    with torch.inference_mode():
        measured = take_turns(turns, options.rounds)
    probes = measured.pop("probe")
    rows = []
    for name, times in measured.items():
        config, _ = opened[name]
        estimates = [speed.estimate(config) for speed, _ in probes]
        token_ratios = [found.tokens_per_s * step_s for found, (step_s, _) in zip(estimates, times, strict=True)]
        prompt_ratios = [prompt_s / found.prompt_s for found, (_, prompt_s) in zip(estimates, times, strict=True)]
        rows.append(
            {
                "model": public_name(name),
                "tokens_per_s": round(1 / min(step_s for step_s, _ in times), 1),
                "prompt_s": round(min(prompt_s for _, prompt_s in times), 3),
                "token_ratios": [round(ratio, 2) for ratio in token_ratios],
                "prompt_ratios": [round(ratio, 2) for ratio in prompt_ratios],
            }
        )
        print(
            f"{public_name(name)}: {rows[-1]['tokens_per_s']} tokens/s, {PROMPT_TOKENS} tokens of prompt in "
            f"{rows[-1]['prompt_s']} s; estimated / measured {statistics.median(token_ratios):.2f} and "
            f"{statistics.median(prompt_ratios):.2f}"
        )
    probe_s = round(statistics.median(seconds for _, seconds in probes), 2)
    print(f"the probe took {probe_s} s")
    print_result(
        "estimate", {"dtype": str(dtype).removeprefix("torch."), "probe_s": probe_s, "models": rows}, options.json
    )


if __name__ == "__main__":
    main()
