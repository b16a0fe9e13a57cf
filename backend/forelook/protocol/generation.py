"""What a client without documents asks of the engine: a prompt to continue, and how. Values only.

The HTTP interfaces translate to these; they differ in the spelling of a request, not in what the engine does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from forelook.finish_reason import FinishReason
from forelook.protocol.messages import RequestStats


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """A prompt that the model continues as it is.

    Attributes:
        parts: texts and token ids, in order.
        may_be_formatted: whether a text may be a whole prompt in the model's own infill format, whose sentinels then
            become ids. Otherwise their characters stay text.
    """

    parts: tuple[str | int, ...]
    may_be_formatted: bool = False


@dataclass(frozen=True, slots=True)
class PromptFile:
    """Text of another file that came with a request."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class InfillPrompt:
    """A prompt that the server puts into the model's infill format; no character of it becomes a sentinel.

    Attributes:
        prefix: text before the cursor.
        suffix: text after the cursor.
        middle: text between the prefix and the cursor, placed where the output begins, so that a keystroke in it
            leaves the rest of the prompt as it was.
        files: other files, the most useful one last.
    """

    prefix: str
    suffix: str
    middle: str = ""
    files: tuple[PromptFile, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """One generation.

    Attributes:
        prompt: what to continue.
        max_new_tokens: maximum number of tokens; 0 only brings the prompt into a KV cache.
        temperature: 0 is greedy.
        top_k, top_p: filters of sampling; ``None`` for none.
        seed: of sampling.
        stop: texts that end the output and do not belong to it.
        line_end_after_ms: after this time the output ends with its line; ``None`` for never.
        min_indent: a line with less indentation ends the output and does not belong to it; 0 for none.
        clean: whether to answer what an editor gets: to the end of the scope, fitted to the text around the cursor.
        language_id: LSP's language id, for ``clean``.
    """

    prompt: RawPrompt | InfillPrompt
    max_new_tokens: int
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()
    line_end_after_ms: float | None = None
    min_indent: int = 0
    clean: bool = False
    language_id: str = ""

    @property
    def num_chars(self) -> int:
        """Length of its texts."""
        prompt = self.prompt
        if isinstance(prompt, RawPrompt):
            return sum(len(part) if isinstance(part, str) else 1 for part in prompt.parts)
        files = sum(len(file.name) + len(file.text) for file in prompt.files)
        return len(prompt.prefix) + len(prompt.suffix) + len(prompt.middle) + files


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """What a generation came to.

    Attributes:
        text: the whole output.
        finish_reason: why it ended.
        stopping_text: the one of ``stop`` that ended it; empty if none did.
        num_cached_tokens: tokens in the KV cache afterwards.
        is_truncated: whether the prompt had to be shortened.
        stats: its cost.
    """

    text: str
    finish_reason: FinishReason
    stopping_text: str = ""
    num_cached_tokens: int = 0
    is_truncated: bool = False
    stats: RequestStats = field(default_factory=RequestStats)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What clients are told about the model that is served.

    Attributes:
        name: as the user gave it.
        num_positions: maximum number of tokens of prompt and output.
        vocab_size: number of tokens.
        infill_format: name of the infill format; empty if the model has none.
        loaded_s: when it was loaded first, in seconds since the epoch.
    """

    name: str
    num_positions: int
    vocab_size: int
    infill_format: str
    loaded_s: int
