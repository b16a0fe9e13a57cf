"""One request from snapshot to suggestions: prompt, decode until a stop rule, clean up. No thread, no queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from forelook.completion.cursor.cleanup import CleanText, clean, next_line, to_suggestion
from forelook.completion.cursor.languages import language_for
from forelook.completion.cursor.stopping import CursorContext, find_end, look_around, wants_block
from forelook.completion.document_store import Document, model_text
from forelook.completion.prompt.prompt import PromptBudget, PromptBuilder, PromptText
from forelook.completion.request import (
    CompletionRequest,
    CompletionResult,
    MultiLine,
    RequestStats,
    SelectedCompletion,
    Suggestion,
    TriggerKind,
)
from forelook.completion.sequences import CachedSequence, SequencePool
from forelook.completion.settings import DecodingMethod, EngineSettings
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.draft import DraftSource
from forelook.decoding.drafting.drafter import Drafter, NoDrafts
from forelook.decoding.drafting.tree_drafter import DraftMemory, TreeDrafter
from forelook.decoding.limits import GREEDY, FinishReason, Limits, SamplingParams
from forelook.decoding.lookahead.published import PublishedDrafter
from forelook.decoding.loop import DecodeLoop, decode
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.errors import RequestCancelledError
from forelook.model.infill import InfillFormat
from forelook.model.text_stream import TextStream
from forelook.model.token_healing import Healing, TokenHealer
from forelook.model.tokenizer import CodeTokenizer

_LOOK_AROUND_CHARS = 64_000
_MAX_ATTEMPTS_PER_SUGGESTION = 2
_MAX_CPU_PROMPT_TOKENS = 1024
_MAX_PROMPT_TOKENS = 8192
_MIN_TOKENS_FOR_CONTEXT = 1500
_DRAFT_CONTEXT_TOKENS = 512


class CompletionModel(Protocol):
    """What completion needs of a loaded model."""

    @property
    def tokenizer(self) -> CodeTokenizer:
        """Text to ids and back."""
        ...

    @property
    def infill(self) -> InfillFormat:
        """How a prompt is put together."""
        ...

    @property
    def healer(self) -> TokenHealer:
        """Token healing."""
        ...

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """What ends a middle."""
        ...

    @property
    def max_positions(self) -> int:
        """Most tokens of prompt and output together."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        ...

    def new_sequence(self, max_positions: int | None = None) -> CachedSequence:
        """A sequence with its own KV cache."""
        ...


@dataclass(frozen=True, slots=True)
class Aids:
    """What helps one request beyond its document.

    Attributes:
        context: texts of other files, most useful first.
        sources: draft sources.
        memory: what earlier requests of the workspace taught the drafter.
    """

    context: Sequence[str] = ()
    sources: Sequence[DraftSource] = ()
    memory: DraftMemory | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """When a request arrived, when it must end, who may end it, and who listens.

    Attributes:
        arrived_s, deadline_s: ``time.monotonic()`` values.
        is_cancelled: asked before every forward.
        on_partial: given all text generated so far, from the cursor on, as often as the settings say.
        on_cancelled: told what a cancelled request had cost.
    """

    arrived_s: float
    deadline_s: float | None = None
    is_cancelled: Callable[[], bool] = lambda: False
    on_partial: Callable[[str], None] = lambda _text: None
    on_cancelled: Callable[[RequestStats], None] = lambda _stats: None


@dataclass(slots=True)
class _Generation:
    """One pass of the decoding loop."""

    raw: str
    finish_reason: str
    interrupted: bool


@dataclass(slots=True)
class _Prepared:
    """A request made ready to run."""

    cursor: CursorContext
    multi_line: bool
    prompt: PromptText
    prompt_ids: list[int]
    healing: Healing
    stats: DecodingStats = field(default_factory=DecodingStats)


class Completer:
    """Runs requests on one model, one at a time."""

    def __init__(
        self,
        model: CompletionModel,
        settings: EngineSettings,
        *,
        budget: StepBudget | None = None,
        loop: DecodeLoop = decode,
    ) -> None:
        self._model = model
        self._loop = loop
        self._settings = settings
        self._budget = StepBudget() if budget is None else budget
        self.sequences = SequencePool(model.new_sequence, settings.kv_cache_bytes)
        num_tokens = self._max_prompt_tokens()
        # Below some two thousand tokens other files push out text of the file itself, which is worth more.
        self.wants_context = settings.context_share > 0 and num_tokens >= _MIN_TOKENS_FOR_CONTEXT
        context_share = settings.context_share if self.wants_context else 0.0
        prompt_budget = PromptBudget(num_tokens, settings.suffix_share, context_share)
        self.prompts = PromptBuilder(model.tokenizer, prompt_budget, model.infill.file_separator_id)
        sentinels = {part for part in model.infill.template if isinstance(part, int)}
        self._boundary_ids = frozenset(sentinels | model.stop_token_ids)

    def complete(self, document: Document, request: CompletionRequest, watch: Watch, aids: Aids) -> CompletionResult:
        """Answer a request.

        Raises:
            PositionError: the cursor is outside the document.
            RequestCancelledError: ``watch`` said so.
        """
        started = time.monotonic()
        document.check_offset(request.offset)
        offset = request.offset
        if request.selected is not None:
            selection = _with_selection(document, offset, request.selected)
            if selection is None:
                return _nothing("selection_does_not_extend", watch, started)
            document, offset = selection
        prepared = self._prepare(document, offset, request, aids)
        if not prepared.prompt_ids or not _has_text(prepared.prompt, aids):
            return _nothing("empty_prompt", watch, started)
        ready = time.monotonic()
        try:
            cleaned, finish_reason = self._generate_all(prepared, request, watch, aids)
        except RequestCancelledError:
            watch.on_cancelled(_request_stats(prepared.stats, watch.arrived_s, started, ready))
            raise
        suggestions = tuple(self._place(prepared.cursor, text, offset, request) for text in cleaned)
        stats = _request_stats(prepared.stats, watch.arrived_s, started, ready)
        raw_tail = cleaned[0].unused_tail if cleaned else ""
        unused = ""
        if raw_tail and request.selected is None:
            before, after = _around(document.text, offset)
            unused = next_line(language_for(document.language_id), before + cleaned[0].text, after, raw_tail)
        return CompletionResult(suggestions, unused, finish_reason, stats, raw_tail)

    def raw_middle(self, document: Document, offset: int, max_new_tokens: int) -> str:
        """What the model says at ``offset`` until it stops itself: no stop rule, no clean-up."""
        prepared = self._prepare(document, offset, CompletionRequest(document.key, document.version, offset), Aids())
        limits = Limits(max_new_tokens + prepared.healing.num_dropped, self._model.stop_token_ids)
        stream = TextStream(self._model.tokenizer, skip=prepared.healing.forced)
        steps = self._steps(prepared, limits, Aids(), GREEDY, DecodingStats())
        return "".join(stream.push(ids) for ids in steps) + stream.finish()

    def prefill(self, document: Document, offset: int, aids: Aids, is_cancelled: Callable[[], bool]) -> tuple[int, int]:
        """Bring the prompt at ``offset`` into a KV cache; returns how many tokens that took, and how many forwards."""
        request = CompletionRequest(document.key, document.version, offset)
        prepared = self._prepare(document, offset, request, aids)
        sequence = self.sequences.take(prepared.prompt_ids)
        limits = Limits(max_new_tokens=1, is_cancelled=is_cancelled)
        stats = DecodingStats()
        # the loop, and not the plain one: ranks that decode together need the prompt in each cache
        for _ in self._loop(DecodeRequest(prepared.prompt_ids, limits, prefill_chunk=64), sequence, NoDrafts(), stats):
            pass
        return len(sequence.cached_ids) - stats.num_reused_tokens, stats.num_forwards

    def num_uncached(self, document: Document, offset: int, aids: Aids) -> int:
        """How many tokens of the prompt at ``offset`` no KV cache holds."""
        request = CompletionRequest(document.key, document.version, offset)
        prepared = self._prepare(document, offset, request, aids)
        return len(prepared.prompt_ids) - self.sequences.best_overlap(prepared.prompt_ids)

    def _prepare(self, document: Document, offset: int, request: CompletionRequest, aids: Aids) -> _Prepared:
        before, after = _around(document.text, offset)
        cursor = look_around(language_for(document.language_id), before, after)
        prompt = self.prompts.build(document, offset, aids.context)
        healing = self._model.healer.heal(prompt.prefix_ids)
        prefix_ids = prompt.prefix_ids[: len(prompt.prefix_ids) - healing.num_dropped]
        ids = self._model.infill.build(prefix_ids, prompt.suffix_ids, prompt.context_ids)
        if request.multi_line is MultiLine.AUTO:
            multi_line = wants_block(cursor, invoked=request.trigger is TriggerKind.INVOKED)
        else:
            multi_line = request.multi_line is MultiLine.ALWAYS and cursor.rest_closes
        return _Prepared(cursor, multi_line, replace(prompt, prefix_ids=prefix_ids), ids, healing)

    def _generate_all(
        self, prepared: _Prepared, request: CompletionRequest, watch: Watch, aids: Aids
    ) -> tuple[list[CleanText], str]:
        """The greedy suggestion, and for an explicit request different sampled ones beside it."""
        wanted = max(1, request.num_suggestions if request.trigger is TriggerKind.INVOKED else 1)
        found: list[CleanText] = []
        finish_reason = ""
        attempts = 1 if wanted == 1 else 1 + _MAX_ATTEMPTS_PER_SUGGESTION * (wanted - 1)
        for attempt in range(attempts):
            sampling = (
                GREEDY
                if attempt == 0
                else SamplingParams(self._settings.sampling_temperature, top_p=0.95, seed=attempt)
            )
            quiet = watch if attempt == 0 else replace(watch, on_partial=lambda _text: None)
            generation = self._generate(prepared, request, quiet, aids, sampling)
            cleaned = clean(
                prepared.cursor,
                generation.raw,
                multi_line=prepared.multi_line,
                interrupted=generation.interrupted,
            )
            if attempt == 0:
                finish_reason = generation.finish_reason
            if cleaned is not None and cleaned.text not in [other.text for other in found]:
                found.append(cleaned)
            if len(found) >= wanted or generation.finish_reason == FinishReason.DEADLINE.value:
                break
        return found, finish_reason

    def _generate(
        self, prepared: _Prepared, request: CompletionRequest, watch: Watch, aids: Aids, sampling: SamplingParams
    ) -> _Generation:
        settings, cursor = self._settings, prepared.cursor
        default = settings.max_block_tokens if prepared.multi_line else settings.max_line_tokens
        limits = Limits(
            max_new_tokens=(request.max_new_tokens or default) + prepared.healing.num_dropped,
            stop_token_ids=self._model.stop_token_ids,
            deadline_s=watch.deadline_s,
            is_cancelled=watch.is_cancelled,
        )
        stream = TextStream(self._model.tokenizer, skip=prepared.healing.forced)
        stats = DecodingStats()
        raw, end = "", None
        told_s = time.monotonic()
        steps = self._steps(prepared, limits, aids, sampling, stats)
        for ids in steps:
            raw += stream.push(ids)
            if not raw:
                continue
            end = find_end(cursor, raw, multi_line=prepared.multi_line)
            if end is not None:
                break
            if time.monotonic() - told_s >= settings.partial_every_s:
                watch.on_partial(raw)
                told_s = time.monotonic()
        prepared.stats += stats
        if end is not None:
            return _Generation(raw, "scope_end", interrupted=False)
        raw += stream.finish()
        reason = stats.finish_reason or FinishReason.STOP_TOKEN
        if reason is FinishReason.CANCELLED:
            raise RequestCancelledError("cancelled")
        return _Generation(raw, reason.value, interrupted=reason is not FinishReason.STOP_TOKEN)

    def _steps(
        self, prepared: _Prepared, limits: Limits, aids: Aids, sampling: SamplingParams, stats: DecodingStats
    ) -> Iterator[list[int]]:
        sequence = self.sequences.take(prepared.prompt_ids)
        request = DecodeRequest(
            prepared.prompt_ids,
            limits,
            sampling,
            prepared.healing.constraint,
            context=prepared.prompt.prefix_ids[-_DRAFT_CONTEXT_TOKENS:],
            boundary_ids=self._boundary_ids,
        )
        drafter: Drafter
        if self._settings.method is DecodingMethod.AUTOREGRESSIVE:
            return autoregressive(request, sequence, stats)
        if self._settings.method is DecodingMethod.PUBLISHED:
            drafter = PublishedDrafter(request, self._settings.published)
        else:
            drafter = TreeDrafter(request, sequence, sources=aids.sources, budget=self._budget, memory=aids.memory)
        return self._loop(request, sequence, drafter, stats)

    def _place(self, cursor: CursorContext, cleaned: CleanText, offset: int, request: CompletionRequest) -> Suggestion:
        selected = request.selected
        if selected is None:
            return to_suggestion(cursor, cleaned, offset)
        # The text stands behind the selection, which replaces its own range.
        return Suggestion(selected.text + cleaned.text, selected.start, selected.end + cleaned.num_covered)

    def _max_prompt_tokens(self) -> int:
        model, settings = self._model, self._settings
        reserve = settings.max_block_tokens + model.infill.num_sentinels + 16
        room = max(model.max_positions - reserve, 16)
        most = _MAX_CPU_PROMPT_TOKENS if model.device.type == "cpu" else _MAX_PROMPT_TOKENS
        return min(room, settings.max_prompt_tokens or most)


def _around(text: str, offset: int) -> tuple[str, str]:
    """What is looked at before and after a cursor."""
    before = model_text(text[max(0, offset - _LOOK_AROUND_CHARS) : offset])
    return before, model_text(text[offset : offset + _LOOK_AROUND_CHARS + 1])


def _with_selection(document: Document, offset: int, selected: SelectedCompletion) -> tuple[Document, int] | None:
    """The document as if the popup's selection were accepted; ``None`` when that would change what was typed."""
    document.check_offset(selected.start)
    document.check_offset(selected.end)
    typed = document.text[selected.start : offset]
    if not selected.start <= offset <= selected.end or not selected.text.startswith(typed):
        return None
    text = document.text[: selected.start] + selected.text + document.text[selected.end :]
    return replace(document, text=text), selected.start + len(selected.text)


def _has_text(prompt: PromptText, aids: Aids) -> bool:
    return bool(prompt.prefix.strip()) or bool(prompt.suffix_ids) or bool(aids.context)


def _nothing(reason: str, watch: Watch, started: float) -> CompletionResult:
    total = (time.monotonic() - watch.arrived_s) * 1e3
    return CompletionResult((), "", reason, RequestStats(queue_ms=(started - watch.arrived_s) * 1e3, total_ms=total))


def _request_stats(stats: DecodingStats, arrived: float, started: float, ready: float) -> RequestStats:
    return RequestStats(
        queue_ms=(started - arrived) * 1e3,
        prompt_ms=(ready - started) * 1e3,
        prefill_ms=stats.prefill_s * 1e3,
        decode_ms=stats.decode_s * 1e3,
        total_ms=(time.monotonic() - arrived) * 1e3,
        num_prompt_tokens=stats.num_prompt_tokens,
        num_reused_tokens=stats.num_reused_tokens,
        num_prefill_tokens=max(0, stats.num_prompt_tokens - stats.num_reused_tokens),
        num_forwards=stats.num_forwards,
        num_steps=stats.num_steps,
        num_generated_tokens=stats.num_generated_tokens,
        num_drafted_tokens=stats.num_drafted_tokens,
        num_accepted_tokens=stats.num_accepted_tokens,
        tokens_per_step=stats.tokens_per_step,
        accepted_by_origin={origin.value: count for origin, count in stats.accepted_by_origin.items()},
    )
