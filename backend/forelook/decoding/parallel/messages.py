"""What ranks send each other, as integers: a request, a step's plan, and every rank's report of a step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from forelook.decoding.drafting.drafter import DrafterRecipe, StepPlan
from forelook.decoding.drafting.tree import DraftTree
from forelook.decoding.limits import Limits, SamplingParams
from forelook.decoding.lookahead.published import PublishedSettings
from forelook.decoding.lookahead.window import LookaheadWindow
from forelook.decoding.request import DecodeRequest
from forelook.errors import DecodingError
from forelook.finish_reason import FinishReason

UNLOAD, LOAD, DISMISS = [0], [1], list[int]()
"""Orders of rank 0; a request is longer."""

_RECIPES: dict[str, type[PublishedSettings]] = {"published": PublishedSettings}
_TREE_REPORT_INTS = 512  # room for every plan of the draft tree; chosen, not measured
_SCORE_UNITS = 1_000_000
_REASONS = tuple(FinishReason)


@dataclass(frozen=True, slots=True)
class RequestMessage:
    """A request as the other ranks see it, numbers only.

    Attributes:
        number: counts the requests of the group.
        sequence: which sequence of each rank's replica runs it.
        live_sequences: the sequences that rank 0 still has.
        max_positions: capacity of the sequence.
        prompt_ids, max_new_tokens, stop_token_ids, boundary_ids, sampling, prefill_chunk: as in ``DecodeRequest``.
        is_constrained: whether the first step has a token constraint, which rank 0 alone knows.
        is_scored: whether reports contain log-probabilities.
        recipe: name and fields of the drafter's recipe; ``None`` if rank 0 sends the plans.
        report_ints: length of every report.
        drafts_on_prompt: whether the end of the prompt carries drafts. Rank 0 decides for all: a rank whose cache has
            a little more or less of the prompt would decide otherwise and plan another step than the rest.
    """

    number: int
    sequence: int
    live_sequences: list[int]
    max_positions: int
    prompt_ids: list[int]
    max_new_tokens: int
    stop_token_ids: list[int]
    boundary_ids: list[int]
    sampling: dict[str, Any]
    prefill_chunk: int
    is_constrained: bool
    is_scored: bool
    recipe: Sequence[Any] | None
    report_ints: int
    drafts_on_prompt: bool = False

    def to_ints(self) -> list[int]:
        """The bytes of its JSON text."""
        return list(json.dumps(asdict(self)).encode())

    @classmethod
    def from_ints(cls, values: Sequence[int]) -> RequestMessage:
        """The inverse of ``to_ints``."""
        return cls(**json.loads(bytes(values)))

    @property
    def request(self) -> DecodeRequest:
        """The request without rank 0's deadline, cancel flag and constraint."""
        return DecodeRequest(
            self.prompt_ids,
            Limits(self.max_new_tokens, frozenset(self.stop_token_ids)),
            SamplingParams(**self.sampling),
            boundary_ids=frozenset(self.boundary_ids),
            is_scored=self.is_scored,
            prefill_chunk=self.prefill_chunk,
        )


def recipe_to_json(recipe: DrafterRecipe | None) -> tuple[str, dict[str, Any]] | None:
    """Name and fields of a recipe.

    Raises:
        DecodingError: the recipe's class is not listed here.
    """
    if recipe is None:
        return None
    for name, kind in _RECIPES.items():
        if isinstance(recipe, kind):
            return name, asdict(recipe)
    raise DecodingError(f"{type(recipe).__name__} is not a known drafter recipe; add it to _RECIPES")


def recipe_from_json(value: Sequence[Any] | None) -> DrafterRecipe | None:
    """The inverse of ``recipe_to_json``."""
    if value is None:
        return None
    name, fields = value
    return _RECIPES[name](**fields)


def report_ints(recipe: DrafterRecipe | None) -> int:
    """Length of the reports of a request: head, output tokens and their scores, argmax of the logit rows."""
    if recipe is None:
        return _TREE_REPORT_INTS
    return max(_TREE_REPORT_INTS, 9 + 3 * recipe.max_logit_rows)


@dataclass(frozen=True, slots=True)
class Report:
    """What one rank reports to the others after its forward.

    Attributes:
        error_code: of the error that its forward raised, 0 for none.
        ended: why rank 0 stops here without an outcome; ``None`` from other ranks.
        is_constrained: whether the next step still has a constraint, which rank 0 alone knows.
        num_accepted: how many of its drafts were accepted in a row.
        token_ids: output tokens of that walk.
        finish_reason: set if the walk reached a stop token or the last allowed token.
        argmax: of its logit rows.
        log_probs: of that walk, as ``Verified`` has them; sent in millionths.
    """

    error_code: int = 0
    ended: FinishReason | None = None
    is_constrained: bool = False
    num_accepted: int = 0
    token_ids: Sequence[int] = ()
    finish_reason: FinishReason | None = None
    argmax: Sequence[int] = ()
    log_probs: Sequence[float] = ()

    def to_ints(self, length: int) -> list[int]:
        """Exactly ``length`` integers.

        Raises:
            DecodingError: the report is longer.
        """
        values = [
            self.error_code,
            _reason_to_int(self.ended),
            int(self.is_constrained),
            self.num_accepted,
            _reason_to_int(self.finish_reason),
            len(self.token_ids),
            len(self.argmax),
            len(self.log_probs),
            *self.token_ids,
            *self.argmax,
            *(round(value * _SCORE_UNITS) for value in self.log_probs),
        ]
        if len(values) > length:
            raise DecodingError(f"a step's report has {len(values)} numbers, over the limit of {length}")
        return values + [0] * (length - len(values))

    @classmethod
    def from_ints(cls, values: Sequence[int]) -> Report:
        """The inverse of ``to_ints``."""
        code, ended, is_constrained, num_accepted, reason, num_tokens, num_rows, num_scores, *rest = values
        return cls(
            code,
            _reason_from_int(ended),
            bool(is_constrained),
            num_accepted,
            rest[:num_tokens],
            _reason_from_int(reason),
            rest[num_tokens : num_tokens + num_rows],
            [value / _SCORE_UNITS for value in rest[num_tokens + num_rows :][:num_scores]],
        )


def _reason_to_int(reason: FinishReason | None) -> int:
    return 0 if reason is None else 1 + _REASONS.index(reason)


def _reason_from_int(value: int) -> FinishReason | None:
    return _REASONS[value - 1] if value else None


def plan_to_ints(plan: StepPlan) -> list[int]:
    """A plan: drafts, their parents, then the window's W, N and tokens; W = 0 for no window."""
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
