"""The lookahead window as filler: it uses the budget that retrieval leaves, if tokens are cheap enough to pay."""

from __future__ import annotations

from collections.abc import Sequence

from forelook.decoding.drafting.budget import CostCurve
from forelook.decoding.drafting.draft import Draft, DraftOrigin
from forelook.decoding.lookahead.published_pool import PublishedPool
from forelook.decoding.lookahead.window import LookaheadWindow

_NGRAM_SIZES = (4, 3, 5)
"""N, the likeliest best first: before anything is learned, the first of equals is chosen."""

# W and G of Fu et al., arXiv 2402.02057, for 7B (W) and 13B models (G).
_MAX_WINDOW_SIZE = 15
_MAX_CANDIDATES = 7

# Chosen, not measured.
_PRIOR_YIELD = 0.006
_PRIOR_TOKENS = 3000.0
_PRIOR_RETURN = 0.002
"""Share of the way back to the prior per step without a window: half of it in some 350 steps."""


class WindowYield:
    """How many accepted tokens one window token brings, learned over requests.

    While the window is off the estimate drifts back to its prior, so that it is eventually tried again.
    """

    def __init__(self) -> None:
        self._accepted = _PRIOR_YIELD * _PRIOR_TOKENS
        self._tokens = _PRIOR_TOKENS

    @property
    def per_token(self) -> float:
        """Accepted tokens per window token."""
        return self._accepted / self._tokens

    def observe(self, num_window_tokens: int, num_accepted: int) -> None:
        """Count a step: the window tokens it ran, and the accepted drafts that n-grams of a window had guessed."""
        if num_window_tokens == 0:
            self._accepted += (_PRIOR_YIELD * _PRIOR_TOKENS - self._accepted) * _PRIOR_RETURN
            self._tokens += (_PRIOR_TOKENS - self._tokens) * _PRIOR_RETURN
            return
        self._accepted += num_accepted
        self._tokens += num_window_tokens
        if self._tokens > 4 * _PRIOR_TOKENS:
            self._accepted *= 0.5
            self._tokens *= 0.5


WindowYields = dict[int, WindowYield]
"""By n-gram size N."""


def unknown_yields() -> WindowYields:
    """What windows bring before anything is learned."""
    return {ngram_size: WindowYield() for ngram_size in _NGRAM_SIZES}


class WindowFiller:
    """One request's window and the n-grams it has yielded; as a draft source it proposes those.

    W and N are chosen when a window is opened, from the step's costs and what windows of each N have brought. The
    tree's budget decides how many of its n-grams a step verifies (the published G).

    Args:
        seed_ids: tokens to start guesses from.
        gains: what window tokens have brought so far, updated with every step.
    """

    def __init__(self, seed_ids: Sequence[int], gains: WindowYields) -> None:
        self._seed_ids = seed_ids
        self._gains = gains
        self._pools = {ngram_size: PublishedPool(ngram_size, _MAX_CANDIDATES) for ngram_size in gains}
        self._window: LookaheadWindow | None = None
        self._last_size: int | None = None

    def propose(self, context: Sequence[int], *, max_candidates: int, max_length: int) -> list[Draft]:
        """N-grams of the window whose key is the context's last token, newest first."""
        if self._last_size is None or not context or max_length < 1:
            return []
        drafts = []
        for rank, ids in enumerate(self._pools[self._last_size].candidates(context[-1])[:max_candidates]):
            kept = ids[:max_length]
            drafts.append(Draft(kept, (1.0 / (1 + rank),) + (0.9,) * (len(kept) - 1), 1, DraftOrigin.LOOKAHEAD))
        return drafts

    def extend(self, token_ids: Sequence[int]) -> None:
        """The output is the prompt source's."""
        del token_ids

    def fill(self, curve: CostCurve, num_drafts: int, expected: float, room: int) -> LookaheadWindow | None:
        """The window for a step with these drafts, or none if its tokens would not earn their time.

        Args:
            curve: what steps cost.
            num_drafts: drafts the step carries already.
            expected: tokens the step is expected to yield.
            room: maximum number of further tail tokens.
        """
        left = min(len(curve.seconds) - 1 - num_drafts, room)
        base = curve.seconds[num_drafts]
        # the same bargain as for a draft: tokens gained against the rate that the time would earn otherwise
        rate = expected / base
        window, self._window = self._window, None
        if left < 1 or not self._seed_ids or self._most_per_token() <= curve.slopes[num_drafts] * rate:
            return None
        shapes = [(window.window_size, window.ngram_size)] if window is not None else _shapes(left)
        best, chosen = 0.0, None
        for window_size, ngram_size in shapes:
            size = _num_tokens(window_size, ngram_size)
            if size > left:
                continue
            cost = curve.seconds[num_drafts + size] - base
            gain = self._gains[ngram_size].per_token * size - cost * rate
            if gain > best:
                best, chosen = gain, (window_size, ngram_size)
        if chosen is not None:
            self._window = LookaheadWindow(*chosen, self._seed_ids) if window is None else window
        return self._window

    def _most_per_token(self) -> float:
        return max(gain.per_token for gain in self._gains.values())

    def drop_window(self) -> None:
        """Drop the window in a step without one: afterwards its guesses would be at the wrong positions."""
        self._window = None

    def learn(
        self, window: LookaheadWindow | None, context: Sequence[int], new: list[int], num_accepted: int, hits: int
    ) -> None:
        """Learn from a step.

        Args:
            window: the one that the step carried.
            context: the tokens before the drafts.
            new: argmax at the window's last row.
            num_accepted: tokens the step yielded.
            hits: accepted drafts owed to window n-grams.
        """
        for ngram_size, gain in self._gains.items():
            is_used = window is not None and window.ngram_size == ngram_size
            gain.observe(len(window) if window is not None and is_used else 0, hits if is_used else 0)
        if window is None or num_accepted == 0:
            return
        self._last_size = window.ngram_size
        for ngram in window.ngrams(context[-1], new):
            self._pools[window.ngram_size].insert(ngram)
        window.advance(new)


def _num_tokens(window_size: int, ngram_size: int) -> int:
    """Number of tokens that a window adds to a step."""
    return window_size * (ngram_size - 1) - 1


def _shapes(num_tokens: int) -> list[tuple[int, int]]:
    """W and N of the windows of up to ``num_tokens``; a single column guesses only what the next step knows anyway."""
    return [
        (window_size, ngram_size)
        for ngram_size in _NGRAM_SIZES
        for window_size in range(2, min((num_tokens + 1) // (ngram_size - 1), _MAX_WINDOW_SIZE) + 1)
    ]
