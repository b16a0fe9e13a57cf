"""Costs of the n-gram pool: indexing, lookups, memory, restore, and the effect of indexing on a decode step.

At each size (10 k, 100 k and 1 M tokens of source text, repeated with variations where there is too little):

- index rate: tokens per second added to the pool and fully sorted, without tokenization;
- lookup: p50 and p99 of ``NgramPool.propose`` after contexts from the text; if it is compiled, also of Python's;
- memory per token, as counted by numpy and as the process grows;
- restore: from the files on disk, every name checked again, to the first lookup with a result.

Then the median decode step of the starter model, alone and with 1 M tokens being indexed in slices between steps on the
same thread, as the engine does it; and what a step of the default model takes outside its forward with the largest
pool. The last line is one JSON object.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bench.arguments import benchmark_parser
from bench.models import default_base_path
from bench.plots import Panel, draw
from bench.pool import decode_steps_while_indexing, first_tokens, host_time_of_steps, measure, source_documents
from bench.results import REPOSITORY, print_result
from bench.tables import pool, print_rows
from forelook.decoding.ngrams.pool import NgramPool
from forelook.model.catalogue import DEFAULT_MODEL

SIZES = (10_000, 100_000, 1_000_000)
PANELS = (
    ("lookup, µs", {"p50": "lookup_p50_us", "p99": "lookup_p99_us"}),
    ("indexed tokens per second", {"rate": "index_tokens_per_s"}),
    ("bytes per token", {"numpy": "bytes_per_token"}),
    ("seconds", {"restore": "restore_s", "save": "save_s"}),
)


def main() -> None:
    parser = benchmark_parser(__doc__, "plot")
    parser.add_argument(
        "--text", type=Path, action="append", help="folders of Python files; default: this environment's"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="tokens in the pool")
    parser.add_argument("--lookups", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=60, help="requests with and without indexing")
    parser.add_argument("--prompts", type=int, default=16, help="prompts of the default model; 0 for none")
    arguments = parser.parse_args()
    if arguments.prompts and default_base_path() is None:
        parser.error(f"--prompts needs {DEFAULT_MODEL}: run `forelook pull {DEFAULT_MODEL}`, or say --prompts 0")
    folders = arguments.text or [REPOSITORY / "backend", REPOSITORY / "lsp", Path(np.__file__).parents[1]]
    documents = source_documents(folders, max(arguments.sizes))
    rows = [measure(first_tokens(documents, size), arguments.lookups, arguments.rounds) for size in arguments.sizes]
    print_rows(rows)
    result = {
        "sizes": rows,
        "lookup": "compiled" if NgramPool().is_compiled else "in Python",
        **decode_steps_while_indexing(documents, arguments.requests),
    }
    if arguments.prompts:
        result["host"] = host_time_of_steps(folders, max(arguments.sizes), arguments.prompts)
    print(pool(result)[-1])
    if arguments.plot is not None:
        panels = (
            Panel(
                "tokens in the pool",
                title,
                [(label, arguments.sizes, [row[name] for row in rows], "o-") for label, name in series.items()],
                x_scale="log",
            )
            for title, series in PANELS
        )
        draw(arguments.plot, *panels)
    print_result("pool", result, arguments.json)


if __name__ == "__main__":
    main()
