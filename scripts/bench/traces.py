"""Typing sessions of the latency benchmark: edits in one document each, and the pace of the keys."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from forelook.languages import language_id_of

from bench.datasets import DATASET_FILES, records
from bench.results import DATA

SUFFIXES = (".py", ".ts", ".js", ".go", ".rs", ".java")  # of the files to replay


@dataclass(frozen=True)
class Edit:
    """Replace ``[start, end)`` (code points) by ``text``; ask for a completion afterwards if ``ask``."""

    start: int
    end: int
    text: str
    ask: bool = True


@dataclass(frozen=True)
class Session:
    """One document and the edits made in it."""

    name: str
    language_id: str
    text: str
    edits: tuple[Edit, ...]


def typed(start: int, text: str) -> tuple[Edit, ...]:
    return tuple(Edit(start + index, start + index, character) for index, character in enumerate(text))


def function_sessions(limit: int) -> Iterator[Session]:
    """Yield HumanEval functions and ClassEval classes, in turn, each between others of its kind."""
    functions = [
        task["prompt"].strip("\n") + "\n" + task["canonical_solution"].strip("\n")
        for task in records(DATA / DATASET_FILES["humaneval"])
    ]
    classes = [task["solution_code"].strip("\n") for task in records(DATA / DATASET_FILES["classeval"])]
    for number in range(limit):
        texts = functions if number % 3 else classes
        index = (number * 7) % len(texts)
        others = [texts[(index + step) % len(texts)] for step in range(1, 25)]
        before = "\n\n\n".join(others[:12]) + "\n\n\n"
        after = "\n\n\n" + "\n\n\n".join(others[12:]) + "\n"
        yield Session(f"function-{number}.py", "python", before + after, typed(len(before), texts[index]))


def editing_sessions(limit: int) -> Iterator[Session]:
    """Yield the recorded session's first ``limit`` transactions; a request follows each insertion."""
    trace = json.loads(gzip.decompress((DATA / "editing-traces" / "sveltecomponent.json.gz").read_bytes()))
    edits: list[Edit] = []
    for transaction in trace["txns"][:limit]:
        patches = transaction["patches"]
        for number, (start, deleted, inserted) in enumerate(patches):
            edits.append(Edit(start, start + deleted, inserted, ask=bool(inserted) and number == len(patches) - 1))
    yield Session("component.svelte", "svelte", trace["startContent"], tuple(edits))


def folder_sessions(folder: Path, limit: int) -> Iterator[Session]:
    """Yield files of a folder in an order independent of the file system; six lines of each are typed again."""
    random_ = random.Random(7)
    paths = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and ".venv" not in path.parts)
    random_.shuffle(paths)
    found = 0
    for path in paths:
        if found == limit:
            return
        text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
        lines = text.splitlines(keepends=True)
        if not 60 <= len(lines) <= 5000:
            continue
        first = random_.randrange(20, len(lines) - 20)
        before, removed = "".join(lines[:first]), "".join(lines[first : first + 6]).rstrip("\n")
        if not removed.strip():
            continue
        found += 1
        yield Session(
            path.name,
            language_id_of(path.suffix),
            before + text[len(before) + len(removed) :],
            typed(len(before), removed),
        )


def gaps_s(session: Session, pace: str, keys_per_second: float) -> Iterator[float]:
    """Yield the seconds between keys, the same for every engine."""
    if pace == "steady":
        while True:
            yield 1 / keys_per_second
    random_ = random.Random(session.name)
    for edit in session.edits:
        gap = random_.lognormvariate(math.log(0.14), 0.35)
        if edit.text.endswith("\n"):
            gap += random_.uniform(0.4, 1.2)
        elif not edit.text.isalnum():
            gap *= 1.4
        if random_.random() < 0.015:
            gap += random_.uniform(1.0, 2.5)
        yield gap
