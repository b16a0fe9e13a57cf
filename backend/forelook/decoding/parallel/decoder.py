"""Lookahead parallelism: a full replica per rank, a step's columns and branches dealt out, only token ids exchanged.

Every rank runs this one loop on its own cache. After the forward each walks its own branches with the target's
choices, and one small exchange tells all of them how far each came and what every row's argmax was; the longest walk
is the step's outcome. A rank whose branches held less of it runs the accepted tokens that it lacks with the next step.

Rank 0 serves: it alone knows the deadline, the constraint and who cancels. The published drafter is a function of the
prompt and the outcomes, so every rank runs its own; drafts of any other drafter are sent out by rank 0. Source: Fu et
al., arXiv 2402.02057, section 3.4.
"""

from __future__ import annotations

import json
import logging
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from forelook.decoding.drafting.budget import StepCosts
from forelook.decoding.drafting.drafter import Drafter, StepPlan, StepState
from forelook.decoding.drafting.tree import DraftTree
from forelook.decoding.layout import StepModel, lay_out
from forelook.decoding.limits import FinishReason, Limits, SamplingParams
from forelook.decoding.lookahead.published import PublishedDrafter, PublishedSettings
from forelook.decoding.lookahead.window import LookaheadWindow
from forelook.decoding.parallel.group import RankGroup
from forelook.decoding.parallel.partition import deal, join_argmax
from forelook.decoding.prefill import DRAFTED_TAIL, begin_prompt, num_last_chunk, run_leading_chunks
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.decoding.verification import TargetChooser, Verified, verify
from forelook.errors import DecodingError, ForelookError, RankLostError

_LOG = logging.getLogger(__name__)
_REPORT_INTS = 512
_REPORT_HEAD = 7
_REASONS = tuple(FinishReason)
# What rank 0 sends besides requests, which are longer, and the empty message, after which nothing comes.
_UNLOAD, _LOAD = [0], [1]

# (max positions) → an empty sequence of this rank's replica
NewSequence = Callable[[int], StepModel]


class ParallelDecoder:
    """Rank 0's side of a group: its ``decode`` stands in for ``lookahead.decode``. One request at a time.

    Args:
        group: rank 0 of it; the other ranks are in ``follow``.
    """

    def __init__(self, group: RankGroup) -> None:
        self._group = group
        self._num_requests = 0
        self._num_sequences = 0
        self._sequences: weakref.WeakKeyDictionary[StepModel, int] = weakref.WeakKeyDictionary()

    def decode(
        self, request: DecodeRequest, model: StepModel, drafter: Drafter, stats: DecodingStats | None = None
    ) -> Iterator[list[int]]:
        """Generate as ``loop.decode`` does, in less time per step; the arguments are the same.

        Yields:
            The tokens each step accepted, its bonus token included; never an empty list.

        Raises:
            DecodingError: the prompt is empty or too long, or another rank's forward failed.
            RankLostError: a rank died or hangs. The group is of no further use; the model's cache is as it was.
        """
        stats = DecodingStats() if stats is None else stats
        limits = request.limits
        if limits.max_new_tokens == 0:
            stats.finish_reason = FinishReason.MAX_TOKENS
            return
        started_s = time.perf_counter()
        pending = begin_prompt(model, request.prompt_ids, stats)
        settings = drafter.replicable_settings if isinstance(drafter, PublishedDrafter) else None
        report_ints = _REPORT_INTS
        if settings is not None:
            num_rows = settings.max_candidates * (settings.ngram_size - 1) + settings.window_size
            report_ints = max(_REPORT_INTS, num_rows + settings.ngram_size + 16)
        self._num_requests += 1
        message = _Request(
            number=self._num_requests,
            sequence=self._sequence_number(model),
            live_sequences=list(self._sequences.values()),
            max_positions=model.max_positions,
            prompt_ids=list(request.prompt_ids),
            max_new_tokens=limits.max_new_tokens,
            stop_token_ids=sorted(limits.stop_token_ids),
            sampling=asdict(request.sampling),
            published=None if settings is None else asdict(settings),
            boundary_ids=sorted(request.boundary_ids),
            is_constrained=request.constraint is not None,
            prefill_chunk=request.prefill_chunk,
            drafts_at_once=num_last_chunk(len(pending), request.prefill_chunk) <= DRAFTED_TAIL,
            report_ints=report_ints,
        )
        self._group.send(list(json.dumps(asdict(message)).encode()))
        plans: _Plans = _OwnPlans(drafter) if settings is not None else _SentPlans(drafter, self._group)
        chooser = TargetChooser(request.sampling, request.constraint)
        yield from _Loop(self._group, model, message, limits, plans, chooser, stats).run(pending, started_s)

    def unload(self) -> None:
        """Have the other ranks let go of weights and caches. Their next request waits until they have loaded again.

        Raises:
            RankLostError: a rank died or hangs.
        """
        self._sequences.clear()
        self._group.send(_UNLOAD)

    def load(self) -> None:
        """Have the other ranks load, and return at once: this rank has its own weights to load meanwhile.

        Raises:
            RankLostError: a rank died or hangs.
        """
        self._group.send(_LOAD)

    def wait_until_loaded(self, timeout_s: float) -> None:
        """Wait for the other ranks to have done what ``load`` asks.

        Raises:
            RankLostError: a rank died, perhaps because it could not load, or did not load in time.
        """
        self._group.exchange([0], timeout_s=timeout_s)

    def dismiss(self) -> None:
        """Tell the other ranks that nothing more will come: their ``follow`` returns."""
        self._group.send([])

    def _sequence_number(self, model: StepModel) -> int:
        number = self._sequences.get(model)
        if number is None:
            self._num_sequences += 1
            number = self._sequences[model] = self._num_sequences
        return number


def follow(
    group: RankGroup,
    new_sequence: NewSequence,
    *,
    load: Callable[[], None] = lambda: None,
    unload: Callable[[], None] = lambda: None,
) -> None:
    """Serve as a rank other than 0 until rank 0 dismisses it.

    Args:
        group: of which this process is one.
        new_sequence: makes a sequence of this rank's replica; loads it first where it has been unloaded.
        load: loads the replica, unless it is loaded.
        unload: lets go of it; no sequence is left then.

    Raises:
        RankLostError: rank 0, or another rank, is gone.
    """
    sequences: dict[int, StepModel] = {}
    model: StepModel | None = None
    while True:
        message = group.receive()
        if not message:
            return
        if message == _UNLOAD:
            model = None
            sequences.clear()
            unload()
            continue
        if message == _LOAD:
            load()
            group.exchange([group.rank])
            continue
        request = _Request(**json.loads(bytes(message)))
        for number in set(sequences) - set(request.live_sequences):
            del sequences[number]
        model = sequences.get(request.sequence)
        if model is None:
            model = sequences[request.sequence] = new_sequence(request.max_positions)
        try:
            _follow_request(group, model, request)
        except RankLostError:
            raise
        except ForelookError as error:  # rank 0 knows already; what it asks next may succeed
            _LOG.error("rank %d: a request failed: %s", group.rank, error)


def _follow_request(group: RankGroup, model: StepModel, request: _Request) -> None:
    stats = DecodingStats()
    number = request.number
    limits = Limits(
        request.max_new_tokens,
        frozenset(request.stop_token_ids),
        is_cancelled=lambda: group.is_cancelled(number),
    )
    plans: _Plans = _ReceivedPlans(group)
    if request.published is not None:
        settings = PublishedSettings(**request.published)
        replicated = DecodeRequest(request.prompt_ids, limits, boundary_ids=frozenset(request.boundary_ids))
        plans = _OwnPlans(PublishedDrafter(replicated, settings))
    chooser = TargetChooser(SamplingParams(**request.sampling))
    pending = begin_prompt(model, request.prompt_ids, stats)
    for _ in _Loop(group, model, request, limits, plans, chooser, stats).run(pending, time.perf_counter()):
        pass


@dataclass(frozen=True)
class _Request:
    """What the other ranks are told of a request. Everything in it is a number or made of numbers.

    Attributes:
        drafts_at_once: whether the end of the prompt carries drafts. Rank 0 says so for all: a rank whose cache holds
            a little more or less of the prompt would decide otherwise, and plan another step than the rest.
    """

    number: int
    sequence: int
    live_sequences: list[int]
    max_positions: int
    prompt_ids: list[int]
    max_new_tokens: int
    stop_token_ids: list[int]
    sampling: dict[str, Any]
    published: dict[str, Any] | None
    boundary_ids: list[int]
    is_constrained: bool
    prefill_chunk: int
    drafts_at_once: bool
    report_ints: int


@dataclass(frozen=True, slots=True)
class _Report:
    """What one rank tells the others after its forward.

    Attributes:
        error_code: of the error that its forward raised, 0 for none.
        ended: why rank 0 stops here without an outcome; other ranks never say so.
        is_constrained: whether the next step still has a constraint, which rank 0 alone knows.
        num_accepted: how many of its drafts were accepted in a row.
        token_ids: output tokens of that walk.
        finish_reason: set when it came to the stop token or to the last allowed one.
        argmax: of its rows that need logits.
    """

    error_code: int = 0
    ended: FinishReason | None = None
    is_constrained: bool = False
    num_accepted: int = 0
    token_ids: Sequence[int] = ()
    finish_reason: FinishReason | None = None
    argmax: Sequence[int] = ()

    def to_ints(self, length: int) -> list[int]:
        values = [
            self.error_code,
            _reason_to_int(self.ended),
            int(self.is_constrained),
            self.num_accepted,
            _reason_to_int(self.finish_reason),
            len(self.token_ids),
            len(self.argmax),
            *self.token_ids,
            *self.argmax,
        ]
        if len(values) > length:
            raise DecodingError(f"a step's report has {len(values)} numbers, at most {length} are sent")
        return values + [0] * (length - len(values))

    @classmethod
    def from_ints(cls, values: list[int]) -> _Report:
        code, ended, is_constrained, num_accepted, reason, num_tokens, num_rows = values[:_REPORT_HEAD]
        tokens = values[_REPORT_HEAD : _REPORT_HEAD + num_tokens]
        argmax = values[_REPORT_HEAD + num_tokens :][:num_rows]
        return cls(
            code, _reason_from_int(ended), bool(is_constrained), num_accepted, tokens, _reason_from_int(reason), argmax
        )


def _reason_to_int(reason: FinishReason | None) -> int:
    return 0 if reason is None else 1 + _REASONS.index(reason)


def _reason_from_int(value: int) -> FinishReason | None:
    return _REASONS[value - 1] if value else None


class _Loop:
    """One request on one rank."""

    def __init__(
        self,
        group: RankGroup,
        model: StepModel,
        request: _Request,
        limits: Limits,
        plans: _Plans,
        chooser: TargetChooser,
        stats: DecodingStats,
    ) -> None:
        self._group = group
        self._model = model
        self._request = request
        self._limits = limits
        self._plans = plans
        self._chooser = chooser
        self._stats = stats
        self._leads = group.rank == 0
        self._is_planned = False  # whether this step's plan has gone round
        self._is_over = False  # whether all ranks know that the request has ended

    def run(self, pending: list[int], started_s: float) -> Iterator[list[int]]:
        """Prefill and decode.

        Args:
            pending: what this rank's cache lacks of the prompt.
            started_s: a ``time.perf_counter()`` value.
        """
        try:
            yield from self._run(pending, started_s)
        except RankLostError:
            raise
        except BaseException as error:  # closing the generator too: the other ranks must not wait for this one
            self._end(FinishReason.CLOSED, error.code if isinstance(error, ForelookError) else 0)
            raise

    def _run(self, pending: list[int], started_s: float) -> Iterator[list[int]]:
        model, stats, limits, chooser = self._model, self._stats, self._limits, self._chooser
        prompt_ids, prefill_chunk = self._request.prompt_ids, self._request.prefill_chunk
        num_prompt, is_constrained = len(prompt_ids), self._request.is_constrained
        generated: list[int] = []
        pending, reason = run_leading_chunks(model, pending, prefill_chunk, limits, stats)
        if reason is not None:
            if self._leads:
                self._group.cancel(self._request.number)
            self._end(reason)
        num_cached = num_prompt - len(pending)
        while reason is None:
            room = model.max_positions - num_prompt - len(generated)
            if room < 0:
                reason = FinishReason.CONTEXT_FULL  # every rank sees that for itself
                break
            reason = limits.interrupted() if self._leads else None
            if reason is not None:
                self._end(reason)
                break
            # draft
            max_depth = limits.max_new_tokens - len(generated) - 1
            state = StepState(generated, num_cached, len(pending), max_depth, room, chooser.constraint)
            plan = self._plans.plan(state) if generated or self._request.drafts_at_once else self._plans.plain()
            self._is_planned = True
            # lay out this rank's share; under a constraint, which rank 0 alone knows, it verifies alone
            shares = deal(plan, self._group.size, 1 if is_constrained else None)
            share = shares[self._group.rank]
            layout = lay_out(pending, num_cached, share.tree.token_ids, share.tree.parents, share.window)
            # forward
            forward_started_s = time.perf_counter()
            argmax = chooser.observe(model.forward(layout))
            stats.forward_s += time.perf_counter() - forward_started_s
            # verify
            walked = verify(share.tree, chooser, generated, limits)
            reports = self._exchange(
                _Report(
                    is_constrained=chooser.constraint is not None,
                    num_accepted=len(walked.node_path),
                    token_ids=walked.token_ids,
                    finish_reason=walked.finish_reason,
                    argmax=argmax,
                )
            )
            if self._is_over:
                reason = reports[0].ended or FinishReason.CLOSED
                break
            ahead = reports[:1] if is_constrained else reports
            best = max(ahead, key=lambda report: report.num_accepted)
            accepted = best.token_ids[: best.num_accepted]
            is_constrained = reports[0].is_constrained
            # commit what this rank ran of the outcome; what it lacks is run with the next step
            root = len(pending) - 1
            path = _walk(share.tree, accepted)
            model.commit([*range(len(pending)), *(root + node for node in path)])
            num_cached += len(pending) + len(path)
            generated += best.token_ids
            pending = [*prompt_ids[num_cached:], *generated[max(0, num_cached - num_prompt) :]]
            reason = best.finish_reason
            self._is_over = reason is not None
            stats.num_forwards += 1
            stats.num_steps += 1
            stats.num_generated_tokens += len(best.token_ids)
            stats.num_drafted_tokens += len(plan.tree)
            stats.num_accepted_tokens += len(accepted)
            outcome = Verified(list(best.token_ids), _walk(plan.tree, accepted), reason)
            self._plans.learn(plan, outcome, join_argmax(plan, shares, [report.argmax for report in reports]), stats)
            elapsed_s = time.perf_counter() - started_s
            if stats.num_steps == 1:
                stats.prefill_s += elapsed_s
            else:
                stats.decode_s += elapsed_s
            if best.token_ids:
                stats.finish_reason = FinishReason.CLOSED if reason is None else reason
                yield outcome.token_ids
                started_s = time.perf_counter()
        self._is_over = True
        stats.finish_reason = reason

    def _exchange(self, report: _Report) -> list[_Report]:
        """Every rank's report of this step; notes when it is the last.

        Raises:
            DecodingError: on rank 0, when another rank's forward failed.
        """
        rows = self._group.exchange(report.to_ints(self._request.report_ints))
        self._is_planned = False
        reports = [_Report.from_ints(row) for row in rows]
        failed = [rank for rank, other in enumerate(reports) if other.error_code]
        self._is_over = bool(failed) or reports[0].ended is not None
        if failed and self._leads:
            raise DecodingError(
                f"rank {failed[0]} of {self._group.size} failed with error {reports[failed[0]].error_code}; its log, "
                "which is the backend's, says why"
            )
        return reports

    def _end(self, reason: FinishReason, error_code: int = 0) -> None:
        """Take part in what is left of the step without a forward, so that every rank ends with this one."""
        if self._is_over:
            return
        self._is_over = True
        if not self._is_planned:
            self._plans.plain()
        report = _Report(error_code, ended=reason if self._leads else None)
        self._group.post(report.to_ints(self._request.report_ints))


def _walk(tree: DraftTree, token_ids: Sequence[int]) -> list[int]:
    """The nodes along some tokens, as far as the tree holds them."""
    path: list[int] = []
    children = tree.children[0]
    for token in token_ids:
        node = children.get(token)
        if node is None:
            break
        path.append(node)
        children = tree.children[node]
    return path


class _Plans(Protocol):
    """How a rank comes by a step's plan."""

    def plan(self, state: StepState) -> StepPlan:
        """The step's plan, the same on every rank."""
        ...

    def learn(self, plan: StepPlan, verified: Verified, argmax: list[int], stats: DecodingStats) -> None:
        """Take in what the step yielded."""
        ...

    def plain(self) -> StepPlan:
        """A plan without drafts where every rank asks for one; else this rank's part of a plan it has no use for."""
        ...


class _OwnPlans:
    """Every rank draws up the same plan by itself."""

    def __init__(self, drafter: Drafter) -> None:
        self.plan = drafter.plan
        self.learn = drafter.learn

    def plain(self) -> StepPlan:
        return StepPlan(DraftTree())


class _SentPlans:
    """Rank 0's plans, sent to the others."""

    def __init__(self, drafter: Drafter, group: RankGroup) -> None:
        self._drafter = drafter
        self._group = group
        self.learn = drafter.learn

    def plan(self, state: StepState) -> StepPlan:
        return self._sent(self._drafter.plan(state))

    def plain(self) -> StepPlan:
        return self._sent(StepPlan(DraftTree()))

    def _sent(self, plan: StepPlan) -> StepPlan:
        self._group.send(plan_to_ints(plan))
        return plan


class _ReceivedPlans:
    """Rank 0's plans, received by another rank, which has no drafter."""

    def __init__(self, group: RankGroup) -> None:
        self._group = group

    def plan(self, state: StepState) -> StepPlan:
        del state
        return self.plain()

    def learn(self, plan: StepPlan, verified: Verified, argmax: list[int], stats: DecodingStats) -> None:
        """Rank 0 learns."""

    def plain(self) -> StepPlan:
        return plan_from_ints(self._group.receive())


def plan_to_ints(plan: StepPlan) -> list[int]:
    """A plan as numbers: drafts, their parents, then the window's W, N and tokens; W = 0 for none."""
    tree, window = plan.tree, plan.window
    shape = [0, 0] if window is None else [window.window_size, window.ngram_size]
    return [len(tree), *tree.token_ids, *tree.parents, *shape, *([] if window is None else window.token_ids)]


def plan_from_ints(values: Sequence[int]) -> StepPlan:
    """The inverse of ``plan_to_ints``."""
    size = values[0]
    tree = DraftTree()
    for token, parent in zip(values[1 : 1 + size], values[1 + size : 1 + 2 * size], strict=True):
        tree.add_child(parent, token)
    window_size, ngram_size, *ids = values[1 + 2 * size :]
    if window_size == 0:
        return StepPlan(tree)
    window = LookaheadWindow(window_size, ngram_size, seed_ids=[0])
    first, rest = ids[: window_size - 1], ids[window_size - 1 :]
    window.rows = [first, *(rest[start : start + window_size] for start in range(0, len(rest), window_size))]
    return StepPlan(tree, window)


def shared_costs(costs: StepCosts, num_ranks: int) -> StepCosts:
    """What a step costs when its tokens beyond the first are dealt out to ranks."""
    sizes = tuple(1 + (size - 1) * num_ranks for size in costs.sizes)
    return StepCosts(sizes, costs.seconds, costs.seconds_per_cached)
