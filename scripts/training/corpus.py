"""From folders of packages to a prepared corpus: licensed, clean, deduplicated, split, and a report of the rest.

A prepared corpus is a folder with one text blob and one table of files per language and split. Held out is every
package whose name hashes below a share, and of the other packages' files the same share: nothing near a held-out text
is left in training, because duplicates are removed first.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench.datasets import records
from forelook.languages import ID_BY_SUFFIX, language_for, language_id_of
from numpy.typing import NDArray

from training.cleaning import LANGUAGE_OF_SUFFIX, MAX_CHARS, Benchmarks, Duplicates, reason_to_leave_out
from training.licenses import license_of

SPLITS = ("train", "held_out")
_LARGE = ("python", "javascript", "typescript")
_SKIPPED_FOLDERS = {"node_modules", ".git", "__pycache__", "dist-info", "_vendor", "vendor", "third_party", "locale"}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a prepared corpus.

    Attributes:
        path: package and path in it.
        text: with ``\\n`` as line break.
    """

    path: str
    text: str


class Shelf:
    """The files of one language and split, read from disk when asked for."""

    def __init__(self, folder: Path, language: str, split: str) -> None:
        self.language = language
        self.num_bytes = (folder / f"{language}.{split}.txt").stat().st_size
        self._blob = np.memmap(folder / f"{language}.{split}.txt", dtype=np.uint8, mode="r")
        table = json.loads((folder / f"{language}.{split}.json").read_text("utf-8"))
        self._paths: list[str] = table["paths"]
        self._ends: NDArray[np.int64] = np.array(table["ends"], dtype=np.int64)
        packages = [path.split("/", 1)[0] for path in self._paths]
        self._members: dict[str, list[int]] = {}
        for index, package in enumerate(packages):
            self._members.setdefault(package, []).append(index)
        self._packages = packages

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> SourceFile:
        start = int(self._ends[index - 1]) if index else 0
        data = bytes(self._blob[start : int(self._ends[index])])
        return SourceFile(self._paths[index], data.decode("utf-8"))

    def scattered(self, num_bytes: int) -> Iterator[int]:
        """Files in an order that has nothing to do with their names, until there is enough; always the same ones."""
        order = list(range(len(self)))
        random.Random(len(self)).shuffle(order)
        sizes = np.diff(self._ends, prepend=0).tolist()
        for index in order:
            if num_bytes <= 0:
                return
            num_bytes -= sizes[index]
            yield index

    def at_byte(self, offset: int) -> int:
        """Return the file that contains a byte of the blob: a uniform offset chooses files by their size."""
        return int(np.searchsorted(self._ends, offset, side="right"))

    def siblings(self, index: int) -> Sequence[int]:
        """The files of the same package that stand next to it, nearest first; they are the ones somebody has open."""
        members = self._members[self._packages[index]]
        place = members.index(index)
        near = members[max(0, place - 4) : place + 5]
        return sorted((other for other in near if other != index), key=lambda other: abs(other - index))


def prepare(
    sources: Sequence[Path],
    target: Path,
    *,
    benchmarks: Benchmarks,
    held_out_share: float = 0.01,
    max_package_chars: int = 600_000,
    max_package_chars_elsewhere: int = 120_000,
) -> dict[str, object]:
    """Read every package under ``sources`` and write the prepared corpus to ``target``.

    Args:
        sources: folders whose children are packages.
        target: a new or empty folder.
        benchmarks: what must not be trained on.
        held_out_share: share of packages, and of the files of the others, that training never sees; four times
            that share of the files in languages of which there is little.
        max_package_chars: most Python of one package, so that none makes up the corpus.
        max_package_chars_elsewhere: the same for each other language.

    Returns:
        The report that is also written to ``target/report.json``: licenses, sizes, and what was left out and why.
    """
    target.mkdir(parents=True, exist_ok=True)
    duplicates = Duplicates()
    kept: dict[tuple[str, str], list[SourceFile]] = {}
    left_out: Counter[str] = Counter()
    licenses: dict[str, dict[str, object]] = {}
    for package in sorted((child for source in sources for child in source.iterdir()), key=lambda path: path.name):
        if not package.is_dir():
            continue
        found = license_of(package)
        if found is None or not found.permissive:
            left_out["package without a permissive license"] += 1
            licenses[package.name] = {"license": found.stated if found else None, "used": False}
            continue
        held_out_package = _hash_share(package.name) < held_out_share
        num_chars: Counter[str] = Counter()
        for path, text in _files(package, LANGUAGE_OF_SUFFIX):
            language = LANGUAGE_OF_SUFFIX[Path(path).suffix.lower()]
            if num_chars[language] >= (max_package_chars if language == "python" else max_package_chars_elsewhere):
                left_out["share of one package"] += 1
                continue
            reason = reason_to_leave_out(text, Path(path).suffix.lower())
            if reason is None and not duplicates.is_new(text):
                reason = "duplicate"
            if reason is None and benchmarks.hit(text):
                reason = "benchmark"
            if reason is not None:
                left_out[reason] += 1
                continue
            name = f"{package.name}/{path}"
            file_share = held_out_share if language in _LARGE else 4 * held_out_share
            split = "held_out" if held_out_package or _hash_share(name) < file_share else "train"
            kept.setdefault((language, split), []).append(SourceFile(name, text))
            num_chars[language] += len(text)
        licenses[package.name] = {"license": found.stated, "used": True, "chars": dict(num_chars)}
    sizes = {
        f"{language}.{split}": write_files(target, language, split, files) for (language, split), files in kept.items()
    }
    report: dict[str, object] = {"files": sizes, "left_out": dict(left_out), "packages": licenses}
    (target / "report.json").write_text(json.dumps(report, indent=1, sort_keys=True), "utf-8")
    return report


def hold_out(
    sources: Sequence[Path], target: Path, *, trained: Path | None = None, max_package_chars: int = 120_000
) -> dict[str, dict[str, int]]:
    """Write projects that nothing was trained on as held-out text, in every language of the product's table.

    No license is asked for: this text is read to judge a model, and no weight comes from it.

    Args:
        sources: folders whose children are projects.
        target: a new or empty folder.
        trained: a prepared corpus; what is nearly equal to one of its training files is left out.
        max_package_chars: most text of one project and language.

    Returns:
        Files and bytes by language.
    """
    target.mkdir(parents=True, exist_ok=True)
    duplicates = Duplicates()
    for table in sorted(trained.glob("*.train.json")) if trained is not None else ():
        shelf = Shelf(table.parent, table.name.split(".")[0], "train")
        for index in range(len(shelf)):
            duplicates.is_new(shelf[index].text)
    kept: dict[str, list[SourceFile]] = {}
    for project in sorted((child for source in sources for child in source.iterdir()), key=lambda path: path.name):
        num_chars: Counter[str] = Counter()
        for path, text in _files(project, ID_BY_SUFFIX):
            suffix = Path(path).suffix.lower()
            language = language_for(language_id_of(suffix)).name
            is_enough = num_chars[language] >= max_package_chars
            if not is_enough and reason_to_leave_out(text, suffix) is None and duplicates.is_new(text):
                kept.setdefault(language, []).append(SourceFile(f"{project.name}/{path}", text))
                num_chars[language] += len(text)
    return {language: write_files(target, language, "held_out", files) for language, files in sorted(kept.items())}


def benchmark_texts(folder: Path) -> Iterator[str]:
    """Texts of HumanEval, MBPP, ClassEval and single-line infilling, from a folder with their published files."""
    for path in sorted(folder.rglob("*")):
        is_benchmark = any(name in str(path.relative_to(folder)).lower() for name in ("humaneval", "mbpp", "classeval"))
        if is_benchmark and path.suffix in (".gz", ".json", ".jsonl"):
            yield from _strings(records(path))


def _strings(values: object) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, dict):
        yield from _strings(iter(values.values()))
    elif isinstance(values, (list, Iterator)):
        for value in values:
            yield from _strings(value)


def _files(package: Path, suffixes: Collection[str]) -> Iterator[tuple[str, str]]:
    """Relative paths and texts, in an order that has nothing to do with their names."""
    found: list[Path] = []
    for root, folders, names in os.walk(package):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED_FOLDERS and not name.startswith("."))
        for name in sorted(names):
            path = Path(root, name)
            is_source = path.suffix.lower() in suffixes and not name.endswith(".d.ts") and ".min." not in name
            if is_source and not path.is_symlink() and path.stat().st_size <= 4 * MAX_CHARS:
                found.append(path)
    for path in sorted(found, key=lambda path: _hash_share(str(path.relative_to(package)))):
        try:
            text = path.read_text("utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        yield str(path.relative_to(package)), text.replace("\r\n", "\n").replace("\r", "\n")


def _hash_share(name: str) -> float:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest(), "big") / (1 << 48)


def write_files(target: Path, language: str, split: str, files: Sequence[SourceFile]) -> dict[str, int]:
    """Write one language and split of a corpus, in the order of the paths; returns how many files and bytes."""
    files = sorted(files, key=lambda file: file.path)
    ends, total = [], 0
    with (target / f"{language}.{split}.txt").open("wb") as blob:
        for file in files:
            data = file.text.encode("utf-8")
            blob.write(data)
            total += len(data)
            ends.append(total)
    table = {"paths": [file.path for file in files], "ends": ends}
    (target / f"{language}.{split}.json").write_text(json.dumps(table), "utf-8")
    return {"files": len(files), "bytes": total}
