"""Trains the starter model: from folders of source text to a folder that ``forelook serve --model`` loads.

  fetch    download the packages of scripts/training/packages.txt with pip, npm and apt, and unpack them
  prepare  clean, deduplicate, decontaminate and split the text of folders of packages
  tokenizer  learn a byte-level BPE vocabulary of a prepared corpus, for weights from scratch
  train    train on a prepared corpus, from given weights or from scratch; run it again to resume after a stop
  measure  held-out bits per byte of one or more models on the same text
  average  weights between two models, which keep most of what both learned

Usage:
  python scripts/train_starter_model.py fetch --to corpus/sources
  python scripts/train_starter_model.py prepare corpus/sources --to corpus/prepared --benchmarks DATA
  python scripts/train_starter_model.py train corpus/prepared --to run --minutes 60
  python scripts/train_starter_model.py tokenizer corpus/prepared --to run/tokenizer.json
  python scripts/train_starter_model.py train corpus/prepared --to run --from-scratch --tokenizer run/tokenizer.json
  torchrun --standalone --nproc-per-node 2 scripts/train_starter_model.py train corpus/prepared --to run --threads 1
  python scripts/train_starter_model.py train --smoke
  python scripts/train_starter_model.py measure corpus/prepared --model run/model --model other
  python scripts/train_starter_model.py average corpus/prepared --model first run/model --to averages
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from forelook.errors import ForelookError
from forelook.model.tokenizer import CodeTokenizer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from training.arguments import parser
from training.cleaning import Benchmarks
from training.corpus import benchmark_texts, prepare
from training.fetch import fetch
from training.held_out import bits_per_byte, held_out_texts
from training.loop import Report, Trainer
from training.network import load_network, save_network
from training.ranks import Ranks
from training.setup import language_shares, make_trainer, shelves
from training.vocabulary import bytes_per_token, save_tokenizer, train_tokenizer


def run(trainer: Trainer) -> None:
    """Train with a progress bar, and a line a minute where there is no terminal."""
    console = Console()
    columns = [
        TextColumn("{task.percentage:>5.1f}%"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    ]
    last_line = 0.0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("first step", total=1.0)

        def watch(report: Report) -> None:
            nonlocal last_line
            words = (
                f"step {report.step}  {report.num_tokens / 1e6:.2f} M tokens  loss {report.loss:.3f}  "
                f"answers {report.middle_loss:.3f}  {report.tokens_per_s:.0f} tokens/s  lr x{report.scale:.2f}"
            )
            bar.update(task, completed=report.progress, description=words)
            if report.held_out is not None:
                console.print(f"step {report.step} held-out bits per byte {report.held_out}", soft_wrap=True)
            if not console.is_terminal and time.monotonic() - last_line > 30:
                last_line = time.monotonic()
                print(f"{report.progress:6.1%} {words}", flush=True)

        trainer.run(watch, stop=stop_signals())


def stop_signals() -> Callable[[], bool]:
    """Return whether SIGINT or SIGTERM has come; the run then ends after its step, with a checkpoint."""
    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda which, _frame: received.append(which))
    return lambda: bool(received)


def train(options: argparse.Namespace) -> int:
    """The ``train`` command."""
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    if options.smoke:
        return smoke(options)
    if options.corpus is None or options.to is None:
        print("error: train needs a prepared corpus and --to; or use --smoke", file=sys.stderr)
        return 2
    ranks = Ranks.join(options.device)
    trainer = make_trainer(options, options.corpus, options.to, ranks)
    resumed = trainer.resume()
    if ranks.rank:
        trainer.run(lambda _report: None, stop=stop_signals())
        ranks.leave()
        return 0
    if resumed:
        print(f"resuming at step {trainer.schedule.num_steps}, {trainer.num_tokens} tokens seen", flush=True)
    else:
        print(f"held-out bits per byte before {trainer.measure()}", flush=True)
    run(trainer)
    ranks.leave()
    print(
        json.dumps({"steps": trainer.schedule.num_steps, "num_tokens": trainer.num_tokens, "history": trainer.history})
    )
    return 0


def smoke(options: argparse.Namespace) -> int:
    """Run everything on this project's own text with a network of two layers, in seconds."""
    root = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch, "sources", "forelook")
        package.mkdir(parents=True)
        (package / "LICENSE").write_text((root / "LICENSE").read_text("utf-8"), "utf-8")
        decoding = root / "backend" / "forelook" / "decoding"
        for path in sorted(decoding.rglob("*.py")):
            name = "-".join(path.relative_to(decoding).parts)
            (package / name).write_text(path.read_text("utf-8"), "utf-8")
        corpus, folder = Path(scratch, "prepared"), options.to or Path(scratch, "run")
        prepare([package.parent], corpus, benchmarks=Benchmarks(()), held_out_share=0.1)
        options.from_scratch, options.hidden_size, options.intermediate_size = True, 64, 128
        options.layers, options.heads, options.max_tokens = 2, 2, 256
        options.tokens_per_step, options.steps, options.warmup_steps = 1024, 12, 2
        options.held_out_bytes = 4800
        trainer = make_trainer(options, corpus, folder)
        before = trainer.measure()
        run(trainer)
        after = trainer.measure()
    print(json.dumps({"before": before, "after": after, "num_tokens": trainer.num_tokens}))
    return 0 if all(after[name] < before[name] for name in before) else 1


def tokenizer(options: argparse.Namespace) -> int:
    """The ``tokenizer`` command."""
    learned = train_tokenizer(
        shelves(options.corpus, "train"),
        language_shares(options.python_share),
        vocab_size=options.vocab_size,
        num_bytes=options.bytes,
    )
    save_tokenizer(learned, options.to)
    texts = held_out_texts(shelves(options.corpus, "held_out"), bytes_per_language=200_000)
    print(
        json.dumps({"vocab_size": learned.get_vocab_size(), "bytes_per_token": bytes_per_token(learned, texts.texts)})
    )
    return 0


def measure(options: argparse.Namespace) -> int:
    """The ``measure`` command."""
    texts = held_out_texts(shelves(options.corpus, "held_out"), bytes_per_language=options.bytes)
    result: dict[str, dict[str, float]] = {}
    networks = {folder: load_network(folder) for folder in options.model}
    most = min(network.shape.max_position_embeddings for network in networks.values())
    for folder, network in networks.items():
        tokenizer = CodeTokenizer.from_file(folder / "tokenizer.json")
        result[str(folder)] = bits_per_byte(network, tokenizer, texts, bos_id=0, max_tokens=most)
    sizes = {name: sum(len(text.encode()) for text in pieces) for name, pieces in texts.texts.items()}
    for language, size in sizes.items():
        print(
            f"{language:>12} {size:>9} bytes  " + "  ".join(f"{figures[language]:.4f}" for figures in result.values())
        )
    print(json.dumps({"bytes": sizes, "bits_per_byte": result}))
    return 0


def average(options: argparse.Namespace) -> int:
    """The ``average`` command: weights between two models, at several shares of the second."""
    first, second = (load_network(folder, max_positions=options.max_tokens) for folder in options.model)
    tokenizer_json = (options.model[0] / "tokenizer.json").read_text("utf-8")
    tokenizer = CodeTokenizer(tokenizer_json, str(options.model[0]))
    texts = held_out_texts(shelves(options.corpus, "held_out"), bytes_per_language=options.bytes)
    start = [parameter.detach().clone() for parameter in first.parameters()]
    for share in options.share:
        with torch.no_grad():
            for mine, begin, end in zip(first.parameters(), start, second.parameters(), strict=True):
                mine.copy_(begin.lerp(end, share))
        print(f"{share:.2f} {bits_per_byte(first, tokenizer, texts, bos_id=0)}", flush=True)
        if options.to is not None:
            save_network(first, options.to / f"{share:.2f}", tokenizer_json)
    return 0


def main() -> int:
    options = parser().parse_args()
    try:
        if options.command == "train":
            return train(options)
        if options.command == "tokenizer":
            return tokenizer(options)
        if options.command == "measure":
            return measure(options)
        if options.command == "average":
            return average(options)
        if options.command == "fetch":
            failed = 0
            for registry, name, outcome in fetch(options.to):
                failed += outcome != "ok"
                print(f"{registry} {name}: {outcome}", flush=True)
            return 1 if failed else 0
        benchmarks = Benchmarks(benchmark_texts(options.benchmarks) if options.benchmarks else ())
        report = prepare(
            options.sources,
            options.to,
            benchmarks=benchmarks,
            max_package_chars=options.package_chars,
            max_package_chars_elsewhere=options.package_chars_elsewhere,
        )
        print(json.dumps({"files": report["files"], "left_out": report["left_out"]}))
        return 0
    except (OSError, ValueError, ForelookError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
