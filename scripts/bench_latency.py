"""Keystroke to reply, through the real language server over stdio and a real backend.

Usage: python scripts/bench_latency.py [--trace functions|editing|folder] [--path FOLDER] [--engine NAME ...]
       [--pace steady|human] [--limit N] [--keys N] [--plot PICTURE]

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
stop rules and limits. The last line is one JSON object with all figures.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bench import plots
from bench.latency import Typist, details, measure, ratios, summary
from bench.results import REPOSITORY, add_json_argument, print_result
from bench.traces import Session, editing_sessions, folder_sessions, function_sessions
from rich.console import Console
from rich.table import Table

ENGINES = ("hf_greedy", "autoregressive", "forelook")


def sessions_of(trace: str, folder: Path, limit: int | None) -> Iterable[Session]:
    if trace == "folder":
        return folder_sessions(folder, limit or 20)
    if trace == "editing":
        return editing_sessions(limit or 10**9)
    return function_sessions(limit or 264)


def print_table(results: dict[str, dict[str, object]]) -> None:
    table = Table(title="keystroke to reply")
    table.add_column("measure")
    for name in results:
        table.add_column(name, justify="right")
    for measure_name in next(iter(results.values())):
        table.add_row(measure_name, *(str(result[measure_name]) for result in results.values()))
    Console().print(table)


def plot(path: Path, latencies: dict[str, dict[str, list[float]]], trace: str) -> None:
    figure, axes = plots.subplots(size=(8, 4.5))
    for name, by_source in latencies.items():
        for source, style in (("new", "-"), ("kept", "--"), ("hit", ":")):
            values = sorted(by_source.get(source, []))
            if values:
                shares = [(index + 1) / len(values) for index in range(len(values))]
                axes.plot(values, shares, style, label=f"{name}, {source} (n={len(values)})")
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds from keystroke to reply")
    axes.set_ylabel("share of requests answered")
    axes.set_title(f"Keystroke to reply, trace “{trace}”")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    plots.save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency of the real language server, keystroke to reply.")
    parser.add_argument("--trace", choices=("functions", "editing", "folder"), default="functions")
    parser.add_argument("--path", type=Path, default=REPOSITORY, help="the folder of --trace folder")
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--limit", type=int, help="functions, transactions or files (default: all, or 20 files)")
    parser.add_argument("--keys", type=int, help="keys per session (default: all)")
    parser.add_argument("--keys-per-second", type=float, default=20.0)
    parser.add_argument("--pace", choices=("steady", "human"), default="steady")
    parser.add_argument("--deadline-ms", type=int, help="the engine's deadline (default: the product's)")
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the starter model)")
    parser.add_argument("--plot", type=Path, help="write a plot of all latencies, as PNG")
    add_json_argument(parser)
    options = parser.parse_args()
    sessions = [
        replace(session, edits=session.edits[: options.keys])
        for session in sessions_of(options.trace, options.path, options.limit)
    ]
    typist = Typist(options.pace, options.keys_per_second)
    figures = asyncio.run(
        measure(options.engine, sessions, typist, model=options.model, deadline_ms=options.deadline_ms)
    )
    engines = {name: summary(found) | details(found) for name, found in figures.items()}
    print_table(engines)
    if options.plot:
        plot(options.plot, {name: found.latency_ms for name, found in figures.items()}, options.trace)
    content = {"trace": options.trace, "pace": options.pace, "engines": engines, "ratios": ratios(figures)}
    print_result("latency", content, options.json)


if __name__ == "__main__":
    main()
