"""How good suggestions are: HumanEval single-line infilling, and keystrokes saved while typing functions.

For every problem one line of a function is missing; the cursor stands on its empty line. Two answers are judged, what
the model says until it stops by itself (``raw``) and what Forelook would show (``shown``), by exact match of the line,
edit similarity, and whether the function's tests pass with it (pass@1, in a subprocess with limits). ``--keystrokes``
types functions key by key and takes every suggestion that is right as a whole. The last line is one JSON object.

Usage: python scripts/eval_infilling.py [--model PATH_OR_ID] [--limit N] [--keystrokes N] [--no-tests]
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import gzip
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from forelook.completion.completer import Aids, Completer, Watch
from forelook.completion.documents import Document
from forelook.completion.request import CompletionRequest, MultiLine
from forelook.completion.settings import DecodingMethod, EngineSettings
from forelook.model.loading import load_model

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MAX_NEW_TOKENS = 64
TEST_TIMEOUT_S = 8.0
TEST_MEMORY_BYTES = 1 << 30
# What a tested function has no business with; the limits of the process are the wall, this is the fence.
GUARD = """
import builtins, os, shutil, socket, subprocess
for module, names in ((os, "system popen fork forkpty kill remove unlink rmdir rename truncate chmod".split()),
                      (shutil, ["rmtree", "move"]), (subprocess, ["Popen"]), (socket, ["socket"])):
    for name in names:
        setattr(module, name, None)
builtins.input = builtins.help = None
"""


@dataclass(frozen=True)
class Problem:
    """A function without one line."""

    name: str
    entry_point: str
    prompt: str
    suffix: str
    line: str
    test: str


@dataclass
class Score:
    """Figures of one kind of answer."""

    exact: list[bool] = field(default_factory=list)
    similarity: list[float] = field(default_factory=list)
    passed: list[bool] = field(default_factory=list)
    empty: int = 0

    def add(self, answer: str, line: str) -> None:
        self.exact.append(answer.strip() == line.strip())
        self.similarity.append(difflib.SequenceMatcher(None, answer.strip(), line.strip(), autojunk=False).ratio())
        self.empty += not answer.strip()

    def to_json(self) -> dict[str, object]:
        def mean(values: list[bool] | list[float]) -> float | None:
            return round(statistics.fmean(values), 4) if values else None

        return {
            "exact_match": mean(self.exact),
            "edit_similarity": mean(self.similarity),
            "pass_at_1": mean(self.passed),
            "empty_share": round(self.empty / max(1, len(self.exact)), 4),
        }


def problems(limit: int | None) -> list[Problem]:
    """All problems, or ``limit`` of them spread over all functions."""
    path = DATA / "humaneval-infilling" / "HumanEval-SingleLineInfilling.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    step = max(1, len(rows) // limit) if limit else 1
    chosen = rows[::step][: limit or len(rows)]
    return [
        Problem(
            row["task_id"],
            row["entry_point"],
            row["prompt"],
            row["suffix"],
            row["canonical_solution"].rstrip("\n"),
            row["test"],
        )
        for row in chosen
    ]


def ask(completer: Completer, text: str, offset: int, multi_line: MultiLine) -> tuple[str, float]:
    """The document with the suggestion accepted, and milliseconds; the same document when there is none."""
    document = Document("eval", "eval.py", "python", 1, text)
    request = CompletionRequest(document.uri, document.version, offset, multi_line=multi_line)
    begun = time.monotonic()
    result = completer.complete(document, request, Watch(begun), Aids())
    elapsed_ms = (time.monotonic() - begun) * 1e3
    if not result.suggestions:
        return text, elapsed_ms
    edit = result.suggestions[0]
    return text[: edit.start] + edit.text + text[edit.end :], elapsed_ms


def passes(program: str) -> bool:
    """Run a program in a process of its own with limits on time, memory, files and processes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (int(TEST_TIMEOUT_S), int(TEST_TIMEOUT_S)))
        resource.setrlimit(resource.RLIMIT_AS, (TEST_MEMORY_BYTES, TEST_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-"],
            input=GUARD + program,
            text=True,
            cwd=folder,
            env={},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TEST_TIMEOUT_S,
            preexec_fn=limit,
            start_new_session=True,
            check=False,
        )
        return done.returncode == 0
    return False


def evaluate_lines(completer: Completer, chosen: list[Problem], run_tests: bool) -> dict[str, object]:
    """Both kinds of answers to all problems."""
    scores = {"raw": Score(), "shown": Score()}
    programs: dict[str, list[str]] = {"raw": [], "shown": []}
    milliseconds: list[float] = []
    for problem in chosen:
        text, offset = problem.prompt + "\n" + problem.suffix, len(problem.prompt)
        raw = completer.raw_middle(Document("eval", "eval.py", "python", 1, text), offset, MAX_NEW_TOKENS)
        accepted, elapsed_ms = ask(completer, text, offset, MultiLine.NEVER)
        milliseconds.append(elapsed_ms)
        shown = accepted[offset : len(accepted) - len(problem.suffix) - 1]
        for kind, answer in (("raw", raw), ("shown", shown)):
            scores[kind].add(answer, problem.line)
            body = problem.prompt + answer + "\n" + problem.suffix
            programs[kind].append(f"{body}\n{problem.test}\ncheck({problem.entry_point})\n")
    if run_tests:
        with ThreadPoolExecutor(2) as pool:
            for kind, score in scores.items():
                score.passed = list(pool.map(passes, programs[kind]))
    return {
        "num_problems": len(chosen),
        "p50_ms": round(statistics.median(milliseconds), 2),
        **{kind: score.to_json() for kind, score in scores.items()},
    }


def evaluate_keystrokes(completer: Completer, limit: int) -> dict[str, object]:
    """Type the bodies of HumanEval functions; a suggestion that is right as a whole is taken with one key."""
    with gzip.open(DATA / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        tasks = [json.loads(line) for line in file][:: max(1, 164 // limit)][:limit]
    characters = keys = taken = 0
    for task in tasks:
        text, body = task["prompt"], task["canonical_solution"].rstrip("\n")
        position = 0
        while position < len(body):
            before = text + body[:position]
            accepted, _ = ask(completer, before + "\n", len(before), MultiLine.AUTO)
            gained = accepted[len(before) : -1]
            keys += 1
            if len(gained) > 1 and body.startswith(gained, position):
                position += len(gained)
                taken += 1
            else:
                position += 1
        characters += len(body)
    saved = 1 - keys / max(1, characters)
    return {
        "num_functions": len(tasks),
        "characters": characters,
        "keys": keys,
        "accepted": taken,
        "saved_share": round(saved, 4),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Quality of suggestions: single-line infilling and keystrokes saved.")
    parser.add_argument("--model", help="a checkpoint folder or hub id (default: the starter model)")
    parser.add_argument("--limit", type=int, help="problems (default: all 1033)")
    parser.add_argument("--keystrokes", type=int, default=0, help="functions to type key by key (default: none)")
    parser.add_argument("--no-tests", action="store_true", help="do not run the functions' tests")
    parser.add_argument("--context-share", type=float, help="share of the prompt for other files")
    parser.add_argument("--suffix-share", type=float, help="share of the prompt for the text after the cursor")
    options = parser.parse_args()
    shares = {
        name: value
        for name, value in (("context_share", options.context_share), ("suffix_share", options.suffix_share))
        if value is not None
    }
    settings = EngineSettings(method=DecodingMethod.LOOKAHEAD, **shares)
    completer = Completer(load_model(options.model), settings)
    result: dict[str, object] = {"model": options.model or "starter-model"}
    if options.limit != 0:
        result |= evaluate_lines(completer, problems(options.limit), not options.no_tests)
    if options.keystrokes:
        result["keystrokes"] = evaluate_keystrokes(completer, options.keystrokes)
    for name, value in result.items():
        print(f"{name:>16}  {value}")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
