"""Time of one decode step, t(T), over prefix lengths: Forelook's forward against transformers' on the same weights.

    python scripts/bench_forward.py [--model FOLDER_OR_ID] [--dtype auto] [--prefixes 64 256 900] [--tails 1 16 64]

Every step runs T tokens as a tree-masked tail after a cached prefix and computes the logits of all T rows. The two take
turns. The table shows medians; the last line is one JSON object.
"""

from __future__ import annotations

import torch
from bench.arguments import benchmark_parser
from bench.results import print_result, public_name
from bench.steps import branched_layout, fill, hf_branched_step, random_ids
from bench.summary import medians_ms
from bench.tables import forward
from bench.transformers_model import transformers_model
from bench.turns import Step, compare_steps
from forelook.model.forward.llama import LlamaSequence
from forelook.model.loading import STARTER_MODEL_PATH, load_model


def our_step(sequence: LlamaSequence, prefix: list[int], num_tokens: int) -> Step:
    fill(sequence, prefix)
    layout = branched_layout(num_tokens, len(prefix), sequence.vocab_size)
    return lambda: sequence.forward(layout)


def main() -> None:
    parser = benchmark_parser(__doc__, "model", "dtype", "threads")
    parser.add_argument("--prefixes", type=int, nargs="+", default=[64, 256, 512, 900])
    parser.add_argument("--tails", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--without-transformers", action="store_true")
    options = parser.parse_args()

    loaded = load_model(options.model, device="cpu", dtype=options.dtype)
    sequence = loaded.new_sequence()
    reference = None
    if not options.without_transformers:
        path = options.model or str(STARTER_MODEL_PATH)
        reference = transformers_model(path, loaded.dtype, torch.device("cpu"))

    medians: dict[str, dict[str, dict[str, float]]] = {}
    with torch.inference_mode():
        for prefix_length in options.prefixes:
            prefix = random_ids(prefix_length, sequence.vocab_size)
            for num_tokens in options.tails:
                if prefix_length + num_tokens > loaded.max_positions:
                    continue
                steps = {"forelook": our_step(sequence, prefix, num_tokens)}
                if reference is not None:
                    steps["transformers"] = hf_branched_step(reference, prefix, num_tokens)
                row = medians_ms(compare_steps(steps, options.repeats))
                medians.setdefault(str(prefix_length), {})[str(num_tokens)] = row
    dtype = str(loaded.dtype).removeprefix("torch.")
    result = {"model": public_name(loaded.name), "dtype": dtype, "median_ms": medians}
    print(*forward(result), sep="\n")
    print_result("forward", result, options.json)


if __name__ == "__main__":
    main()
