"""Ollama's ``/api/generate``, ``/api/tags``, ``/api/ps``, ``/api/show`` and ``/api/version``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from forelook.protocol.generation import GenerationResult, InfillPrompt, ModelFacts, RawPrompt
from forelook.protocol.messages import MAX_NEW_TOKENS
from forelook.server.http import fields
from forelook.server.http.asking import NDJSON, Asked, encoded, generations, is_cut, model_name
from forelook.server.http.fields import OWN_FIELDS, Field, HttpError, honored, ignored, refused
from forelook.settings.kinds import boolean


class Generate:
    """``POST /api/generate``."""

    table: tuple[Field, ...] = (
        honored("prompt", fields.string(), "The text to continue, as it is. A whole prompt in the model's own infill "
                "format becomes ids, if there is no `suffix`.", ""),
        honored("suffix", fields.string(), "Text after the cursor; the server then formats the prompt to infill."),
        honored("stream", boolean(), "Answer in pieces.", True),
        honored("options.num_predict", fields.token_limit(-2), "Maximum number of tokens; 0 only warms the cache, "
                "below 0 is no limit.", -1),
        honored("options.temperature", fields.temperature(), "Of sampling; greedy if it is missing."),
        honored("options.top_k", fields.any_integer(), "Of sampling."),
        honored("options.top_p", fields.probability(), "Of sampling."),
        honored("options.seed", fields.any_integer(), "Of sampling; random if it is missing."),
        honored("options.stop", fields.stops(), "Texts that end the output.", ()),
        *OWN_FIELDS,
        ignored("model", "One model is loaded; the answer names it."),
        ignored("keep_alive", "The setting `keepAlive` says when the model is unloaded."),
        ignored("raw", "Prompts are always raw: there is no template."),
        ignored("options.num_ctx", "The server chooses it."),
        ignored("options.repeat_penalty", "Penalties would change what the model says."),
        ignored("options.min_p", "Filters are top-k and top-p."),
        refused("system", "the models complete code and read no instructions", ""),
        refused("template", "prompts are raw", ""),
        refused("context", "it is deprecated; send the text", []),
        refused("images", "the models read text", []),
        refused("format", "output cannot be constrained", ""),
        refused("think", "the models complete code", False),
        refused("logprobs", "the engine returns no probabilities", False),
    )  # fmt: skip

    def asked(self, values: Mapping[str, Any], facts: ModelFacts) -> Asked:
        """Translate a request; raises HttpError."""
        prompt, suffix, limit = values["prompt"], values["suffix"], values["options.num_predict"]
        if suffix and not facts.infill_format:
            raise HttpError(400, f"{model_name(facts)} does not support insert", field="suffix")
        # The ollama package sends an empty suffix where there is none.
        asked = InfillPrompt(prompt, suffix) if suffix else RawPrompt((prompt,), may_be_formatted=True)
        is_load = not prompt and not suffix
        limit = 0 if is_load else MAX_NEW_TOKENS if limit < 0 else limit
        found = generations([asked], 1, values, "options.", max_new_tokens=limit)
        return Asked(found, OllamaAnswers(facts, is_load=is_load), values["stream"])


class OllamaAnswers:
    """Answers of ``/api/generate``.

    Args:
        facts: of the model.
        is_load: whether the request only wants the model to be loaded.
    """

    content_type = NDJSON

    def __init__(self, facts: ModelFacts, *, is_load: bool) -> None:
        self._model = model_name(facts)
        self._is_load = is_load

    def _head(self) -> dict[str, object]:
        return {"model": self._model, "created_at": _time(datetime.now(timezone.utc))}

    def chunk(self, index: int, text: str) -> bytes:
        """A piece of the answer."""
        del index
        return encoded({**self._head(), "response": text, "done": False}) + b"\n"

    def end(self, index: int, result: GenerationResult) -> bytes:
        """The end of the answer."""
        del index
        return encoded(self._last(result, "")) + b"\n"

    def close(self, results: Sequence[GenerationResult]) -> bytes:
        """The end of the stream."""
        del results
        return b""

    def whole(self, results: Sequence[GenerationResult]) -> object:
        """The answer to a request that does not stream."""
        return self._last(results[0], results[0].text)

    def _last(self, result: GenerationResult, text: str) -> dict[str, object]:
        stats = result.stats
        return {
            **self._head(),
            "response": text,
            "done": True,
            "done_reason": "load" if self._is_load else "length" if is_cut(result) else "stop",
            "total_duration": _ns(stats.total_ms),
            "load_duration": 0,
            "prompt_eval_count": stats.num_prompt_tokens,
            "prompt_eval_duration": _ns(stats.prefill_ms),
            "eval_count": stats.num_generated_tokens,
            "eval_duration": _ns(stats.decode_ms),
        }


def _ns(spent_ms: float) -> int:
    return int(spent_ms * 1e6)


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


class Ollama:
    """Errors in Ollama's shape."""

    name = "ollama"

    def error(self, error: HttpError) -> object:
        """The body of an error."""
        return {"error": str(error)}

    def stream_error(self, error: HttpError) -> bytes:
        """The same within a stream."""
        return encoded(self.error(error)) + b"\n"


def tags(facts: ModelFacts) -> object:
    """``GET /api/tags`` and ``GET /api/ps``."""
    name = model_name(facts)
    model = {
        "name": name,
        "model": name,
        "modified_at": _time(datetime.fromtimestamp(facts.loaded_s, timezone.utc)),
        "size": 0,
        "digest": hashlib.sha256(facts.name.encode("utf-8", "surrogatepass")).hexdigest(),
        "details": _details(),
    }
    return {"models": [model]}


def show(facts: ModelFacts) -> object:
    """``POST /api/show``."""
    infills = bool(facts.infill_format)
    return {
        "details": _details(),
        "model_info": {"general.architecture": "forelook", "forelook.context_length": facts.num_positions},
        "capabilities": ["completion", "insert"] if infills else ["completion"],
        # Continue sends a suffix only to a model whose template has one.
        "template": "{{ .Prompt }}{{ .Suffix }}" if infills else "{{ .Prompt }}",
        "parameters": "",
    }


def _details() -> dict[str, object]:
    return {
        "parent_model": "", "format": "", "family": "", "families": [], "parameter_size": "", "quantization_level": "",
    }  # fmt: skip
