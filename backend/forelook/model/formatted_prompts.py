"""Prompts that a client has already put into the model's infill format, with the sentinels spelled out as text.

Such a text becomes ids only where it is a whole prompt: it begins with the format's first sentinel, ends as the format
does, and each sentinel between occurs exactly once. Whatever else a text contains stays text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from forelook.model.infill import InfillFormat
from forelook.model.infill_templates import PARTS, Part
from forelook.model.tokenizer import CodeTokenizer

_SPACE = "▁"


@dataclass(frozen=True, slots=True)
class FormattedPrompt:
    """A prompt of a client, taken apart.

    Attributes:
        infill: the format it has.
        prefix: text before the cursor.
        suffix: text after the cursor.
        context: other files: ids of sentinels, and texts.
    """

    infill: InfillFormat
    prefix: str
    suffix: str
    context: tuple[Part, ...] = ()


class FormattedPrompts:
    """Recognizes whole prompts in one of a model's infill formats.

    Args:
        tokenizer: of the model.
        formats: those the model was trained with, its default first.
    """

    def __init__(self, tokenizer: CodeTokenizer, formats: Sequence[InfillFormat]) -> None:
        self._names = tokenizer.control_names
        self._formats = [
            infill
            for infill in formats
            if infill.sees_suffix and all(part in self._names for part in infill.template if isinstance(part, int))
        ]

    def parse(self, text: str) -> FormattedPrompt | None:
        """Take a whole prompt apart; ``None`` if the text is none."""
        for infill in self._formats:
            found = self._parse(text, infill)
            if found is not None:
                return found
        return None

    def _parse(self, text: str, infill: InfillFormat) -> FormattedPrompt | None:
        parts = [part if isinstance(part, str) else self._names[part] for part in infill.template]
        if infill.bos_token_id is not None:
            text = text.removeprefix(parts.pop(0))
        context: tuple[Part, ...] = ()
        if parts[0] == "{context}":
            first = re.search(_pattern(parts[1]), text)
            before = None if first is None else self._context(text[: first.start()], infill)
            if first is None or before is None:
                return None
            context, text, parts = before, text[first.start() :], parts[1:]
        texts = _split(text, parts)
        if texts is None:
            return None
        prefix = texts["{prefix}"]
        # SentencePiece puts a space before a document; clients spell it after the first sentinel.
        return FormattedPrompt(
            infill, prefix.removeprefix(" ") if parts[0].startswith(_SPACE) else prefix, texts["{suffix}"], context
        )

    def _context(self, text: str, infill: InfillFormat) -> tuple[Part, ...] | None:
        """The files before the first sentinel; ``None`` if the text is no list of files."""
        ids = {self._names[token_id]: token_id for token_id in infill.files.sentinel_ids if token_id in self._names}
        if not text:
            return ()
        if not text.startswith(tuple(ids)):
            return None  # also without any such sentinel
        pieces = re.split(f"({'|'.join(map(re.escape, ids))})", text)
        return tuple(ids.get(piece, piece) for piece in pieces if piece)


def _split(text: str, parts: Sequence[str]) -> dict[str, str] | None:
    """The texts between the sentinels of a template, by the name of the part; ``None`` where they do not fit it."""
    first = re.match(_pattern(parts[0]), text)
    if first is None:
        return None
    start, end = first.end(), len(text)
    inner = list(parts[1:])
    if inner[-1] not in PARTS:  # the last sentinel ends the text; the same characters before it are text
        last = re.search(f"{_pattern(inner.pop())}\\Z", text[start:])
        if last is None:
            return None
        end = start + last.start()
    text = text[start:end]
    found: dict[str, str] = {}
    open_parts: list[str] = []
    position = 0
    for part in inner:
        if part in PARTS:
            open_parts.append(part)
            continue
        places = list(re.finditer(_pattern(part), text))
        if len(places) != 1 or places[0].start() < position:
            return None
        if not _assign(found, open_parts, text[position : places[0].start()]):
            return None
        open_parts, position = [], places[0].end()
    return found if _assign(found, open_parts, text[position:]) else None


def _assign(found: dict[str, str], open_parts: Sequence[str], text: str) -> bool:
    """Give a text to the part it belongs to; False if there is none."""
    names = [part for part in open_parts if part != "{context}"]
    if not names:
        return not text.strip(" ")
    found[names[0]] = text
    return True


def _pattern(sentinel: str) -> str:
    """Clients spell the space of a name that begins with ``▁``, or leave it out."""
    if sentinel.startswith(_SPACE):
        return f" ?{re.escape(sentinel.removeprefix(_SPACE))}"
    return re.escape(sentinel)
