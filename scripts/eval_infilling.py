"""How good suggestions are: HumanEval single-line infilling, and keystrokes saved while typing functions.

For every problem one line of a function is missing. Where the cursor stands in it is a *cut*:

  line      at the start of the empty line, indentation to come: the benchmark's own protocol
  indented  behind the line's indentation, where an editor puts the cursor
  middle    at the space nearest to the line's middle; lines without one are left out, the rest of the line is judged

Three answers are judged: what the model says until it stops by itself (``raw``), its first line (``truncated``), and
what Forelook would show (``shown``); by exact match, edit similarity, and whether the function's tests pass with it
(pass@1, in a process with limits and a fence). ``--keystrokes`` types functions key by key and takes every suggestion
that is right as a whole. ``[low, high]`` are 95% Wilson intervals. The last line is one JSON object.

Usage: python scripts/eval_infilling.py [--model PATH_OR_ID] [--limit N] [--cut CUT ...] [--keystrokes N] [--no-tests]
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import gzip
import json
import math
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forelook.completion.completer import Completer, Hints, RequestControl
from forelook.completion.document_store import Document
from forelook.completion.request import CompletionRequest, MultiLine
from forelook.completion.settings import DecodingMethod, EngineSettings
from forelook.errors import ForelookError
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.model.loading import load_model

WORKSPACE, FILE = WorkspaceKey("", "eval"), DocumentKey(1, "eval.py")
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CUTS = ("line", "indented", "middle")
KINDS = ("raw", "truncated", "shown")
MAX_NEW_TOKENS = 64
TEST_TIMEOUT_S = 8.0
TEST_MEMORY_BYTES = 1 << 30
# What a tested function has no business with. An audit hook cannot be taken off again from Python; the limits of the
# process are the wall behind this fence.
FENCE = """
import sys
def _fence(event, arguments):
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        if (mode is not None and set(mode) & set("wax+")) or (mode is None and flags & 0o103):
            raise PermissionError("writing is not allowed here")
    elif event.startswith(("socket.", "subprocess.", "shutil.", "ctypes.", "winreg.", "pty.", "signal.", "fcntl.")):
        raise PermissionError(event + " is not allowed here")
    elif event.startswith("os.") and event not in ("os.listdir", "os.scandir", "os.walk", "os.fwalk"):
        raise PermissionError(event + " is not allowed here")
    elif event in ("builtins.input", "code.__new__", "_posixsubprocess.fork_exec", "_thread.start_new_thread"):
        raise PermissionError(event + " is not allowed here")
sys.addaudithook(_fence)
sys.modules["_posixsubprocess"] = None
del _fence
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

    def cut(self, where: str) -> tuple[str, str] | None:
        """The part of the line that stands before the cursor, and the part that is asked for."""
        indentation = self.line[: len(self.line) - len(self.line.lstrip())]
        if where == "line":
            return "", self.line
        if where == "indented":
            return indentation, self.line.lstrip()
        middle = (len(indentation) + len(self.line)) / 2
        spaces = [index for index in range(len(indentation) + 1, len(self.line)) if self.line[index] == " "]
        if not spaces:
            return None
        nearest = min(spaces, key=lambda index: abs(index - middle))
        return self.line[:nearest], self.line[nearest:]


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
            "exact_match_interval": wilson(sum(self.exact), len(self.exact)),
            "edit_similarity": mean(self.similarity),
            "pass_at_1": mean(self.passed),
            "pass_at_1_interval": wilson(sum(self.passed), len(self.passed)),
            "empty_share": round(self.empty / max(1, len(self.exact)), 4),
        }


def wilson(successes: int, trials: int) -> list[float] | None:
    """The 95% Wilson interval of a share."""
    if trials == 0:
        return None
    z = 1.96
    share, scale = successes / trials, 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / scale
    return [round(max(0.0, centre - half), 4), round(min(1.0, centre + half), 4)]


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
    document = Document(WORKSPACE, FILE, "python", 1, text)
    request = CompletionRequest(document.key, document.version, offset, multi_line=multi_line)
    begun = time.monotonic()
    result = completer.complete(document, request, RequestControl(begun), Hints())
    elapsed_ms = (time.monotonic() - begun) * 1e3
    if not result.suggestions:
        return text, elapsed_ms
    edit = result.suggestions[0]
    return text[: edit.start] + edit.text + text[edit.end :], elapsed_ms


def passes(program: str) -> bool:
    """Run a program in a process of its own: limits on time, memory, files and processes, and no way out of it."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (int(TEST_TIMEOUT_S), int(TEST_TIMEOUT_S)))
        resource.setrlimit(resource.RLIMIT_AS, (TEST_MEMORY_BYTES, TEST_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    # A program that only defines things, or leaves early, has not passed: it must get to its own last line.
    token = os.urandom(8).hex()
    ended = f"\nimport sys as _sys\n_sys.__stdout__.write({token!r})\n"
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            preexec_fn=limit,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate((FENCE + program + ended).encode("utf-8", "replace"), TEST_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return False
    return process.returncode == 0 and said.endswith(token.encode())


def first_line(answer: str) -> str:
    """Up to the end of the first line with text."""
    body = answer.lstrip("\n")
    return body.split("\n", 1)[0]


def evaluate_lines(
    completer: Completer, chosen: Sequence[Problem], where: str, run_tests: bool, examples: int
) -> dict[str, object]:
    """All kinds of answers to all problems, the cursor standing at one kind of cut."""
    scores = {kind: Score() for kind in KINDS}
    programs: dict[str, list[str]] = {kind: [] for kind in KINDS}
    milliseconds: list[float] = []
    for problem in chosen:
        cut = problem.cut(where)
        if cut is None:
            continue
        typed, wanted = cut
        before, after = problem.prompt + typed, "\n" + problem.suffix
        raw = completer.raw_middle(Document(WORKSPACE, FILE, "python", 1, before + after), len(before), MAX_NEW_TOKENS)
        accepted, elapsed_ms = ask(completer, before + after, len(before), MultiLine.NEVER)
        milliseconds.append(elapsed_ms)
        # A suggestion on a blank line may begin with the indentation that stands there.
        shown = accepted[len(before) : len(accepted) - len(after)]
        for kind, answer in zip(KINDS, (raw, first_line(raw), shown), strict=True):
            scores[kind].add(answer, wanted)
            programs[kind].append(f"{before}{answer}{after}\n{problem.test}\ncheck({problem.entry_point})\n")
        if len(milliseconds) <= examples:
            print(f"{problem.name} {where}: wanted {wanted!r} truncated {first_line(raw)!r} shown {shown!r}")
    if run_tests:
        with ThreadPoolExecutor(2) as pool:
            for kind, score in scores.items():
                score.passed = list(pool.map(passes, programs[kind]))
    return {
        "num_problems": len(milliseconds),
        "p50_ms": round(statistics.median(milliseconds), 2) if milliseconds else None,
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


def print_report(result: dict[str, Any]) -> None:
    """A table for people."""
    print(f"{'cut':>9} {'answer':>10} {'n':>5} {'exact':>7}  {'interval':<16} {'similar':>7} {'pass@1':>7}  interval")
    for where, figures in result.get("cuts", {}).items():
        for kind in KINDS:
            score = figures[kind]
            print(
                f"{where:>9} {kind:>10} {figures['num_problems']:>5} {score['exact_match']!s:>7}  "
                f"{score['exact_match_interval']!s:<16} {score['edit_similarity']!s:>7} {score['pass_at_1']!s:>7}  "
                f"{score['pass_at_1_interval']}"
            )
    if "keystrokes" in result:
        print(f"keystrokes: {result['keystrokes']}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Quality of suggestions: single-line infilling and keystrokes saved.")
    parser.add_argument("--model", help="a checkpoint folder or hub id (default: the starter model)")
    parser.add_argument("--limit", type=int, help="problems (default: all 1033)")
    parser.add_argument("--keystrokes", type=int, default=0, help="functions to type key by key (default: none)")
    parser.add_argument("--cut", nargs="+", choices=CUTS, default=list(CUTS), help="where the cursor stands")
    parser.add_argument("--examples", type=int, default=0, help="answers to print of each cut")
    parser.add_argument("--dtype", default="auto", help="of the weights")
    parser.add_argument("--no-tests", action="store_true", help="do not run the functions' tests")
    parser.add_argument("--context-share", type=float, help="share of the prompt for other files")
    parser.add_argument("--suffix-share", type=float, help="share of the prompt for the text after the cursor")
    options = parser.parse_args()
    if not (DATA / "humaneval-infilling").is_dir():
        parser.error(f"the data sets are not there: {DATA}")
    shares = {
        name: value
        for name, value in (("context_share", options.context_share), ("suffix_share", options.suffix_share))
        if value is not None
    }
    try:
        completer = Completer(
            load_model(options.model, dtype=options.dtype), EngineSettings(method=DecodingMethod.LOOKAHEAD, **shares)
        )
    except ForelookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    result: dict[str, object] = {"model": options.model or "starter-model"}
    if options.limit != 0:
        chosen = problems(options.limit)
        result["cuts"] = {
            where: evaluate_lines(completer, chosen, where, not options.no_tests, options.examples)
            for where in options.cut
        }
    if options.keystrokes:
        result["keystrokes"] = evaluate_keystrokes(completer, options.keystrokes)
    print_report(result)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
