"""The requests without a document: a queue per user, of which one runs at a time, in slices between other work."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial

from forelook.completion.engine.fair_share import FairShare
from forelook.completion.engine.inbox import GenerationJob
from forelook.completion.engine.model_state import Loaded
from forelook.completion.engine.pools import WorkspacePools
from forelook.completion.engine.request_texts import RequestTexts, http_workspace, text_of
from forelook.completion.engine.users import OWNER, User, Users
from forelook.completion.generation import Generation, GenerationControl
from forelook.completion.requests import Hints
from forelook.decoding.drafting.draft import DraftSource
from forelook.decoding.drafting.sources.prompt import PromptSource
from forelook.decoding.loop import decode
from forelook.errors import DecodingError, ForelookError, RequestCancelledError
from forelook.failures import log_failure, logged
from forelook.protocol.generation import GenerationResult
from forelook.protocol.messages import CompletionResult

MAX_USERS = 8  # whose KV caches are kept without documents; chosen, not measured

_TYPING_S = 60.0  # after a request for a document others are likely; chosen, not measured


@dataclass(slots=True)
class _Running:
    """A generation that has started.

    Attributes:
        can_pause: whether another may run between its steps; ranks that decode together run one at a time.
    """

    job: GenerationJob
    generation: Generation
    steps: Generator[None, None, None]
    can_pause: bool


class Generations:
    """Runs requests without a document; used from the engine's thread.

    Args:
        users: whose counts are kept.
        pools: of all workspaces.
        has_other_work: whether something waits that comes first.
        drop_unused: frees the KV caches of a user without documents.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        users: Users,
        pools: WorkspacePools,
        has_other_work: Callable[[], bool],
        drop_unused: Callable[[str, Loaded], None],
        clock: Callable[[], float],
    ) -> None:
        self._users = users
        self._pools = pools
        self._has_other_work = has_other_work
        self._drop_unused = drop_unused
        self._clock = clock
        self._shares = FairShare(clock)
        self._document_asked_s = -math.inf
        self._waiting: dict[str, deque[GenerationJob]] = {}  # no queue is empty
        self._running: dict[str, _Running] = {}
        self._current: str | None = None
        self._texts: OrderedDict[str, RequestTexts] = OrderedDict()  # the user of the latest request last

    @property
    def has_work(self) -> bool:
        """Whether any request waits or has started."""
        return bool(self._waiting or self._running)

    @property
    def num_waiting(self) -> int:
        """Requests that have not started."""
        return sum(len(queue) for queue in tuple(self._waiting.values()))

    def add(self, job: GenerationJob) -> None:
        """Queue a request."""
        self._users.of(job.principal).metrics.add("requests")
        self._waiting.setdefault(job.principal, deque()).append(job)

    def fail(self, error: ForelookError) -> None:
        """Answer all requests with an error."""
        jobs = [running.job for running in self._running.values()]
        jobs += [job for queue in self._waiting.values() for job in queue]
        for running in self._running.values():
            with logged("ending a generation"):
                running.steps.close()
        self._running.clear()
        self._waiting.clear()
        for job in jobs:
            job.finish(error)

    def charge(self, user: str, seconds: float) -> None:
        """Count work for a user against the user's share."""
        self._shares.charge(user, seconds)
        self._users.of(user).metrics.add_work("requests", seconds)

    def charge_document(self, user: str, seconds: float) -> None:
        """Count the answer to a request for a document likewise."""
        self._document_asked_s = self._clock()
        self.charge(user, seconds)

    def lets_pass(self, user: str) -> bool:
        """Whether a user's request for a document comes before all that waits here: its user is typing.

        Somebody else's comes first only if that user has not had more of the device. The owner's always does.
        """
        others = {**self._running, **self._waiting}
        return not others or user == OWNER or self._shares.first([user, *others]) == user

    def run_slice(self, loaded: Loaded) -> None:
        """Run the generation of the user whose turn it is, until it is another one's or other work waits."""
        user = self._current = self._next_user()
        running = self._running.get(user)
        job = self._take(user) if running is None else running.job
        started_s = time.perf_counter()
        try:
            if running is None:
                running = self._running[user] = self._start(job, loaded)
            for _ in running.steps:
                now_s = time.perf_counter()
                self.charge(user, now_s - started_s)
                started_s = now_s
                if running.can_pause and self._must_pause():
                    return
        except ForelookError as error:
            outcome: GenerationResult | ForelookError = error
        except Exception as error:  # noqa: BLE001 - edge of the thread: one request fails
            log_failure("a generation", error)
            loaded.drop(user)  # the state of its caches is unknown
            outcome = DecodingError(f"the generation failed ({type(error).__name__}); see the backend's log")
        else:
            outcome = running.generation.result or DecodingError("the generation ended without a result")
        self.charge(user, time.perf_counter() - started_s)
        self._running.pop(user, None)
        self._count(self._users.of(user), outcome)
        job.finish(outcome)
        self._learn(job, loaded)

    def _next_user(self) -> str:
        return self._shares.first({**self._running, **self._waiting}, self._current)

    def _must_pause(self) -> bool:
        return self._has_other_work() or self._next_user() != self._current

    def _has_company(self, user: str) -> bool:
        """Whether the device has lately worked for another user, or for one who types."""
        is_typing = self._clock() - self._document_asked_s < _TYPING_S
        return is_typing or self._shares.has_company(user) or any(other != user for other in self._waiting)

    def _take(self, user: str) -> GenerationJob:
        queue = self._waiting[user]
        job = queue.popleft()
        if not queue:
            del self._waiting[user]
        return job

    def _start(self, job: GenerationJob, loaded: Loaded) -> _Running:
        user = job.principal
        can_pause = loaded.loop is decode
        control = GenerationControl(
            job.arrived_s,
            job.cancelled.is_set,
            self._must_pause if can_pause else lambda: False,
            partial(self._has_company, user),
            lambda: user in self._waiting,
            job.on_text,
        )
        completer = loaded.completer(user)
        generation = Generation(loaded.model, completer, job.params, control, partial(self._hints, job))
        return _Running(job, generation, generation.run(), can_pause)

    def _hints(self, job: GenerationJob, file_ids: list[int]) -> Hints:
        """What drafts come from: other files of the request, and the pools of its user."""
        workspace = http_workspace(job.principal)
        sources: list[DraftSource] = []
        with logged("drafting from a user's pools"):
            if file_ids:
                sources.append(PromptSource(file_ids))
            texts = self._texts.get(job.principal)
            if (pool := self._pools.get(workspace)) is not None:
                key = None if texts is None else texts.key_of(text_of(job.params))
                sources.append(pool.source(key or ""))
            if (other := self._pools.latest_of(job.principal, workspace)) is not None:
                sources.append(other.source(""))
        return Hints((), sources, self._pools.memory(workspace))

    def _learn(self, job: GenerationJob, loaded: Loaded) -> None:
        """Let the text of a request teach its user's pool; only a few users' caches and texts are kept."""
        user = job.principal
        with logged("learning from a request"):
            texts = self._texts.setdefault(user, RequestTexts())
            self._texts.move_to_end(user)
            self._users.of(user).keeps_caches = True
            if (pool := self._pools.get(http_workspace(user))) is not None:
                texts.learn(job.params, pool)
            if len(self._texts) > MAX_USERS:
                oldest = next(iter(self._texts))
                del self._texts[oldest]
                self._users.of(oldest).keeps_caches = False
                if oldest not in self._running:
                    self._drop_unused(oldest, loaded)

    def _count(self, user: User, outcome: GenerationResult | ForelookError) -> None:
        if isinstance(outcome, GenerationResult):
            user.metrics.add_result(CompletionResult((), outcome.finish_reason, stats=outcome.stats))
        else:
            user.metrics.add("cancelled" if isinstance(outcome, RequestCancelledError) else "failed")
