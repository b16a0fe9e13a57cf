"""One request without a document: from its prompt to its text. It can pause between any two forwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

from forelook.completion.completer import Completer
from forelook.completion.cursor.cleanup import CleanText, clean
from forelook.completion.cursor.stopping import CursorContext, find_end, look_around, wants_block
from forelook.completion.document_store import Document
from forelook.completion.prompt.stateless import StatelessPrompt
from forelook.completion.request_costs import request_stats
from forelook.completion.requests import Hints, PromptIds
from forelook.completion.sequences import CachedSequence
from forelook.completion.stop_rules import StopRules
from forelook.decoding.limits import Limits, SamplingParams
from forelook.decoding.prefill import DRAFTED_TAIL
from forelook.decoding.stats import DecodingStats
from forelook.errors import ContextOverflowError, RequestCancelledError
from forelook.finish_reason import FinishReason
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.languages import language_for
from forelook.model.loading import LoadedModel
from forelook.model.text_stream import TextStream
from forelook.protocol.generation import GenerationParams, GenerationResult, InfillPrompt
from forelook.text import common_prefix

_MIN_ROOM = 8  # positions for the output, without which a prompt is refused; chosen, not measured
_LAST_PART = 32  # tokens of a long prompt that run with the first drafts; chosen, not measured


@dataclass(frozen=True, slots=True)
class GenerationControl:
    """Cancellation and progress of one generation.

    Attributes:
        arrived_s: a ``time.monotonic()`` value.
        is_cancelled: called before every forward.
        should_pause: called before every forward of a long prompt but the first since the last pause.
        is_shared: whether others may come for the device meanwhile; called before each part of a long prompt.
        is_superseded: whether warming a cache may end where it is: a request waits that may need something else.
        on_text: called with each piece of the output.
    """

    arrived_s: float
    is_cancelled: Callable[[], bool] = lambda: False
    should_pause: Callable[[], bool] = lambda: False
    is_shared: Callable[[], bool] = lambda: False
    is_superseded: Callable[[], bool] = lambda: False
    on_text: Callable[[str], None] = lambda _text: None


class _Output(Protocol):
    """Turns generated text into the answer."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is wanted."""
        ...

    @property
    def stopping_text(self) -> str:
        """The stop text that ended it; empty if none did."""
        ...

    def push(self, text: str) -> str:
        """Add generated text; returns what can be passed on already."""
        ...

    def finish(self, reason: FinishReason) -> str:
        """The rest of the answer; the reason is the loop's."""
        ...


class _RawOutput:
    """What the model says, up to the request's own limits."""

    def __init__(self, params: GenerationParams) -> None:
        self._rules = StopRules(params.stop, params.min_indent)
        self._line_end_s = None if params.line_end_after_ms is None else params.line_end_after_ms / 1e3
        self._started_s = time.monotonic()

    @property
    def has_ended(self) -> bool:
        return self._rules.has_ended

    @property
    def stopping_text(self) -> str:
        return self._rules.stopping_text

    def push(self, text: str) -> str:
        is_late = self._line_end_s is not None and time.monotonic() - self._started_s >= self._line_end_s
        return self._rules.push(text, ends_with_line=is_late)

    def finish(self, reason: FinishReason) -> str:
        del reason
        return self._rules.finish()


class _CleanOutput:
    """What an editor gets: to the end of the scope, fitted to the text around the cursor."""

    stopping_text = ""

    def __init__(self, cursor: CursorContext, *, sees_suffix: bool, stop: tuple[str, ...]) -> None:
        self._cursor = cursor
        self._multi_line = wants_block(cursor, invoked=False)
        self._sees_suffix = sees_suffix
        self._stop = stop
        self._raw = ""
        self.has_ended = False

    def push(self, text: str) -> str:
        self._raw += text
        if self._raw and find_end(self._cursor, self._raw, multi_line=self._multi_line) is not None:
            self.has_ended = True
        return ""

    def finish(self, reason: FinishReason) -> str:
        ended = reason is FinishReason.STOP_TOKEN and not self.has_ended
        cleaned = clean(
            self._cursor,
            self._raw,
            multi_line=self._multi_line,
            interrupted=not (ended or self.has_ended),
            ended=ended and self._sees_suffix,
        )
        text = "" if cleaned is None else _insertable(self._cursor, cleaned)
        return text[: min([place for stop in self._stop if (place := text.find(stop)) >= 0], default=len(text))]


def _insertable(cursor: CursorContext, cleaned: CleanText) -> str:
    """A cleaned text without what the rest of the line has already: these clients only insert."""
    text, covered = cleaned.text, cursor.rest[: cleaned.num_covered]
    end = len(text)
    for character in reversed(covered):
        place = text.rfind(character, 0, end)
        end = end if place < 0 else place
    return text[:end].rstrip(" \t") if covered else text


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A prompt that is ready to run.

    Attributes:
        prompt: its ids.
        num_healed: tokens of the output that only repeat the prompt.
        forced: their bytes.
        output: turns tokens' text into the answer.
        is_truncated: whether text of the request is missing.
    """

    prompt: PromptIds
    num_healed: int
    forced: bytes
    output: _Output
    is_truncated: bool


class Generation:
    """Runs one request without a document.

    Args:
        model: loaded.
        completer: of the request's user.
        params: what to generate.
        control: cancellation and progress.
        make_hints: what drafts come from besides the prompt, given the tokens of the request's other files.

    Attributes:
        result: once the request has run to its end.
    """

    def __init__(
        self,
        model: LoadedModel,
        completer: Completer,
        params: GenerationParams,
        control: GenerationControl,
        make_hints: Callable[[list[int]], Hints],
    ) -> None:
        self._model = model
        self._completer = completer
        self._params = params
        self._control = control
        self._make_hints = make_hints
        self._stats = DecodingStats()
        self._started_s = time.monotonic()
        self.result: GenerationResult | None = None

    def run(self) -> Generator[None, None, None]:
        """Generate; yields at every place where it can pause, and may be closed there.

        Raises:
            ContextOverflowError: the prompt leaves no room for an output.
            RequestCancelledError: it was cancelled.
        """
        params = self._params
        self._completer.resize_prompts()
        stateless = self._completer.stateless.build(params.prompt)
        prepared = self._prepare(stateless)
        ids = prepared.prompt.ids
        ready_s = time.monotonic()
        if not ids:
            self.result = GenerationResult("", FinishReason.EMPTY_PROMPT)
            return
        room = self._completer.num_positions - len(ids)
        if room < _MIN_ROOM:
            raise ContextOverflowError(
                f"the prompt has {len(ids)} tokens, over the limit of {self._completer.num_positions - _MIN_ROOM}; "
                "send a shorter one"
            )
        text, reason = "", FinishReason.MAX_TOKENS
        with self._completer.sequences.holding(ids) as sequence:
            num_reused = min(common_prefix(list(sequence.cached_ids), ids), len(ids) - 1)
            is_warming = params.max_new_tokens == 0
            if is_warming:
                for _ in self._fill(sequence, ids):
                    yield
                    if self._control.is_superseded():
                        break
            else:
                if len(ids) - num_reused > DRAFTED_TAIL:
                    yield from self._fill(sequence, ids[:-_LAST_PART])
                for piece in self._decode(sequence, prepared, stateless.file_ids):
                    text += piece
                    if piece:
                        self._control.on_text(piece)
                    yield
                reason = self._stats.finish_reason or FinishReason.STOP_TOKEN
            self._stats.num_prompt_tokens, self._stats.num_reused_tokens = len(ids), num_reused
            num_new = self._stats.num_generated_tokens - prepared.num_healed
            self._stats.num_generated_tokens = max(0, num_new)
            self.result = GenerationResult(
                text,
                reason,
                prepared.output.stopping_text,
                len(sequence.cached_ids),
                prepared.is_truncated,
                request_stats(self._stats, self._control.arrived_s, self._started_s, ready_s),
            )

    def _fill(self, sequence: CachedSequence, ids: list[int]) -> Iterator[None]:
        """Run a long prompt in parts, so that others need not wait for it."""
        while common_prefix(list(sequence.cached_ids), ids) < len(ids):
            is_first = True

            def must_stop() -> bool:
                nonlocal is_first
                paused, is_first = not is_first and self._control.should_pause(), False
                return paused or self._control.is_cancelled()

            stats, started_s = DecodingStats(), time.perf_counter()
            # The request that a cache is warmed for may come before the warming has ended.
            is_shared = self._params.max_new_tokens == 0 or self._control.is_shared()
            chunk_size = self._completer.shared_chunk if is_shared else None
            self._completer.fill(sequence, ids, must_stop, stats, chunk_size=chunk_size)
            stats.prefill_s = time.perf_counter() - started_s
            stats.num_steps = stats.num_generated_tokens = 0  # the token after a prompt that is only cached
            self._stats += stats
            self._check_cancelled()
            yield

    def _decode(self, sequence: CachedSequence, prepared: _Prepared, file_ids: list[int]) -> Iterator[str]:
        """The pieces of the answer, one per step; some are empty."""
        params, output = self._params, prepared.output
        limits = Limits(
            params.max_new_tokens + prepared.num_healed,
            self._model.stop_token_ids,
            is_cancelled=self._control.is_cancelled,
        )
        sampling = SamplingParams(params.temperature, params.top_k, params.top_p, params.seed)
        stream, stats = TextStream(self._model.tokenizer, skip=prepared.forced), DecodingStats()
        steps = self._completer.decode(sequence, prepared.prompt, self._make_hints(file_ids), limits, sampling, stats)
        for ids in steps:
            piece = output.push(stream.push(ids))
            if output.has_ended:
                break
            yield piece
            self._check_cancelled()
        else:
            piece = output.push(stream.finish())
        if stats.finish_reason is FinishReason.CANCELLED:
            raise RequestCancelledError("cancelled")
        loop_reason = stats.finish_reason or FinishReason.STOP_TOKEN
        piece += output.finish(loop_reason)
        self._completer.observe(stats)
        self._stats += stats
        self._stats.finish_reason = FinishReason.CLOSED if output.has_ended else loop_reason
        yield piece

    def _check_cancelled(self) -> None:
        if self._control.is_cancelled():
            raise RequestCancelledError("cancelled")

    # --- the prompt

    def _prepare(self, stateless: StatelessPrompt) -> _Prepared:
        params = self._params
        around = self._text_around() if params.clean else None
        if around is not None:
            return self._prepare_clean(*around)
        healing = self._completer.healer.heal(stateless.cursor_ids if stateless.infill is not None else ())
        prompt = stateless.without_last(healing.num_dropped)
        ids = PromptIds(prompt.ids, prompt.before_ids, prompt.suffix_ids, healing.constraint)
        return _Prepared(ids, healing.num_dropped, healing.forced, _RawOutput(params), prompt.is_truncated)

    def _prepare_clean(self, before: str, after: str) -> _Prepared:
        """The prompt that an editor with this document would get."""
        params = self._params
        key = DocumentKey(0, "")
        document = Document(WorkspaceKey("", ""), key, params.language_id, 0, before + after)
        prompt = self._completer.prepare(document, len(before))
        self._completer.forget(key)
        cursor = look_around(language_for(params.language_id), before, after)
        output = _CleanOutput(cursor, sees_suffix=self._model.infill.sees_suffix, stop=params.stop)
        healing = prompt.healing
        ids = PromptIds(prompt.ids, prompt.text.prefix_ids, prompt.text.suffix_ids, healing.constraint)
        return _Prepared(ids, healing.num_dropped, healing.forced, output, is_truncated=False)

    def _text_around(self) -> tuple[str, str] | None:
        """The text before and after the cursor; ``None`` where the prompt consists of ids."""
        prompt = self._params.prompt
        if isinstance(prompt, InfillPrompt):
            return prompt.prefix + prompt.middle, prompt.suffix
        formatted = self._completer.stateless.parse(prompt)
        if formatted is not None:
            return formatted.prefix, formatted.suffix
        texts = [part for part in prompt.parts if isinstance(part, str)]
        return ("".join(texts), "") if len(texts) == len(prompt.parts) else None
