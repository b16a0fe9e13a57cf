"""Counts and times of one generation."""

from __future__ import annotations

from dataclasses import dataclass, field

from forelook.decoding.drafting.draft import DraftOrigin
from forelook.decoding.limits import FinishReason


@dataclass(slots=True)
class DecodingStats:
    """What one generation did. A loop fills it as it goes, so it is right even when the consumer stops early.

    Attributes:
        num_prompt_tokens: tokens of the prompt.
        num_reused_tokens: of these, already in the KV cache.
        num_steps: forwards that yielded tokens, the one that ends the prefill included.
        num_forwards: all forwards, prefill chunks included.
        num_generated_tokens: tokens yielded.
        num_drafted_tokens: draft tokens verified.
        num_accepted_tokens: of these, accepted (bonus tokens are not drafts).
        prefill_s: time until the first tokens.
        decode_s: time of the later steps.
        forward_s: of both, inside ``forward`` until its result was on the host.
        drafted_by_origin, accepted_by_origin: the same counts per source.
        finish_reason: why the loop ended, once it has.
    """

    num_prompt_tokens: int = 0
    num_reused_tokens: int = 0
    num_steps: int = 0
    num_forwards: int = 0
    num_generated_tokens: int = 0
    num_drafted_tokens: int = 0
    num_accepted_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    forward_s: float = 0.0
    drafted_by_origin: dict[DraftOrigin, int] = field(default_factory=dict)
    accepted_by_origin: dict[DraftOrigin, int] = field(default_factory=dict)
    finish_reason: FinishReason | None = None

    @property
    def tokens_per_step(self) -> float:
        """Generated tokens per decode step; 0 before the first step."""
        return self.num_generated_tokens / self.num_steps if self.num_steps else 0.0
