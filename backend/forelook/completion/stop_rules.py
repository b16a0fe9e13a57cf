"""What ends the output of a request without a document, besides the model: stop texts and rules about lines."""

from __future__ import annotations

from collections.abc import Sequence


class StopRules:
    """Passes generated text on until a rule ends it. What may be the beginning of a stop text is held back.

    Args:
        stop: texts that end the output and do not belong to it; none is empty.
        min_indent: a line with less indentation ends the output and does not belong to it; 0 for none.

    Attributes:
        stopping_text: the stop text that ended the output.
        has_ended: whether a rule has ended the output.
    """

    def __init__(self, stop: Sequence[str] = (), min_indent: int = 0) -> None:
        self._stop = tuple(stop)
        self._min_indent = min_indent
        self._longest = max(map(len, self._stop), default=0)
        self._held = ""
        self.stopping_text = ""
        self.has_ended = False

    def push(self, text: str, *, ends_with_line: bool = False) -> str:
        """Add generated text; returns what may be passed on.

        Args:
            text: continues the output.
            ends_with_line: whether the next line break ends the output, which it belongs to.
        """
        if self.has_ended:
            return ""
        self._held += text
        found = [(place, stop) for stop in self._stop if (place := self._held.find(stop)) >= 0]
        place, stop = min(found, default=(len(self._held), ""))
        indented = self._less_indented(self._held[:place])
        if indented is not None:
            return self._end(indented)
        if ends_with_line and (line_end := self._held.find("\n", 0, place)) >= 0:
            return self._end(line_end + 1)
        if stop:
            self.stopping_text = stop
            return self._end(place)
        safe = len(self._held) - max(self._num_pending_stop(), self._num_pending_indent())
        return self._release(safe)

    def finish(self) -> str:
        """The text that was held back: the model has ended the output."""
        return "" if self.has_ended else self._release(len(self._held))

    def _end(self, place: int) -> str:
        self.has_ended = True
        return self._release(place)

    def _release(self, length: int) -> str:
        released, self._held = self._held[:length], self._held[length:]
        return released

    def _num_pending_stop(self) -> int:
        """Length of the longest end of what is held that a stop text begins with."""
        for length in range(min(self._longest - 1, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stop):
                return length
        return 0

    def _num_pending_indent(self) -> int:
        """Length of the beginning of a line whose indentation is not known yet, with the line break before it."""
        newline = self._held.rfind("\n")
        is_known = self._min_indent == 0 or newline < 0 or self._held[newline:].strip(" \t\n")
        return 0 if is_known else len(self._held) - newline

    def _less_indented(self, text: str) -> int | None:
        """Where the first line with too little indentation starts, with the line break before it."""
        if self._min_indent == 0:
            return None
        newline = text.find("\n")
        while newline >= 0:
            following = text.find("\n", newline + 1)
            line = text[newline + 1 : following if following >= 0 else len(text)]
            body = line.lstrip(" \t")
            if body and len(line) - len(body) < self._min_indent:
                return newline
            newline = following
        return None
