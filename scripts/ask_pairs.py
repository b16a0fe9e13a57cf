#!/usr/bin/env python3
"""Ask a model what follows the frequent pairs of tokens of some text, and keep it in a file next to its weights.

    python scripts/ask_pairs.py FOLDER [FOLDER ...] --model smollm2-135m --pairs 200000 --out FILE

Drafting guesses from these pairs where nothing else matches; every guess is verified as always. The text decides only
which pairs are asked about: give code and prose that no benchmark reads. All suffixes count the same, however much text
they have, and the most frequent pairs are asked about. Prints one JSON object as its last line: how many pairs there
were, and the share of all places in the text whose pair is in the file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from bench.arguments import benchmark_parser
from bench.models import load_named
from bench.results import print_result
from forelook.completion.engine.learning import SuccessorLearning
from forelook.decoding.drafting.draft import ID_BITS
from forelook.decoding.drafting.sources.successors import ask_pair_successors
from forelook.decoding.layout import IntArray
from forelook.decoding.ngrams.pool import pair_counts
from forelook.model.loading import LoadedModel
from forelook.model.pair_file import write_pairs

ROWS = 512  # of a forward, about
LEAST = 0.02  # successors less probable than this are left out
MAX_FILE_BYTES = 200_000


def texts_of(folders: list[Path], suffixes: list[str], max_bytes: int) -> Iterator[tuple[str, list[str]]]:
    """Yield each suffix with texts of its files, up to so many bytes, the folders' files in a scattered order."""
    for suffix in suffixes:
        paths = sorted(path for folder in folders for path in folder.rglob(f"*{suffix}") if path.is_file())
        texts, left = list[str](), max_bytes
        for index in np.random.default_rng(0).permutation(len(paths)).tolist():
            if left <= 0:
                break
            data = paths[index].read_bytes()[:MAX_FILE_BYTES]
            texts.append(data.decode("utf-8", "replace"))
            left -= len(data)
        yield suffix, texts


def frequent_pairs(
    model: LoadedModel, arguments_of: Iterator[tuple[str, list[str]]], num_pairs: int
) -> tuple[IntArray, float, dict[str, int]]:
    """Return the most frequent pairs, the share of the text's places that have one, and tokens by suffix."""
    parts, sizes = [], dict[str, int]()
    for suffix, texts in arguments_of:
        ids = [np.asarray([*model.tokenizer.encode(text), -1], dtype=np.int32) for text in texts]
        if ids:
            pairs, counts = pair_counts(np.concatenate(ids))
            parts.append((pairs, counts / counts.sum()))
            sizes[suffix] = int(counts.sum())
            print(f"{suffix}: {sizes[suffix]} tokens, {len(pairs)} pairs", file=sys.stderr, flush=True)
    if not parts:
        raise SystemExit("no file with these suffixes; name other folders or --suffixes")
    pairs, places = np.unique(np.concatenate([pairs for pairs, _ in parts]), return_inverse=True)
    shares = np.bincount(places, weights=np.concatenate([shares for _, shares in parts])) / len(parts)
    chosen = np.argsort(-shares, kind="stable")[:num_pairs]
    return np.sort(pairs[chosen]), float(shares[chosen].sum()), sizes


def ask(model: LoadedModel, pairs: IntArray) -> tuple[IntArray, np.ndarray, np.ndarray]:
    """Return the pairs again with their successors and probabilities."""
    learning = SuccessorLearning.of(model, None)
    sequence = model.new_sequence(len(learning.start_ids) + 2 * ROWS)
    firsts, starts = np.unique(pairs >> ID_BITS, return_index=True)
    found: list[tuple[IntArray, np.ndarray, np.ndarray]] = []
    groups: list[tuple[int, list[int]]] = []
    rows = 0
    for first, seconds in zip(firsts.tolist(), np.split(pairs & (1 << ID_BITS) - 1, starts[1:]), strict=True):
        for start in range(0, len(seconds), ROWS - 1):
            groups.append((first, seconds[start : start + ROWS - 1].tolist()))
            rows += 1 + len(groups[-1][1])
            if rows >= ROWS:
                found.append(ask_pair_successors(sequence, learning.start_ids, groups))
                groups, rows = [], 0
                if len(found) % 50 == 0:
                    print(f"{sum(len(part[0]) for part in found)} pairs", file=sys.stderr, flush=True)
    if groups:
        found.append(ask_pair_successors(sequence, learning.start_ids, groups))
    asked, successors, probabilities = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return asked, successors, probabilities


def main() -> None:
    parser = benchmark_parser(__doc__, "model", "dtype", dtype="float32")
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--suffixes", nargs="+", default=[".py"], help="(default: %(default)s)")
    parser.add_argument("--megabytes", type=float, default=20.0, help="of text per suffix (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=100_000, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    arguments = parser.parse_args()
    model = load_named(arguments.model, device="cpu", dtype=arguments.dtype)
    texts = texts_of(arguments.folders, arguments.suffixes, int(arguments.megabytes * 1e6))
    pairs, share, sizes = frequent_pairs(model, texts, arguments.pairs)
    write_pairs(arguments.out, *ask(model, pairs), LEAST)
    content = {
        "model": model.name,
        "num_pairs": len(pairs),
        "share_of_places": round(share, 4),
        "num_tokens": sizes,
        "num_bytes": arguments.out.stat().st_size,
    }
    print_result("ask_pairs", content, arguments.json)


if __name__ == "__main__":
    main()
