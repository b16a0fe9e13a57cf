"""The one value that every decoding loop accepts: a prompt, when to stop, how to choose tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forelook.decoding.limits import GREEDY, Limits, SamplingParams, TokenConstraint

PREFILL_CHUNK = 512
"""Tokens per prefill forward; the deadline and the cancel flag are checked between two.

Chosen, not measured. It also bounds the mask of the last chunk.
"""


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """One generation.

    Attributes:
        prompt_ids: the whole prompt, at least one token.
        limits: when to stop, deadline and cancel flag included.
        sampling: how a token is chosen; greedy by default.
        constraint: which tokens may come next.
        context: the tokens before the cursor, which the output continues: no sentinels and no tokens of other files.
            ``None`` for the prompt after its last boundary token.
        after: the tokens after the cursor, likewise.
        is_infilling: whether the prompt shows the model the text after the cursor.
        boundary_ids: sentinels and file separators, which drafts never contain or cross.
        is_scored: whether the loop reports the log-probabilities of its tokens.
        prefill_chunk: maximum number of prompt tokens per forward; a short last chunk carries the first drafts.
    """

    prompt_ids: Sequence[int]
    limits: Limits
    sampling: SamplingParams = GREEDY
    constraint: TokenConstraint | None = None
    context: Sequence[int] | None = None
    after: Sequence[int] | npt.NDArray[np.int32] = ()
    is_infilling: bool = False
    boundary_ids: frozenset[int] = frozenset()
    is_scored: bool = False
    prefill_chunk: int = PREFILL_CHUNK

    @property
    def draft_context(self) -> Sequence[int]:
        """``context``, or its default."""
        if self.context is not None:
            return self.context
        start = len(self.prompt_ids)
        while start > 0 and self.prompt_ids[start - 1] not in self.boundary_ids:
            start -= 1
        return self.prompt_ids[start:]
