"""Costs of the n-gram pool: indexing, lookups, memory, restore, and the effect of indexing on a decode step.

At each size (10 k, 100 k and 1 M tokens of source text, repeated with variations where there is too little):

- index rate: tokens per second added to the pool and fully sorted, without tokenization;
- lookup: p50 and p99 of ``NgramPool.propose`` after contexts from the text;
- memory per token, as counted by numpy and as the process grows;
- restore: from the files on disk, every name checked again, to the first lookup with a result.

Then the median decode step of the starter model, alone and with 1 M tokens being indexed in slices between steps on the
same thread, as the engine does it. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from bench import plots
from bench.pool import decode_steps_while_indexing, measure, source_documents
from bench.results import REPOSITORY, add_json_argument, print_result

SIZES = (10_000, 100_000, 1_000_000)


def first_tokens(documents: list[np.ndarray], num_tokens: int) -> list[np.ndarray]:
    """Return the first ``num_tokens`` tokens of the documents."""
    chosen: list[np.ndarray] = []
    for ids in documents:
        if num_tokens <= 0:
            break
        chosen.append(ids[:num_tokens])
        num_tokens -= len(chosen[-1])
    return chosen


def plot(rows: list[dict[str, float]], path: Path) -> None:
    """Plot cost against size."""
    sizes = [row["num_tokens"] for row in rows]
    figure, axes = plots.subplots(4, size=(15, 3.4))
    panels = (
        ("lookup, µs", {"p50": "lookup_p50_us", "p99": "lookup_p99_us"}),
        ("indexing, M tokens/s", {"rate": "index_tokens_per_s"}),
        ("bytes per token", {"numpy": "bytes_per_token"}),
        ("restore, s", {"restore": "restore_s", "save": "save_s"}),
    )
    for axis, (title, series) in zip(axes, panels, strict=True):
        for label, name in series.items():
            scale = 1e-6 if "per_s" in name else 1
            axis.plot(sizes, [row[name] * scale for row in rows], marker="o", label=label)
        axis.set(title=title, xscale="log", xlabel="tokens in the pool", ylim=(0, None))
        axis.grid(alpha=0.3)
        if len(series) > 1:
            axis.legend()
    plots.save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--text", type=Path, action="append", help="folders of Python files; default: this environment's"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="tokens in the pool")
    parser.add_argument("--lookups", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=60, help="requests with and without indexing")
    parser.add_argument("--out", type=Path, help="write a plot, as PNG")
    add_json_argument(parser)
    arguments = parser.parse_args()
    folders = arguments.text or [REPOSITORY / "backend", REPOSITORY / "lsp", Path(np.__file__).parents[1]]
    documents = source_documents(folders, max(arguments.sizes))
    rows = []
    for size in arguments.sizes:
        row = measure(first_tokens(documents, size), arguments.lookups, arguments.rounds)
        rows.append(row)
        print("  ".join(f"{name} {value:,}" for name, value in row.items()), flush=True)
    steps = decode_steps_while_indexing(documents, arguments.requests)
    if arguments.out is not None:
        plot(rows, arguments.out)
    print_result("pool", {"sizes": rows, **steps}, arguments.json)


if __name__ == "__main__":
    main()
