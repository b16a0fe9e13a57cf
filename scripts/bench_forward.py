"""Time of one decode step, t(T), over prefix lengths: Forelook's forward against transformers' on the same weights.

Every step runs T tokens as a tree-masked tail behind a cached prefix and computes the logits of all T rows. Rounds of
the two are interleaved, so that both meet the same machine. The table shows medians; the last line is one JSON object.

    python scripts/bench_forward.py [--model FOLDER_OR_ID] [--dtype auto] [--prefixes 64 256 900] [--tails 1 16 64]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from forelook.decoding.layout import StepLayout, causal_layout
from forelook.model.forward.llama import LlamaSequence
from forelook.model.loading import STARTER_MODEL_PATH, load_model

Step = Callable[[], object]


def step_layout(num_tokens: int, start: int, vocab_size: int) -> StepLayout:
    """A tail of two branches behind its first token: a real decode step's shape."""
    visibility = np.tri(num_tokens, dtype=np.bool_)
    positions = np.arange(start, start + num_tokens)
    branch = 1 + (num_tokens - 1) // 2
    visibility[branch:, 1:branch] = False
    positions[branch:] -= branch - 1
    ids = np.arange(num_tokens) * 7 % (vocab_size - 16) + 16
    return StepLayout(ids, positions, visibility if num_tokens > 1 else None, np.arange(num_tokens))


def our_step(sequence: LlamaSequence, prefix: list[int], num_tokens: int) -> Step:
    sequence.truncate(0)
    if prefix:
        sequence.forward(causal_layout(prefix, 0))
        sequence.commit(range(len(prefix)))
    layout = step_layout(num_tokens, len(prefix), sequence.vocab_size)
    return lambda: sequence.forward(layout)


def transformers_step(model: torch.nn.Module, prefix: list[int], num_tokens: int) -> Step:
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    if prefix:
        model(torch.tensor([prefix]), past_key_values=cache)
    layout = step_layout(num_tokens, len(prefix), model.config.vocab_size)
    ids, positions = torch.from_numpy(layout.token_ids)[None], torch.from_numpy(layout.positions)[None]
    mask = None
    if layout.visibility is not None:
        mask = torch.ones(1, 1, num_tokens, len(prefix) + num_tokens, dtype=torch.bool)
        mask[0, 0, :, len(prefix) :] = torch.from_numpy(layout.visibility)

    def step() -> None:
        model(ids, attention_mask=mask, position_ids=positions, past_key_values=cache)
        cache.crop(-num_tokens)

    return step


def medians_ms(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(3):
            step()
    for _ in range(max(1, repeats // 10)):
        for name, step in steps.items():
            for _ in range(10):
                start = time.perf_counter()
                step()
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or hub id; the starter model by default")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--prefixes", type=int, nargs="+", default=[64, 256, 512, 900])
    parser.add_argument("--tails", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--threads", type=int, help="torch's threads; all cores by default")
    parser.add_argument("--without-transformers", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    loaded = load_model(options.model, device="cpu", dtype=options.dtype)
    sequence = loaded.new_sequence()
    reference = None
    if not options.without_transformers:
        from transformers import AutoModelForCausalLM

        reference = AutoModelForCausalLM.from_pretrained(options.model or STARTER_MODEL_PATH, dtype=loaded.dtype).eval()

    results: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{loaded.name}, {str(loaded.dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads; median ms")
    print("prefix  tail  forelook  transformers  ratio")
    with torch.inference_mode():
        for prefix_length in options.prefixes:
            prefix = [16 + index % 97 for index in range(prefix_length)]
            for num_tokens in options.tails:
                if prefix_length + num_tokens > loaded.max_positions:
                    continue
                steps = {"forelook": our_step(sequence, prefix, num_tokens)}
                if reference is not None:
                    steps["transformers"] = transformers_step(reference, prefix, num_tokens)
                medians = medians_ms(steps, options.repeats)
                results.setdefault(str(prefix_length), {})[str(num_tokens)] = medians
                line = f"{prefix_length:6d} {num_tokens:5d} {medians['forelook']:9.2f}"
                if reference is not None:
                    line += f" {medians['transformers']:13.2f} {medians['transformers'] / medians['forelook']:6.1f}"
                print(line, flush=True)
    report = {
        "model": loaded.name,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "median_ms": results,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
