"""Held-out lines typed again: which suggestions a threshold shows, and how many of them the true line takes.

The user of the replay types one line of a file key by key and accepts a suggestion as soon as its first line is the
rest of the true one. A suggestion stays on the screen while it is typed through, so it counts as shown once. Without
one on the screen a key asks where a word starts or ends and after its first and third letter, about as often as an
answer arrives before the next key.
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forelook.completion.completer import Completer
from forelook.completion.document_store import Document
from forelook.completion.engine.answers import Answer
from forelook.completion.requests import Cancelled, Hints, RequestControl
from forelook.confidence import Confidence
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.languages import language_for, language_id_of
from forelook.protocol.messages import CompletionParams, MultiLine

from bench.traces import Session

WORKSPACE, FILE = WorkspaceKey("", "confidence"), DocumentKey(1, "typed")
MAX_FILE_CHARS = 200_000
LINES_PER_FILE = 3
REMOVED = (1, 1, 6, 24)
"""Lines that the document lacks from the typed one on: edits within a file and the writing of new parts."""


@dataclass(frozen=True)
class Line:
    """A line to type: its document without it, and who wrote it.

    Attributes:
        language: the language's name.
        project: a folder of the corpus; the unit of every split.
        before: the document up to the first key, the line's indentation included.
        typed: the rest of the line.
        after: the document after the line, from its break on.
    """

    language: str
    language_id: str
    project: str
    before: str
    typed: str
    after: str


@dataclass(frozen=True)
class Asked:
    """The answer after some keys of a line.

    Attributes:
        position: keys before it.
        text: the first line of the suggestion; empty without one.
        log_probs: of the first line that the model said.
        ends: where its tokens end, in bytes from the cursor.
    """

    position: int
    text: str
    log_probs: tuple[float, ...]
    ends: tuple[int, ...]

    def left_after(self, typed: str) -> tuple[float, ...]:
        """Log-probabilities of what is left once its beginning was typed; those of a token count to its end."""
        num_typed = len(typed.encode())
        return tuple(value for value, end in zip(self.log_probs, self.ends, strict=True) if end > num_typed)


@dataclass(frozen=True)
class Record:
    """All answers of one line, in order of their position."""

    language: str
    project: str
    typed: str
    asked: tuple[Asked, ...]


@dataclass
class Tally:
    """What a user saw and did.

    Attributes:
        shown, taken: suggestions on the screen, and those of them whose first line was accepted.
        keys, characters: pressed, and written.
        asked, withheld: answers of the model, and those that were not shown.
    """

    shown: int = 0
    taken: int = 0
    keys: int = 0
    characters: int = 0
    asked: int = 0
    withheld: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, name) + value for name, value in vars(other).items()))

    @property
    def precision(self) -> float:
        return self.taken / max(1, self.shown)

    @property
    def saved_share(self) -> float:
        return 1 - self.keys / max(1, self.characters)


def lines_of(folders: Sequence[Path], num_lines: int) -> dict[str, list[Line]]:
    """Lines by language, of as many projects as there are; a project is a folder in one of the folders.

    Fewer lines are the first of more.
    """
    files: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for project in sorted(path for folder in folders for path in folder.iterdir() if path.is_dir()):
        for path in sorted(project.rglob("*")):
            language_id = language_id_of(path.suffix) if path.suffix else ""
            if language_id and path.is_file() and path.stat().st_size <= MAX_FILE_CHARS:
                files[language_for(language_id).name][project.name].append(path)
    found: dict[str, list[Line]] = {}
    for language, projects in sorted(files.items()):
        random_ = random.Random(language)
        for name in sorted(projects):
            random_.shuffle(projects[name])
        lines: list[Line] = []
        while projects and len(lines) < num_lines:
            for name in sorted(projects):
                if not projects[name]:
                    del projects[name]
                    continue
                lines += _lines_of_file(projects[name].pop(), name, random_)
        found[language] = lines[:num_lines]
    return found


def _lines_of_file(path: Path, project: str, random_: random.Random) -> Iterator[Line]:
    try:
        text = path.read_text("utf-8").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError):
        return
    lines = text.splitlines(keepends=True)
    # A file's head is its license and its imports; minified lines are nobody's typing.
    places = [index for index in range(12, len(lines)) if _is_typed(lines[index])]
    if len(places) < 2 * LINES_PER_FILE or max(map(len, lines)) > 400:
        return
    language_id = language_id_of(path.suffix)
    for index in random_.sample(places, LINES_PER_FILE):
        line = lines[index].rstrip("\n")
        typed = line.strip()
        before = "".join(lines[:index]) + line[: len(line) - len(line.lstrip())]
        after = "\n" + "".join(lines[index + random_.choice(REMOVED) :])
        yield Line(language_for(language_id).name, language_id, project, before, typed, after)


def _is_typed(line: str) -> bool:
    return 8 <= len(line.strip()) <= 90 and sum(map(str.isalpha, line)) >= 5


def session_lines(sessions: Iterable[Session], limit: int) -> Iterator[Line]:
    """Lines of recorded sessions: runs of characters that were typed one after the other, within a line.

    Args:
        sessions: of one document each.
        limit: maximum number of lines.
    """
    for session in sessions:
        text, start, run = session.text, 0, ""
        before = text
        for edit in session.edits:
            is_typed = edit.start == edit.end and "\n" not in edit.text
            if run and is_typed and edit.start == start + len(run):
                run += edit.text
            else:
                if _is_typed(run):
                    name = language_for(session.language_id).name
                    yield Line(name, session.language_id, session.name, before[:start], run, before[start:])
                    limit -= 1
                    if limit == 0:
                        return
                before, start, run = text, edit.start, edit.text if is_typed else ""
            text = text[: edit.start] + edit.text + text[edit.end :]


class Typist:
    """Types lines into a completer."""

    def __init__(self, completer: Completer, encode: Callable[[str], list[int]]) -> None:
        self._completer = completer
        self._encode = encode
        self._answer: Answer | None = None

    def ask(
        self, line: Line, position: int, confidence: Confidence | float, multi_line: MultiLine = MultiLine.AUTO
    ) -> tuple[Asked, bool]:
        """The answer after some keys, and whether it was withheld."""
        before = line.before + line.typed[:position]
        document = Document(WORKSPACE, FILE, line.language_id, 1, before + line.after)
        request = CompletionParams(FILE.uri, 1, len(before), multi_line=multi_line, confidence=confidence)
        source = None if self._answer is None or position == 0 else self._answer.draft_source(self._encode)
        hints = Hints(sources=[] if source is None else [source])
        control = RequestControl(time.monotonic(), is_waited_for=False)  # whoever types pauses long enough
        completed = self._completer.complete(document, request, control, hints)
        assert not isinstance(completed, Cancelled)
        self._answer = Answer(document, request, completed)
        suggestions = completed.result.suggestions
        text = suggestions[0].text[len(before) - suggestions[0].start :].split("\n")[0] if suggestions else ""
        score = completed.score
        log_probs, ends = ((), ()) if score is None else (score.log_probs, score.ends)
        return Asked(position, text, log_probs, ends), completed.withheld is not None

    def record(self, line: Line, every: int = 1) -> Record:
        """What the model says at each key, shown or not, unless the key only types what it said before.

        Args:
            line: to type.
            every: of the keys that ask, ask at every so many: a slow model answers no more often.
        """
        found: list[Asked] = []
        for position in asking_positions(line.typed)[::every]:
            if not (found and _fits(found[-1], line.typed, position)):
                # Its first line is all that counts.
                found.append(self.ask(line, position, 0.0, MultiLine.NEVER)[0])
        return Record(line.language, line.project, line.typed, tuple(found))

    def type(self, line: Line, confidence: Confidence | float) -> Tally:
        """Type a line with the product's rule."""

        def answer(position: int) -> tuple[str, bool]:
            asked, withheld = self.ask(line, position, confidence)
            return asked.text, withheld

        return simulate(line.typed, answer)


def _fits(asked: Asked, typed: str, position: int) -> bool:
    """Whether an answer has text that goes on where the user is."""
    since = typed[asked.position : position]
    return asked.text.startswith(since) and len(asked.text) > len(since)


def asking_positions(typed: str) -> list[int]:
    """After which keys of a line the model is asked, if nothing is on the screen."""
    found, letters = [0], 0
    for position in range(1, len(typed)):
        letters = letters + 1 if _is_in_word(typed, position - 1) else 0
        if not (letters and _is_in_word(typed, position)) or letters in (1, 3):
            found.append(position)
    return found


def _is_in_word(typed: str, index: int) -> bool:
    return typed[index].isalnum() or typed[index] == "_"


def simulate(typed: str, answer: Callable[[int], tuple[str, bool]]) -> Tally:
    """One line under a rule.

    Args:
        typed: the line.
        answer: the first line on the screen after some keys, and whether another one was withheld.
    """
    tally = Tally(characters=len(typed))
    asking = set(asking_positions(typed))
    visible, since, position = "", 0, 0
    while position < len(typed):
        if not (visible.startswith(typed[since:position]) and len(visible) > position - since):
            visible = ""
        if not visible and position in asking:
            visible, withheld = answer(position)
            since = position
            tally.asked += 1
            tally.withheld += withheld
            tally.shown += bool(visible)
            if visible and visible.rstrip() == typed[position:]:
                tally.taken += 1
                tally.keys += 1
                return tally
        tally.keys += 1
        position += 1
    return tally


def tally_records(records: Iterable[Record], least: float) -> Tally:
    """What the recorded answers are worth under a threshold of log-probability."""
    total = Tally()
    for record in records:

        def answer(position: int, record: Record = record) -> tuple[str, bool]:
            asked = next(asked for asked in reversed(record.asked) if asked.position <= position)
            if asked.position < position and not _fits(asked, record.typed, position):
                return "", False
            typed = record.typed[asked.position : position]
            withheld = bool(asked.text) and sum(asked.left_after(typed)) < least
            return "" if withheld else asked.text[len(typed) :], withheld

        total += simulate(record.typed, answer)
    return total


def append_record(path: Path, record: Record) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record)) + "\n")


def read_records(path: Path) -> list[Record]:
    """The records of a file; none if there is no file yet."""
    rows = (json.loads(line) for line in path.read_text("utf-8").splitlines()) if path.is_file() else ()
    return [Record(**{**row, "asked": tuple(map(_asked, row["asked"]))}) for row in rows]


def _asked(row: dict[str, Any]) -> Asked:
    return Asked(row["position"], row["text"], tuple(row["log_probs"]), tuple(row["ends"]))
