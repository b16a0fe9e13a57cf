"""One request on one rank of several: which part of each step it runs, and the exchange that joins the parts.

Every rank runs ``loop.decode`` on its own cache. After the forward each walks its own branches with the target's
choices, and one small exchange carries how far each came and what every logit row's argmax was. All walks follow the
same target, so the longest one is the step's outcome. A rank that ran less of it runs the rest with the next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

from forelook.decoding.drafting.drafter import Drafter, StepPlan, StepState
from forelook.decoding.drafting.tree import DraftTree
from forelook.decoding.limits import Limits
from forelook.decoding.parallel.group import RankGroup
from forelook.decoding.parallel.messages import Report, RequestMessage, plan_from_ints, plan_to_ints
from forelook.decoding.parallel.partition import PlanPart, join_argmax, partition_plan
from forelook.decoding.steps import StepOutcome
from forelook.decoding.verification import Verified
from forelook.errors import DecodingError, ForelookError, RankLostError
from forelook.finish_reason import FinishReason


class RequestEndedError(Exception):
    """Followers: rank 0 ended the request, or a rank's forward failed; this step has no outcome."""


class RankSteps:
    """The ``steps.Partition`` of one rank.

    A context manager: an exception inside, a closed generator included, ends the request on the other ranks too.

    Args:
        group: this rank's.
        message: the request; rank 0 sends it when it begins.
    """

    def __init__(self, group: RankGroup, message: RequestMessage) -> None:
        self._group = group
        self._message = message
        self._leads = group.rank == 0
        self._is_constrained = message.is_constrained
        self._num_left = message.max_positions - len(message.prompt_ids)
        self._parts: list[PlanPart] = []
        self._is_planned = False  # whether the ranks have this step's plan
        self._is_over = self._leads  # whether every rank knows that the request is not running

    def __enter__(self) -> None:
        """The request may begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, RankLostError):
            self._end(FinishReason.CLOSED, error.code if isinstance(error, ForelookError) else 0)

    def begin(self, drafts_on_prompt: bool) -> bool:
        """Rank 0 decides whether the end of the prompt carries drafts, and sends the request."""
        if self._leads:
            self._message = replace(self._message, drafts_on_prompt=drafts_on_prompt)
            self._group.send(self._message.to_ints())
            self._is_over = False
        return self._message.drafts_on_prompt

    def interrupted(self, limits: Limits, *, in_prefill: bool = False) -> FinishReason | None:
        """Rank 0 alone checks deadline and cancel flag; it informs the others, in the prefill through the store."""
        reason: FinishReason | None = None
        if self._leads:
            reason = limits.interrupted()
            if reason is not None and in_prefill:
                self._group.cancel(self._message.number)
        elif in_prefill and self._group.is_cancelled(self._message.number):
            reason = FinishReason.CANCELLED
        if reason is not None:
            self._end(reason)
        return reason

    def plan(self, drafter: Drafter, state: StepState) -> StepPlan:
        """The same plan on every rank: from a drafter of their own, or from rank 0."""
        sends_plans = self._message.recipe is None
        if sends_plans and not self._leads:
            plan = plan_from_ints(self._group.receive())
        else:
            plan = drafter.plan(state)
            if sends_plans:
                self._group.send(plan_to_ints(plan))
        self._is_planned = True
        return plan

    def part(self, plan: StepPlan) -> PlanPart:
        """The part of this rank; under a constraint, which rank 0 alone knows, rank 0 verifies all drafts."""
        self._parts = partition_plan(plan, self._group.size, 1 if self._is_constrained else None)
        return self._parts[self._group.rank]

    def join(self, plan: StepPlan, walked: Verified, argmax: list[int], *, is_constrained: bool) -> StepOutcome:
        """Exchange reports; the longest walk is the outcome.

        Raises:
            DecodingError: on rank 0, another rank's forward failed.
            RequestEndedError: on other ranks, the step has no outcome.
        """
        reports = self._exchange(
            Report(
                is_constrained=is_constrained,
                num_accepted=len(walked.node_path),
                token_ids=walked.token_ids,
                finish_reason=walked.finish_reason,
                argmax=argmax,
                log_probs=walked.log_probs,
            )
        )
        best = max(reports[:1] if self._is_constrained else reports, key=lambda report: report.num_accepted)
        accepted = best.token_ids[: best.num_accepted]
        self._is_constrained = reports[0].is_constrained
        self._num_left -= len(best.token_ids)
        self._is_over = best.finish_reason is not None or self._num_left < 0  # a full context every rank sees itself
        return StepOutcome(
            Verified(list(best.token_ids), _walk(plan.tree, accepted), best.finish_reason, list(best.log_probs)),
            join_argmax(plan, self._parts, [report.argmax for report in reports]),
            _walk(self._parts[self._group.rank].tree, accepted),
        )

    def _exchange(self, report: Report) -> list[Report]:
        """Every rank's report of this step."""
        rows = self._group.exchange(report.to_ints(self._message.report_ints))
        self._is_planned = False
        reports = [Report.from_ints(row) for row in rows]
        failed = [rank for rank, other in enumerate(reports) if other.error_code]
        self._is_over = bool(failed) or reports[0].ended is not None
        if failed and self._leads:
            raise DecodingError(
                f"rank {failed[0]} of {self._group.size} failed with error {reports[failed[0]].error_code}; "
                "see the backend's log"
            )
        if self._is_over:
            raise RequestEndedError
        return reports

    def _end(self, reason: FinishReason, error_code: int = 0) -> None:
        """Do this rank's part in the rest of the step without a forward, so that every rank ends with this step."""
        if self._is_over:
            return
        self._is_over = True
        if not self._is_planned and self._message.recipe is None:
            if self._leads:
                self._group.send(plan_to_ints(StepPlan(DraftTree())))
            else:
                self._group.receive()
        report = Report(error_code, ended=reason if self._leads else None)
        self._group.post(report.to_ints(self._message.report_ints))


def _walk(tree: DraftTree, token_ids: Sequence[int]) -> list[int]:
    """The nodes along some tokens, as far as the tree has them."""
    path: list[int] = []
    children = tree.children[0]
    for token in token_ids:
        node = children.get(token)
        if node is None:
            break
        path.append(node)
        children = tree.children[node]
    return path
