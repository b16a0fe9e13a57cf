"""One request from snapshot to suggestions: prompt, decode until a stop rule, clean up. No thread, no queue."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from forelook.completion.confidence import GeneratedBytes, Sureness
from forelook.completion.cursor.cleanup import CleanText, clean, next_line, to_suggestion
from forelook.completion.cursor.stopping import CursorContext, find_end, look_around, wants_block
from forelook.completion.decoded import Decoded
from forelook.completion.document_store import Document, model_text
from forelook.completion.prompt.files import FileContext
from forelook.completion.prompt.prompt import PromptBudget, PromptBuilder, PromptText
from forelook.completion.prompt.stateless import StatelessPrompts
from forelook.completion.request_costs import request_stats
from forelook.completion.requests import Cancelled, Completed, Hints, PromptIds, RequestControl
from forelook.completion.sequences import CachedSequence, SequencePool
from forelook.config import EngineConfig
from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.drafter import Drafter, NoDrafts
from forelook.decoding.drafting.tree_drafter import TreeDrafter
from forelook.decoding.limits import GREEDY, Limits, SamplingParams
from forelook.decoding.lookahead.published import PublishedDrafter, PublishedSettings
from forelook.decoding.loop import DecodeLoop, decode
from forelook.decoding.prefill import PrefillSpeed
from forelook.decoding.request import PREFILL_CHUNK, DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.finish_reason import FinishReason
from forelook.keys import DocumentKey
from forelook.languages import language_for
from forelook.model.loading import LoadedModel
from forelook.model.text_stream import TextStream
from forelook.model.token_healing import Healing
from forelook.protocol.messages import (
    MAX_NEW_TOKENS,
    CompletionParams,
    CompletionResult,
    MultiLine,
    SelectedCompletion,
    Suggestion,
    TriggerKind,
)

_LOOK_AROUND_CHARS = 256_000  # on each side of the cursor; chosen, not measured
_LOOK_AROUND_STEP = 1_024
_MAX_ATTEMPTS_PER_SUGGESTION = 2  # chosen, not measured
_SAMPLING_TOP_P = 0.95  # chosen, not measured
_PREWARM_CHUNK = 64  # tokens between two looks at the inbox; chosen, not measured
_MAX_CPU_PROMPT_TOKENS = 1024  # measured: docs/decisions.md, "Prompts of at most 1,024 tokens on a CPU"
_MIN_PROMPT_TOKENS = 256  # on a device however slow; chosen, not measured
_FIRST_SHARE = 0.3  # chosen; what it brings: docs/decisions.md, "The first prompt at a place is short"
_MIN_FIRST_TOKENS = 128  # chosen, not measured
_RESIZED_SHARE = 0.25  # chosen, not measured: a window of another size is a cold prompt, so small changes do not count
_MAX_PROMPT_TOKENS = 8192  # chosen, not measured
_OTHER_POSITIONS = 512  # of sentinels, file names and drafts; chosen, not measured
_MIN_TOKENS_FOR_CONTEXT = 1500  # measured: docs/decisions.md, "Cross-file context"; smaller prompts lose own text to it


@dataclass(frozen=True, slots=True)
class PreparedPrompt:
    """A prompt, ready to prefill or to decode from.

    Attributes:
        cursor: what surrounds the cursor.
        text: the prompt's parts; the tokens that healing dropped are not in its prefix.
        ids: the whole prompt.
        healing: how the output starts in place of the dropped tokens.
        is_short: whether it has less text than there is time for, because somebody waits.
    """

    cursor: CursorContext
    text: PromptText
    ids: list[int]
    healing: Healing
    is_short: bool = False


@dataclass(slots=True)
class _Run:
    """One request while it is decoded; ``stats`` sums up its passes."""

    prompt: PreparedPrompt
    hints: Hints
    control: RequestControl
    multi_line: bool
    invoked: bool
    limits: Limits
    sureness: Sureness
    stats: DecodingStats = field(default_factory=DecodingStats)


class Completer:
    """Runs requests on one model, one at a time.

    Args:
        model: loaded.
        config: limits and shares.
        budget: how many drafts a step may carry; ``None`` for a common shape of step costs.
        loop: runs the decode steps.
        prefill: how fast prompts run, which their size follows; updated by every prompt. ``None`` for the largest
            prompts.
    """

    def __init__(
        self,
        model: LoadedModel,
        config: EngineConfig,
        *,
        budget: StepBudget | None = None,
        loop: DecodeLoop = decode,
        prefill: PrefillSpeed | None = None,
    ) -> None:
        self._model = model
        self._prefill = prefill
        self._loop = loop
        self._config = config
        self._budget = StepBudget() if budget is None else budget
        self._most_tokens = self._max_prompt_tokens()
        # A GPU zeroes a cache when it is made: 0.8 GB at the first request for 32,768 positions of a small model.
        self.num_positions = min(model.max_positions, self._most_tokens + MAX_NEW_TOKENS + _OTHER_POSITIONS)
        self.sequences = SequencePool(partial(model.new_sequence, self.num_positions), config.kv_cache_bytes)
        sizes = config.published_sizes
        self._published = None if sizes is None else PublishedSettings(**sizes)
        self.prompts = PromptBuilder(model.tokenizer, self._prompt_budget(), model.infill)
        self._first_prompts = PromptBuilder(
            model.tokenizer, self._first_budget(), model.infill, encoder=self.prompts.encoder
        )
        self.stateless = StatelessPrompts(model.tokenizer, self.prompts, model.infill_formats)
        sentinels = {part for part in model.infill.template if isinstance(part, int)} | model.infill.files.sentinel_ids
        self.healer = model.healer.with_own_memory()
        self._boundary_ids = frozenset(sentinels | model.stop_token_ids)

    def prepare(self, document: Document, offset: int, context: Sequence[FileContext] = ()) -> PreparedPrompt:
        """Build the prompt at ``offset``, with ``context`` from other files, most useful first.

        Raises:
            PositionError: the cursor is outside the document.
        """
        return self._prepare(self.prompts, document, offset, context)

    def prepare_soon(self, document: Document, offset: int, context: Sequence[FileContext] = ()) -> PreparedPrompt:
        """Build the prompt for somebody who waits: a short one where more of the whole one would have to be run.

        Raises:
            PositionError: the cursor is outside the document.
        """
        whole = self.prepare(document, offset, context)
        # In one cache the two would take turns, and each key would run its prompt from the start.
        if not self._config.prewarm or self._prefill is None or not self.sequences.holds_several:
            return whole
        num_pending, budget = self.num_uncached(whole), self._first_prompts.budget
        if num_pending <= budget.num_tokens:
            return whole
        short = self._prepare(self._first_prompts, document, offset)
        return replace(short, is_short=True) if self.num_uncached(short) < num_pending else whole

    def _prepare(
        self, prompts: PromptBuilder, document: Document, offset: int, context: Sequence[FileContext] = ()
    ) -> PreparedPrompt:
        document.check_offset(offset)
        self.resize_prompts()
        before, after = _around(document.text, offset)
        cursor = look_around(language_for(document.language_id), before, after)
        text = prompts.build(document, offset, context)
        healing = self.healer.heal(text.prefix_ids)
        prefix_ids = text.prefix_ids[: len(text.prefix_ids) - healing.num_dropped]
        ids = self._model.infill.build(prefix_ids, text.suffix_ids, text.context_ids)
        return PreparedPrompt(cursor, replace(text, prefix_ids=prefix_ids), ids, healing)

    def forget(self, key: DocumentKey) -> None:
        """Drop what is kept of a closed document."""
        self.prompts.forget(key)
        self._first_prompts.forget(key)

    def complete(
        self, document: Document, request: CompletionParams, control: RequestControl, hints: Hints
    ) -> Completed | Cancelled:
        """Answer a request.

        Raises:
            PositionError: the cursor or the selection is outside the document.
        """
        started_s = time.monotonic()
        offset = request.offset
        document.check_offset(offset)
        if request.selected is not None:
            selection = _with_selection(document, offset, request.selected)
            if selection is None:
                return _nothing(FinishReason.SELECTION_DOES_NOT_EXTEND, control, started_s)
            document, offset = selection
        invoked = request.trigger is TriggerKind.INVOKED
        prepare = self.prepare if invoked or not control.is_waited_for else self.prepare_soon
        prompt = prepare(document, offset, hints.context)
        if not prompt.ids or not self._has_text(prompt.text, hints):
            return _nothing(FinishReason.EMPTY_PROMPT, control, started_s)
        ready_s = time.monotonic()
        multi_line = _spans_lines(request, prompt.cursor)
        limits = self._limits(prompt, request, control, multi_line)
        sureness = Sureness.of(request, self._model.confidence, prompt.cursor.language)
        run = _Run(prompt, hints, control, multi_line, invoked, limits, sureness)
        num_wanted = request.num_suggestions if invoked else 1
        cleaned, greedy = self._generate_all(run, max(1, num_wanted))
        stats = request_stats(run.stats, control.arrived_s, started_s, ready_s)
        if greedy is None:
            return Cancelled(stats)
        suggestions = tuple(_place(prompt.cursor, text, offset, request.selected) for text in cleaned)
        raw_tail = cleaned[0].raw_tail if cleaned else ""
        score = greedy.line_score() if sureness.is_scored else None
        if greedy.finish_reason is FinishReason.UNSURE:
            result = CompletionResult((), greedy.finish_reason, stats=stats)
            withheld = next(iter(suggestions), None)
            return Completed(result, raw_tail, withheld, score, had_short_prompt=prompt.is_short)
        following = ""
        if raw_tail and request.selected is None and greedy.is_sure_after(raw_tail, sureness.least):
            before, after = _around(document.text, offset)
            following = next_line(language_for(document.language_id), before + cleaned[0].text, after, raw_tail)
        result = CompletionResult(suggestions, greedy.finish_reason, greedy.is_cut, following, stats)
        return Completed(result, raw_tail, score=score, had_short_prompt=prompt.is_short)

    def raw_middle(self, document: Document, offset: int, max_new_tokens: int) -> str:
        """What the model generates at ``offset`` until its stop token: no stop rule, no clean-up."""
        prompt = self.prepare(document, offset)
        limits = Limits(max_new_tokens + prompt.healing.num_dropped, self._model.stop_token_ids)
        stream = TextStream(self._model.tokenizer, skip=prompt.healing.forced)
        steps = self._steps(prompt, Hints(), limits, GREEDY, DecodingStats())
        return "".join(stream.push(ids) for ids in steps) + stream.finish()

    def prefill(self, prompt: PreparedPrompt, is_cancelled: Callable[[], bool]) -> tuple[int, int]:
        """Bring a prompt into a KV cache; returns how many tokens and how many forwards that took."""
        sequence, stats = self.sequences.take(prompt.ids), DecodingStats()
        self.fill(sequence, prompt.ids, is_cancelled, stats, chunk_size=_PREWARM_CHUNK)
        return len(sequence.cached_ids) - stats.num_reused_tokens, stats.num_forwards

    def num_uncached(self, prompt: PreparedPrompt) -> int:
        """How many tokens of a prompt are in no KV cache."""
        return len(prompt.ids) - self.sequences.best_overlap(prompt.ids)

    def _limits(
        self, prompt: PreparedPrompt, request: CompletionParams, control: RequestControl, multi_line: bool
    ) -> Limits:
        config = self._config
        default = config.max_block_tokens if multi_line else config.max_line_tokens
        return Limits(
            max_new_tokens=(request.max_new_tokens or default) + prompt.healing.num_dropped,
            stop_token_ids=self._model.stop_token_ids,
            deadline_s=control.deadline_s,
            is_cancelled=control.is_cancelled,
        )

    def _generate_all(self, run: _Run, num_wanted: int) -> tuple[list[CleanText], Decoded | None]:
        """Different suggestions, the greedy one first, and the greedy pass; ``None`` if the request was cancelled."""
        found: list[CleanText] = []
        greedy: Decoded | None = None
        for generation in self._generations(run, num_sampled=_MAX_ATTEMPTS_PER_SUGGESTION * (num_wanted - 1)):
            reason = generation.finish_reason
            if reason is FinishReason.CANCELLED:
                return [], None
            greedy = greedy or generation
            cleaned = clean(
                run.prompt.cursor,
                generation.raw,
                multi_line=run.multi_line,
                interrupted=generation.is_cut,
                ended=reason is FinishReason.STOP_TOKEN and self._model.infill.sees_suffix,
                invoked=run.invoked,
            )
            if cleaned is not None and cleaned.text not in [other.text for other in found]:
                found.append(cleaned)
            if len(found) >= num_wanted or reason is FinishReason.DEADLINE:
                break
        return found, greedy

    def _generations(self, run: _Run, num_sampled: int) -> Iterator[Decoded]:
        yield self._generate(run, GREEDY, run.control.on_partial)
        for seed in range(1, num_sampled + 1):
            sampling = SamplingParams(self._config.sampling_temperature, top_p=_SAMPLING_TOP_P, seed=seed)
            yield self._generate(run, sampling, lambda _text: None)

    def _generate(self, run: _Run, sampling: SamplingParams, on_partial: Callable[[str], None]) -> Decoded:
        prompt = run.prompt
        forced, token_bytes = prompt.healing.forced, self._model.tokenizer.token_bytes
        stream, data = TextStream(self._model.tokenizer, skip=forced), GeneratedBytes(len(forced))
        stats = DecodingStats()
        is_scored = run.sureness.is_scored and sampling is GREEDY
        least = run.sureness.least_of_first if is_scored else -math.inf
        raw, end = "", None
        reported_s = time.monotonic()
        for ids in self._steps(prompt, run.hints, run.limits, sampling, stats, is_scored=is_scored):
            raw += stream.push(ids)
            data.push(map(token_bytes, ids))
            if not raw:
                continue
            end = find_end(prompt.cursor, raw, multi_line=run.multi_line)
            # More tokens only make a line less likely, so the rest of an unlikely one need not be generated.
            if end is not None or (least > -math.inf and data.line_score(stats.log_probs).total < least):
                break
            if time.monotonic() - reported_s >= self._config.partial_every_s:
                on_partial(raw)
                reported_s = time.monotonic()
        run.stats += stats
        self.observe(stats)
        reason = stats.finish_reason or FinishReason.STOP_TOKEN
        if end is not None:
            reason = FinishReason.SCOPE_END
        else:
            raw += stream.finish()
        is_unsure = least > -math.inf and bool(raw.strip()) and data.line_score(stats.log_probs).total < least
        if is_unsure and reason is not FinishReason.CANCELLED:
            reason = FinishReason.UNSURE
        return Decoded(raw, reason, data, stats.log_probs)

    def _steps(
        self,
        prompt: PreparedPrompt,
        hints: Hints,
        limits: Limits,
        sampling: SamplingParams,
        stats: DecodingStats,
        *,
        is_scored: bool = False,
    ) -> Iterator[list[int]]:
        after = prompt.text.suffix_ids if hints.after is None else hints.after
        whole = PromptIds(prompt.ids, prompt.text.prefix_ids, after, prompt.healing.constraint)
        sequence = self.sequences.take(prompt.ids)
        return self.decode(sequence, whole, hints, limits, sampling, stats, is_scored=is_scored)

    def decode(
        self,
        sequence: CachedSequence,
        prompt: PromptIds,
        hints: Hints,
        limits: Limits,
        sampling: SamplingParams,
        stats: DecodingStats,
        *,
        is_scored: bool = False,
    ) -> Iterator[list[int]]:
        """Continue a prompt with drafts from all sources; yields the tokens of each step."""
        request = DecodeRequest(
            prompt.ids,
            limits,
            sampling,
            prompt.constraint,
            context=prompt.before,
            after=prompt.after,
            is_infilling=self._model.infill.sees_suffix and len(prompt.after) > 0,
            boundary_ids=self._boundary_ids,
            is_scored=is_scored,
            prefill_chunk=self._prefill_chunk,
        )
        drafter: Drafter
        if self._config.autoregressive:
            return autoregressive(request, sequence, stats)
        if self._published is not None:
            drafter = PublishedDrafter(request, self._published)
        else:
            drafter = TreeDrafter(request, sequence, sources=hints.sources, budget=self._budget, memory=hints.memory)
        return self._loop(request, sequence, drafter, stats)

    def fill(
        self,
        sequence: CachedSequence,
        ids: Sequence[int],
        is_cancelled: Callable[[], bool],
        stats: DecodingStats,
        chunk_size: int | None = None,
    ) -> None:
        """Bring a prompt into a KV cache, as far as that gets until it is cancelled; asks before each forward."""
        request = DecodeRequest(
            ids, Limits(1, is_cancelled=is_cancelled), prefill_chunk=chunk_size or self._prefill_chunk
        )
        # The loop rather than the model: ranks that decode together need the prompt in each cache.
        for _ in self._loop(request, sequence, NoDrafts(), stats):
            pass
        self.observe(stats)

    @property
    def shared_chunk(self) -> int:
        """Tokens of a prompt to run at a time where others may wait for the device."""
        return PREFILL_CHUNK if self._prefill is None else self._prefill.shared_chunk_size

    @property
    def _prefill_chunk(self) -> int:
        return PREFILL_CHUNK if self._prefill is None else self._prefill.chunk_size

    def _has_text(self, prompt: PromptText, hints: Hints) -> bool:
        has_suffix = self._model.infill.sees_suffix and bool(prompt.suffix_ids)
        return bool(prompt.prefix.strip()) or has_suffix or bool(hints.context)

    @property
    def wants_context(self) -> bool:
        """Whether prompts have room for other files."""
        return self.prompts.budget.context_share > 0

    def _prompt_budget(self) -> PromptBudget:
        """As many tokens as a cold prompt runs in the time that it may take."""
        config, most = self._config, self._most_tokens
        if self._prefill is not None:
            wanted = int(min(self._prefill.tokens_per_s * config.prefill_ms / 1e3, most))
            most = min(most, max(wanted, _MIN_PROMPT_TOKENS))
        has_room = config.cross_file and most >= _MIN_TOKENS_FOR_CONTEXT
        suffix_share = config.suffix_share if self._model.infill.sees_suffix else 0.0
        return PromptBudget(most, suffix_share, config.context_share if has_room else 0.0)

    def _first_budget(self) -> PromptBudget:
        """As many tokens as somebody waits for at a place whose prompt is in no cache; other files come later."""
        budget = self._prompt_budget()
        if self._prefill is None:
            return budget
        wanted = int(min(self._prefill.tokens_per_s * _FIRST_SHARE * self._config.prefill_ms / 1e3, budget.num_tokens))
        return PromptBudget(min(max(wanted, _MIN_FIRST_TOKENS), budget.num_tokens), budget.suffix_share, 0.0)

    def resize_prompts(self) -> None:
        """Let the size of prompts follow the speed of the device, if that has changed much."""
        for prompts, budget in ((self.prompts, self._prompt_budget()), (self._first_prompts, self._first_budget())):
            if abs(budget.num_tokens - prompts.budget.num_tokens) > _RESIZED_SHARE * prompts.budget.num_tokens:
                prompts.budget = budget

    def observe(self, stats: DecodingStats) -> None:
        """Learn the speed of prompts from a generation."""
        if self._prefill is not None:
            self._prefill.observe(stats)

    def _max_prompt_tokens(self) -> int:
        """What the model and the device allow."""
        model = self._model
        reserve = self._config.max_block_tokens + model.infill.num_sentinels + 16
        # Text beyond a sliding window hardly reaches the output, and a GPU captures no steps there.
        room = max(min(model.max_positions, model.window or model.max_positions) - reserve, 16)
        most = _MAX_CPU_PROMPT_TOKENS if model.device.type == "cpu" else _MAX_PROMPT_TOKENS
        return min(room, most)


def _around(text: str, offset: int) -> tuple[str, str]:
    """The text before and after a cursor that stop rules and clean-up look at."""
    # The window starts at a multiple of a step: where it is one long line, a keystroke then changes its end only.
    steps = max(0, -((_LOOK_AROUND_CHARS - offset) // _LOOK_AROUND_STEP))
    before = model_text(text[steps * _LOOK_AROUND_STEP : offset])
    return before, model_text(text[offset : offset + _LOOK_AROUND_CHARS + 1])


def _with_selection(document: Document, offset: int, selected: SelectedCompletion) -> tuple[Document, int] | None:
    """The document as if the popup's selection were accepted; ``None`` if that would change what was typed."""
    document.check_offset(selected.start)
    document.check_offset(selected.end)
    typed = document.text[selected.start : offset]
    if not selected.start <= offset <= selected.end or not selected.text.startswith(typed):
        return None
    text = document.text[: selected.start] + selected.text + document.text[selected.end :]
    return replace(document, text=text), selected.start + len(selected.text)


def _spans_lines(request: CompletionParams, cursor: CursorContext) -> bool:
    """Whether the suggestion may span lines."""
    if request.multi_line is MultiLine.AUTO:
        return wants_block(cursor, invoked=request.trigger is TriggerKind.INVOKED)
    return request.multi_line is MultiLine.ALWAYS and cursor.rest_closes


def _place(cursor: CursorContext, cleaned: CleanText, offset: int, selected: SelectedCompletion | None) -> Suggestion:
    if selected is None:
        return to_suggestion(cursor, cleaned, offset)
    # The text follows the selection, which replaces its own range.
    return Suggestion(selected.text + cleaned.text, selected.start, selected.end + cleaned.num_covered)


def _nothing(reason: FinishReason, control: RequestControl, started_s: float) -> Completed:
    stats = request_stats(DecodingStats(), control.arrived_s, started_s, started_s)
    return Completed(CompletionResult((), reason, stats=stats))
