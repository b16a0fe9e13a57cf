"""Prompts of requests without a document: which part of their text is used, as ids.

The windows follow from the request and the size of prompts alone, so that equal requests have equal answers. They begin
and end at lines that the text itself determines: as a client's window slides over a file, ours mostly stay where they
are, and the KV cache of one request serves the next.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from forelook.completion.document_store import Document, model_text
from forelook.completion.prompt.files import FileContext
from forelook.completion.prompt.prompt import MAX_CHARS_PER_TOKEN, Piece, PromptBuilder, PromptFiles, last_tokens
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.languages import UNKNOWN_LANGUAGE
from forelook.model.formatted_prompts import FormattedPrompt, FormattedPrompts
from forelook.model.infill import InfillFormat
from forelook.model.tokenizer import CodeTokenizer
from forelook.protocol.generation import InfillPrompt, PromptFile, RawPrompt

_MIN_FILL = 0.7  # of a window whose text is longer; chosen, not measured
# The names that llama.cpp gives the file at the cursor and its repository: the request says neither.
_NAMELESS = Document(
    WorkspaceKey("", "file:///myproject"), DocumentKey(1, "file:///myproject/filename"), UNKNOWN_LANGUAGE, 0, ""
)


@dataclass(frozen=True, slots=True)
class StatelessPrompt:
    """A prompt as ids, by its parts.

    Attributes:
        infill: joins the parts; ``None`` where the prompt is ``prefix_ids`` alone.
        prefix_ids, suffix_ids, context_ids: as for :meth:`InfillFormat.build`.
        middle_ids: text before the cursor that follows all of these.
        file_ids: tokens of other files, for drafts.
        is_truncated: whether text was left out.
    """

    infill: InfillFormat | None
    prefix_ids: list[int]
    suffix_ids: list[int]
    context_ids: list[int]
    middle_ids: list[int]
    file_ids: list[int]
    is_truncated: bool = False

    @property
    def ids(self) -> list[int]:
        """The whole prompt."""
        if self.infill is None:
            return [*self.prefix_ids, *self.middle_ids]
        return [*self.infill.build(self.prefix_ids, self.suffix_ids, self.context_ids), *self.middle_ids]

    @property
    def before_ids(self) -> list[int]:
        """The text before the cursor, which the output continues."""
        return [*self.prefix_ids, *self.middle_ids]

    @property
    def cursor_ids(self) -> list[int]:
        """The tokens directly before the cursor."""
        return self.middle_ids or self.prefix_ids

    def without_last(self, num_tokens: int) -> StatelessPrompt:
        """Drop the last of ``cursor_ids``."""
        if num_tokens == 0:
            return self
        if self.middle_ids:
            return replace(self, middle_ids=self.middle_ids[:-num_tokens])
        return replace(self, prefix_ids=self.prefix_ids[:-num_tokens])


class StatelessPrompts:
    """Makes prompts for one model.

    Args:
        tokenizer: of the model.
        prompts: those of documents, whose budget and tokenized lines these share.
        formats: infill formats of the model, its default first.
    """

    def __init__(self, tokenizer: CodeTokenizer, prompts: PromptBuilder, formats: Sequence[InfillFormat]) -> None:
        self._prompts = prompts
        self._encoder = prompts.encoder
        self._infill = formats[0]
        self._formatted = FormattedPrompts(tokenizer, formats)

    def parse(self, prompt: RawPrompt) -> FormattedPrompt | None:
        """A raw prompt that is a whole prompt in a format of the model, taken apart; ``None`` for any other."""
        if not prompt.may_be_formatted or len(prompt.parts) != 1 or not isinstance(prompt.parts[0], str):
            return None
        return self._formatted.parse(prompt.parts[0])

    def build(self, prompt: RawPrompt | InfillPrompt) -> StatelessPrompt:
        """The ids of a prompt. Only that of an infill prompt may be truncated."""
        if isinstance(prompt, InfillPrompt):
            return self._build_infill(prompt)
        formatted = self.parse(prompt)
        return self._build_raw(prompt) if formatted is None else self._build_formatted(formatted)

    def _build_raw(self, prompt: RawPrompt) -> StatelessPrompt:
        bos = self._infill.bos_token_id
        ids: list[int] = []
        for part in prompt.parts:
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self._encoder.encode(model_text(part), starts_document=not ids)
        # Whoever sends ids has decided where the sequence begins.
        begins = bos is not None and isinstance(prompt.parts[0], str) if prompt.parts else False
        return StatelessPrompt(None, [bos, *ids] if begins and bos is not None else ids, [], [], [], [])

    def _build_formatted(self, prompt: FormattedPrompt) -> StatelessPrompt:
        context_ids: list[int] = []
        file_ids: list[int] = []
        for part in prompt.context:
            ids = [part] if isinstance(part, int) else self._encoder.encode(model_text(part))
            context_ids += ids
            if not isinstance(part, int):
                file_ids += ids
        prefix_ids = self._encoder.encode(model_text(prompt.prefix), starts_document=True)
        suffix_ids = self._encoder.encode(model_text(prompt.suffix))
        return StatelessPrompt(prompt.infill, prefix_ids, suffix_ids, context_ids, [], file_ids)

    def _build_infill(self, prompt: InfillPrompt) -> StatelessPrompt:
        middle_ids = self._encoder.encode(model_text(prompt.middle))
        budget = self._prompts.budget
        middle_ids = middle_ids[-(budget.num_tokens // 2) :]  # a line of many thousand characters
        # The most useful file is the last of a request and the first of a prompt's context.
        others = [_context_of(file) for file in reversed(prompt.files)]
        files = PromptFiles(self._encoder, self._infill.files, _NAMELESS, others, joins=self._infill.joins_context)
        total = max(budget.num_tokens - len(middle_ids) - files.num_label_tokens, 1)
        budget = replace(budget, num_tokens=total)
        before, is_cut_before = self._take(prompt.prefix, total, before=True)
        after, is_cut_after = self._take(prompt.suffix, total, before=False)
        num_before, num_after = _num_tokens(before), _num_tokens(after)
        for_prefix, for_suffix, for_context = budget.split(num_before, num_after, files.num_tokens)
        prefix, suffix = _window(before, for_prefix), _window(after, for_suffix)
        kept = files.that_fit(for_context)
        prefix_text = "".join(piece for piece, _ in reversed(prefix))
        if is_cut_before or len(prefix) < len(before):
            prefix_text = prefix_text.removeprefix("\n")  # the line break before its first line is not the window's
        if prefix or not before:
            prefix_ids = files.encode_prefix(prefix_text, kept)
        else:
            prefix_ids = last_tokens(list(before[0][1]), for_prefix)  # one line is longer than the window
        suffix_ids = [token for _, ids in suffix for token in ids]
        if after and not suffix:
            suffix_ids = list(after[0][1])[:for_suffix]
        is_truncated = is_cut_before or is_cut_after or len(prefix) < len(before) or len(suffix) < len(after)
        file_ids = [token for file in prompt.files for token in self._encoder.encode(model_text(file.text))]
        return StatelessPrompt(self._infill, prefix_ids, suffix_ids, kept, middle_ids, file_ids, is_truncated)

    def _take(self, text: str, num_tokens: int, *, before: bool) -> tuple[list[Piece], bool]:
        """The parts of a text next to the cursor, nearest first, and whether there are more than are read."""
        max_chars = num_tokens * MAX_CHARS_PER_TOKEN
        is_cut = len(text) > max_chars
        text = model_text(text[-max_chars:] if before else text[:max_chars])
        pieces = self._encoder.split(text)
        if before:
            pieces.reverse()
        taken: list[Piece] = []
        found = 0
        for piece in pieces:
            ids = self._encoder.encode_piece(piece)
            taken.append((piece, ids))
            found += len(ids)
            if found >= num_tokens:
                break
        return taken, is_cut or len(taken) < len(pieces)


def _context_of(file: PromptFile) -> FileContext:
    text = model_text(file.text)
    return FileContext(file.name, text, f"{file.name}\n{text}\n\n" if file.name else f"{text}\n\n")


def _num_tokens(pieces: Sequence[Piece]) -> int:
    return sum(len(ids) for _, ids in pieces)


def _window(pieces: list[Piece], num_tokens: int) -> list[Piece]:
    """The parts, nearest first, that are used of a text with room for ``num_tokens``."""
    if _num_tokens(pieces) <= num_tokens:
        return pieces
    chosen, lowest, found = 0, 1 << 32, 0
    for count, (piece, ids) in enumerate(pieces, start=1):
        found += len(ids)
        if found > num_tokens:
            break
        # Among the possible ends, the one with the lowest hash stays the end while the text slides.
        nearer = pieces[count - 2][0] if count > 1 else ""
        key = zlib.crc32(f"{piece}\0{nearer}".encode("utf-8", "surrogatepass"))
        if chosen == 0 or found < _MIN_FILL * num_tokens or key <= lowest:
            chosen = count
            lowest = key if found >= _MIN_FILL * num_tokens else 1 << 32
    return pieces[:chosen]
