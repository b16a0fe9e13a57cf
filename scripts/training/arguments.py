"""Command line of ``train_starter_model.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.arguments import OPTIONS, add_fields

from training.cleaning import LANGUAGE_SHARES
from training.fetch import PACKAGE_LIST
from training.loop import LoopSettings

SMOKE = {
    "from_scratch": True,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_tokens": 256,
    "tokens_per_step": 1024,
    "total_steps": 12,
    "warmup_steps": 2,
    "dtype": "float32",
}
"""Options of ``train --smoke``."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(description="Train the starter model.")
    commands = top.add_subparsers(dest="command", required=True)

    part = commands.add_parser("fetch", help="download and unpack the packages of the corpus list")
    part.add_argument("--to", type=Path, required=True, help="folder for the packages")
    part.add_argument("--list", type=Path, default=PACKAGE_LIST, help="of packages (default: those of the corpus)")

    part = commands.add_parser("prepare", help="clean, deduplicate, decontaminate and split source text")
    part.add_argument("sources", type=Path, nargs="+", help="folders whose children are packages with a license")
    part.add_argument("--to", type=Path, required=True, help="folder for the prepared corpus")
    part.add_argument("--benchmarks", type=Path, help="folder with HumanEval, MBPP and ClassEval files to keep out")
    part.add_argument("--held-out-share", type=float, default=0.01, help="of packages, and of the others' files")
    part.add_argument("--package-chars", type=int, default=900_000, help="most Python of one package")
    part.add_argument("--package-chars-elsewhere", type=int, default=250_000, help="the same for each other language")

    part = commands.add_parser("tokenizer", help="learn a byte-level BPE vocabulary of a prepared corpus")
    part.add_argument("corpus", type=Path, help="a prepared corpus")
    part.add_argument("--to", type=Path, required=True, help="the tokenizer.json to write")
    part.add_argument("--vocab-size", type=int, default=8192, help="entries, the sentinels and all bytes included")
    part.add_argument("--bytes", type=int, default=40_000_000, help="of text to learn from")
    part.add_argument("--python-share", type=float, default=LANGUAGE_SHARES["python"], help="of the text")

    part = commands.add_parser("train", help="train on a prepared corpus")
    part.add_argument("corpus", type=Path, nargs="?", help="a prepared corpus")
    part.add_argument("--to", type=Path, help="folder of the run: state.pt and model/")
    part.add_argument(
        "--init", type=Path, help="base of the Llama shape, a folder or a GGUF file (default: the starter model)"
    )
    part.add_argument(
        "--rank", type=int, default=0, help="train low-rank differences of this rank (default: all weights)"
    )
    part.add_argument("--alpha", type=float, help="the differences are scaled by alpha / rank (default: the rank)")
    part.add_argument("--last-layers", type=int, default=0, help="train those of the last layers (default: of all)")
    part.add_argument("--init-adapter", type=Path, metavar="FOLDER", help="go on from an adapter in PEFT's layout")
    part.add_argument("--tokenizer", type=Path, help="tokenizer.json for fresh weights (default: the starter model's)")
    part.add_argument("--from-scratch", action="store_true", help="fresh weights of the sizes below")
    part.add_argument("--hidden-size", type=int, default=256)
    part.add_argument("--intermediate-size", type=int, default=704)
    part.add_argument("--layers", dest="num_hidden_layers", type=int, default=6)
    part.add_argument("--heads", dest="num_attention_heads", type=int, default=4)
    part.add_argument("--max-tokens", type=int, default=2048, help="longest sample, and the model's positions")
    add_fields(part, LoopSettings)
    _add_samples(part)
    part.add_argument("--muon-lr", type=float, help="of matrices (default: by what is trained, optimizer.py)")
    part.add_argument("--adam-lr", type=float, help="of embedding and norms (likewise)")
    part.add_argument("--factor-lr", type=float, help="of low-rank factors (likewise)")
    part.add_argument("--row-lr", type=float, help="of control tokens' rows (likewise)")
    part.add_argument("--warmup-steps", type=int, default=40)
    part.add_argument("--decay-share", type=float, default=0.45, help="last share of the run, in which rates fall")
    part.add_argument("--minutes", type=float, default=60.0, help="running time; pauses do not count")
    part.add_argument("--finish-at", metavar="HH:MM", help="time of day to be done by, pauses or not")
    part.add_argument(
        "--steps",
        dest="total_steps",
        type=int,
        help="measure the run in steps instead, so that it can be repeated exactly",
    )
    part.add_argument("--held-out-bytes", type=int, default=48_000, help="of each language, for the losses on the way")
    part.add_argument("--questions", type=int, default=0, help="cursors in held-out files, for accuracy on the way")
    part.add_argument("--device", default="cpu")
    part.add_argument(
        "--dtype",
        choices=("auto", "bfloat16", "float32"),
        default="auto",
        help="of the computation (default: bfloat16 where the device computes in it)",
    )
    part.add_argument("--threads", **OPTIONS["threads"])
    part.add_argument("--workers", type=int, default=0, help="processes that make samples (default: this one)")
    part.add_argument("--seed", type=int, default=2026)
    part.add_argument("--smoke", action="store_true", help="all of it in seconds, on this project's own text")

    part = commands.add_parser("pack", help="a prepared corpus as one compressed file")
    part.add_argument("corpus", type=Path, help="a prepared corpus")
    part.add_argument("--to", type=Path, required=True, help="the .tar.xz file to write; train accepts it as a corpus")
    part.add_argument("--bytes", type=int, default=100_000_000, help="of training text")
    part.add_argument("--held-out", type=int, default=300_000, help="bytes of held-out text of each language")
    part.add_argument("--python-share", type=float, default=LANGUAGE_SHARES["python"], help="of the training text")

    part = commands.add_parser("ends", help="fit the row of the token that ends a middle, and nothing else")
    part.add_argument("corpus", type=Path, help="a prepared corpus")
    part.add_argument("--to", type=Path, required=True, help="folder of the new adapter")
    part.add_argument("--init", type=Path, required=True, help="base, a folder or a GGUF file")
    part.add_argument("--init-adapter", type=Path, required=True, metavar="FOLDER", help="the adapter")
    part.add_argument("--samples", type=int, default=400, help="of the training files")
    part.add_argument("--questions", type=int, default=100, help="of the held-out files")
    part.add_argument("--max-tokens", type=int, default=384, help="longest sample")
    part.add_argument("--end-weight", type=float, default=1.0, help="of an end against a token before it")
    part.add_argument("--threads", **OPTIONS["threads"])
    part.add_argument("--seed", type=int, default=2026)
    _add_samples(part)

    part = commands.add_parser(
        "hold-out", help="held-out text of projects that nothing was trained on, to measure with"
    )
    part.add_argument("sources", type=Path, nargs="+", help="folders whose children are projects")
    part.add_argument("--to", type=Path, required=True, help="folder for the prepared corpus")
    part.add_argument("--trained", type=Path, help="a prepared corpus whose training files, and near ones, stay out")

    part = commands.add_parser("measure", help="held-out bits per byte, and infilling, of models and adapters")
    part.add_argument("corpus", type=Path, help="a prepared corpus")
    part.add_argument(
        "--model", type=Path, action="append", required=True, help="a folder or GGUF file; may be repeated"
    )
    part.add_argument("--adapter", type=Path, action="append", default=[], help="an adapter of the first model")
    part.add_argument("--questions", type=int, default=0, help="cursors in held-out files")
    part.add_argument("--max-tokens", type=int, default=384, help="longest question")
    part.add_argument("--threads", **OPTIONS["threads"])
    part.add_argument("--bytes", type=int, default=200_000, help="of each language")
    return top


def _add_samples(part: argparse.ArgumentParser) -> None:
    """Options of the samples."""
    part.add_argument("--plain-share", dest="plain", type=float, default=0.3, help="of samples, text left to right")
    part.add_argument("--prefix-first-share", dest="prefix_first", type=float, default=0.08, help="of infill samples")
    part.add_argument("--context-share", dest="context", type=float, default=0.15, help="of samples with room for it")
    part.add_argument("--context-room", type=int, default=700, help="tokens of prompt with room for other files")
    part.add_argument("--context-size", type=float, default=0.15, help="share of such a prompt that they may take")
    part.add_argument("--min-tokens", type=int, default=160, help="shortest prompt")
    part.add_argument("--cursors", nargs="+", default=[], metavar="KIND=WEIGHT", help="other weights than samples.py's")
    part.add_argument("--python-share", type=float, default=LANGUAGE_SHARES["python"], help="of the samples")
    part.add_argument("--long-share", dest="long", type=float, default=0.12, help="of samples of more than 640 tokens")
