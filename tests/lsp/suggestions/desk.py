"""A document, an editor and a scripted backend around ``SuggestionMachine``."""

from __future__ import annotations

from dataclasses import dataclass, field

from forelook.protocol.messages import SelectedCompletion
from forelook_lsp.suggestions.cache import Continuation, Place
from forelook_lsp.suggestions.condition import Condition, Selection
from forelook_lsp.suggestions.machine import (
    Action,
    Answer,
    Ask,
    Discard,
    Query,
    SuggestionMachine,
    Withdraw,
)
from forelook_lsp.suggestions.pacing import Timing

URI = "file:///a.py"


@dataclass
class Desk:
    """A document, an editor and a scripted backend around ``SuggestionMachine``, with a clock that is told the time."""

    text: str = ""
    suffix: str = ""
    timing: Timing = field(default_factory=Timing)
    now_s: float = 100.0

    def __post_init__(self) -> None:
        self.machine = SuggestionMachine(self.timing)
        self.version = 1
        self.next_query_id = 1
        self.asks: dict[int, Query] = {}
        self.open_queries: dict[int, Query] = {}
        self.answers: list[Answer] = []
        self.discarded: list[int] = []
        self.withdrawn: list[int] = []

    @property
    def place(self) -> Place:
        whole, offset = self.text + self.suffix, len(self.text)
        anchor = max(self.text.rfind("\n"), self.text.rfind("\r")) + 1
        return Place.of(URI, whole, anchor, offset)

    def do(self, actions: list[Action]) -> list[Action]:
        for action in actions:
            if isinstance(action, Ask):
                assert len(self.asks) == 0, "two requests run for one document"
                self.asks[action.request_id] = action.query
            elif isinstance(action, Withdraw):
                del self.asks[action.request_id]
                self.withdrawn.append(action.request_id)
            elif isinstance(action, Answer):
                del self.open_queries[action.query.query_id]
                self.answers.append(action)
            elif isinstance(action, Discard):
                del self.open_queries[action.query_id]
                self.discarded.append(action.query_id)
        return actions

    def request(
        self,
        *,
        invoked: bool = False,
        num_wanted: int = 1,
        selected: SelectedCompletion | None = None,
        condition: Condition | None = None,
    ) -> list[Action]:
        selection = None
        if selected is not None:
            num_after = len(self.text + self.suffix) - selected.end
            selection = Selection(selected.start, num_after, selected.text)
        own = Condition(invoked=invoked, num_wanted=num_wanted, selected=selection)
        query = Query(self.next_query_id, self.place, self.version, condition or own)
        self.next_query_id += 1
        self.open_queries[query.query_id] = query
        return self.do(self.machine.queried(query, self.now_s))

    def type(self, text: str, suffix: str | None = None) -> list[Action]:
        self.text += text
        self.suffix = self.suffix if suffix is None else suffix
        return self.edited()

    def edited(self) -> list[Action]:
        self.version += 1
        return self.do(self.machine.edited(URI, self.place, self.now_s))

    def answer(
        self,
        *texts: str,
        next_line: str = "",
        num_replaced: int = 0,
        is_cut: bool = False,
        is_unsure: bool = False,
    ) -> list[Action]:
        request_id = next(iter(self.asks))
        del self.asks[request_id]
        found = [Continuation(text, num_replaced) for text in texts]
        return self.do(
            self.machine.answered(request_id, found, next_line, self.now_s, is_cut=is_cut, is_unsure=is_unsure)
        )

    def say(self, text: str) -> list[Action]:
        return self.do(self.machine.progressed(next(iter(self.asks)), text, self.now_s))

    def cancel(self) -> None:
        query_id = max(self.open_queries)
        del self.open_queries[query_id]
        self.machine.cancelled(query_id, self.now_s)

    def wait(self, seconds: float) -> list[Action]:
        self.now_s += seconds
        return self.do(self.machine.tick(self.now_s))

    @property
    def last(self) -> Answer:
        return self.answers[-1]

    def shown(self) -> list[str]:
        return [continuation.text for continuation in self.last.continuations]
