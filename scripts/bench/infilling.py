"""Quality of suggestions: HumanEval single-line infilling, and keystrokes saved while typing functions."""

from __future__ import annotations

import contextlib
import difflib
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
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


class CutScores:
    """Scores of the answers at one kind of cut.

    Args:
        where: the kind of cut.
        kinds: of answers.
    """

    def __init__(self, where: str, kinds: Sequence[str]) -> None:
        self.where = where
        self._scores = {kind: Score() for kind in kinds}
        self._programs: dict[str, list[str]] = {kind: [] for kind in kinds}
        self._milliseconds: list[float] = []

    def __len__(self) -> int:
        return len(self._milliseconds)

    def add(self, problem: Problem, answers: Mapping[str, str], milliseconds: float) -> None:
        """Count the answers to a problem that has this cut."""
        typed, wanted = problem.cut(self.where) or ("", "")
        self._milliseconds.append(milliseconds)
        for kind, score in self._scores.items():
            score.add(answers[kind], wanted)
            body = f"{problem.prompt}{typed}{answers[kind]}\n{problem.suffix}"
            self._programs[kind].append(f"{body}\n{problem.test}\ncheck({problem.entry_point})\n")

    def run_tests(self) -> None:
        """Run the functions' tests with each answer."""
        with ThreadPoolExecutor(2) as pool:
            for kind, score in self._scores.items():
                score.passed = list(pool.map(passes, self._programs[kind]))

    def to_json(self) -> dict[str, object]:
        return {
            "num_problems": len(self),
            "p50_ms": round(statistics.median(self._milliseconds), 2) if self._milliseconds else None,
            **{kind: score.to_json() for kind, score in self._scores.items()},
        }


def evaluate_lines(
    completer: Completer,
    chosen: Sequence[Problem],
    cuts: Sequence[str],
    run_tests: bool,
    examples: int,
    confidence: Confidence | float = Confidence.OFF,
    kinds: Sequence[str] = KINDS,
) -> dict[str, dict[str, object]]:
    """Score kinds of answers to all problems, with the cursor at each kind of cut.

    All cuts of a problem are asked one after the other: their prompts have most tokens in common.
    """
    tallies = [CutScores(where, kinds) for where in cuts]
    for number, problem in enumerate(chosen, start=1):
        for tally in tallies:
            if problem.cut(tally.where) is None:
                continue
            answers, milliseconds = _answers(completer, problem, tally.where, confidence, kinds)
            tally.add(problem, answers, milliseconds)
            if len(tally) <= examples:
                wanted = (problem.cut(tally.where) or ("", ""))[1]
                print(f"{problem.task_id} {tally.where}: wanted {wanted!r}", {kind: answers[kind] for kind in kinds})
        if number % 100 == 0:
            print(f"{number} of {len(chosen)}", file=sys.stderr)
    if run_tests:
        for tally in tallies:
            tally.run_tests()
    return {tally.where: tally.to_json() for tally in tallies}


def _answers(
    completer: Completer, problem: Problem, where: str, confidence: Confidence | float, kinds: Sequence[str]
) -> tuple[dict[str, str], float]:
    """Return the answers at a cut that the problem has, and how long the shown one took, in ms."""
    typed, _ = problem.cut(where) or ("", "")
    before, after = problem.prompt + typed, "\n" + problem.suffix
    # A suggestion on a blank line may include the indentation before the cursor.
    added = slice(len(before), -len(after))
    answers: dict[str, str] = {}
    if "raw" in kinds or "truncated" in kinds:
        document = Document(WORKSPACE, FILE, "python", 1, before + after)
        answers["raw"] = completer.raw_middle(document, len(before), MAX_NEW_TOKENS)
        answers["truncated"] = first_line(answers["raw"])
    accepted, milliseconds = ask(completer, before + after, len(before), MultiLine.NEVER, confidence)
    answers["shown"] = accepted[added]
    if "unguarded" in kinds:
        with unguarded():
            answers["unguarded"] = ask(completer, before + after, len(before), MultiLine.NEVER)[0][added]
    return answers, milliseconds


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
