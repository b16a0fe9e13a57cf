"""Lookahead decoding as published: W, N and G fixed, an n-gram pool of the call, a Jacobi window every step."""

from __future__ import annotations

from dataclasses import dataclass

from forelook.decoding.drafting.draft import DraftOrigin
from forelook.decoding.drafting.drafter import StepPlan, StepRows, StepState
from forelook.decoding.drafting.tree import DraftTree
from forelook.decoding.lookahead.published_pool import PublishedPool
from forelook.decoding.lookahead.window import LookaheadWindow
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.decoding.verification import Verified
from forelook.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PublishedSettings:
    """W, N and G with their published meaning; the defaults are those of arXiv 2402.02057 for a 7B model.

    Attributes:
        window_size: W, positions guessed in parallel.
        ngram_size: N, tokens per n-gram, its key included.
        max_candidates: G, n-grams kept per key and verified per step.
        prompt_as_reference: whether the pool also learns the n-grams of the prompt and of the growing output.
    """

    window_size: int = 15
    ngram_size: int = 5
    max_candidates: int = 15
    prompt_as_reference: bool = False

    def __post_init__(self) -> None:
        if self.window_size < 1:
            raise ConfigError("window_size", self.window_size, "1 or more")
        if self.ngram_size < 2:
            raise ConfigError("ngram_size", self.ngram_size, "2 or more")
        if self.max_candidates < 0:
            raise ConfigError("max_candidates", self.max_candidates, "0 or more")

    @property
    def max_logit_rows(self) -> int:
        """The current token, G branches, the window's last row."""
        return 1 + self.max_candidates * (self.ngram_size - 1) + self.window_size

    def drafter(self, request: DecodeRequest) -> PublishedDrafter:
        """A drafter with a pool of its own."""
        return PublishedDrafter(request, self)


class PublishedDrafter:
    """The published lookahead and verification branches as a drafter.

    Args:
        request: its prompt and boundary tokens; no n-gram of the prompt contains a boundary token.
        settings: W, N and G.
        pool: one that outlives the request, to start from and to fill; a new one by default.
    """

    num_choices = 1

    def __init__(self, request: DecodeRequest, settings: PublishedSettings, pool: PublishedPool | None = None) -> None:
        prompt_ids, boundary_ids = request.prompt_ids, request.boundary_ids
        self._settings = settings
        # The drafter is a function of prompt and outcomes, unless its pool knows more.
        self.recipe = settings if pool is None else None
        self._boundary_ids = boundary_ids
        self._pool = PublishedPool(settings.ngram_size, settings.max_candidates) if pool is None else pool
        self._text_tail = list(prompt_ids[-settings.ngram_size :])
        if settings.prompt_as_reference:
            self._pool.insert_text(prompt_ids, boundary_ids)
        seed_ids = [token for token in prompt_ids if token not in boundary_ids] or list(prompt_ids)
        self._window: LookaheadWindow | None = None
        if len(prompt_ids):
            self._window = LookaheadWindow(settings.window_size, settings.ngram_size, seed_ids)

    def plan(self, state: StepState) -> StepPlan:
        """All candidates of the current token, and the window as long as there is room for it."""
        if self._window is not None and len(self._window) > state.max_tokens:
            self._window = None  # the context is almost full, and room only shrinks from here on
        max_nodes = state.max_tokens - (0 if self._window is None else len(self._window))
        tree = DraftTree()
        for candidate in self._pool.candidates(self._text_tail[-1])[: self._settings.max_candidates]:
            tree.add_path(candidate[: state.max_depth], max_nodes)
        return StepPlan(tree, self._window)

    def learn(self, plan: StepPlan, verified: Verified, rows: StepRows, stats: DecodingStats, forward_s: float) -> None:
        """Pool the window's n-grams and, as reference, the output's; advance the window."""
        del forward_s
        accepted = verified.token_ids
        stats.count_accepted(DraftOrigin.LOOKAHEAD, len(verified.node_path))
        if not accepted:
            return
        window = plan.window
        if window is not None:
            new = rows.argmax[len(plan.tree) + 1 :]
            if window.ngram_size == 2:
                new = [rows.argmax[0], *new]
            for ngram in window.ngrams(self._text_tail[-1], new):
                self._pool.insert(ngram)
            window.advance(new)
        size = self._settings.ngram_size
        text = self._text_tail + accepted
        if self._settings.prompt_as_reference:
            fresh = text[max(0, len(self._text_tail) - size + 1) :]
            self._pool.insert_text(fresh, self._boundary_ids)
        self._text_tail = text[-size:]
