"""Trains the starter model: from folders of source text to a folder that ``forelook serve --model`` loads.

  fetch    download the packages of scripts/training/packages.txt with pip, npm and apt, and unpack them
  prepare  clean, deduplicate, decontaminate and split the text of folders of packages
  tokenizer  learn a byte-level BPE vocabulary of a prepared corpus, for weights from scratch
  train    train on a prepared corpus, from given weights or from scratch; run it again to go on after a stop
  measure  held-out bits per byte of one or more models on the same text
  average  weights between two models, which keep what the first knew and have most of what the second learned

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
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import torch
from forelook.errors import ForelookError
from forelook.model.infill import infill_formats
from forelook.model.loading import STARTER_MODEL_PATH
from forelook.model.token_healing import TokenHealer
from forelook.model.tokenizer import CodeTokenizer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from training.cleaning import Benchmarks
from training.corpus import Shelf, benchmark_texts, prepare
from training.fetch import fetch
from training.held_out import bits_per_byte, held_out_texts
from training.loop import LoopSettings, Report, Trainer
from training.network import Network, Shape, load_network, save_network
from training.optimizer import MuonAdam
from training.ranks import Ranks
from training.samples import DEFAULT_LANGUAGES, SampleMaker, SampleMix
from training.schedule import Schedule
from training.vocabulary import bytes_per_token, save_tokenizer, train_tokenizer


def shelves(folder: Path, split: str) -> Mapping[str, Shelf]:
    """All languages of one split of a prepared corpus."""
    names = sorted(path.name.split(".")[0] for path in folder.glob(f"*.{split}.json"))
    return {name: Shelf(folder, name, split) for name in names}


def make_trainer(options: argparse.Namespace, corpus: Path, folder: Path, ranks: Ranks | None = None) -> Trainer:
    """A trainer as the options describe it."""
    torch.manual_seed(options.seed)
    if options.tokenizer is not None and not options.from_scratch:
        raise ValueError("--tokenizer is for fresh weights: give --from-scratch too, or leave it out")
    tokenizer_path = options.tokenizer or (options.init or STARTER_MODEL_PATH) / "tokenizer.json"
    tokenizer = CodeTokenizer.from_file(tokenizer_path)
    if options.from_scratch:
        shape = Shape(
            hidden_size=options.hidden_size,
            intermediate_size=options.intermediate_size,
            num_hidden_layers=options.layers,
            num_attention_heads=options.heads,
            vocab_size=tokenizer.vocab_size,
            max_position_embeddings=options.max_tokens,
        )
        network = Network(shape)
        network.initialise(torch.Generator().manual_seed(options.seed))
    else:
        network = load_network(options.init or STARTER_MODEL_PATH, max_positions=options.max_tokens)
    device = torch.device(options.device)
    network.to(device)
    optimizer = MuonAdam(list(network.named_parameters()), muon_lr=options.muon_lr, adam_lr=options.adam_lr)
    network.to(torch.bfloat16 if options.dtype == "bfloat16" else torch.float32)
    infill = infill_formats(
        tokenizer,
        model_name="starter-model",
        vocab_size=network.shape.vocab_size,
        bos_token_id=0,
        eos_token_ids=(1,),
    )[0]
    maker = SampleMaker(
        shelves(corpus, "train"),
        tokenizer,
        TokenHealer(tokenizer),
        infill,
        SampleMix(language_shares(options.python_share), long=options.long_share, max_tokens=options.max_tokens),
        seed=options.seed,
    )
    settings = LoopSettings(
        tokens_per_step=options.tokens_per_step,
        tokens_per_pass=options.tokens_per_pass,
        middle_weight=options.middle_weight,
        checkpoint_s=options.checkpoint_s,
        held_out_s=options.held_out_s,
        finish_at_s=None if options.finish_at is None else next_time(options.finish_at),
        total_steps=options.steps,
    )
    held_out = held_out_texts(shelves(corpus, "held_out"), bytes_per_language=options.held_out_bytes)
    return Trainer(
        network=network,
        optimizer=optimizer,
        schedule=Schedule(options.minutes * 60, warmup_steps=options.warmup_steps, decay_share=options.decay_share),
        maker=maker,
        tokenizer=tokenizer,
        tokenizer_json=tokenizer_path.read_text("utf-8"),
        settings=settings,
        folder=folder,
        held_out=held_out,
        ranks=ranks or Ranks(),
    )


def language_shares(python: float) -> Mapping[str, float]:
    """The default mix with another share of Python; the other languages keep their proportions."""
    scale = (1.0 - python) / (1.0 - DEFAULT_LANGUAGES["python"])
    return {name: python if name == "python" else share * scale for name, share in DEFAULT_LANGUAGES.items()}


def next_time(clock: str) -> float:
    """The next moment at which a clock says ``HH:MM``, as ``time.time()`` counts."""
    hour, minute = map(int, clock.split(":"))
    now = datetime.now().astimezone()
    then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (then if then > now else then + timedelta(days=1)).timestamp()


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
    """Whether SIGINT or SIGTERM has come: the run then ends after its step, with a checkpoint."""
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
        print(f"going on at step {trainer.schedule.num_steps}, {trainer.num_tokens} tokens seen", flush=True)
    else:
        print(f"held-out bits per byte before {trainer.measure()}", flush=True)
    run(trainer)
    ranks.leave()
    print(
        json.dumps({"steps": trainer.schedule.num_steps, "num_tokens": trainer.num_tokens, "history": trainer.history})
    )
    return 0


def smoke(options: argparse.Namespace) -> int:
    """All of it, on this project's own text and a network of two layers, in seconds."""
    root = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch, "sources", "forelook")
        package.mkdir(parents=True)
        (package / "LICENSE").write_text((root / "LICENSE").read_text("utf-8"), "utf-8")
        for path in sorted((root / "backend" / "forelook" / "decoding").glob("*.py")):
            (package / path.name).write_text(path.read_text("utf-8"), "utf-8")
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
    """The ``average`` command: weights between two models, tried at several shares of the second one."""
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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description="Train the starter model.")
    commands = top.add_subparsers(dest="command", required=True)

    part = commands.add_parser("fetch", help="download and unpack the packages of the corpus list")
    part.add_argument("--to", type=Path, required=True, help="folder for the packages")

    part = commands.add_parser("prepare", help="clean, deduplicate, decontaminate and split source text")
    part.add_argument("sources", type=Path, nargs="+", help="folders whose children are packages with a licence")
    part.add_argument("--to", type=Path, required=True, help="folder for the prepared corpus")
    part.add_argument("--benchmarks", type=Path, help="folder with HumanEval, MBPP and ClassEval files to keep out")
    part.add_argument("--package-chars", type=int, default=900_000, help="most Python of one package")
    part.add_argument("--package-chars-elsewhere", type=int, default=250_000, help="the same for each other language")

    part = commands.add_parser("tokenizer", help="learn a byte-level BPE vocabulary of a prepared corpus")
    part.add_argument("corpus", type=Path, help="a prepared corpus")
    part.add_argument("--to", type=Path, required=True, help="the tokenizer.json to write")
    part.add_argument("--vocab-size", type=int, default=8192, help="entries, the sentinels and all bytes included")
    part.add_argument("--bytes", type=int, default=40_000_000, help="of text to learn from")
    part.add_argument("--python-share", type=float, default=DEFAULT_LANGUAGES["python"], help="of the text")

    part = commands.add_parser("train", help="train on a prepared corpus")
    part.add_argument("corpus", type=Path, nargs="?", help="a prepared corpus")
    part.add_argument("--to", type=Path, help="folder of the run: state.pt and model/")
    part.add_argument("--init", type=Path, help="weights to start from (default: the starter model's)")
    part.add_argument("--tokenizer", type=Path, help="tokenizer.json for fresh weights (default: the starter model's)")
    part.add_argument("--from-scratch", action="store_true", help="fresh weights of the sizes below")
    part.add_argument("--hidden-size", type=int, default=256)
    part.add_argument("--intermediate-size", type=int, default=704)
    part.add_argument("--layers", type=int, default=6)
    part.add_argument("--heads", type=int, default=4)
    part.add_argument("--max-tokens", type=int, default=2048, help="longest sample, and the model's positions")
    part.add_argument("--tokens-per-step", type=int, default=8192)
    part.add_argument("--tokens-per-pass", type=int, default=2048, help="of a forward and backward on one rank")
    part.add_argument("--middle-weight", type=float, default=2.0, help="of the answers' tokens in the loss")
    part.add_argument("--python-share", type=float, default=DEFAULT_LANGUAGES["python"], help="of the samples")
    part.add_argument("--long-share", type=float, default=0.12, help="of samples of more than 640 tokens")
    part.add_argument("--muon-lr", type=float, default=0.01)
    part.add_argument("--adam-lr", type=float, default=0.001)
    part.add_argument("--warmup-steps", type=int, default=40)
    part.add_argument("--decay-share", type=float, default=0.45, help="last share of the run, in which rates fall")
    part.add_argument("--minutes", type=float, default=60.0, help="running time; pauses do not count")
    part.add_argument("--finish-at", metavar="HH:MM", help="time of day to be done by, pauses or not")
    part.add_argument("--steps", type=int, help="measure the run in steps instead, so that it can be repeated exactly")
    part.add_argument("--checkpoint-s", type=float, default=150.0)
    part.add_argument("--held-out-s", type=float, default=300.0)
    part.add_argument("--held-out-bytes", type=int, default=48_000, help="of each language, for the losses on the way")
    part.add_argument("--device", default="cpu")
    part.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    part.add_argument("--threads", type=int, help="CPU threads")
    part.add_argument("--seed", type=int, default=2026)
    part.add_argument("--smoke", action="store_true", help="all of it in seconds, on this project's own text")

    part = commands.add_parser("measure", help="held-out bits per byte of models")
    part.add_argument("corpus", type=Path, help="a prepared corpus")
    part.add_argument("--model", type=Path, action="append", required=True, help="a checkpoint folder; may be repeated")
    part.add_argument("--bytes", type=int, default=200_000, help="of each language")

    part = commands.add_parser("average", help="weights between two models, the first of which the second came from")
    part.add_argument("corpus", type=Path, help="a prepared corpus, whose held-out text judges")
    part.add_argument("--model", type=Path, nargs=2, required=True, help="two checkpoint folders of the same shape")
    part.add_argument("--share", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0], help="of the second model")
    part.add_argument("--to", type=Path, help="write each average to a folder named by its share under this one")
    part.add_argument("--max-tokens", type=int, default=2048, help="the averages' positions")
    part.add_argument("--bytes", type=int, default=48_000, help="of each language")
    return top


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
