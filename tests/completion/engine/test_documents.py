"""Every edit reaches the engine's thread, also one that comes just as the command of the one before runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from forelook.budgets import ByteBudget
from forelook.completion.document_store import DocumentStore
from forelook.completion.engine.documents import DocumentFeed
from forelook.completion.engine.inbox import Inbox
from forelook.completion.engine.users import OWNER, Users
from forelook.keys import DocumentKey
from forelook.protocol.messages import TextChange

from tests.completion.engine_rig import WORKSPACE, A


class Places(dict[DocumentKey, Any]):
    """Places of commands that wait; in the middle of the first look, another thread works."""

    def __init__(self, places: dict[DocumentKey, Any], work: Callable[[], None]) -> None:
        super().__init__(places)
        self.thread = threading.Thread(target=work)

    def __contains__(self, key: object) -> bool:
        found = super().__contains__(key)
        if self.thread.ident is None:
            self.thread.start()
            self.thread.join(0.2)  # where it has to wait for this look, it is done later
        return found


@pytest.mark.parametrize("name", ["_cursors", "_rests"])
def test_what_comes_while_the_command_before_runs_is_not_the_last_that_is_heard(name: str) -> None:
    budget = ByteBudget("texts", "close some", 2**20, 2**20)
    inbox, users = Inbox(budget), Users(prewarm=True, statistics_path=None)
    nothing = cast("Any", SimpleNamespace(loaded=None, get=lambda _workspace: None))
    feed = DocumentFeed(DocumentStore(budget), inbox, nothing, nothing, users, lambda: 0.0)
    feed.open(WORKSPACE, A, "python", 1, "abcd")

    def work() -> None:
        for command in inbox.take().commands:
            command()

    def come(number: int) -> None:
        if name == "_rests":
            feed.move_cursor(A, 1, number)
        else:
            feed.change(A, 1 + number, [TextChange(number - 1, number - 1, "x")])

    work()
    come(1)
    places = Places(getattr(feed, name), work)
    setattr(feed, name, places)
    come(2)
    places.thread.join()
    work()
    come(3)
    work()
    prewarm = users.of(OWNER).speculation.take_prewarm(1e9)
    assert prewarm is not None
    assert prewarm.offset == 3
