"""Everything but the text that an answer depends on: a cached answer or a running request serves only under it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from forelook.confidence import Confidence
from forelook.protocol.messages import MultiLine


@dataclass(frozen=True, slots=True)
class Selection:
    """The popup's selection, in a form that typing towards it does not change.

    Attributes:
        start: where the selected text starts.
        num_after: code points after the range that it replaces.
        text: the selected text.
    """

    start: int
    num_after: int
    text: str


@dataclass(frozen=True, slots=True)
class Condition:
    """What an answer depends on beyond the text around the cursor: the cache's key together with that text.

    Requests are built from it, so nothing else can reach the backend.

    Attributes:
        language_id: of the document.
        invoked: requested by a command, which permits blocks and takes more time.
        num_wanted: maximum number of alternatives.
        selected: the popup's selection, which suggestions must extend.
        multi_line, confidence, max_new_tokens, deadline_ms: the settings.
        model: the backend's model.
        epoch: number of other changes so far: of excluded files, or of the backend.
    """

    language_id: str = ""
    invoked: bool = False
    num_wanted: int = 1
    selected: Selection | None = None
    multi_line: MultiLine = MultiLine.AUTO
    confidence: Confidence | float = Confidence.OFF
    max_new_tokens: int | None = None
    deadline_ms: int | None = None
    model: str = ""
    epoch: int = 0

    def serves(self, wanted: Condition, offset: int) -> bool:
        """Whether an answer under this condition is also right under ``wanted``, with the cursor at ``offset``.

        More alternatives include fewer. What a command brought remains while the user types through it, but typing
        brings less than a command would. The backend completes the document as if the popup's selection were accepted,
        so its answer remains right once it is.
        """
        if self.invoked < wanted.invoked or self.num_wanted < wanted.num_wanted:
            return False
        same = replace(self, invoked=wanted.invoked, num_wanted=wanted.num_wanted, selected=wanted.selected)
        return same == wanted and (self.selected == wanted.selected or self._is_accepted(wanted, offset))

    def _is_accepted(self, wanted: Condition, offset: int) -> bool:
        return (
            wanted.selected is None
            and self.selected is not None
            and offset >= self.selected.start + len(self.selected.text)
        )
