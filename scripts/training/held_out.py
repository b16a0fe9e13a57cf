"""Held-out loss as bits per byte of text, which compares models whatever their tokenizers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from training.corpus import Shelf
from training.network import Network
from training.sentinels import Vocabulary

HeldOut = Mapping[str, tuple[str, ...]]
"""Pieces of held-out text, by language; the same for every model."""


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
def bits_per_byte(
    network: Network, vocabulary: Vocabulary, held_out: HeldOut, *, max_tokens: int | None = None
) -> dict[str, float]:
    """Bits per byte of each language: all tokens' loss after the beginning-of-sequence token, over the texts' bytes.

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
    result: dict[str, float] = {}
    for language, texts in held_out.items():
        nats, num_bytes = 0.0, 0
        for first in range(0, len(texts), 8):
            rows = [[begin, *tokenizer.encode(text)] for text in texts[first : first + 8]]
            rows = [row[:most] for row in rows]
            lengths = [len(row) - 1 for row in rows]
            ids = torch.tensor([token for row in rows for token in row[:-1]], device=device)
            targets = torch.tensor([token for row in rows for token in row[1:]], device=device)
            nats += float(network.token_losses(ids, targets, lengths).double().sum())
            num_bytes += sum(len(b"".join(map(tokenizer.token_bytes, row[1:]))) for row in rows)
        result[language] = round(nats / math.log(2) / max(1, num_bytes), 4)
    return result
