"""OpenAI's ``/v1/completions`` and ``/v1/models``."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from forelook.protocol.generation import GenerationResult, InfillPrompt, ModelFacts, RawPrompt
from forelook.server.http import fields
from forelook.server.http.asking import SSE, Asked, check_tokens, encoded, event, generations, is_cut, model_name
from forelook.server.http.fields import MAX_ANSWERS, OWN_FIELDS, Field, HttpError, honored, ignored, is_token, refused
from forelook.settings.kinds import boolean

DEFAULT_MAX_TOKENS = 16  # OpenAI's
_KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


def _is_prompt(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and bool(value) and all(map(is_token, value)))


class Completions:
    """``POST /v1/completions``."""

    table: tuple[Field, ...] = (
        honored(
            "prompt", fields.prompts(_is_prompt, f"a string, a list of token ids, or a list of at most {MAX_ANSWERS}"),
            "The text to continue. A whole prompt in the model's own infill format becomes ids, if there is no "
            "`suffix`.",
        ),
        honored("suffix", fields.string(), "Text after the cursor; the server then formats the prompt to infill."),
        honored("max_tokens", fields.token_limit(0), "Maximum number of tokens; 0 only warms the cache.",
                DEFAULT_MAX_TOKENS),
        honored("temperature", fields.temperature(), "Of sampling; greedy if it is missing."),
        honored("top_p", fields.probability(), "Of sampling."),
        honored("top_k", fields.any_integer(), "Of sampling; not in OpenAI's API."),
        honored("seed", fields.any_integer(), "Of sampling; random if it is missing."),
        honored("n", fields.whole(1, MAX_ANSWERS), "Number of answers per prompt.", 1),
        honored("stop", fields.stops(), "Texts that end the output.", ()),
        honored("stream", boolean(), "Answer in pieces.", False),
        honored("stream_options.include_usage", boolean(), "Send the usage at the end of a stream.", False),
        honored("echo", boolean(), "Repeat the prompt before the output.", False),
        *OWN_FIELDS,
        ignored("model", "One model is loaded; the answer names it."),
        ignored("user", "The key says who asks."),
        refused("logprobs", "the engine returns no probabilities", False),
        refused("best_of", "ask for `n` answers", 1),
        refused("presence_penalty", "it would change what the model says", 0, 0.0),
        refused("frequency_penalty", "it would change what the model says", 0, 0.0),
        refused("logit_bias", "it would change what the model says", {}),
    )  # fmt: skip

    def asked(self, values: Mapping[str, Any], facts: ModelFacts) -> Asked:
        """Translate a request; raises HttpError."""
        prompts, suffix, echo = values["prompt"], values["suffix"], values["echo"]
        if prompts is None:
            raise HttpError(400, "prompt is missing", field="prompt")
        if suffix is not None and not facts.infill_format:
            raise HttpError(400, "the model has no infill format; leave suffix out", field="suffix")
        texts = ["" if not echo or not isinstance(prompt, str) else prompt for prompt in prompts]
        if echo and not all(isinstance(prompt, str) for prompt in prompts):
            raise HttpError(400, "echo needs a prompt of text; leave it out", field="echo")
        asked_prompts: list[RawPrompt | InfillPrompt] = []
        for prompt in prompts:
            if suffix is not None:
                if not isinstance(prompt, str):
                    raise HttpError(400, "a prompt with a suffix must be a string", field="prompt")
                asked_prompts.append(InfillPrompt(prompt, suffix))
            elif isinstance(prompt, str):
                asked_prompts.append(RawPrompt((prompt,), may_be_formatted=True))
            else:
                asked_prompts.append(check_tokens(RawPrompt(tuple(prompt)), facts))
        found = generations(asked_prompts, values["n"], values, max_new_tokens=values["max_tokens"])
        answers = CompletionAnswers(facts, texts, values["n"], values["stream_options.include_usage"])
        return Asked(found, answers, values["stream"])


class CompletionAnswers:
    """Answers of ``/v1/completions``.

    Args:
        facts: of the model.
        echoes: what precedes the output of each prompt.
        num_answers: per prompt.
        sends_usage: whether a stream ends with the usage.
    """

    content_type = SSE

    def __init__(self, facts: ModelFacts, echoes: Sequence[str], num_answers: int, sends_usage: bool) -> None:
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model_name(facts),
        }
        self._echoes = echoes
        self._num_answers = num_answers
        self._sends_usage = sends_usage
        self._begun: set[int] = set()

    def _echo(self, index: int) -> str:
        return self._echoes[index // self._num_answers]

    def _choice(self, index: int, text: str, result: GenerationResult | None) -> dict[str, object]:
        reason = None if result is None else "length" if is_cut(result) else "stop"
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}

    def chunk(self, index: int, text: str) -> bytes:
        """A piece of one answer."""
        if index not in self._begun:
            self._begun.add(index)
            text = self._echo(index) + text
        return event({**self._head, "choices": [self._choice(index, text, None)]})

    def end(self, index: int, result: GenerationResult) -> bytes:
        """The end of one answer."""
        text = "" if index in self._begun else self._echo(index)
        return event({**self._head, "choices": [self._choice(index, text, result)]})

    def close(self, results: Sequence[GenerationResult]) -> bytes:
        """The end of the stream."""
        usage = event({**self._head, "choices": [], "usage": self._usage(results)}) if self._sends_usage else b""
        return usage + b"data: [DONE]\n\n"

    def whole(self, results: Sequence[GenerationResult]) -> object:
        """The answer to a request that does not stream."""
        choices = [self._choice(index, self._echo(index) + each.text, each) for index, each in enumerate(results)]
        return {**self._head, "choices": choices, "usage": self._usage(results)}

    def _usage(self, results: Sequence[GenerationResult]) -> dict[str, int]:
        num_prompt = sum(result.stats.num_prompt_tokens for result in results[:: self._num_answers])
        num_generated = sum(result.stats.num_generated_tokens for result in results)
        return {
            "prompt_tokens": num_prompt,
            "completion_tokens": num_generated,
            "total_tokens": num_prompt + num_generated,
        }


class OpenAi:
    """Errors in OpenAI's shape."""

    name = "openai"

    def error(self, error: HttpError) -> object:
        """The body of an error."""
        kind = _KINDS.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
        return {"error": {"message": str(error), "type": kind, "param": error.field, "code": None}}

    def stream_error(self, error: HttpError) -> bytes:
        """The same within a stream."""
        return b"data: " + encoded(self.error(error)) + b"\n\n"


def models(facts: ModelFacts) -> object:
    """``GET /v1/models``."""
    return {"object": "list", "data": [_entry(facts)]}


def model(name: str, facts: ModelFacts) -> object:
    """``GET /v1/models/NAME``; raises HttpError."""
    entry = _entry(facts)
    if name != entry["id"]:
        raise HttpError(404, "there is no such model; see /v1/models", field="model")
    return entry


def _entry(facts: ModelFacts) -> dict[str, object]:
    return {
        "id": model_name(facts),
        "object": "model",
        "created": facts.loaded_s,
        "owned_by": "forelook",
        "meta": {"n_ctx": facts.num_positions, "n_vocab": facts.vocab_size},
    }
