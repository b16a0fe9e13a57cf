"""What requests leave behind, per user of the backend: chosen context, answers, speculative work and counts.

Users of a shared backend share the model and nothing else: no request reuses, evicts or measures what another user's
requests left. A user's own backend has one user, whose name is empty.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from forelook.completion.engine.answers import LatestAnswers
from forelook.completion.engine.metrics import EngineMetrics
from forelook.completion.engine.speculation import Speculation
from forelook.completion.engine.usage import UsageCounters
from forelook.completion.prompt.context import ContextChooser
from forelook.protocol.messages import CompletionEventParams

OWNER = ""
"""The user of an own backend; on a shared one, its owner."""


class User:
    """One user. Only the engine's thread changes ``context``, ``answers``, ``speculation`` and ``keeps_caches``.

    Attributes:
        keeps_caches: whether the KV caches serve requests without a document, and so outlive the last document.
    """

    def __init__(self, name: str, *, prewarm: bool, metrics: EngineMetrics, usage: UsageCounters) -> None:
        self.name = name
        self.context = ContextChooser()
        self.answers = LatestAnswers()
        self.speculation = Speculation(prewarm=prewarm)
        self.metrics = metrics
        self.usage = usage
        self.keeps_caches = False


class Users:
    """The users by name, made on first use; as many as the backend has tokens.

    Args:
        prewarm: whether edits lead to prefills.
        statistics_path: file of the usage counts of all users; ``None`` keeps them in memory.
    """

    def __init__(self, *, prewarm: bool, statistics_path: Path | None) -> None:
        self._prewarm = prewarm
        self._metrics = EngineMetrics()  # of all users
        self.usage = UsageCounters(statistics_path)
        self._users: OrderedDict[str, User] = OrderedDict()  # the one whose turn is next first
        self.of(OWNER)

    def of(self, name: str) -> User:
        """The user called ``name``; any thread may ask."""
        user = self._users.get(name)
        if user is None:
            metrics, usage = EngineMetrics(self._metrics), UsageCounters(None)
            user = self._users.setdefault(name, User(name, prewarm=self._prewarm, metrics=metrics, usage=usage))
        return user

    def in_turn(self) -> tuple[User, ...]:
        """All users, the one whose turn is next first."""
        return tuple(self._users.values())

    def served(self, user: User) -> None:
        """Background work was done for a user: the others are next."""
        self._users.move_to_end(user.name)

    def record(self, name: str, event: CompletionEventParams) -> None:
        """Count what became of a suggestion, for its user and for all."""
        self.usage.record(event)
        self.of(name).usage.record(event)

    def worked_ahead(self, seconds: float) -> None:
        """Count time that was spent between requests."""
        self._metrics.add_work("ahead", seconds)

    def stats(self, name: str) -> dict[str, object]:
        """What a user may know: the own counts and times; the owner knows the sums of all."""
        if name == OWNER:
            return {**self._metrics.to_dict(), "usage": self.usage.to_dict(), "num_users": len(self._users)}
        user = self.of(name)
        return {**user.metrics.to_dict(), "usage": user.usage.to_dict()}
