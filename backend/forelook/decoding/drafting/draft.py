"""Draft tokens and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class DraftOrigin(Enum):
    """Which source guessed a draft; calibration and statistics are kept per origin."""

    PROMPT = "prompt"
    OUTPUT = "output"
    WORKSPACE = "workspace"
    PREVIOUS_SUGGESTION = "previous_suggestion"
    LOOKAHEAD = "lookahead"
    SUCCESSOR = "successor"  # what the model itself said after the same few tokens before


@dataclass(frozen=True, slots=True)
class Draft:
    """One guessed continuation of the context.

    Attributes:
        token_ids: the guessed tokens, nearest first; never empty.
        shares: per token, the share of this source's evidence that agrees with it given the tokens before it, in
            (0, 1]; what calibration turns into an acceptance probability.
        match_length: how many context tokens the source matched to find it.
        origin: the source.
    """

    token_ids: tuple[int, ...]
    shares: tuple[float, ...]
    match_length: int
    origin: DraftOrigin


class DraftSource(Protocol):
    """Guesses continuations from token ids alone."""

    def propose(self, context: Sequence[int], *, max_candidates: int, max_length: int) -> list[Draft]:
        """Guess what follows ``context``, best guess first.

        Args:
            context: the tokens before the next one: the tail of the text before the cursor plus what was generated,
                without sentinels or any other file's tokens. The source reads as much of its end as it needs.
            max_candidates: most drafts to return.
            max_length: most tokens of one draft.
        """
        ...

    def extend(self, token_ids: Sequence[int]) -> None:
        """Learn tokens just accepted, where the source learns from output; otherwise do nothing."""
        ...
