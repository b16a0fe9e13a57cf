"""Why a completion ended: one vocabulary from the decoding loop to the wire."""

from __future__ import annotations

from enum import Enum


class FinishReason(Enum):
    """Why generation ended, or why there was none."""

    # The decoding loop's own.
    STOP_TOKEN = "stop_token"
    MAX_TOKENS = "max_tokens"
    CONTEXT_FULL = "context_full"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    CLOSED = "closed"  # the consumer closed the stream, for instance at a stop string

    # The completer's: it closed the stream, or did not start one.
    SCOPE_END = "scope_end"
    UNSURE = "unsure"  # the model was not sure enough of the first line to show it unasked
    EMPTY_PROMPT = "empty_prompt"
    SELECTION_DOES_NOT_EXTEND = "selection_does_not_extend"

    # The engine's.
    LOADING = "loading"
    NO_MODEL = "no_model"
