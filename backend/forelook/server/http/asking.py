"""What the three interfaces have in common: from a request to generations, and back to answers."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from forelook.finish_reason import FinishReason
from forelook.protocol.generation import GenerationParams, GenerationResult, InfillPrompt, ModelFacts, RawPrompt
from forelook.server.http.fields import CLEAN, LANGUAGE, MAX_ANSWERS, Field, HttpError

_MIN_TEMPERATURE = 1e-3  # below, sampling is greedy but for rounding
_FURTHER_TEMPERATURE = 0.7  # of several answers whose temperature is not given, all but the first; as in editors
_LENGTH_REASONS = (FinishReason.MAX_TOKENS, FinishReason.CONTEXT_FULL, FinishReason.DEADLINE)

SSE, NDJSON, JSON = "text/event-stream", "application/x-ndjson", "application/json"


class Answers(Protocol):
    """Turns the results of one request into the bytes of an answer."""

    content_type: str
    """Of a stream."""

    def chunk(self, index: int, text: str) -> bytes:
        """A piece of one answer."""
        ...

    def end(self, index: int, result: GenerationResult) -> bytes:
        """The end of one answer."""
        ...

    def close(self, results: Sequence[GenerationResult]) -> bytes:
        """The end of the stream."""
        ...

    def whole(self, results: Sequence[GenerationResult]) -> object:
        """The answer to a request that does not stream."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, translated.

    Attributes:
        generations: what to generate, one after the other, by the index of the answer.
        answers: turns the results into the answer.
        streams: whether the answer is sent in pieces.
    """

    generations: tuple[GenerationParams, ...]
    answers: Answers
    streams: bool


class Dialect(Protocol):
    """One of the interfaces: its name in the metrics, and how errors look."""

    name: str

    def error(self, error: HttpError) -> object:
        """The body of an error."""
        ...

    def stream_error(self, error: HttpError) -> bytes:
        """The same within a stream."""
        ...


class Generating(Protocol):
    """An endpoint that generates."""

    table: tuple[Field, ...]

    def asked(self, values: Mapping[str, Any], facts: ModelFacts) -> Asked:
        """Translate a request.

        Raises:
            HttpError: it cannot be answered.
        """
        ...


def generations(
    asked_prompts: Sequence[RawPrompt | InfillPrompt],
    num_answers: int,
    values: Mapping[str, Any],
    group: str = "",
    **further: Any,
) -> tuple[GenerationParams, ...]:
    """The generations of some prompts with some answers each, the answers of a prompt next to each other.

    Without a temperature an answer is greedy, so that it is the same each time; further ones are sampled.

    Args:
        asked_prompts: what to continue.
        num_answers: of each prompt.
        values: the request's fields.
        group: what the names of the fields about sampling and stop texts begin with.
        further: what other fields become.

    Raises:
        HttpError: these are too many.
    """
    if len(asked_prompts) * num_answers > MAX_ANSWERS:
        raise HttpError(400, f"{len(asked_prompts) * num_answers} answers are too many; ask for at most {MAX_ANSWERS}")
    if values[CLEAN.name] and num_answers > 1:
        raise HttpError(400, "forelook_clean gives one answer per prompt; leave the number out", field="n")
    sampling = ("temperature", "top_p", "top_k", "seed", "stop")
    temperature, top_p, top_k, seed, stop = (values[group + name] for name in sampling)
    base = secrets.randbits(63) if seed is None or seed < 0 else seed % 2**63
    top_k = None if top_k is None or top_k <= 0 else top_k
    common = {"stop": stop, "clean": values[CLEAN.name], "language_id": values[LANGUAGE.name], **further}
    found = []
    for prompt in asked_prompts:
        for number in range(num_answers):
            warmth = temperature if temperature is not None else 0.0 if number == 0 else _FURTHER_TEMPERATURE
            sampled: dict[str, Any] = {}
            if warmth >= _MIN_TEMPERATURE and top_p != 0.0:
                sampled = {"temperature": warmth, "top_k": top_k, "top_p": top_p, "seed": (base + number) % 2**63}
            found.append(GenerationParams(prompt, **common, **sampled))
    return tuple(found)


def check_tokens(prompt: RawPrompt, facts: ModelFacts) -> RawPrompt:
    """The prompt, if its ids are of the model.

    Raises:
        HttpError: one is not.
    """
    if any(isinstance(part, int) and part >= facts.vocab_size for part in prompt.parts):
        raise HttpError(400, f"a token id is outside the model's vocabulary of {facts.vocab_size}", field="prompt")
    return prompt


def is_cut(result: GenerationResult) -> bool:
    """Whether more would have followed."""
    return result.finish_reason in _LENGTH_REASONS


def model_name(facts: ModelFacts) -> str:
    """The model's name without the folders of this machine."""
    name = facts.name.replace("\\", "/")
    is_path = name.startswith(("/", ".", "~")) or name[1:2] == ":"
    return name.rstrip("/").rpartition("/")[2] if is_path else name


def encoded(value: object) -> bytes:
    """A value as JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def event(value: object) -> bytes:
    """A value as a server-sent event."""
    return b"data: " + encoded(value) + b"\n\n"
