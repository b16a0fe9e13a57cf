"""llama.cpp's ``/infill``, ``/completion``, ``/tokenize``, ``/detokenize``, ``/health`` and ``/props``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forelook import __version__
from forelook.finish_reason import FinishReason
from forelook.protocol.generation import GenerationResult, InfillPrompt, ModelFacts, PromptFile, RawPrompt
from forelook.protocol.messages import MAX_NEW_TOKENS
from forelook.server.http import fields
from forelook.server.http.asking import SSE, Asked, check_tokens, encoded, event, generations, is_cut, model_name
from forelook.server.http.fields import MAX_ANSWERS, MAX_FILES, OWN_FIELDS, Field, HttpError, honored, ignored, is_token
from forelook.settings.kinds import Kind, boolean, number

MAX_PATHS = 64  # of response_fields; chosen, not measured
MAX_TOKENS_SENT = 1_000_000  # to /detokenize; chosen, not measured
_MAX_NAME_CHARS = 1_000  # chosen, not measured
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    501: "not_supported_error",
    503: "unavailable_error",
}
_MS = number(0.0, 3_600_000.0)


def _files() -> Kind:
    def from_json(value: object) -> object:
        return tuple(map(_file, value)) if isinstance(value, list) and all(map(_is_file, value)) else value

    def accepts(value: object) -> bool:
        return isinstance(value, tuple) and len(value) <= MAX_FILES

    allowed = f"a list of at most {MAX_FILES} objects with a text and, if known, a filename"
    return Kind(allowed, {"type": "array"}, accepts, from_json)


def _is_file(chunk: object) -> bool:
    return (
        isinstance(chunk, dict)
        and isinstance(chunk.get("text"), str)
        and isinstance(chunk.get("filename"), (str, type(None)))
    )


def _file(chunk: Mapping[str, str]) -> PromptFile:
    return PromptFile((chunk.get("filename") or "tmp")[:_MAX_NAME_CHARS], chunk["text"])


def _is_prompt(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and any(map(is_token, value)) and all(is_token(x) or isinstance(x, str) for x in value)
    return isinstance(value, str)


_SAMPLING: tuple[Field, ...] = (
    honored("n_predict", fields.token_limit(-2), "Maximum number of tokens; 0 only warms the cache, below 0, or if it "
            "is missing, is no limit."),
    honored("max_tokens", fields.token_limit(-2), "The same where `n_predict` is missing."),
    honored("temperature", fields.temperature(), "Of sampling; greedy if it is missing."),
    honored("top_k", fields.any_integer(), "Of sampling."),
    honored("top_p", fields.probability(), "Of sampling."),
    honored("seed", fields.any_integer(), "Of sampling; random if it is missing or negative."),
    honored("stop", fields.stops(), "Texts that end the output.", ()),
    honored("stream", boolean(), "Answer in pieces.", False),
    honored("n_cmpl", fields.whole(1, MAX_ANSWERS), "Number of answers; the response is then a list.", 1),
    honored("n_indent", fields.whole(0, 1_000), "A line with less indentation ends the output.", 0),
    honored("t_max_predict_ms", _MS, "After this time the output ends with its line.", 0.0),
    honored("response_fields", fields.strings(f"a list of at most {MAX_PATHS} paths", MAX_PATHS),
            "Parts of the response to send, by their path."),
    ignored("t_max_prompt_ms", "Prompts are short, and what is cached is not run again."),
    ignored("samplers", "The order is temperature, top-k, top-p."),
    ignored("cache_prompt", "Prompts are always cached."),
    ignored("id_slot", "The longest cached prefix of any earlier prompt is used."),
    ignored("min_p", "Filters are top-k and top-p."),
    ignored("typical_p", "Filters are top-k and top-p."),
    ignored("repeat_penalty", "Penalties would change what the model says."),
    ignored("presence_penalty", "Penalties would change what the model says."),
    ignored("frequency_penalty", "Penalties would change what the model says."),
    ignored("lora", "Adapters are loaded with the model."),
    ignored("model", "One model is loaded; the answer names it."),
    ignored("return_tokens", "`/tokenize` gives them."),
    ignored("timings_per_token", "The timings are in the last response."),
    fields.refused("n_probs", "the engine returns no probabilities", 0),
    fields.refused("grammar", "output cannot be constrained", ""),
    fields.refused("json_schema", "output cannot be constrained"),
    fields.refused("logit_bias", "it would change what the model says", {}, []),
)  # fmt: skip


def _asked(
    prompts: Sequence[RawPrompt | InfillPrompt], values: Mapping[str, Any], facts: ModelFacts, is_list: bool
) -> Asked:
    limit = values["max_tokens"] if values["n_predict"] is None else values["n_predict"]
    found = generations(
        prompts,
        values["n_cmpl"],
        values,
        max_new_tokens=MAX_NEW_TOKENS if limit is None or limit < 0 else limit,
        line_end_after_ms=values["t_max_predict_ms"] or None,
        min_indent=values["n_indent"],
    )
    answers = LlamaCppAnswers(facts, values["response_fields"], is_list or values["n_cmpl"] > 1)
    return Asked(found, answers, values["stream"])


class Infill:
    """``POST /infill``."""

    table: tuple[Field, ...] = (
        honored("input_prefix", fields.string(), "Text before the cursor's line.", ""),
        honored("input_suffix", fields.string(), "Text after the cursor.", ""),
        honored("prompt", fields.string(), "The cursor's line up to the cursor.", ""),
        honored("input_extra", _files(), "Text of other files, the most useful one last.", ()),
        *_SAMPLING,
        *OWN_FIELDS,
    )

    def asked(self, values: Mapping[str, Any], facts: ModelFacts) -> Asked:
        """Translate a request; raises HttpError."""
        if not facts.infill_format:
            raise HttpError(501, "the model has no infill format; use /completion")
        prompt = InfillPrompt(values["input_prefix"], values["input_suffix"], values["prompt"], values["input_extra"])
        return _asked([prompt], values, facts, is_list=False)


class Completion:
    """``POST /completion``."""

    table: tuple[Field, ...] = (
        honored("prompt", fields.prompts(_is_prompt, "a string, a list of token ids and strings, or a list of some"),
                "The text to continue. A whole prompt in the model's own infill format becomes ids."),
        *_SAMPLING,
        *OWN_FIELDS,
    )  # fmt: skip

    def asked(self, values: Mapping[str, Any], facts: ModelFacts) -> Asked:
        """Translate a request; raises HttpError."""
        prompts = values["prompt"]
        if prompts is None:
            raise HttpError(400, "prompt is missing", field="prompt")
        found = [
            RawPrompt((prompt,), may_be_formatted=True)
            if isinstance(prompt, str)
            else check_tokens(RawPrompt(tuple(prompt)), facts)
            for prompt in prompts
        ]
        return _asked(found, values, facts, is_list=len(found) > 1)


class LlamaCppAnswers:
    """Answers of ``/infill`` and ``/completion``.

    Args:
        facts: of the model.
        paths: the parts to send; ``None`` for all.
        is_list: whether a whole answer is a list.
    """

    content_type = SSE

    def __init__(self, facts: ModelFacts, paths: Sequence[str] | None, is_list: bool) -> None:
        self._facts = facts
        self._paths = paths
        self._is_list = is_list

    def chunk(self, index: int, text: str) -> bytes:
        """A piece of one answer."""
        return event({"index": index, "content": text, "tokens": [], "stop": False, "id_slot": 0})

    def end(self, index: int, result: GenerationResult) -> bytes:
        """The end of one answer."""
        return event(self._chosen({**self._response(index, result), "content": ""}))

    def close(self, results: Sequence[GenerationResult]) -> bytes:
        """The end of the stream."""
        del results
        return b""

    def whole(self, results: Sequence[GenerationResult]) -> object:
        """The answer to a request that does not stream."""
        chosen = [self._chosen(self._response(index, result)) for index, result in enumerate(results)]
        return chosen if self._is_list else chosen[0]

    def _chosen(self, response: dict[str, object]) -> dict[str, object]:
        if not self._paths:
            return response
        found: dict[str, object] = {}
        for path in self._paths:
            value: object = response
            for name in path.split("/"):
                value = value.get(name) if isinstance(value, dict) else None
            if value is not None:
                found[path] = value
        return found

    def _response(self, index: int, result: GenerationResult) -> dict[str, object]:
        reason, stats = result.finish_reason, result.stats
        kind = "limit" if is_cut(result) else "word" if result.stopping_text else "eos"
        if reason is FinishReason.CLOSED and not result.stopping_text:
            kind = "limit"
        return {
            "index": index,
            "content": result.text,
            "tokens": [],
            "id_slot": 0,
            "stop": True,
            "model": model_name(self._facts),
            "tokens_predicted": stats.num_generated_tokens,
            "tokens_evaluated": stats.num_prompt_tokens,
            "generation_settings": {"n_ctx": self._facts.num_positions},
            "has_new_line": "\n" in result.text,
            "truncated": result.is_truncated,
            "stop_type": kind,
            "stopping_word": result.stopping_text,
            "tokens_cached": result.num_cached_tokens,
            "timings": {
                **_timings("prompt", stats.num_prefill_tokens, stats.prefill_ms),
                **_timings("predicted", stats.num_generated_tokens, stats.decode_ms),
                "cache_n": stats.num_reused_tokens,
                "draft_n": stats.num_drafted_tokens,
                "draft_n_accepted": stats.num_accepted_tokens,
            },
        }


def _timings(name: str, count: int, spent_ms: float) -> dict[str, object]:
    return {
        f"{name}_n": count,
        f"{name}_ms": round(spent_ms, 3),
        f"{name}_per_token_ms": round(spent_ms / count, 3) if count else 0.0,
        f"{name}_per_second": round(count / spent_ms * 1e3, 3) if spent_ms else 0.0,
    }


class LlamaCpp:
    """Errors in llama.cpp's shape."""

    name = "llama.cpp"

    def error(self, error: HttpError) -> object:
        """The body of an error."""
        kind = _KINDS.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
        return {"error": {"code": error.status, "message": str(error), "type": kind}}

    def stream_error(self, error: HttpError) -> bytes:
        """The same within a stream."""
        return b"error: " + encoded(self.error(error)) + b"\n\n"


TOKENIZE: tuple[Field, ...] = (
    honored("content", fields.string(), "The text.", ""),
    honored("with_pieces", boolean(), "Give the text of each token.", False),
    ignored("add_special", "No token is added to the text."),
    ignored("parse_special", "No character of the text becomes a control token."),
)
DETOKENIZE: tuple[Field, ...] = (honored("tokens", fields.token_ids(MAX_TOKENS_SENT), "The token ids.", ()),)


def props(facts: ModelFacts) -> object:
    """``GET /props``."""
    return {
        "default_generation_settings": {"n_ctx": facts.num_positions, "params": {"temperature": 0.0, "n_predict": -1}},
        "total_slots": 1,
        "model_path": model_name(facts),
        "chat_template": "",
        "build_info": f"forelook {__version__}",
    }
