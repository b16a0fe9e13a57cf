"""Trains the starter model, or an infill adapter of any base of the Llama shape: docs/training.md.

  fetch    download the packages of scripts/training/packages.txt with pip, npm and apt, and unpack them
  prepare  clean, deduplicate, decontaminate and split the text of folders of packages
  tokenizer  learn a byte-level BPE vocabulary of a prepared corpus, for weights from scratch
  pack     a prepared corpus as one compressed file, which train accepts
  train    train on a prepared corpus, from given weights or from scratch; run it again to resume after a stop
  ends     fit the row of the token that ends a middle, and nothing else: minutes instead of hours
  hold-out  held-out text of projects that nothing was trained on, in every language of the product's table
  measure  held-out bits per byte, and infilling, of one or more models and adapters on the same text

Usage:
  python scripts/train_starter_model.py fetch --to corpus/sources
  python scripts/train_starter_model.py prepare corpus/sources --to corpus/prepared --benchmarks DATA
  python scripts/train_starter_model.py train corpus/prepared --to run --minutes 60
  python scripts/train_starter_model.py tokenizer corpus/prepared --to run/tokenizer.json
  python scripts/train_starter_model.py train corpus/prepared --to run --from-scratch --tokenizer run/tokenizer.json
  python scripts/train_starter_model.py train corpus/prepared --to run --init BASE --rank 32 --questions 200
  torchrun --standalone --nproc-per-node 2 scripts/train_starter_model.py train corpus/prepared --to run --threads 1
  python scripts/train_starter_model.py train --smoke
  python scripts/train_starter_model.py measure corpus/prepared --model run/model --model other
  python scripts/train_starter_model.py hold-out elsewhere --to held-out --trained corpus/prepared
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from bench.results import REPOSITORY, print_result
from bench.tables import print_rows
from forelook.errors import ForelookError
from forelook.model.token_healing import TokenHealer
from training.accuracy import answered, held_out_questions
from training.archive import pack_corpus, unpacked
from training.arguments import SMOKE, parser
from training.bases import read_base
from training.cleaning import Benchmarks
from training.corpus import benchmark_texts, hold_out, prepare
from training.ends import along_answers, fitted_row, set_row
from training.fetch import fetch
from training.held_out import Losses, difference, held_out_texts, in_all, losses_of
from training.network import load_network
from training.progress import run, stop_signals
from training.ranks import Ranks
from training.samples import SampleMaker, SampleMix
from training.sentinels import vocabulary_of
from training.setup import export_adapter, language_shares, low_rank_network, make_trainer, mix_of, shelves
from training.vocabulary import bytes_per_token, save_tokenizer, train_tokenizer


def train(options: argparse.Namespace) -> int:
    """Train on a prepared corpus."""
    if options.device == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    if options.smoke:
        return smoke(options)
    if options.corpus is None or options.to is None:
        print("error: train needs a prepared corpus and --to; or use --smoke", file=sys.stderr)
        return 2
    ranks = Ranks.join(options.device)
    trainer = make_trainer(options, unpacked(options.corpus), options.to, ranks)
    resumed = trainer.resume()
    if ranks.rank:
        trainer.run(lambda _report: None, stop=stop_signals())
        ranks.leave()
        return 0
    if resumed:
        print(f"resuming at step {trainer.schedule.num_steps}, {trainer.num_tokens} tokens seen", flush=True)
    else:
        print(f"held-out bits per byte before {trainer.measure()}", flush=True)
        print(f"held-out infilling before {trainer.history[-1].get('infilling')}", flush=True)
    run(trainer)
    ranks.leave()
    figures = {"steps": trainer.schedule.num_steps, "num_tokens": trainer.num_tokens, "history": trainer.history}
    print_result("train", figures, device=options.device)
    return 0


def smoke(options: argparse.Namespace) -> int:
    """Run everything on this project's own text with a network of two layers, in seconds."""
    vars(options).update(SMOKE)
    with tempfile.TemporaryDirectory() as scratch:
        package, corpus = Path(scratch, "sources", "forelook"), Path(scratch, "prepared")
        backend = REPOSITORY / "backend" / "forelook"
        shutil.copytree(backend, package, ignore=lambda _folder, names: [n for n in names if n.endswith("_model")])
        shutil.copy(REPOSITORY / "LICENSE", package)
        prepare([package.parent], corpus, benchmarks=Benchmarks(()), held_out_share=0.1)
        trainer = make_trainer(options, corpus, options.to or Path(scratch, "run"))
        before = trainer.measure()
        run(trainer)
        after = trainer.measure()
    print_result("smoke", {"before": before, "after": after, "num_tokens": trainer.num_tokens}, device=options.device)
    return 0 if has_learned(before, after) else 1


def has_learned(before: Mapping[str, float], after: Mapping[str, float]) -> bool:
    """Return whether every language improved; without a language nothing did."""
    return bool(before) and all(after[name] < before[name] for name in before)


def tokenizer(options: argparse.Namespace) -> int:
    """Learn a vocabulary of a prepared corpus."""
    shares = language_shares(options.python_share)
    learned = train_tokenizer(
        shelves(options.corpus, "train"), shares, vocab_size=options.vocab_size, num_bytes=options.bytes
    )
    save_tokenizer(learned, options.to)
    texts = held_out_texts(shelves(options.corpus, "held_out"), bytes_per_language=200_000)
    content = {"vocab_size": learned.get_vocab_size(), "bytes_per_token": bytes_per_token(learned, texts)}
    print_result("tokenizer", content)
    return 0


def pack(options: argparse.Namespace) -> int:
    """Compress a prepared corpus."""
    shares = language_shares(options.python_share)
    size = pack_corpus(options.corpus, options.to, shares, num_bytes=options.bytes, held_out=options.held_out)
    print_result("pack", {"bytes": size})
    return 0


def measure(options: argparse.Namespace) -> int:
    """Measure models, and adapters of the first one, on the same held-out text."""
    held_out = shelves(unpacked(options.corpus), "held_out")
    texts = held_out_texts(held_out, bytes_per_language=options.bytes)
    bases = {path: read_base(path) for path in options.model}
    most = min(2048, *(base.config.max_positions for base in bases.values()))
    mix = SampleMix(language_shares(0.5), max_tokens=options.max_tokens)
    losses: dict[str, dict[str, Losses]] = {}
    infilling: dict[str, dict[str, float]] = {}
    for path, adapter in [*((path, None) for path in options.model), *((options.model[0], a) for a in options.adapter)]:
        vocabulary = vocabulary_of(bases[path])
        if adapter is None:
            network = load_network(bases[path], max_positions=most)
        else:
            network = low_rank_network(bases[path], vocabulary, adapter, max_positions=most)
        name = str(adapter or path)
        losses[name] = losses_of(network, vocabulary, texts, most)
        healer = TokenHealer(vocabulary.tokenizer)
        if questions := held_out_questions(held_out, vocabulary, healer, mix, options.questions):
            infilling[name] = answered(network, vocabulary, healer, questions, 2048)
    result = {name: {language: in_all(of) for language, of in found.items()} for name, found in losses.items()}
    print_rows({"model": name, **figures, **infilling.get(name, {})} for name, figures in result.items())
    base = losses[str(options.model[0])]
    above = {
        name: {language: difference(base[language], of) for language, of in losses[name].items()}
        for name in map(str, options.adapter)
    }
    sizes = {name: sum(len(text.encode()) for text in pieces) for name, pieces in texts.items()}
    content = {"bytes": sizes, "bits_per_byte": result, "above_the_base": above, "infilling": infilling}
    print_result("bits_per_byte", content)
    return 0


def fit_ends(options: argparse.Namespace) -> int:
    """Fit the row of the ending token of an adapter."""
    base = read_base(options.init)
    vocabulary, mix = vocabulary_of(base), mix_of(options)
    healer, corpus = TokenHealer(vocabulary.tokenizer), unpacked(options.corpus)
    network = low_rank_network(base, vocabulary, options.init_adapter, max_positions=options.max_tokens)
    maker = SampleMaker(shelves(corpus, "train"), vocabulary, healer, mix, seed=options.seed)
    asked = held_out_questions(shelves(corpus, "held_out"), vocabulary, healer, mix, options.questions)
    made = [maker.make(number) for number in range(options.samples)]
    held_out = along_answers(network, vocabulary, healer, asked, 2048)
    before = network.head[vocabulary.end_id].detach().float()
    print_rows([{"row": "before", **held_out.accuracy(before)}])
    taught = along_answers(network, vocabulary, healer, [sample for sample in made if sample.middle_start], 2048)
    after = fitted_row(taught, before, end_weight=options.end_weight)
    print_rows([{"row": "after", **held_out.accuracy(after)}])
    set_row(network, vocabulary, after)
    export_adapter(network, base, vocabulary, options.to)
    print_result("ends", {"before": held_out.accuracy(before), "after": held_out.accuracy(after)})
    return 0


def fetch_packages(options: argparse.Namespace) -> int:
    """Download the packages of the corpus list."""
    outcomes = Counter[str]()
    for registry, name, outcome in fetch(options.to, path=options.list):
        outcomes["fetched" if outcome == "ok" else "failed"] += 1
        print(f"{registry} {name}: {outcome}", flush=True)
    print_result("fetch", dict(outcomes))
    return 1 if outcomes["failed"] else 0


def prepare_corpus(options: argparse.Namespace) -> int:
    """Clean, deduplicate, decontaminate and split source text."""
    report = prepare(
        options.sources,
        options.to,
        benchmarks=Benchmarks(benchmark_texts(options.benchmarks) if options.benchmarks else ()),
        held_out_share=options.held_out_share,
        max_package_chars=options.package_chars,
        max_package_chars_elsewhere=options.package_chars_elsewhere,
    )
    print_result("prepare", {"files": report["files"], "left_out": report["left_out"]})
    return 0


def hold_out_projects(options: argparse.Namespace) -> int:
    """Write text that nothing was trained on as a corpus to measure with."""
    print_result("hold-out", {"files": hold_out(options.sources, options.to, trained=options.trained)})
    return 0


COMMANDS = {
    "fetch": fetch_packages,
    "prepare": prepare_corpus,
    "tokenizer": tokenizer,
    "pack": pack,
    "train": train,
    "hold-out": hold_out_projects,
    "measure": measure,
    "ends": fit_ends,
}


def main() -> int:
    options = parser().parse_args()
    try:
        return COMMANDS[options.command](options)
    except (OSError, ValueError, ForelookError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
