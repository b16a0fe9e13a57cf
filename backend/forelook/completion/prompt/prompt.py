"""From document and cursor to prompt ids: windows that stay fixed while the user types.

A prompt consists of text before the cursor (the *prefix*), text after it (the *suffix*) and context from other files.
Windows start and end at line breaks. They keep their borders until the text no longer fits, so that the KV cache of one
keystroke serves the next. Text is tokenized line by line with a cache: a keystroke tokenizes only its own line.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from forelook.completion.cursor.brackets import rest_is_closers
from forelook.completion.document_store import Document, model_text
from forelook.keys import DocumentKey
from forelook.model.tokenizer import CodeTokenizer, TextSplitter

# All of these are chosen, not measured.
_MAX_CACHED_LINES = 20_000
_MAX_CACHED_LINE_CHARS = 2_000
_MAX_CHARS_PER_TOKEN = 12  # text beyond this many characters per token of the budget is not read
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
        prefix_ids: its tokens.
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


class PromptBuilder:
    """Chooses the windows of a prompt and tokenizes them. Remembers window borders per document.

    Args:
        tokenizer: of the model.
        budget: maximum number of tokens, and the shares of the parts.
        file_separator_id: the token that precedes each file; ``None`` if the model has no such token.
    """

    def __init__(self, tokenizer: TextTokenizer, budget: PromptBudget, file_separator_id: int | None = None) -> None:
        self.encoder = LineEncoder(tokenizer)
        self._budget = budget
        self._separator = [] if file_separator_id is None else [file_separator_id]
        self._anchors: OrderedDict[DocumentKey, list[_Anchor]] = OrderedDict()

    def forget(self, key: DocumentKey) -> None:
        """Drop the window borders of a closed document."""
        self._anchors.pop(key, None)

    def build(self, document: Document, offset: int, context: Sequence[str] = ()) -> PromptText:
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
        context_ids = [self._separator + self.encoder.encode(chunk) for chunk in context]

        for anchor in self._anchors.get(document.key, ()):
            prompt = self._from_anchor(document, offset, suffix_start, anchored, anchor, context_ids)
            if prompt is not None:
                self._remember(document.key, anchor)
                return prompt
        return self._from_scratch(document, offset, suffix_start, anchored, context_ids)

    def _from_anchor(
        self,
        document: Document,
        offset: int,
        suffix_start: int,
        anchored: bool,
        anchor: _Anchor,
        context_ids: list[list[int]],
    ) -> PromptText | None:
        """The prompt with earlier window borders, if the text still fits and fills them well enough."""
        text, start = document.text, anchor.prefix_start
        end = len(text) - anchor.chars_after_suffix
        if not start <= offset <= suffix_start <= end or not _is_line_start(text, start) or not _is_line_end(text, end):
            return None
        if offset - start > self._max_chars or end - suffix_start > self._max_chars:
            return None
        if anchor.num_context < min(sum(map(len, context_ids)), self._budget.context_tokens):
            return None  # more context has become available
        kept = self._context_that_fits(context_ids, anchor.num_context)
        prefix = model_text(text[start:offset])
        suffix = model_text(text[suffix_start:end])
        if any(len(piece) > self._max_line_chars for part in (prefix, suffix) for piece in self.encoder.split(part)):
            return None
        prefix_ids = self.encoder.encode(prefix, starts_document=True)
        suffix_ids = self.encoder.encode(suffix)
        if len(prefix_ids) + len(suffix_ids) + len(kept) > self._budget.num_tokens:
            return None
        share = self._budget.suffix_share
        if (
            start > 0
            and len(prefix_ids) < _MIN_FILL * (1 - share - self._budget.context_share) * self._budget.num_tokens
        ):
            return None
        if end < len(text) and len(suffix_ids) < _MIN_FILL * share * self._budget.num_tokens:
            return None
        return PromptText(prefix, prefix_ids, suffix_ids, kept, anchored)

    def _from_scratch(
        self, document: Document, offset: int, suffix_start: int, anchored: bool, context_ids: list[list[int]]
    ) -> PromptText:
        text, total = document.text, self._budget.num_tokens
        before = model_text(text[max(0, offset - self._max_chars) : offset])
        after = model_text(text[suffix_start : suffix_start + self._max_chars])
        before_pieces, num_before = self._take(list(reversed(self.encoder.split(before))), total)
        after_pieces, num_after = self._take(self.encoder.split(after), total)
        num_context = sum(map(len, context_ids))
        for_prefix, for_suffix, for_context = self._budget.split(num_before, num_after, num_context)
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
        prefix_ids = _last(self.encoder.encode(prefix, starts_document=True), max(for_prefix, 1))
        suffix_ids = [token for _, ids in suffix_pieces for token in ids]
        if not suffix and after:
            suffix_ids = self.encoder.encode(after[: min(for_suffix * 4, self._max_line_chars)])[:for_suffix]
        kept = self._context_that_fits(context_ids, for_context)
        start = offset - _raw_length(text, len(prefix), end=offset)
        end = suffix_start + _raw_length(text, len(suffix), start=suffix_start)
        self._remember(document.key, _Anchor(start, len(text) - end, for_context))
        return PromptText(prefix, prefix_ids, suffix_ids, kept, anchored)

    def _context_that_fits(self, context_ids: list[list[int]], num_tokens: int) -> list[int]:
        """The texts that fit, the most useful last; with a file separator, one more follows for the document itself."""
        chosen: list[list[int]] = []
        for ids in context_ids:
            if len(ids) <= num_tokens:
                chosen.append(ids)
                num_tokens -= len(ids)
        flat = [token for ids in reversed(chosen) for token in ids]
        return flat + self._separator if flat else flat

    def _take(self, pieces: list[str], num_tokens: int) -> tuple[list[tuple[str, tuple[int, ...]]], int]:
        """Tokenize parts, nearest to the cursor first, until there are ``num_tokens`` or a part is too long.

        Returns:
            The parts, and how many tokens there are; a part that is too long counts as ``num_tokens``.
        """
        taken: list[tuple[str, tuple[int, ...]]] = []
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
        return min(_MAX_LINE_CHARS, max(64, self._budget.num_tokens * 4))

    @property
    def _max_chars(self) -> int:
        return self._budget.num_tokens * _MAX_CHARS_PER_TOKEN


def _fit(pieces: list[tuple[str, tuple[int, ...]]], num_tokens: int) -> list[tuple[str, tuple[int, ...]]]:
    """The first parts that together have at most ``num_tokens``."""
    kept: list[tuple[str, tuple[int, ...]]] = []
    for piece, ids in pieces:
        num_tokens -= len(ids)
        if num_tokens < 0:
            break
        kept.append((piece, ids))
    return kept


def _last(ids: list[int], num_tokens: int) -> list[int]:
    """The last tokens, at most ``num_tokens``; a step fewer, so that the first one stays the first for a while."""
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
