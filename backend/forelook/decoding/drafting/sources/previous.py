"""The previous suggestion as a draft: after a keystroke that left it, much of its rest is often still right."""

from __future__ import annotations

from collections.abc import Sequence

from forelook.decoding.drafting.draft import Draft, DraftOrigin

_MAX_MATCH = 16  # chosen, not measured
_WEAKER_SHARE = 0.3  # of a second match, a far weaker sign than the first; chosen, not measured


class PreviousSuggestion:
    """Guesses that the output continues like the last suggestion.

    The context's end is searched in the old text: the tokens before the old cursor, then the suggestion. Where it
    matches, the rest of the suggestion is the draft. A suggestion that the user has typed in part, or has left and
    returned to some tokens later, is verified in one forward.

    Args:
        before_ids: the tokens before the cursor the suggestion was made for; their end is enough.
        suggestion_ids: the suggestion's tokens, what it generated beyond its shown part included.
    """

    def __init__(self, before_ids: Sequence[int], suggestion_ids: Sequence[int]) -> None:
        before = list(before_ids[-_MAX_MATCH:])
        self._text = before + list(suggestion_ids)
        self._first = len(before)

    def extend(self, token_ids: Sequence[int]) -> None:
        """Nothing to learn: output is found through the context."""
        del token_ids

    def propose(self, context: Sequence[int], *, max_candidates: int, max_length: int) -> list[Draft]:
        """The suggestion's rest after each place that matches the context's end, longest match first."""
        if not context or max_length < 1:
            return []
        text = self._text
        end = list(context[-_MAX_MATCH:])
        matches: list[tuple[int, int]] = []
        for place in range(max(self._first - 1, 0), len(text) - 1):
            length = 0
            while length < len(end) and length <= place and text[place - length] == end[-1 - length]:
                length += 1
            if length:
                matches.append((-length, place))
        matches.sort()
        drafts = []
        for rank, (negative, place) in enumerate(matches[: min(max_candidates, 2)]):
            ids = tuple(text[place + 1 : place + 1 + max_length])
            share = 1.0 if rank == 0 else _WEAKER_SHARE
            drafts.append(Draft(ids, (share,) + (1.0,) * (len(ids) - 1), -negative, DraftOrigin.PREVIOUS_SUGGESTION))
        return drafts
