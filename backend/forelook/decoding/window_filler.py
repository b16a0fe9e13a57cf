"""The lookahead window as filler: it takes what budget retrieval leaves, where tokens cost little enough to pay."""

from __future__ import annotations

from collections.abc import Sequence

from forelook.decoding.drafts import Draft, DraftOrigin
from forelook.decoding.lookahead_window import LookaheadWindow
from forelook.decoding.published_pool import PublishedPool
from forelook.decoding.step_budget import CostCurve

_NGRAM_SIZE = 4
_MAX_WINDOW_SIZE = 15
_MAX_CANDIDATES = 7
_PRIOR_YIELD = 0.006
_PRIOR_TOKENS = 3000.0


class WindowYield:
    """How many accepted tokens one window token brings, learned over requests.

    While the window is off the estimate drifts back to its prior, so that it is tried again some time.
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
            self._accepted += (_PRIOR_YIELD * _PRIOR_TOKENS - self._accepted) * 0.002
            self._tokens += (_PRIOR_TOKENS - self._tokens) * 0.002
            return
        self._accepted += num_accepted
        self._tokens += num_window_tokens
        if self._tokens > 4 * _PRIOR_TOKENS:
            self._accepted *= 0.5
            self._tokens *= 0.5


class WindowFiller:
    """One request's window and the n-grams it has yielded; as a draft source it proposes those.

    Args:
        seed_ids: tokens to start guesses from.
        gain: what window tokens have brought so far, updated as it goes.
    """

    def __init__(self, seed_ids: Sequence[int], gain: WindowYield) -> None:
        self._seed_ids = seed_ids
        self._gain = gain
        self._pool = PublishedPool(_NGRAM_SIZE, _MAX_CANDIDATES)
        self._window: LookaheadWindow | None = None
        self._is_empty = True

    def propose(self, context: Sequence[int], *, max_candidates: int, max_length: int) -> list[Draft]:
        """N-grams of the window whose key is the context's last token, newest first."""
        if self._is_empty or not context or max_length < 1:
            return []
        drafts = []
        for rank, ids in enumerate(self._pool.candidates(context[-1])[:max_candidates]):
            kept = ids[:max_length]
            drafts.append(Draft(kept, (1.0 / (1 + rank),) + (0.9,) * (len(kept) - 1), 1, DraftOrigin.LOOKAHEAD))
        return drafts

    def extend(self, token_ids: Sequence[int]) -> None:
        """Output teaches the prompt's source; here it has no place."""
        del token_ids

    def fill(self, curve: CostCurve, num_drafts: int, expected: float, room: int) -> LookaheadWindow | None:
        """The window for a step with these drafts, or none where its tokens would not earn their time.

        Args:
            curve: what steps cost.
            num_drafts: drafts the step carries already.
            expected: tokens the step is expected to yield.
            room: most tail tokens left.
        """
        left = min(len(curve.seconds) - 1 - num_drafts, room)
        window = self._window
        if window is None:
            columns = min((left + 1) // (_NGRAM_SIZE - 1), _MAX_WINDOW_SIZE)
            size = columns * (_NGRAM_SIZE - 1) - 1
        else:
            columns, size = window.window_size, len(window)
        self._window = None
        if columns < 2 or size > left or not self._seed_ids:
            return None
        base = curve.seconds[num_drafts]
        cost = curve.seconds[num_drafts + size] - base
        # the same bargain as for a draft: tokens gained against the rate that the time would earn otherwise
        if self._gain.per_token * size > cost * expected / base:
            self._window = LookaheadWindow(columns, _NGRAM_SIZE, self._seed_ids) if window is None else window
        return self._window

    def rest(self) -> None:
        """A step without a window: its guesses would stand at the wrong positions afterwards."""
        self._window = None

    def learn(
        self, window: LookaheadWindow | None, context: Sequence[int], new: list[int], num_accepted: int, hits: int
    ) -> None:
        """Take in a step.

        Args:
            window: the one it carried.
            context: the tokens before the drafts.
            new: argmax at the window's last row.
            num_accepted: tokens the step yielded.
            hits: accepted drafts owed to window n-grams.
        """
        self._gain.observe(0 if window is None else len(window), hits)
        if window is None or num_accepted == 0:
            return
        self._is_empty = False
        for ngram in window.ngrams(context[-1], new):
            self._pool.insert(ngram)
        window.advance(num_accepted, new)
