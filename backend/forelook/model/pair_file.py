"""What a model says after frequent pairs of tokens, in a file next to its weights or its adapter's.

``scripts/ask_pairs.py`` writes it. A model without one is asked in idle time.
"""

from __future__ import annotations

import io
import logging
import zipfile
import zlib
from pathlib import Path

import numpy as np

from forelook.decoding.drafting.draft import ID_BITS
from forelook.decoding.drafting.sources.successors import PairTable
from forelook.decoding.layout import IntArray
from forelook.errors import ConfigError
from forelook.local.files import read_regular_file, write_atomically

logger = logging.getLogger(__name__)

FILE_NAME = "pair_successors.npz"
_MOST = 255  # a probability is kept as its root in so many parts: low ones differ most
_MAX_FILE_BYTES = 1 << 26
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, MemoryError, EOFError, zipfile.BadZipFile, zlib.error)


def pairs_path(path: Path) -> Path | None:
    """The file of a model or an adapter; ``None`` where it has none.

    Args:
        path: a folder with safetensors, or a GGUF file.
    """
    file = path / FILE_NAME if path.is_dir() else path.with_suffix(f".{FILE_NAME}")
    return file if file.is_file() else None


def read_pairs(path: Path, vocab_size: int) -> PairTable | None:
    """The pairs in a file; ``None``, and a line in the log, if it cannot be read."""
    try:
        return _parse(read_regular_file(path, _MAX_FILE_BYTES, follows_links=True), vocab_size)
    except (*_UNREADABLE, ConfigError) as error:
        logger.warning("%s is ignored: %s; scripts/ask_pairs.py writes another one", path.name, error)
        return None


def write_pairs(path: Path, pairs: IntArray, successors: np.ndarray, probabilities: np.ndarray, least: float) -> None:
    """Keep what follows some pairs.

    Args:
        path: the file.
        pairs: [P] none of them twice.
        successors: [P, K] best first.
        probabilities: [P, K].
        least: probability below which a successor is left out, as all after it.

    Raises:
        OSError: the file cannot be written.
    """
    order = np.argsort(pairs)
    is_kept = probabilities[order] >= least
    is_kept[:, 0] = True
    roots = np.rint(np.sqrt(probabilities[order][is_kept]) * _MOST).astype(np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        steps=np.diff(pairs[order], prepend=0),
        counts=is_kept.sum(axis=1).astype(np.uint8),
        token_ids=successors[order][is_kept].astype(np.int32),
        roots=roots,
    )
    write_atomically(path, buffer.getvalue())


def _parse(data: bytes, vocab_size: int) -> PairTable:
    with np.load(io.BytesIO(data), allow_pickle=False) as content:
        pairs = np.cumsum(content["steps"], dtype=np.int64)
        counts, token_ids, roots = content["counts"], content["token_ids"], content["roots"]
    for ids in (pairs >> ID_BITS, pairs & (1 << ID_BITS) - 1, token_ids):
        if ids.size and not 0 <= ids.min() <= ids.max() < vocab_size:
            raise ValueError("ids of another vocabulary")
    return PairTable(pairs, counts, token_ids, (roots / np.float32(_MOST)) ** 2)
