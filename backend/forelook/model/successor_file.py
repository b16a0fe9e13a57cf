"""The model's successors of single tokens on disk, for the next start."""

from __future__ import annotations

import hashlib
import io
from functools import partial
from pathlib import Path

import numpy as np

from forelook.decoding.drafting.sources.successors import SuccessorSeeds
from forelook.local.files import read_or_set_aside, write_atomically

_FORMAT = 4


def successors_path(cache_dir: Path, fingerprint: str, start_ids: list[int]) -> Path:
    """The file of a model's successors.

    Args:
        cache_dir: its folder.
        fingerprint: of the model.
        start_ids: what the model read before each token.
    """
    name = hashlib.sha256(f"{_FORMAT} {fingerprint} {start_ids}".encode()).hexdigest()[:24]
    return cache_dir / f"successors-{name}.npz"


def read_successors(path: Path, vocab_size: int) -> SuccessorSeeds | None:
    """The successors in a file; ``None`` if there is none that can be read."""
    return read_or_set_aside(path, partial(_parse, vocab_size=vocab_size))


def write_successors(path: Path, seeds: SuccessorSeeds) -> None:
    """Keep what is known; uncompressed, because compression would take tenths of a second.

    Raises:
        OSError: the file cannot be written.
    """
    known = np.flatnonzero(seeds.is_known)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        known=known.astype(np.int32),
        token_ids=seeds.token_ids[known],
        probabilities=seeds.probabilities[known].astype(np.float16),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def _parse(data: bytes, vocab_size: int) -> SuccessorSeeds:
    try:
        return _seeds(data, vocab_size)
    except MemoryError as error:  # the file is small: what it says about its arrays is wrong
        raise ValueError("arrays of an impossible size") from error


def _seeds(data: bytes, vocab_size: int) -> SuccessorSeeds:
    with np.load(io.BytesIO(data), allow_pickle=False) as content:
        known, token_ids, probabilities = content["known"], content["token_ids"], content["probabilities"]
    for ids in (known, token_ids):
        if ids.size and not 0 <= ids.min() <= ids.max() < vocab_size:
            raise ValueError("ids of another vocabulary")
    seeds = SuccessorSeeds(vocab_size)
    seeds.add(known, token_ids, probabilities)
    return seeds
