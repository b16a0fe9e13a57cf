"""Held-out loss as bits per byte of text, which compares models whatever their tokenizers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from training.corpus import Shelf
from training.network import Network
from training.sentinels import Vocabulary

HeldOut = Mapping[str, tuple[str, ...]]
"""Pieces of held-out text, by language; the same for every model."""
Losses = Sequence[tuple[float, int]]
"""Bits and bytes of pieces."""


def held_out_texts(shelves: Mapping[str, Shelf], *, bytes_per_language: int, piece_bytes: int = 2400) -> HeldOut:
    """Text from evenly spaced places of the held-out files, each piece from the start of a line.

    Args:
        shelves: held-out shelves.
        bytes_per_language: about how much to take; less where there is less, and nothing for zero.
        piece_bytes: of one piece, some 700 tokens of Python.
    """
    texts: dict[str, tuple[str, ...]] = {}
    for language, shelf in sorted(shelves.items()) if bytes_per_language else ():
        count = max(1, min(bytes_per_language, shelf.num_bytes) // piece_bytes)
        pieces: list[str] = []
        for number in range(count):
            offset = number * shelf.num_bytes // count
            text = shelf[shelf.at_byte(offset)].text
            # Half of the pieces from a file's start, the others from where the offset falls.
            start = 0 if number % 2 == 0 else text.find("\n", offset % max(1, len(text))) + 1
            piece = text[start : start + piece_bytes]
            if len(piece) >= 200:
                pieces.append(piece)
        if pieces:
            texts[language] = tuple(pieces)
    return texts


@torch.no_grad()
def losses_of(
    network: Network, vocabulary: Vocabulary, held_out: HeldOut, max_tokens: int | None = None
) -> dict[str, Losses]:
    """The loss of all tokens after the beginning-of-sequence token, by language and piece.

    Args:
        network: the model.
        vocabulary: its tokenizer, and what each text begins with: the end of a text where nothing begins one.
        held_out: the texts.
        max_tokens: where a piece is cut, the model's positions by default; models compare on the same text when they
            are given the same.
    """
    most = max_tokens or network.config.max_positions
    tokenizer = vocabulary.tokenizer
    begin = vocabulary.eos_id if vocabulary.bos_id is None else vocabulary.bos_id
    device = network.embed_tokens.device
    result: dict[str, Losses] = {}
    for language, texts in held_out.items():
        pieces: list[tuple[float, int]] = []
        for first in range(0, len(texts), 8):
            rows = [[begin, *tokenizer.encode(text)] for text in texts[first : first + 8]]
            rows = [row[:most] for row in rows]
            lengths = [len(row) - 1 for row in rows]
            ids = torch.tensor([token for row in rows for token in row[:-1]], device=device)
            targets = torch.tensor([token for row in rows for token in row[1:]], device=device)
            nats = network.token_losses(ids, targets, lengths).double().cpu().split(lengths)
            sizes = (len(b"".join(map(tokenizer.token_bytes, row[1:]))) for row in rows)
            pieces += [(float(of_piece.sum()) / math.log(2), size) for of_piece, size in zip(nats, sizes, strict=True)]
        result[language] = pieces
    return result


def in_all(losses: Losses) -> float:
    """Bits per byte of some pieces."""
    bits, num_bytes = (sum(column) for column in zip(*losses, strict=True))
    return round(bits / max(1, num_bytes), 4)


def difference(first: Losses, second: Losses, rounds: int = 2000) -> list[float]:
    """By how many bits per byte the second is above the first, as a 95% interval: a bootstrap of the same pieces."""
    bits = np.array([[bits for bits, _ in losses] for losses in (first, second)])
    sizes = np.array([size for _, size in first], dtype=float)
    picks = np.random.default_rng(0).integers(len(sizes), size=(rounds, len(sizes)))
    values = (bits[1] - bits[0])[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    return [round(float(value), 4) for value in np.percentile(values, [2.5, 97.5])]
