"""The outcome of one pass of the decoding loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from forelook.completion.confidence import GeneratedBytes, LineScore
from forelook.finish_reason import FinishReason


@dataclass(frozen=True, slots=True)
class Decoded:
    """One pass of the decoding loop.

    Attributes:
        raw: what the model generated.
        finish_reason: why it ended.
        data: the tokens of ``raw``.
        log_probs: of these tokens, and of the stop token if it was reached; empty if they were not scored.
    """

    raw: str
    finish_reason: FinishReason
    data: GeneratedBytes
    log_probs: Sequence[float] = ()

    @property
    def is_cut(self) -> bool:
        """Whether more would have followed."""
        return self.finish_reason not in (FinishReason.STOP_TOKEN, FinishReason.SCOPE_END)

    def line_score(self) -> LineScore:
        """Of the first line with text in it."""
        return self.data.line_score(self.log_probs)

    def is_sure_after(self, tail: str, least: float) -> bool:
        """Whether the first line of ``tail``, the end of ``raw``, is as likely as that."""
        if least == -math.inf:
            return True
        return self.data.line_score(self.log_probs, len(self.raw[: -len(tail)].encode())).total >= least
