"""Quality of suggestions: HumanEval single-line infilling, and keystrokes saved while typing functions."""

from __future__ import annotations

import contextlib
import difflib
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields

from forelook.completion.completer import Completer
from forelook.completion.cursor import cleanup
from forelook.completion.document_store import Document
from forelook.completion.requests import Cancelled, Hints, RequestControl
from forelook.confidence import Confidence
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.protocol.messages import CompletionParams, MultiLine

from bench.datasets import DATASET_FILES, records
from bench.results import DATA
from bench.sandbox import passes
from bench.summary import mean, wilson_interval
from bench.turns import timed

WORKSPACE, FILE = WorkspaceKey("", "eval"), DocumentKey(1, "eval.py")
CUTS = ("line", "indented", "middle")
KINDS = ("raw", "truncated", "unguarded", "shown")
MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class Problem:
    """A function without one line, by the names of the data set."""

    task_id: str
    entry_point: str
    prompt: str
    suffix: str
    canonical_solution: str
    test: str

    @property
    def line(self) -> str:
        return self.canonical_solution.rstrip("\n")

    def cut(self, where: str) -> tuple[str, str] | None:
        """Return the line before and after the cursor; ``None`` where the line has no such cut."""
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
    """Scores of one kind of answer."""

    exact: list[bool] = field(default_factory=list)
    similarity: list[float] = field(default_factory=list)
    passed: list[bool] = field(default_factory=list)
    empty: int = 0

    def add(self, answer: str, line: str) -> None:
        self.exact.append(answer.strip() == line.strip())
        self.similarity.append(difflib.SequenceMatcher(None, answer.strip(), line.strip(), autojunk=False).ratio())
        self.empty += not answer.strip()

    def to_json(self) -> dict[str, object]:
        shares: dict[str, object] = {}
        for name, values in (("exact_match", self.exact), ("pass_at_1", self.passed)):
            shares |= {name: mean(values, 4), f"{name}_interval": wilson_interval(sum(values), len(values))}
        return {
            **shares,
            "edit_similarity": mean(self.similarity, 4),
            "empty_share": round(self.empty / max(1, len(self.exact)), 4),
        }


def problems(limit: int | None) -> list[Problem]:
    """Return all problems, or ``limit`` of them spread over all functions."""
    rows = list(records(DATA / DATASET_FILES["humaneval-infilling"]))
    step = max(1, len(rows) // limit) if limit else 1
    chosen = rows[::step][: limit or len(rows)]
    return [Problem(**{field.name: row[field.name] for field in fields(Problem)}) for row in chosen]


def ask(
    completer: Completer,
    text: str,
    offset: int,
    multi_line: MultiLine,
    confidence: Confidence | float = Confidence.OFF,
) -> tuple[str, float]:
    """Return the document with the suggestion accepted, if there is one, and milliseconds."""
    document = Document(WORKSPACE, FILE, "python", 1, text)
    request = CompletionParams(document.key.uri, document.version, offset, multi_line=multi_line, confidence=confidence)
    control = RequestControl(time.monotonic())
    outcome, seconds = timed(lambda: completer.complete(document, request, control, Hints()))
    if isinstance(outcome, Cancelled) or not outcome.result.suggestions:
        return text, seconds * 1e3
    edit = outcome.result.suggestions[0]
    return text[: edit.start] + edit.text + text[edit.end :], seconds * 1e3


@contextlib.contextmanager
def unguarded() -> Iterator[None]:
    """Show suggestions that break the syntax or the balance of brackets, too."""
    guard, balance = cleanup.SyntaxGuard, cleanup.is_balanced
    cleanup.SyntaxGuard, cleanup.is_balanced = _NoGuard, lambda *_: True  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        cleanup.SyntaxGuard, cleanup.is_balanced = guard, balance  # type: ignore[misc]


class _NoGuard:
    def __init__(self, _cursor: object) -> None:
        pass

    def allows(self, _text: str, _num_covered: int) -> bool:
        return True


def first_line(answer: str) -> str:
    """Return the first line with text."""
    body = answer.lstrip("\n")
    return body.split("\n", 1)[0]


def evaluate_lines(
    completer: Completer,
    chosen: Sequence[Problem],
    where: str,
    run_tests: bool,
    examples: int,
    confidence: Confidence | float = Confidence.OFF,
    kinds: Sequence[str] = KINDS,
) -> dict[str, object]:
    """Score kinds of answers to all problems, with the cursor at one kind of cut."""
    scores = {kind: Score() for kind in kinds}
    programs: dict[str, list[str]] = {kind: [] for kind in kinds}
    milliseconds: list[float] = []
    for problem in chosen:
        cut = problem.cut(where)
        if cut is None:
            continue
        typed, wanted = cut
        before, after = problem.prompt + typed, "\n" + problem.suffix
        # A suggestion on a blank line may include the indentation before the cursor.
        added = slice(len(before), -len(after))
        answers: dict[str, str] = {}
        if "raw" in kinds or "truncated" in kinds:
            document = Document(WORKSPACE, FILE, "python", 1, before + after)
            answers["raw"] = completer.raw_middle(document, len(before), MAX_NEW_TOKENS)
            answers["truncated"] = first_line(answers["raw"])
        accepted, elapsed_ms = ask(completer, before + after, len(before), MultiLine.NEVER, confidence)
        milliseconds.append(elapsed_ms)
        answers["shown"] = accepted[added]
        if "unguarded" in kinds:
            with unguarded():
                answers["unguarded"] = ask(completer, before + after, len(before), MultiLine.NEVER)[0][added]
        for kind in kinds:
            scores[kind].add(answers[kind], wanted)
            programs[kind].append(f"{before}{answers[kind]}{after}\n{problem.test}\ncheck({problem.entry_point})\n")
        if len(milliseconds) <= examples:
            print(f"{problem.task_id} {where}: wanted {wanted!r}", {kind: answers[kind] for kind in kinds})
        if len(milliseconds) % 100 == 0:
            print(f"{where}: {len(milliseconds)} of {len(chosen)}", file=sys.stderr)
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
    """Type the bodies of HumanEval functions; a suggestion that is right as a whole is accepted with one key."""
    tasks = list(records(DATA / DATASET_FILES["humaneval"]))[:: max(1, 164 // limit)][:limit]
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
