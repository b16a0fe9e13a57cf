"""Draft tokens and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

ID_BITS = 24
"""Token ids are smaller than 2 to this power, so that an integer has room for several."""


def pair_of(first: int, second: int) -> int:
    """Two tokens in one integer."""
    return first << ID_BITS | second


class DraftOrigin(Enum):
    """Which source guessed a draft; calibration and statistics are kept per origin.

    A new source needs an entry here, a module in ``drafting.sources``, and a place where its requests get it.
    """

    PROMPT = "prompt"
    OUTPUT = "output"
    WORKSPACE = "workspace"
    PREVIOUS_SUGGESTION = "previous_suggestion"
    LOOKAHEAD = "lookahead"
    SUCCESSOR = "successor"  # the model's own earlier choice after the same few tokens
    DEPENDENCY = "dependency"  # libraries that open files import


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
            context: the tokens before the next one: the tail of the text before the cursor plus the output, without
                sentinels or tokens of other files. The source reads as much of its end as it needs.
            max_candidates: maximum number of drafts.
            max_length: maximum number of tokens per draft.
        """
        ...

    def extend(self, token_ids: Sequence[int]) -> None:
        """Learn tokens just accepted, if the source learns from output."""
        ...
