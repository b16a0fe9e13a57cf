"""Counts and times of one generation."""

from __future__ import annotations

from dataclasses import dataclass, field

from forelook.decoding.drafting.draft import DraftOrigin
from forelook.finish_reason import FinishReason


@dataclass(slots=True)
class DecodingStats:
    """What one generation did. A loop updates it with every step, so it is right even when the consumer stops early.

    Attributes:
        num_prompt_tokens: tokens of the prompt.
        num_reused_tokens: of these, already in the KV cache.
        num_steps: forwards that yielded tokens, the one that ends the prefill included.
        num_forwards: all forwards, prefill chunks included.
        num_generated_tokens: tokens yielded.
        num_drafted_tokens: draft tokens verified.
        num_accepted_tokens: of these, accepted (bonus tokens are not drafts).
        prefill_s: seconds until the first tokens.
        decode_s: seconds of the later steps.
        forward_s: of both, seconds inside ``forward`` until its result was on the host.
        accepted_by_origin: ``num_accepted_tokens`` per draft source.
        finish_reason: why the loop ended, once it has.
        timed_prefill_tokens: prompt tokens of forwards that say how fast a prefill is.
        timed_prefill_s: seconds of these forwards.
        log_probs: of the tokens yielded, then of the stop token if it was reached; empty unless the request is scored.
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
    accepted_by_origin: dict[DraftOrigin, int] = field(default_factory=dict)
    finish_reason: FinishReason | None = None
    timed_prefill_tokens: int = 0
    timed_prefill_s: float = 0.0
    log_probs: list[float] = field(default_factory=list)

    def __iadd__(self, other: DecodingStats) -> DecodingStats:  # noqa: PYI034 - Self needs Python 3.11
        """Add another pass over the same prompt; the first pass says how much of the prompt was reused.

        Log-probabilities belong to one pass and are left out.
        """
        if self.num_forwards == 0:
            self.num_prompt_tokens, self.num_reused_tokens = other.num_prompt_tokens, other.num_reused_tokens
        self.num_steps += other.num_steps
        self.num_forwards += other.num_forwards
        self.num_generated_tokens += other.num_generated_tokens
        self.num_drafted_tokens += other.num_drafted_tokens
        self.num_accepted_tokens += other.num_accepted_tokens
        self.prefill_s += other.prefill_s
        self.decode_s += other.decode_s
        self.timed_prefill_tokens += other.timed_prefill_tokens
        self.timed_prefill_s += other.timed_prefill_s
        self.forward_s += other.forward_s
        for origin, count in other.accepted_by_origin.items():
            self.count_accepted(origin, count)
        self.finish_reason = other.finish_reason
        return self

    def count_accepted(self, origin: DraftOrigin, count: int = 1) -> None:
        """Count accepted drafts for their source."""
        self.accepted_by_origin[origin] = self.accepted_by_origin.get(origin, 0) + count

    @property
    def tokens_per_step(self) -> float:
        """Generated tokens per decode step; 0 before the first step."""
        return self.num_generated_tokens / self.num_steps if self.num_steps else 0.0
