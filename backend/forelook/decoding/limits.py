"""Limits, sampling and constraints of a generation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from forelook.decoding.layout import IntArray
from forelook.errors import ConfigError
from forelook.finish_reason import FinishReason


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop, checked at every decode step.

    Attributes:
        max_new_tokens: maximum number of tokens to generate, the stop token not counted.
        stop_token_ids: any of these ends generation and is not part of the output.
        deadline_s: a ``time.monotonic()`` value after which no further forward starts.
        is_cancelled: called before every forward.
    """

    max_new_tokens: int
    stop_token_ids: frozenset[int] = frozenset()
    deadline_s: float | None = None
    is_cancelled: Callable[[], bool] = field(default=lambda: False)

    def __post_init__(self) -> None:
        if self.max_new_tokens < 0:
            raise ConfigError("max_new_tokens", self.max_new_tokens, "0 or more")

    def interrupted(self) -> FinishReason | None:
        """The reason not to start another forward, if there is one."""
        if self.is_cancelled():
            return FinishReason.CANCELLED
        if self.deadline_s is not None and time.monotonic() >= self.deadline_s:
            return FinishReason.DEADLINE
        return None


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen; temperature 0 is greedy.

    Noise is seeded by (seed, output position), so that speculative and autoregressive streams of one seed are equal.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0.0:
            raise ConfigError("temperature", self.temperature, "0 (greedy) or more")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError("top_k", self.top_k, "1 or more, or unset")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise ConfigError("top_p", self.top_p, "above 0 and at most 1, or unset")


GREEDY = SamplingParams()


class TokenConstraint(Protocol):
    """A hook that masks logits: which tokens may come next. Token healing is one."""

    def allowed_ids(self, generated: Sequence[int]) -> IntArray | None:
        """Ids allowed after ``generated`` (the output so far), ascending; ``None`` when every id is.

        Once ``None`` for some output it is ``None`` for every longer one.
        """
        ...
