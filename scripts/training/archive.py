"""A prepared corpus as one compressed file, for a machine that cannot fetch packages."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from training.corpus import SPLITS, Shelf, write_files

SUFFIX = ".tar.xz"


def pack_corpus(corpus: Path, target: Path, shares: Mapping[str, float], *, num_bytes: int, held_out: int) -> int:
    """Write whole files of a corpus to one archive.

    Args:
        corpus: a prepared corpus.
        target: the archive to write; its name ends in ``.tar.xz``.
        shares: weight of each language in the training text.
        num_bytes: about how much training text; a fifth of that is the archive's size.
        held_out: about how much held-out text of each language.

    Returns:
        The archive's size in bytes.

    Raises:
        ValueError: the target has another suffix.
    """
    if not target.name.endswith(SUFFIX):
        raise ValueError(f"{target} is no {SUFFIX} file; name one")
    languages = sorted({path.name.split(".")[0] for path in corpus.glob("*.json") if path.name != "report.json"})
    total = sum(shares.get(name, 0.0) for name in languages)
    with tempfile.TemporaryDirectory() as scratch:
        for language in languages:
            for split in SPLITS:
                if (corpus / f"{language}.{split}.json").is_file():
                    share = num_bytes * shares.get(language, 0.0) / total
                    shelf = Shelf(corpus, language, split)
                    chosen = sorted(shelf.scattered(int(share if split == "train" else held_out)))
                    write_files(Path(scratch), language, split, [shelf[index] for index in chosen])
        with tarfile.open(target, "w:xz") as archive:
            for path in sorted(Path(scratch).iterdir()):
                archive.add(path, path.name)
    return target.stat().st_size


def unpacked(corpus: Path) -> Path:
    """The folder of a prepared corpus; an archive is unpacked next to itself the first time."""
    if not corpus.name.endswith(SUFFIX):
        return corpus
    folder = corpus.with_name(corpus.name.removesuffix(SUFFIX))
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=corpus.parent) as scratch:
            with tarfile.open(corpus) as archive:
                archive.extractall(Path(scratch) / "corpus", filter="data")
            (Path(scratch) / "corpus").rename(folder)
    return folder
