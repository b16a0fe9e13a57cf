"""Share of suggestions that add a syntax error to a file that parses: any cursor, any text as the model's."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from forelook.completion.completer import Completer
from forelook.completion.cursor.cleanup import clean, to_suggestion
from forelook.completion.cursor.parsing import errors_of, parse
from forelook.completion.cursor.stopping import find_end, look_around, wants_block
from forelook.completion.document_store import Document
from forelook.completion.requests import Cancelled, Hints, RequestControl
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.languages import language_for
from forelook.model.tokenizer import CodeTokenizer
from forelook.protocol.messages import CompletionParams, Suggestion, TriggerKind

from bench.parsed_files import parsed_files

SAMPLES = Path(__file__).resolve().parents[2] / "tests" / "data" / "sources"
MAX_CHARS = 100_000
SCRIPTED = ("continuation", "other", "random", "adversarial")
TEXTS = (*SCRIPTED, "model")
KINDS = ("word", "number", "string", "interpolation", "comment", "call", "decorator", "markup", "line", "other")
_NODES = {
    "comment": re.compile("comment"),
    "interpolation": re.compile("interpolation|template_substitution|expansion|format_expression"),
    "string": re.compile("string|heredoc|char|rune|scalar|attribute_value|regex"),
    "markup": re.compile("jsx|tag|element"),
    "decorator": re.compile("decorator|annotation|attribute_item|attribute_list|modifier"),
    "call": re.compile("argument|call|parameter"),
}
# Closers and openers without a partner, escapes, ends of comments, fragments of other languages, control characters.
_FRAGMENTS = """
    ) ] } )]} ") ') )) " ' ` \"\"\" ''' ( [ { f( x[ {{ ${ <div> </div> \\ \\\\ \\q \\" */ /* // # --> <!-- ?> <?php
    🙂 漢 , ; : a)( x]( return end fi => @ 0x 1.2.3 && ||= {% %} /> < > <br> $( $(( `a`
    <<EOF~ a",_" a',_' x"},_"y":_"z" if_(x)_{ def_f(: ~} ~)~ lambda:_( a_b_c x_=_=_y '''~\"\"\"
"""
_ADVERSARIAL = tuple(part.replace("_", " ").replace("~", "\n") for part in _FRAGMENTS.split())


@dataclass(frozen=True)
class Case:
    """A cursor in a file that parses, and the text that a model says there.

    Attributes:
        said: the text; ``None`` where a loaded model is asked.
        ended: whether the model ended it by itself.
    """

    language_id: str
    text: str
    offset: int
    kind: str
    source: str
    said: str | None
    ended: bool
    invoked: bool


@dataclass
class Tally:
    """What became of the cases of one row."""

    asked: int = 0
    shown: int = 0
    broken: int = 0

    def add(self, shown: bool, broken: bool) -> None:
        self.asked += 1
        self.shown += shown
        self.broken += broken


@dataclass
class Breakage:
    """All tallies, by language, by kind of place and by source of the text, and examples of what broke."""

    total: Tally = field(default_factory=Tally)
    by_language: dict[str, Tally] = field(default_factory=dict)
    by_kind: dict[str, Tally] = field(default_factory=dict)
    by_source: dict[str, Tally] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)

    def add(self, case: Case, edit: Suggestion | None) -> None:
        broken = edit is not None and breaks(case, edit)
        name = language_for(case.language_id).name
        rows = (self.by_language, name), (self.by_kind, case.kind), (self.by_source, case.source)
        for tally in (self.total, *(table.setdefault(key, Tally()) for table, key in rows)):
            tally.add(edit is not None, broken)
        if broken and edit is not None:
            before, after = case.text[: case.offset][-60:], case.text[case.offset :][:40]
            where = f"{name} {case.kind} {case.source}: {before!r} ‸ {after!r}"
            self.examples.append(f"{where} + {edit.text!r} over {edit.end - case.offset}")

    def tables(self) -> dict[str, dict[str, Tally]]:
        """The tallies by what they are sorted by."""
        return {
            "language": self.by_language,
            "place": self.by_kind,
            "text": self.by_source,
            "total": {"all": self.total},
        }

    def to_json(self) -> dict[str, object]:
        return {
            name: {key: vars(tally) for key, tally in sorted(table.items())} for name, table in self.tables().items()
        }


def sources(folders: Sequence[Path]) -> dict[str, list[tuple[str, str]]]:
    """Files that parse, as language id and text, by name of the language."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, language_id, text in parsed_files(folders, MAX_CHARS):
        if text:
            found.setdefault(name, []).append((language_id, text))
    return found


def cases(
    files: dict[str, list[tuple[str, str]]],
    num_places: int,
    texts: Sequence[str],
    tokenizer: CodeTokenizer,
    seed: int = 0,
) -> Iterator[Case]:
    """Cursors spread evenly over languages and, as far as a file has them, over kinds of places."""
    random_ = random.Random(seed)
    names = sorted(files)
    for number in range(num_places):
        language_id, text = random_.choice(files[names[number % len(names)]])
        offset = _cursor(text, random_)
        source = texts[(number // len(names)) % len(texts)]
        said = _said(source, text, offset, files, tokenizer, random_)
        yield Case(
            language_id,
            text,
            offset,
            kind_of_place(language_id, text, offset),
            source,
            said,
            ended=random_.random() < 0.5,
            invoked=random_.random() < 0.25,
        )


def _cursor(text: str, random_: random.Random) -> int:
    """A place: anywhere, next to punctuation, within a word or at the end of a line."""
    way = random_.randrange(4)
    if way == 0:
        return random_.randrange(len(text) + 1)
    pattern = ("[][(){}\"'`:<>#/@$]", r"\w(?=\w)", r"(?=\n)")[way - 1]
    found = [match.end() for match in re.finditer(pattern, text)]
    return random_.choice(found) if found else 0


def _said(
    source: str,
    text: str,
    offset: int,
    files: dict[str, list[tuple[str, str]]],
    tokenizer: CodeTokenizer,
    random_: random.Random,
) -> str | None:
    def piece(of: str, length: int) -> str:
        start = random_.randrange(len(of))
        return of[start : start + length]

    if source == "continuation":
        skipped = random_.choice((0, 0, 1, 5, 20))
        return text[offset + skipped : offset + skipped + 200]
    if source == "other":
        own = random_.random() < 0.5
        other = text if own else random_.choice(files[random_.choice(sorted(files))])[1]
        return piece(other, 120)
    if source == "random":
        ids = [random_.randrange(tokenizer.vocab_size) for _ in range(random_.randrange(1, 24))]
        return tokenizer.decode(ids).replace("\r", "")
    if source == "adversarial":
        parts = [random_.choice(_ADVERSARIAL), piece(text, random_.randrange(1, 30)), text[offset : offset + 12]]
        random_.shuffle(parts)
        return "".join(parts[: random_.randrange(1, 4)]) + random_.choice(("", "\n", random_.choice(_ADVERSARIAL)))
    return None


def kind_of_place(language_id: str, text: str, offset: int) -> str:
    """What the cursor is in: the innermost of ``KINDS`` that the grammar sees there."""
    line_start = text.rfind("\n", 0, offset) + 1
    tree = parse(language_for(language_id), text)
    position = len(text[:offset].encode())
    node = None if tree is None else tree.root_node.descendant_for_byte_range(max(0, position - 1), position)
    types = []
    while node is not None:
        if node.start_byte < position < node.end_byte:
            types.append(node.type)
        node = node.parent
    around = text[max(0, offset - 1) : offset + 1]
    for kind in ("comment", "interpolation", "string"):
        if any(_NODES[kind].search(name) for name in types[:4]):
            return kind
    if re.fullmatch(r"\w\w", around):
        return "number" if around.isdigit() else "word"
    for kind in ("markup", "decorator", "call"):
        if any(_NODES[kind].search(name) for name in types[:4]):
            return kind
    return "line" if not text[line_start:offset].strip() else "other"


def said_edit(case: Case) -> Suggestion | None:
    """The suggestion where a model says the case's text, by a request's stop rules, clean-up and placement."""
    cursor = look_around(language_for(case.language_id), case.text[: case.offset], case.text[case.offset :])
    multi_line = wants_block(cursor, invoked=case.invoked)
    raw = case.said or ""
    stopped = find_end(cursor, raw, multi_line=multi_line) is not None
    cleaned = clean(
        cursor,
        raw,
        multi_line=multi_line,
        interrupted=not stopped and not case.ended,
        ended=not stopped and case.ended,
        invoked=case.invoked,
    )
    return None if cleaned is None else to_suggestion(cursor, cleaned, case.offset)


def model_edit(completer: Completer, case: Case) -> Suggestion | None:
    """The suggestion of a loaded model."""
    document = Document(WorkspaceKey("", "breakage"), DocumentKey(1, "file"), case.language_id, 1, case.text)
    trigger = TriggerKind.INVOKED if case.invoked else TriggerKind.AUTOMATIC
    request = CompletionParams(document.key.uri, 1, case.offset, trigger=trigger)
    outcome = completer.complete(document, request, RequestControl(time.monotonic()), Hints())
    if isinstance(outcome, Cancelled) or not outcome.result.suggestions:
        return None
    return outcome.result.suggestions[0]


def breaks(case: Case, edit: Suggestion) -> bool:
    """Whether the whole file with the suggestion, parsed from scratch, has more syntax errors than without."""
    return errors_in(case.language_id, case.text[: edit.start] + edit.text + case.text[edit.end :]) > 0


def errors_in(language_id: str, text: str) -> int:
    """Syntax errors of a text, parsed from scratch."""
    tree = parse(language_for(language_id), text)
    return 0 if tree is None else len(errors_of(tree))


def measure(chosen: Iterator[Case], answer: Callable[[Case], Suggestion | None]) -> Breakage:
    """Ask at every place."""
    result = Breakage()
    for case in chosen:
        started_s = time.perf_counter()
        edit = answer(case)
        result.milliseconds.append((time.perf_counter() - started_s) * 1e3)
        result.add(case, edit)
    return result


def evaluate_breakage(
    completer: Completer,
    tokenizer: CodeTokenizer,
    folders: Sequence[Path],
    num_places: int,
    texts: Sequence[str],
    examples: int,
) -> dict[str, object]:
    """Measure at ``num_places`` cursors, as many with each kind of text, and print the shares."""
    files = sources(folders)
    print("files that parse:", ", ".join(f"{len(found)} {name}" for name, found in sorted(files.items())))
    chosen = cases(files, num_places, texts, tokenizer)
    result = measure(chosen, lambda case: model_edit(completer, case) if case.said is None else said_edit(case))
    print(f"{'':>10} {'':>14} {'places':>7} {'shown':>7} {'broken':>7}  share of shown")
    for name, table in result.tables().items():
        for key, tally in sorted(table.items()):
            share = tally.broken / max(1, tally.shown)
            print(f"{name:>10} {key:>14} {tally.asked:>7} {tally.shown:>7} {tally.broken:>7}  {share:.2%}")
    for example in result.examples[:examples]:
        print(example)
    total = result.total
    return {"share_of_shown": round(total.broken / max(1, total.shown), 5), **result.to_json()}
