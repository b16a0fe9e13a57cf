"""What a completion engine can be told, checked at the border."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from forelook.decoding.lookahead.published import PublishedSettings
from forelook.errors import ConfigError


class DecodingMethod(Enum):
    """How tokens are found; the output is the same, the speed is not."""

    LOOKAHEAD = "lookahead"
    PUBLISHED = "published"
    AUTOREGRESSIVE = "autoregressive"


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Limits and shares of a completion engine.

    Attributes:
        max_line_tokens: most tokens of a suggestion that ends with its line.
        max_block_tokens: most tokens of a suggestion that may span lines.
        deadline_ms: time for an automatic request from its arrival; what is good by then is returned.
        invoked_deadline_ms: the same for a request the user asked for.
        max_prompt_tokens: most tokens of a prompt; ``None`` for what the model's positions allow, and less on a CPU,
            where a cold prefill is what a keystroke waits for.
        suffix_share: share of the prompt for the text after the cursor.
        context_share: share of the prompt for other files; what one part does not use, the others may.
        kv_cache_bytes: memory for cached prompts, beyond the one that is always kept.
        method: lookahead decoding, the same as published, or the plain loop.
        published: W, N and G of lookahead decoding as published.
        sampling_temperature: for the second and third suggestion of an invoked request.
        partial_every_s: how often a running request tells what it has so far. That serves to see whether what was typed
            meanwhile still fits; nobody types faster, and passing parts on takes a core from the next step.
        prewarm: bring the prompt around the last edit into the KV cache while idle.
        speculate_on_show: compute the completion that would follow acceptance while the user reads; ``None`` means
            wherever the device is not a CPU.
        index_slice_s: time of one slice of background indexing.
        max_document_chars: larger documents are refused.
        statistics_path: file of the usage counters; ``None`` keeps them in memory.
        pool_cache_dir: folder of the persistent n-gram pools; ``None`` keeps them in memory.
        keep_alive_s: the model is unloaded after this long without use, and loaded again when needed; ``None`` never.
    """

    max_line_tokens: int = 48
    max_block_tokens: int = 128
    deadline_ms: int = 400
    invoked_deadline_ms: int = 3000
    max_prompt_tokens: int | None = None
    suffix_share: float = 0.4
    context_share: float = 0.15
    kv_cache_bytes: int = 256 * 2**20
    method: DecodingMethod = DecodingMethod.LOOKAHEAD
    published: PublishedSettings = field(default_factory=PublishedSettings)
    sampling_temperature: float = 0.7
    partial_every_s: float = 0.025
    prewarm: bool = True
    speculate_on_show: bool | None = None
    index_slice_s: float = 0.001
    max_document_chars: int = 8_000_000
    statistics_path: Path | None = None
    pool_cache_dir: Path | None = None
    keep_alive_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_line_tokens", "max_block_tokens", "deadline_ms", "invoked_deadline_ms", "max_document_chars"):
            if getattr(self, name) < 1:
                raise ConfigError(name, getattr(self, name), "1 or more")
        if self.max_prompt_tokens is not None and self.max_prompt_tokens < 16:
            raise ConfigError("max_prompt_tokens", self.max_prompt_tokens, "16 or more, or unset")
        for name in ("suffix_share", "context_share"):
            if not 0.0 <= getattr(self, name) <= 0.8:
                raise ConfigError(name, getattr(self, name), "from 0 to 0.8")
        if self.suffix_share + self.context_share > 0.9:
            raise ConfigError("suffix_share + context_share", self.suffix_share + self.context_share, "at most 0.9")
        if self.kv_cache_bytes < 0:
            raise ConfigError("kv_cache_bytes", self.kv_cache_bytes, "0 or more")
        if self.keep_alive_s is not None and not self.keep_alive_s > 0.0:
            raise ConfigError("keep_alive_s", self.keep_alive_s, "above 0, or unset")
        if not self.sampling_temperature > 0.0:
            raise ConfigError("sampling_temperature", self.sampling_temperature, "above 0")
        if not 0.0 <= self.partial_every_s <= 10.0:
            raise ConfigError("partial_every_s", self.partial_every_s, "from 0 to 10")
        if not 0.0 < self.index_slice_s <= 0.1:
            raise ConfigError("index_slice_s", self.index_slice_s, "above 0 and at most 0.1")
