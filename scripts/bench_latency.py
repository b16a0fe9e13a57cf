"""Keystroke to reply, through the real language server over stdio and a real backend.

Usage: python scripts/bench_latency.py [--trace functions|editing|folder] [--path FOLDER] [--engine NAME ...]
       [--model MODEL] [--dtype DTYPE] [--pace steady|human] [--limit N] [--keys N]

Traces:
  functions  HumanEval and ClassEval functions typed key by key in the middle of a file longer than the model's context
  editing    a recorded editing session (../shared/data/editing-traces) replayed with its edits
  folder     files of any folder: a few lines of each are removed and typed again

After every key the editor sends the change and requests an inline completion, as VS Code does. Pace of typing:

  steady     the next key waits for the reply, and for ``--keys-per-second``: every request is answered, so that
             latencies of engines can be compared
  human      five to eight keys per second, slower at a word's end, with pauses at line ends and some to think; the next
             key does not wait for a reply, and an unanswered request is cancelled

Requests are told apart by the language server's own counters: answered from its cache (hit), by a running request
(kept), or by a new one. The engines take turns, one session each, on servers that run side by side.

Engines: ``hf_greedy`` is transformers' model and cache, greedy, one token per forward, the prompt recomputed for every
request; ``autoregressive`` is Forelook without drafts; ``forelook`` is the product. All three get the same prompts,
stop rules and limits. A shape (``--model qwen-0.5b``) has random weights, whose text nothing predicts: the time of a
model of that size at its worst. The last line is one JSON object with all figures.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench.arguments import benchmark_parser
from bench.latency import Served, Typist, measure, ratios, report
from bench.random_llama import SHAPES, save_shape
from bench.results import REPOSITORY, print_result
from bench.tables import print_rows
from bench.traces import Session, editing_sessions, folder_sessions, function_sessions

ENGINES = ("hf_greedy", "autoregressive", "forelook")


def sessions_of(trace: str, folder: Path, limit: int | None) -> Iterable[Session]:
    if trace == "folder":
        return folder_sessions(folder, limit or 20)
    if trace == "editing":
        return editing_sessions(limit or 10**9)
    return function_sessions(limit or 264)


@contextmanager
def folder_of(model: str | None) -> Iterator[str | None]:
    """Where a model is; a shape's is written for as long."""
    if model is None or model not in SHAPES:
        yield model
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / model
        save_shape(folder, model)
        yield str(folder)


def main() -> None:
    parser = benchmark_parser(__doc__, "model", "dtype")
    parser.add_argument("--trace", choices=("functions", "editing", "folder"), default="functions")
    parser.add_argument("--path", type=Path, default=REPOSITORY, help="the folder of --trace folder")
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--limit", type=int, help="functions, transactions or files (default: all, or 20 files)")
    parser.add_argument("--keys", type=int, help="keys per session (default: all)")
    parser.add_argument("--keys-per-second", type=float, default=20.0)
    parser.add_argument("--pace", choices=("steady", "human"), default="steady")
    options = parser.parse_args()
    sessions = [
        replace(session, edits=session.edits[: options.keys])
        for session in sessions_of(options.trace, options.path, options.limit)
    ]
    typist = Typist(options.pace, options.keys_per_second)
    with folder_of(options.model) as model:
        served = Served(model, options.dtype)
        figures = asyncio.run(measure(options.engine, sessions, typist, served))
    engines = {name: report(found) for name, found in figures.items()}
    names = [name for name in next(iter(engines.values())) if name != "new_ms"]
    print_rows({"measure": name, **{engine: str(found[name]) for engine, found in engines.items()}} for name in names)
    content = {"trace": options.trace, "pace": options.pace, "engines": engines, "ratios": ratios(figures)}
    print_result("latency", content, options.json)


if __name__ == "__main__":
    main()
