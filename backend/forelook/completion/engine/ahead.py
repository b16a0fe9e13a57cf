"""Work ahead of a user's next request: context, follow-up suggestions, prefills. And what drafts come from."""

from __future__ import annotations

from collections.abc import Callable

from forelook.completion.document_store import Document
from forelook.completion.engine.model_state import Loaded
from forelook.completion.engine.pool_keys import pool_key
from forelook.completion.engine.pools import WorkspacePools
from forelook.completion.engine.speculation import PREWARM_MIN_TOKENS, FollowUp, Prewarm
from forelook.completion.engine.users import User, Users
from forelook.completion.requests import Completed, Hints, RequestControl
from forelook.config import EngineConfig
from forelook.decoding.drafting.draft import DraftSource
from forelook.decoding.ngrams.index import TokenArray
from forelook.failures import logged


class WorkAhead:
    """Prepares requests for documents, between requests; used from the engine's thread.

    Args:
        config: limits.
        users: for whom to work.
        pools: of all workspaces.
        has_work: whether something waits that comes first; asked before every forward.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: EngineConfig,
        users: Users,
        pools: WorkspacePools,
        has_work: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._users = users
        self._pools = pools
        self._has_work = has_work
        self._clock = clock

    def hints(self, user: User, document: Document, offset: int, loaded: Loaded) -> Hints:
        """What helps a request at an offset of a document, beyond its text."""
        sources: list[DraftSource] = []
        after: TokenArray | None = None
        # Without these drafts a completion is slower, but the same.
        with logged("drafting from the workspace"):
            if (pool := self._pools.get(document.workspace)) is not None:
                key = pool_key(document.workspace, document.key)
                sources.append(pool.source(key))
                after = pool.tokens_after(key, offset)
            if (libraries := self._pools.dependencies(document.workspace.principal)) is not None:
                sources.append(libraries.dependency_source())
        answer = user.answers.of(document.key)
        previous = None if answer is None else answer.draft_source(loaded.model.tokenizer.encode)
        if previous is not None:
            sources.append(previous)
        context = user.context.choose(document, offset) if loaded.completer(user.name).wants_context else ()
        return Hints(context, sources, self._pools.memory(document.workspace), after)

    def work(self, loaded: Loaded) -> bool:
        """Prepare one thing for a later request, of each user in turn; returns whether there was any."""
        for user in self._users.in_turn():
            if user.context.has_work:
                with logged("choosing context"):
                    self._choose_context(user)
            elif (follow_up := user.speculation.take_follow_up()) is not None:
                with logged("a follow-up"):
                    self._compute_follow_up(user, follow_up, loaded)
            elif (prewarm := user.speculation.take_prewarm(self._clock())) is not None:
                with logged("prewarming"):
                    self._prefill(user, prewarm, loaded)
            else:
                continue
            self._users.served(user)
            return True
        return False

    def _choose_context(self, user: User) -> None:
        changed = user.context.work()
        if changed is not None and (answer := user.answers.of(changed)) is not None:
            # The next prompt starts differently: prefill it before the next request.
            user.speculation.edited(changed, answer.request.offset, self._clock())

    def _compute_follow_up(self, user: User, follow_up: FollowUp, loaded: Loaded) -> None:
        now_s = self._clock()
        deadline_s = now_s + self._config.invoked_deadline_ms / 1e3
        control = RequestControl(now_s, deadline_s, self._has_work, is_waited_for=False)
        document, request = follow_up.document, follow_up.request
        hints = self.hints(user, document, request.offset, loaded)
        outcome = loaded.completer(user.name).complete(document, request, control, hints)
        if isinstance(outcome, Completed):
            user.metrics.add("speculations")
            user.metrics.add("background_forwards", outcome.result.stats.num_forwards)
            user.speculation.add_result(follow_up, outcome)

    def _prefill(self, user: User, prewarm: Prewarm, loaded: Loaded) -> None:
        """Bring the prompt around the last edit into a KV cache, until a request arrives."""
        document = user.context.latest(prewarm.key)
        if document is None or prewarm.offset > len(document.text):
            return
        context = self.hints(user, document, prewarm.offset, loaded).context
        completer = loaded.completer(user.name)
        prompt = completer.prepare(document, prewarm.offset, context)
        if completer.num_uncached(prompt) >= PREWARM_MIN_TOKENS:
            num_tokens, num_forwards = completer.prefill(prompt, self._has_work)
            user.metrics.add("prewarmed_tokens", num_tokens)
            user.metrics.add("background_forwards", num_forwards)
