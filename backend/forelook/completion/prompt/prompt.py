"""From document and cursor to prompt ids: windows that stay fixed while the user types.

A prompt consists of text before the cursor (the *prefix*), text after it (the *suffix*) and context from other files.
Windows start and end at line breaks. They keep their borders until the text no longer fits, so that the KV cache of one
keystroke serves the next. Text is tokenized line by line with a cache: a keystroke tokenizes only its own line.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from forelook.completion.cursor.brackets import rest_is_closers
from forelook.completion.document_store import Document, model_text
from forelook.completion.prompt.files import FileContext, joined, labels_of, parts_of
from forelook.keys import DocumentKey
from forelook.model.infill import InfillFormat
from forelook.model.infill_templates import FileNaming, Part
from forelook.model.tokenizer import CodeTokenizer, TextSplitter

Piece = tuple[str, tuple[int, ...]]
"""A part of a text, which ends at a line, and its tokens."""

# All of these are chosen, not measured.
_MAX_CACHED_LINES = 20_000
_MAX_CACHED_LINE_CHARS = 2_000
MAX_CHARS_PER_TOKEN = 12  # text beyond this many characters per token of the budget is not read
_MAX_LINE_CHARS = 8_000  # a longer line is not tokenized whole; of a smaller budget four characters per token
_LONG_LINE_STEP = 256  # the window of a long line starts at a multiple, so that it stays fixed as the line grows
_MAX_ANCHORS_PER_DOCUMENT = 4
_MAX_DOCUMENTS = 64
# A window filled to less than this share is rebuilt: the cursor has moved away from it.
_MIN_FILL = 0.4
# The share of a full prompt that stays free when windows are placed, so that typing does not overflow them at once.
_GROWTH_SHARE = 0.15


class TextTokenizer(Protocol):
    """The tokenizer interface that prompts use."""

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone."""
        ...

    def encode_prefix(self, text: str) -> list[int]:
        """Ids of text that starts a document."""
        ...


class LineEncoder:
    """Tokenizes text part by part with a cache; with most tokenizers a part is a line."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._cache: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self.num_encoded_chars = 0
        splitter = tokenizer.splitter if isinstance(tokenizer, CodeTokenizer) else TextSplitter(tokenizer.encode)
        self.split = splitter.split

    def encode_piece(self, piece: str) -> tuple[int, ...]:
        """Ids of one part."""
        ids = self._cache.get(piece)
        if ids is not None:
            self._cache.move_to_end(piece)
            return ids
        ids = tuple(self._tokenizer.encode(piece))
        self.num_encoded_chars += len(piece)
        if len(piece) <= _MAX_CACHED_LINE_CHARS:
            self._cache[piece] = ids
            if len(self._cache) > _MAX_CACHED_LINES:
                self._cache.popitem(last=False)
        return ids

    def encode(self, text: str, *, starts_document: bool = False) -> list[int]:
        """Ids of ``text``; with ``starts_document`` those of ``encode_prefix``."""
        ids: list[int] = []
        for number, piece in enumerate(self.split(text)):
            if number == 0 and starts_document:
                ids.extend(self._tokenizer.encode_prefix(piece))
            else:
                ids.extend(self.encode_piece(piece))
        return ids


@dataclass(frozen=True, slots=True)
class PromptBudget:
    """Maximum number of tokens of a prompt, and the shares of its parts; a part may use what another leaves free."""

    num_tokens: int
    suffix_share: float
    context_share: float

    @property
    def context_tokens(self) -> int:
        """Tokens of context in a full prompt."""
        return int((self.num_tokens - int(self.num_tokens * _GROWTH_SHARE)) * self.context_share)

    def split(self, num_prefix: int, num_suffix: int, num_context: int) -> tuple[int, int, int]:
        """Tokens for prefix, suffix and context, given how many of each are available."""
        total = self.num_tokens
        if num_prefix + num_suffix + num_context <= total:
            return num_prefix, num_suffix, num_context
        total -= int(total * _GROWTH_SHARE)
        suffix = min(num_suffix, int(total * self.suffix_share))
        context = min(num_context, self.context_tokens)
        prefix = min(num_prefix, total - suffix - context)
        suffix = min(num_suffix, total - prefix - context)
        context = min(num_context, total - prefix - suffix)
        return prefix, suffix, context


@dataclass(frozen=True, slots=True)
class PromptText:
    """A prompt's parts as ids, before the infill format joins them.

    Attributes:
        prefix: the text of the prefix window, which ends at the cursor.
        prefix_ids: its tokens, after those of the format's text before the prefix.
        suffix_ids: tokens of the suffix window.
        context_ids: tokens of the context from other files.
        anchored_suffix: whether the suffix starts at the next line, so that typing does not change it.
    """

    prefix: str
    prefix_ids: list[int]
    suffix_ids: list[int]
    context_ids: list[int]
    anchored_suffix: bool


@dataclass(frozen=True, slots=True)
class _Anchor:
    """Window borders that an edit at the cursor does not move: one counts from the start, the other from the end.

    ``num_context`` is the number of tokens that remained for context.
    """

    prefix_start: int
    chars_after_suffix: int
    num_context: int


class PromptFiles:
    """The other files of one prompt, and what tells them apart from the document.

    Attributes:
        num_tokens: of all other files.
        num_label_tokens: of what a prompt with one of them has besides.

    Args:
        encoder: tokenizes.
        parts: of the infill format.
        document: that is completed.
        context: the other files, most useful first.
        joins: whether the prefix continues the text of the last file.
    """

    def __init__(
        self,
        encoder: LineEncoder,
        parts: FileNaming,
        document: Document,
        context: Sequence[FileContext],
        *,
        joins: bool,
    ) -> None:
        self._encoder = encoder
        self._joins = joins
        self._labels = labels_of(parts, document)
        self._others = [parts_of(parts, other) for other in context]
        self._ids = [self._encode(other) for other in self._others]
        self.num_tokens = sum(map(len, self._ids))
        labels = self._labels
        used = [*labels.before, *labels.after, labels.lead] if context else [labels.lead_alone]
        self.num_label_tokens = len(self._encode(joined(used)))

    def that_fit(self, num_tokens: int) -> list[int]:
        """The files that fit, each whole, the most useful one last, between what precedes and follows them."""
        chosen: list[int] = []
        for index, ids in enumerate(self._ids):
            if len(ids) <= num_tokens:
                chosen.insert(0, index)
                num_tokens -= len(ids)
        if not chosen:
            return []
        first = self._encode([*self._labels.before, *self._others[chosen[0]]], starts_document=self._joins)
        rest = [token for index in chosen[1:] for token in self._ids[index]]
        return first + rest + self._encode(self._labels.after)

    def encode_prefix(self, prefix: str, kept: list[int]) -> list[int]:
        """Ids of the text before the cursor, after the files that were kept."""
        lead = self._labels.lead if kept else self._labels.lead_alone
        return self._encoder.encode(lead + prefix, starts_document=not (kept and self._joins))

    def _encode(self, parts: Sequence[Part], *, starts_document: bool = False) -> list[int]:
        ids: list[int] = []
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self._encoder.encode(part, starts_document=starts_document and not ids)
        return ids


class _Parts(NamedTuple):
    """What a prompt is made of, and the tokens that there are for it."""

    document: Document
    offset: int
    suffix_start: int
    anchored: bool
    files: PromptFiles
    budget: PromptBudget


class PromptBuilder:
    """Chooses the windows of a prompt and tokenizes them. Remembers window borders per document.

    Attributes:
        budget: may be changed: window borders that still fit are kept.

    Args:
        tokenizer: of the model.
        budget: maximum number of tokens, and the shares of the parts.
        infill: the model's format, which tells files apart; without one, comments do.
        encoder: tokenizes, with a cache that another builder uses too.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        budget: PromptBudget,
        infill: InfillFormat | None = None,
        *,
        encoder: LineEncoder | None = None,
    ) -> None:
        self.encoder = LineEncoder(tokenizer) if encoder is None else encoder
        self.budget = budget
        self._files = FileNaming() if infill is None else infill.files
        self._joins_context = infill is not None and infill.joins_context
        self._anchors: OrderedDict[DocumentKey, list[_Anchor]] = OrderedDict()

    def forget(self, key: DocumentKey) -> None:
        """Drop the window borders of a closed document."""
        self._anchors.pop(key, None)

    def build(self, document: Document, offset: int, context: Sequence[FileContext] = ()) -> PromptText:
        """The prompt at ``offset``.

        Args:
            document: the snapshot.
            offset: the cursor.
            context: texts of other files, most useful first. A text is used whole or not at all, and the most useful
                is placed nearest to the cursor.
        """
        text = document.text
        rest = text[offset : document.line_end(offset)]
        anchored = rest_is_closers(rest)
        suffix_start = offset + len(rest) if anchored else offset
        files = PromptFiles(self.encoder, self._files, document, context, joins=self._joins_context)
        # What names the files always fits; the rest is shared among the parts of the prompt.
        budget = replace(self.budget, num_tokens=max(self.budget.num_tokens - files.num_label_tokens, 1))
        parts = _Parts(document, offset, suffix_start, anchored, files, budget)

        for anchor in self._anchors.get(document.key, ()):
            prompt = self._from_anchor(parts, anchor)
            if prompt is not None:
                self._remember(document.key, anchor)
                return prompt
        return self._from_scratch(parts)

    def _from_anchor(self, parts: _Parts, anchor: _Anchor) -> PromptText | None:
        """The prompt with earlier window borders, if the text still fits and fills them well enough."""
        document, offset, suffix_start, anchored, files, budget = parts
        text, start = document.text, anchor.prefix_start
        end = len(text) - anchor.chars_after_suffix
        if not start <= offset <= suffix_start <= end or not _is_line_start(text, start) or not _is_line_end(text, end):
            return None
        if offset - start > self._max_chars or end - suffix_start > self._max_chars:
            return None
        if anchor.num_context < min(files.num_tokens, budget.context_tokens):
            return None  # more context has become available
        kept = files.that_fit(anchor.num_context)
        prefix = model_text(text[start:offset])
        suffix = model_text(text[suffix_start:end])
        if any(len(piece) > self._max_line_chars for part in (prefix, suffix) for piece in self.encoder.split(part)):
            return None
        prefix_ids = files.encode_prefix(prefix, kept)
        suffix_ids = self.encoder.encode(suffix)
        if len(prefix_ids) + len(suffix_ids) + len(kept) > self.budget.num_tokens:
            return None
        share = budget.suffix_share
        if start > 0 and len(prefix_ids) < _MIN_FILL * (1 - share - budget.context_share) * budget.num_tokens:
            return None
        if end < len(text) and len(suffix_ids) < _MIN_FILL * share * budget.num_tokens:
            return None
        return PromptText(prefix, prefix_ids, suffix_ids, kept, anchored)

    def _from_scratch(self, parts: _Parts) -> PromptText:
        document, offset, suffix_start, anchored, files, budget = parts
        text, total = document.text, budget.num_tokens
        before = model_text(text[max(0, offset - self._max_chars) : offset])
        after = model_text(text[suffix_start : suffix_start + self._max_chars])
        before_pieces, num_before = self._take(list(reversed(self.encoder.split(before))), total)
        after_pieces, num_after = self._take(self.encoder.split(after), total)
        for_prefix, for_suffix, for_context = budget.split(num_before, num_after, files.num_tokens)
        prefix_pieces, suffix_pieces = _fit(before_pieces, for_prefix), _fit(after_pieces, for_suffix)
        prefix = "".join(piece for piece, _ in reversed(prefix_pieces))
        suffix = "".join(piece for piece, _ in suffix_pieces)
        if not prefix and before:
            # The line is longer than the window: use its end, starting at an offset that stays fixed as it grows.
            size = min(max(64, for_prefix * 2), self._max_line_chars)
            first = max(offset - self._max_chars, (offset - size) // _LONG_LINE_STEP * _LONG_LINE_STEP, 0)
            prefix = model_text(text[first:offset])
        # The line break before a window's first line does not belong to it.
        whole = len(prefix) == len(before) and offset <= self._max_chars
        if not whole and prefix.startswith("\n"):
            prefix = prefix[1:]
        kept = files.that_fit(for_context)
        prefix_ids = last_tokens(files.encode_prefix(prefix, kept), max(for_prefix + files.num_label_tokens, 1))
        suffix_ids = [token for _, ids in suffix_pieces for token in ids]
        if not suffix and after:
            suffix_ids = self.encoder.encode(after[: min(for_suffix * 4, self._max_line_chars)])[:for_suffix]
        start = offset - _raw_length(text, len(prefix), end=offset)
        end = suffix_start + _raw_length(text, len(suffix), start=suffix_start)
        self._remember(document.key, _Anchor(start, len(text) - end, for_context))
        return PromptText(prefix, prefix_ids, suffix_ids, kept, anchored)

    def _take(self, pieces: list[str], num_tokens: int) -> tuple[list[Piece], int]:
        """Tokenize parts, nearest to the cursor first, until there are ``num_tokens`` or a part is too long.

        Returns:
            The parts, and how many tokens there are; a part that is too long counts as ``num_tokens``.
        """
        taken: list[Piece] = []
        found = 0
        for piece in pieces:
            if len(piece) > self._max_line_chars:
                return taken, max(found, num_tokens)
            ids = self.encoder.encode_piece(piece)
            found += len(ids)
            taken.append((piece, ids))
            if found >= num_tokens:
                break
        return taken, found

    def _remember(self, key: DocumentKey, anchor: _Anchor) -> None:
        anchors = self._anchors.setdefault(key, [])
        if anchor in anchors:
            anchors.remove(anchor)
        anchors.insert(0, anchor)
        del anchors[_MAX_ANCHORS_PER_DOCUMENT:]
        self._anchors.move_to_end(key)
        if len(self._anchors) > _MAX_DOCUMENTS:
            self._anchors.popitem(last=False)

    @property
    def _max_line_chars(self) -> int:
        return min(_MAX_LINE_CHARS, max(64, self.budget.num_tokens * 4))

    @property
    def _max_chars(self) -> int:
        return self.budget.num_tokens * MAX_CHARS_PER_TOKEN


def _fit(pieces: list[Piece], num_tokens: int) -> list[Piece]:
    """The first parts that together have at most ``num_tokens``."""
    kept: list[Piece] = []
    for piece, ids in pieces:
        num_tokens -= len(ids)
        if num_tokens < 0:
            break
        kept.append((piece, ids))
    return kept


def last_tokens(ids: list[int], num_tokens: int) -> list[int]:
    """The last ``num_tokens`` or fewer, from a multiple of a step on, so that the first one stays as ids grow."""
    excess = max(0, len(ids) - num_tokens)
    step = max(1, min(64, num_tokens // 4))
    return ids[-(-excess // step) * step :]


def _raw_length(text: str, num_chars: int, *, start: int | None = None, end: int | None = None) -> int:
    """Length in the document of a text with ``num_chars`` characters, where ``\\r\\n`` counts as one."""
    length = num_chars
    while True:
        first, last = (start, start + length) if start is not None else (max(0, (end or 0) - length), end or 0)
        longer = num_chars + text.count("\r\n", first, last)
        if longer == length:
            return length
        length = longer


def _is_line_start(text: str, offset: int) -> bool:
    return offset == 0 or text[offset - 1] == "\n"


def _is_line_end(text: str, offset: int) -> bool:
    return offset == len(text) or text[offset] in "\r\n" or text[offset - 1] == "\n"
