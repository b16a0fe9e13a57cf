"""Files that wait to be indexed, in order of relevance."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from forelook.budgets import ByteBudget, text_bytes
from forelook.errors import LimitError


class WaitingFiles:
    """The waiting files of one workspace.

    Args:
        budget: memory for their texts, which all workspaces share.
        user: whose they are.
    """

    def __init__(self, budget: ByteBudget, user: str) -> None:
        self._budget = budget
        self._user = user
        self._texts: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def add(self, key: str, text: str) -> bool:
        """Let a file wait, in its former place if it waits already; False without memory for it."""
        former = self._texts.get(key)
        try:
            self._budget.resize(self._user, 0 if former is None else text_bytes(former), text_bytes(text))
        except LimitError:
            return False
        self._texts[key] = text
        return True

    def take(self, key: str) -> str | None:
        """A file, which waits no longer."""
        text = self._texts.pop(key, None)
        if text is not None:
            self._budget.resize(self._user, text_bytes(text), 0)
        return text

    def clear(self) -> None:
        """Forget all."""
        for key in tuple(self._texts):
            self.take(key)
