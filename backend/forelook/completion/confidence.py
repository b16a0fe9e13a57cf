"""How sure the model was of a line it generated, and how sure it must be: log-probabilities of the line's tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from forelook.confidence import Confidence
from forelook.languages import Language
from forelook.model.confidence import ConfidenceTable
from forelook.protocol.messages import CompletionParams, TriggerKind

_NEWLINE = b"\n"


@dataclass(frozen=True, slots=True)
class LineScore:
    """Log-probabilities of the tokens of one generated line, in order.

    Attributes:
        log_probs: of its tokens; of the token that ends it too, which may be a stop token.
        ends: where each of these tokens ends, in bytes from the cursor; a stop token ends one byte later.
    """

    log_probs: tuple[float, ...]
    ends: tuple[int, ...]

    @property
    def total(self) -> float:
        """The log-probability that the line is exactly this one; 0 for no tokens."""
        return sum(self.log_probs)

    @property
    def mean(self) -> float:
        """Per token."""
        return self.total / max(1, len(self.log_probs))

    @property
    def lowest(self) -> float:
        """Of the least likely token."""
        return min(self.log_probs, default=0.0)

    @property
    def first(self) -> float:
        """Of the first token."""
        return next(iter(self.log_probs), 0.0)


@dataclass(frozen=True, slots=True)
class Sureness:
    """How sure the model must be of lines to show them for one request.

    Attributes:
        is_scored: whether lines are scored at all.
        least: the least log-probability of a line that is shown unasked.
        least_of_first: the same for the first line, which the user may have asked for.
    """

    is_scored: bool = False
    least: float = -math.inf
    least_of_first: float = -math.inf

    @classmethod
    def of(cls, request: CompletionParams, table: ConfidenceTable, language: Language) -> Sureness:
        """What a request asks for, by the table of the model."""
        if request.confidence is Confidence.OFF:
            return cls()
        least = table.least_log_prob(request.confidence, language.name)
        return cls(True, least, -math.inf if request.trigger is TriggerKind.INVOKED else least)


class GeneratedBytes:
    """Where each generated token ends in the generated text; offsets count bytes from the cursor.

    Args:
        num_skipped: leading bytes that repeat the prompt, as token healing generates them.
    """

    def __init__(self, num_skipped: int) -> None:
        self._num_skipped = num_skipped
        self._data = bytearray()
        self._ends: list[int] = []

    def push(self, pieces: Iterable[bytes]) -> None:
        """Add the bytes of tokens."""
        for piece in pieces:
            self._data += piece
            self._ends.append(len(self._data) - self._num_skipped)

    def line_score(self, log_probs: Sequence[float], start: int = 0) -> LineScore:
        """The score of the first line with text in it after ``start``, or of its beginning.

        The break and the indentation before it count, and so does the token that ends it.

        Args:
            log_probs: per token, then that of the stop token if it was reached.
            start: offset where the break before the line may be.
        """
        text = bytes(self._data[self._num_skipped :])[max(0, start) :]
        body = text.lstrip()
        end = body.find(_NEWLINE)
        last = None if end < 0 else start + len(text) - len(body) + end
        ends = [*self._ends, len(self._data) - self._num_skipped + 1]
        begins = [0, *ends]
        # The first tokens may only repeat the prompt: what they repeat is given, how likely they are is not.
        found = [
            (value, ends[index])
            for index, value in enumerate(log_probs)
            if (ends[index] > start or start == 0) and (last is None or begins[index] <= last)
        ]
        return LineScore(tuple(value for value, _ in found), tuple(end for _, end in found))
