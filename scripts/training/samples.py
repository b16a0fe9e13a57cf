"""Training samples as the product asks: prompts from the product's own prompt builder, healer and infill format.

A sample is a function of its number, the seed and the corpus: the data position of a run is one integer.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import quote

from forelook.completion.document_store import Document
from forelook.completion.prompt.context import ContextChooser
from forelook.completion.prompt.files import FileContext
from forelook.completion.prompt.prompt import LineEncoder, PromptBudget, PromptBuilder
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.model.infill import InfillFormat
from forelook.model.infill_templates import InfillOrder
from forelook.model.token_healing import TokenHealer

from training.corpus import Shelf, SourceFile
from training.sentinels import Vocabulary

_LONG_PROMPT_TOKENS = 640
_MAX_MIDDLE_CHARS = 1200
_WINDOW_LINES, _TOKENS_PER_LINE = 24, 14  # the product's windows, smaller where the prompt has no room for one
_SUFFIX_SHARE = 0.4  # that of forelook.config.EngineConfig
_OPERATOR = re.compile(r"(?:=|\breturn|\+|-|\*|/|<|>|\band|\bor|\bin|\bif|&&|\|\||:=|->|=>|:) ")
_DOT = re.compile(r"(?<=\w)\.(?=\w)")
_OPENER = re.compile(r"[\[({]")
_BLOCK_HEAD = re.compile(r"(?:[:{]|=>|->)[ \t]*\n(?=[ \t]+\S)")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Sample:
    """Token ids of one sample.

    Attributes:
        ids: prompt and answer; at most the longest context asked for.
        middle_start: where the answer begins, ``0`` for plain text: all of it is the answer.
        kind: ``plain``, or the cursor's kind.
        forced: bytes that the answer begins with because the prompt ends before them; the cursor was in a token.
    """

    ids: list[int]
    middle_start: int
    kind: str
    forced: bytes = b""


@dataclass(frozen=True, slots=True)
class SampleMix:
    """What kinds of samples there are, as shares.

    Attributes:
        languages: weight of each language; those the corpus lacks are left out.
        plain: text from left to right.
        prefix_first: of the infill samples, those with the prefix first.
        context: of the infill samples with room for it, those with text of neighbouring files.
        context_room: tokens of prompt from which on there is room for such text.
        context_size: share of such a prompt that the text may take. Prompts here are shorter than the product's, whose
            share of them would seldom hold a piece of a file.
        long: share of samples that may have up to ``max_tokens``; the others are of at most 640. Attention over the
            long ones was four tenths of a step before this was a choice.
        min_tokens: shortest prompt, where the file has as much text.
        max_tokens: longest sample.
        cursors: weight of each kind of cursor.
    """

    languages: Mapping[str, float]
    plain: float = 0.3
    prefix_first: float = 0.08
    context: float = 0.15
    context_room: int = 700
    context_size: float = 0.15
    long: float = 0.12
    min_tokens: int = 160
    max_tokens: int = 2048
    cursors: Mapping[str, float] = field(default_factory=lambda: CURSOR_WEIGHTS)


class SampleMaker:
    """Makes samples from shelves of source files.

    Attributes:
        healer: token healing of the vocabulary.
    """

    def __init__(
        self,
        shelves: Mapping[str, Shelf],
        vocabulary: Vocabulary,
        healer: TokenHealer,
        mix: SampleMix,
        *,
        seed: int,
    ) -> None:
        self._shelves = {name: shelf for name, shelf in shelves.items() if len(shelf) and mix.languages.get(name)}
        if not self._shelves:
            raise ValueError("no text in any language of the mix; check the corpus folder and its report.json")
        self._names = sorted(self._shelves)
        self._weights = [mix.languages[name] for name in self._names]
        self._vocabulary = vocabulary
        self._tokenizer = vocabulary.tokenizer
        self.healer = healer
        self._infill = vocabulary.infill
        self._mix = mix
        self._seed = seed
        self._encoder = LineEncoder(self._tokenizer)

    def make(self, number: int) -> Sample:
        """The sample of a number; always the same one."""
        random_ = random.Random(f"{self._seed}:{number}")
        shelf = self._shelves[random_.choices(self._names, self._weights)[0]]
        while True:
            index = shelf.at_byte(random_.randrange(shelf.num_bytes))
            file = shelf[index]
            if random_.random() < self._mix.plain:
                return self._plain(file, random_)
            sample = self._infilling(shelf, index, file, random_)
            if sample is not None:
                return sample

    def batch(self, first: int, num_tokens: int, stride: int = 1) -> tuple[list[Sample], int]:
        """Samples from number ``first`` on that make up at least ``num_tokens``, and the next number.

        With a ``stride``, every so many-th number: ranks that start one apart then share no sample.
        """
        return batch_of(self.make, first, num_tokens, stride)

    def _num_tokens(self, random_: random.Random) -> int:
        """A length of prompt: as many octaves of short files as of long ones."""
        border = min(_LONG_PROMPT_TOKENS, self._mix.max_tokens)
        low, high = min(self._mix.min_tokens, border // 2), border
        if random_.random() < self._mix.long:
            low, high = border, self._mix.max_tokens
        return int(math.exp(random_.uniform(math.log(low), math.log(high))))

    def _plain(self, file: SourceFile, random_: random.Random) -> Sample:
        size = self._num_tokens(random_)
        lines = file.text.split("\n")
        starts_file = len(file.text) < 3 * size or random_.random() < 0.3
        start = 0 if starts_file else random_.randrange(len(lines))
        text = "\n".join(lines[start:])[: size * 6]
        begin = [] if self._vocabulary.bos_id is None else [self._vocabulary.bos_id]
        ids = [*begin, *self._encoder.encode(text, starts_document=True)]
        if len(ids) < size and len(text) == len("\n".join(lines[start:])):
            ids.append(self._vocabulary.eos_id)
        return Sample(ids[:size], 0, "plain")

    def _infilling(self, shelf: Shelf, index: int, file: SourceFile, random_: random.Random) -> Sample | None:
        chosen = choose_cursor(file.text, random_, self._mix.cursors)
        if chosen is None:
            return None
        kind, start, end = chosen
        middle = file.text[start:end]
        text = file.text[:start] + file.text[end:]
        document = document_of(SourceFile(file.path, text), shelf.language)
        size = self._num_tokens(random_)
        room = size - len(middle) // 2 - 16
        if room < 48:
            size, room = size + len(middle) // 2, size
        if size > self._mix.max_tokens:
            return None
        context: Sequence[FileContext] = ()
        if room >= self._mix.context_room and random_.random() < self._mix.context:
            context = self._context(shelf, index, document, start, int(room * self._mix.context_size), random_)
        budget = PromptBudget(room, _SUFFIX_SHARE, self._mix.context_size if context else 0.0)
        prompt = PromptBuilder(self._tokenizer, budget, self._infill).build(document, start, context)
        if prompt.anchored_suffix:
            # The prompt leaves out the closers that stand behind the cursor: the answer has them.
            middle += text[start : document.line_end(start)]
        healing = self.healer.heal(prompt.prefix_ids)
        prefix_ids = prompt.prefix_ids[: len(prompt.prefix_ids) - healing.num_dropped]
        answer = self._tokenizer.encode(healing.forced.decode("utf-8", "replace") + middle)
        if random_.random() < self._mix.prefix_first and self._infill.order is InfillOrder.SUFFIX_FIRST:
            ids = prefix_first(self._infill, prefix_ids, prompt.suffix_ids, prompt.context_ids)
        else:
            ids = self._infill.build(prefix_ids, prompt.suffix_ids, prompt.context_ids)
        whole = [*ids, *answer, self._vocabulary.end_id]
        if len(whole) > self._mix.max_tokens:
            return None
        return Sample(whole, len(ids), kind, healing.forced)

    def _context(
        self, shelf: Shelf, index: int, document: Document, offset: int, num_tokens: int, random_: random.Random
    ) -> Sequence[FileContext]:
        chooser = ContextChooser(min(_WINDOW_LINES, max(4, num_tokens // _TOKENS_PER_LINE)))
        for other in shelf.siblings(index)[: random_.randint(1, 3)]:
            file = shelf[other]
            if len(file.text) <= 40_000:
                chooser.touch(document_of(file, shelf.language))
        chooser.touch(document)
        chooser.choose(document, offset)
        while chooser.has_work:
            chooser.work()
        return chooser.choose(document, offset)


def batch_of(make: Callable[[int], Sample], first: int, num_tokens: int, stride: int) -> tuple[list[Sample], int]:
    """What :meth:`SampleMaker.batch` returns, with samples from ``make``."""
    samples: list[Sample] = []
    total = 0
    while total < num_tokens:
        sample = make(first)
        first += stride
        if len(sample.ids) > 1:
            samples.append(sample)
            total += len(sample.ids)
    return samples, first


def passes(samples: Sequence[Sample], num_tokens: int) -> Iterator[list[Sample]]:
    """The samples in order, in parts of at most ``num_tokens``; a longer sample is a part of its own."""
    part: list[Sample] = []
    total = 0
    for sample in samples:
        if part and total + len(sample.ids) > num_tokens:
            yield part
            part, total = [], 0
        part.append(sample)
        total += len(sample.ids)
    if part:
        yield part


def document_of(file: SourceFile, language: str) -> Document:
    """Return a file as the backend knows it; a package is a workspace."""
    package = file.path.split("/", 1)[0]
    workspace, document = WorkspaceKey("", f"file:///{quote(package)}"), DocumentKey(1, f"file:///{quote(file.path)}")
    return Document(workspace, document, language, 1, file.text)


def prefix_first(
    infill: InfillFormat, prefix_ids: Sequence[int], suffix_ids: Sequence[int], context_ids: Sequence[int]
) -> list[int]:
    """The prefix-first prompt with the sentinels of a suffix-first format: PRE context prefix SUF suffix MID."""
    sentinels = [part for part in infill.template if isinstance(part, int)]
    *head, suf, mid = sentinels
    return [*head, *context_ids, *prefix_ids, suf, *suffix_ids, mid]


def choose_cursor(
    text: str, random_: random.Random, weights: Mapping[str, float] | None = None
) -> tuple[str, int, int] | None:
    """A place where people ask for a completion, and what they would write there.

    Args:
        text: of a file.
        random_: decides.
        weights: of the kinds of cursors; ``CURSOR_WEIGHTS`` by default.

    Returns:
        Kind, start and end of the missing text, or ``None`` when the file has no such place near the one drawn.
    """
    weights = CURSOR_WEIGHTS if weights is None else weights
    kind = random_.choices(list(weights), list(weights.values()))[0]
    span = _CURSORS[kind][1](text, random_)
    if span is None:
        return None
    start, end = span
    if not 0 < end - start <= _MAX_MIDDLE_CHARS or not text[start:end].strip():
        return None
    return kind, start, end


def _some_line(text: str, random_: random.Random) -> tuple[int, int, int] | None:
    """Start, first character and end of a line with text."""
    place = random_.randrange(len(text))
    for _ in range(8):
        start = text.rfind("\n", 0, place) + 1
        end = text.find("\n", place)
        end = len(text) if end < 0 else end
        line = text[start:end]
        if len(line.strip()) >= 2 and len(line) <= 300:
            return start, start + len(line) - len(line.lstrip()), end
        place = end + 1
        if place >= len(text):
            return None
    return None


def _on_a_line(
    place: Callable[[str, tuple[int, int, int], random.Random], tuple[int, int] | None],
) -> Callable[[str, random.Random], tuple[int, int] | None]:
    """Return a cursor on a line with text, if there is one near the one drawn."""

    def find(text: str, random_: random.Random) -> tuple[int, int] | None:
        line = _some_line(text, random_)
        return None if line is None else place(text, line, random_)

    return find


def _mid_line(text: str, line: tuple[int, int, int], random_: random.Random) -> tuple[int, int] | None:
    """Anywhere in a line, most often at the border of a word."""
    if line[2] - line[1] < 4:
        return None
    place = random_.randrange(line[1] + 1, line[2])
    if random_.random() < 0.6:
        borders = [match.start() for match in re.finditer(r"\b|(?= )", text[line[1] + 1 : line[2]])]
        if borders:
            place = line[1] + 1 + random_.choice(borders)
    return place, line[2]


def _after(
    pattern: re.Pattern[str], text: str, line: tuple[int, int, int], random_: random.Random
) -> tuple[int, int] | None:
    ends = [match.end() for match in pattern.finditer(text, line[1], line[2]) if match.end() < line[2]]
    return (random_.choice(ends), line[2]) if ends else None


def _inside_brackets(text: str, line: tuple[int, int, int], random_: random.Random) -> tuple[int, int] | None:
    """After an opening bracket that the editor has closed."""
    openers = [match.start() for match in _OPENER.finditer(text, line[1], line[2])]
    if not openers:
        return None
    start = random_.choice(openers)
    opener, depth = text[start], 0
    closer = _CLOSING[opener]
    for end in range(start, min(len(text), start + _MAX_MIDDLE_CHARS)):
        depth += (text[end] == opener) - (text[end] == closer)
        if depth == 0:
            return start + 1, end
    return None


def _body(text: str, random_: random.Random) -> tuple[int, int] | None:
    """The empty body of a definition or a block: its lines up to the one that is not deeper than its head."""
    match = _BLOCK_HEAD.search(text, random_.randrange(len(text)))
    if match is None:
        return None
    head_start = text.rfind("\n", 0, match.start()) + 1
    start = match.end() - 1
    end = _end_of_block(text, match.end(), _indent(text, head_start) + 1)
    if random_.random() < 0.5:
        # The editor has already broken the line and indented it.
        start = match.end() + _indent(text, match.end())
    return start, end


def _block(text: str, line: tuple[int, int, int], random_: random.Random) -> tuple[int, int]:
    """A few lines from a cursor after the indentation of the first."""
    end = _end_of_block(text, line[0], line[1] - line[0])
    lines = text[line[1] : end].split("\n")
    return line[1], line[1] + len("\n".join(lines[: random_.randint(2, 10)]))


def _random_span(text: str, random_: random.Random) -> tuple[int, int] | None:
    """From anywhere to anywhere."""
    start = random_.randrange(len(text))
    return start, min(len(text), start + int(math.exp(random_.uniform(math.log(4), math.log(600)))))


def _end_of_block(text: str, start: int, indent: int) -> int:
    """The end of the last line from ``start`` on that is indented by ``indent`` or more."""
    end = place = start
    while place < len(text) and place - start < 2 * _MAX_MIDDLE_CHARS:
        line_end = text.find("\n", place)
        line_end = len(text) if line_end < 0 else line_end
        if text[place:line_end].strip():
            if _indent(text, place) < indent:
                break
            end = line_end
        place = line_end + 1
    return end


def _indent(text: str, start: int) -> int:
    end = start
    while end < len(text) and text[end] in " \t":
        end += 1
    return end - start


_CURSORS: dict[str, tuple[float, Callable[[str, random.Random], tuple[int, int] | None]]] = {
    "empty line": (0.20, _on_a_line(lambda _text, line, _random: (line[0], line[2]))),
    "indented line": (0.17, _on_a_line(lambda _text, line, _random: (line[1], line[2]))),
    "mid line": (0.18, _on_a_line(_mid_line)),
    "after operator": (0.11, _on_a_line(partial(_after, _OPERATOR))),
    "after dot": (0.05, _on_a_line(partial(_after, _DOT))),
    "inside brackets": (0.08, _on_a_line(_inside_brackets)),
    "body": (0.08, _body),
    "block": (0.06, _on_a_line(_block)),
    "random span": (0.07, _random_span),
}

CURSOR_WEIGHTS: Mapping[str, float] = {kind: weight for kind, (weight, _) in _CURSORS.items()}
"""The kinds of cursors, and how often each is drawn by default."""
