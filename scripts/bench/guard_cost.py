"""CPU time of the clean-up of suggestions with its parses, in files of about 2,000 lines, of one or two checkouts.

The clean-up of each checkout runs in a worker process of its own: ``python -m bench.guard_cost`` reads one JSON object
per line, a block of keys in one document, and answers with the seconds of each key.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forelook.completion.cursor import cleanup
from forelook.completion.cursor.stopping import look_around, wants_block
from forelook.languages import language_for
from forelook.percentiles import PERCENTILES

from bench.parsed_files import parsed_files
from bench.summary import rounded_percentile

WANTED_LINES = 2_000
MAX_FILE_BYTES = 300_000
LOOK_AROUND_CHARS = 256_000
_SCRIPTS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Block:
    """Keys in one document: a line that is taken out and typed again, with texts as a model says them at each key.

    Attributes:
        language_id: of the document.
        before, after: the document around the line.
        line: what is typed.
        keys: how much of the line stands at each key, and the text that the model says there.
    """

    language_id: str
    before: str
    after: str
    line: str
    keys: list[tuple[int, str]]


@dataclass
class Costs:
    """CPU milliseconds per key: all keys, and the first key of each line, which is at a new place of the document."""

    keys: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, float]:
        return {
            "keys": len(self.keys),
            **{f"p{percent}_ms": rounded_percentile(self.keys, percent) or 0.0 for percent in PERCENTILES},
            "max_ms": rounded_percentile(self.keys, 100) or 0.0,
            "first_p95_ms": rounded_percentile(self.first, 95) or 0.0,
        }


def files_near(folders: Sequence[Path], num_lines: int) -> dict[str, tuple[str, str]]:
    """By language with a grammar, the file that parses and whose number of lines is nearest to ``num_lines``."""
    found: dict[str, tuple[int, str, str]] = {}
    for name, language_id, text in parsed_files(folders, MAX_FILE_BYTES):
        distance = abs(text.count("\n") - num_lines)
        if name not in found or distance < found[name][0]:
            found[name] = distance, language_id, text
    return {name: (language_id, text) for name, (_, language_id, text) in sorted(found.items())}


def blocks(language_id: str, text: str, num_blocks: int, random_: random.Random) -> Iterator[Block]:
    """Lines anywhere in a file, typed key by key."""
    lines = text.splitlines(keepends=True)
    typable = [number for number, line in enumerate(lines) if len(line.strip()) >= 8 and len(line) <= 160]
    for number in random_.sample(typable, min(num_blocks, len(typable))):
        before, line, after = "".join(lines[:number]), lines[number].rstrip("\n"), "".join(lines[number:])
        after = after[len(line) :]
        indentation = len(line) - len(line.lstrip())
        keys = []
        for typed in sorted(random_.sample(range(indentation, len(line)), min(6, len(line) - indentation))):
            elsewhere = random_.randrange(len(text))
            others = (line[typed:] + after[:80], line[typed:], text[elsewhere : elsewhere + 80], line[typed:] + " ({")
            keys.append((typed, random_.choice(others)))
        yield Block(language_id, before[-LOOK_AROUND_CHARS:], after[:LOOK_AROUND_CHARS], line, keys)


def serve() -> None:
    """Answer blocks on standard input until it ends."""
    for request in sys.stdin:
        block = Block(**json.loads(request))
        language, seconds = language_for(block.language_id), []
        for typed, said in block.keys:
            cursor = look_around(language, block.before + block.line[:typed], block.after)
            multi_line = wants_block(cursor, invoked=False)
            started_s = time.thread_time()
            cleanup.clean(cursor, said, multi_line=multi_line, ended=True)
            seconds.append(time.thread_time() - started_s)
        print(json.dumps(seconds), flush=True)


class Worker:
    """A process that cleans up with the code of one checkout."""

    def __init__(self, checkout: Path) -> None:
        paths = os.pathsep.join(map(str, (checkout / "backend", _SCRIPTS)))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.guard_cost"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )

    def seconds(self, block: Block) -> list[float]:
        """CPU seconds of each key of a block."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(vars(block)) + "\n")
        process.stdin.flush()
        answer: list[float] = json.loads(process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def evaluate_guard_cost(checkouts: dict[str, Path], folders: Sequence[Path], num_blocks: int) -> dict[str, Any]:
    """Measure ``num_blocks`` lines per language in every checkout, taking turns, and print a table."""
    files = files_near(folders, WANTED_LINES)
    workers = {name: Worker(path) for name, path in checkouts.items()}
    costs: dict[str, dict[str, Costs]] = {name: {} for name in checkouts}
    result: dict[str, Any] = {"lines": {name: text.count("\n") for name, (_, text) in files.items()}}
    try:
        for number, (language, (language_id, text)) in enumerate(files.items()):
            for block in blocks(language_id, text, num_blocks, random.Random(number)):
                for name, worker in workers.items():
                    milliseconds = [1e3 * seconds for seconds in worker.seconds(block)]
                    for key in (language, "all"):
                        cost = costs[name].setdefault(key, Costs())
                        cost.keys += milliseconds
                        cost.first += milliseconds[:1]
    finally:
        for worker in workers.values():
            worker.close()
    print(f"{'':>12} {'lines':>6} {'':>8} {'keys':>5} {'p50':>7} {'p95':>7} {'p99':>7} {'max':>7} {'first p95':>9}  ms")
    for language in (*files, "all"):
        for name in checkouts:
            row = costs[name][language].to_json()
            figures = " ".join(f"{row[key]:>7.2f}" for key in ("p50_ms", "p95_ms", "p99_ms", "max_ms", "first_p95_ms"))
            print(f"{language:>12} {result['lines'].get(language, ''):>6} {name:>8} {row['keys']:>5} {figures}")
    result["cpu_ms"] = {name: {key: cost.to_json() for key, cost in table.items()} for name, table in costs.items()}
    return result


if __name__ == "__main__":
    serve()
