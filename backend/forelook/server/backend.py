"""What the connections of one server share: the engine, its status, document keys, the idle timer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from forelook.config import ServerConfig
from forelook.errors import ForelookError, ModelError
from forelook.failures import log_failure
from forelook.keys import DocumentKey
from forelook.local.user_keys import KeyRing
from forelook.protocol.messages import EngineState, Status
from forelook.server.engine import Engine, EngineFactory, OnStatus
from forelook.server.key_keeper import KeyKeeper
from forelook.server.metrics import ACCESS, ServerMetrics
from forelook.server.prometheus import exposition, metrics_of

logger = logging.getLogger("forelook.server")


MAX_LEAVING = 16  # connections that are being closed; chosen, not measured


def _close(engine: Engine, loop: asyncio.AbstractEventLoop, closed: asyncio.Event) -> None:
    engine.close()
    with contextlib.suppress(RuntimeError):  # the loop has already closed
        loop.call_soon_threadsafe(closed.set)


@dataclass(frozen=True, slots=True)
class ExitHooks:
    """Callbacks that end the process.

    Attributes:
        idle: there was no connection for the idle time.
        shutdown: a client requested it; ``None`` where no client may.
        failed: the engine cannot answer, as the status says; the next start must not find this process.
    """

    idle: Callable[[], None]
    shutdown: Callable[[], None] | None
    failed: Callable[[Status], None]


class Guest(Protocol):
    """A connection, as far as it may have to make room for another."""

    principal: str
    session_id: str

    def idle_s(self) -> float | None:
        """Seconds since its last message; ``None`` while it is in use."""
        ...

    def evict(self) -> None:
        """Close it."""
        ...

    def move(self, *, must_leave: bool) -> None:
        """Ask its client to connect again, to another replica."""
        ...


class Backend:
    """Shared by all connections of a server; used on one event loop.

    Args:
        factory: makes the engine; called once, in a thread.
        config: limits.
        hooks: end the process.
        settings: how the engine was started, as clients see it.
        keys: those of a team's users; ``None`` without any.
    """

    def __init__(
        self,
        factory: EngineFactory,
        config: ServerConfig,
        hooks: ExitHooks,
        settings: Mapping[str, object] = MappingProxyType({}),
        keys: KeyRing | None = None,
    ) -> None:
        self.config = config
        self.settings = settings
        self.hooks = hooks
        self.metrics = ServerMetrics()  # of all users
        self._metrics_by_user: dict[str, ServerMetrics] = {}
        self._factory = factory
        self._engine: Engine | None = None
        self._started: asyncio.Task[None] | None = None
        self._failure: ModelError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._status = Status(EngineState.STARTING, message="starting")
        self._has_failed = False
        self._listeners: set[OnStatus] = set()
        self._guests: list[Guest] = []
        self._is_ending = False
        self._num_uses = 0
        self._claimed: set[DocumentKey] = set()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._keeper = None if keys is None else KeyKeeper(keys, lambda: self._engine, self.metrics_of)

    # --- the engine

    def start(self) -> None:
        """Start building the engine in a thread: its imports take seconds."""
        self._loop = asyncio.get_running_loop()
        self._started = asyncio.create_task(self._start_engine())
        if self._keeper is not None:
            self._keeper.start()
        self._watch_idle()

    async def stop(self) -> None:
        """Close the engine; one that is still busy after the timeout, loading a large model, ends with the process."""
        self._cancel_idle_timer()
        if self._keeper is not None:
            await self._keeper.stop()
        if self._started is not None:
            await self._started
        if self._engine is None:
            return
        closed = asyncio.Event()
        closer = threading.Thread(target=_close, args=(self._engine, asyncio.get_running_loop(), closed), daemon=True)
        closer.start()
        try:
            await asyncio.wait_for(closed.wait(), self.config.close_timeout_s)
        except asyncio.TimeoutError:
            logger.warning("the engine did not close within %g s; exiting anyway", self.config.close_timeout_s)

    async def engine(self) -> Engine:
        """Wait for the engine to be built and return it.

        Raises:
            ModelError: it could not be built.
        """
        if self._engine is None and self._started is not None:
            await asyncio.shield(self._started)
        if self._engine is None:
            raise self._failure or ModelError("the engine was not started")
        return self._engine

    @property
    def made_engine(self) -> Engine | None:
        """The engine, or ``None`` while it is being built."""
        return self._engine

    async def _start_engine(self) -> None:
        try:
            engine = await asyncio.to_thread(self._factory, self._status_from_engine)
            engine.start()
        except ForelookError as error:
            self._fail(ModelError(str(error)))
        except Exception as error:  # noqa: BLE001 - edge: clients get the error, the server stays up
            log_failure("the engine's start", error)
            self._fail(ModelError(f"the engine cannot start ({type(error).__name__}); run `forelook doctor`"))
        else:
            self._engine = engine

    def _fail(self, error: ModelError) -> None:
        self._failure = error
        self._set_status(Status(EngineState.ERROR, message=str(error)))

    # --- status

    @property
    def status(self) -> Status:
        """The latest status."""
        return self._status

    def _status_from_engine(self, status: Status) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._set_status, status)

    def _set_status(self, status: Status) -> None:
        if status == self._status:
            return
        is_failed = status.state is EngineState.ERROR or (self._engine is not None and self._engine.has_failed)
        if status.state is not self._status.state:
            is_ready = status.state is EngineState.READY
            about = f"{status.model} on {status.device} as {status.dtype}" if is_ready else status.message
            logger.log(logging.ERROR if is_failed else logging.INFO, "model %s: %s", status.state.value, about)
        self._status = status
        for listener in tuple(self._listeners):
            listener(status)
        if is_failed and not self._has_failed:
            self._has_failed = True
            self.hooks.failed(status)

    def listen(self, listener: OnStatus) -> None:
        """Call ``listener`` with every changed status from now on."""
        self._listeners.add(listener)

    # --- connections

    def metrics_of(self, principal: str) -> ServerMetrics:
        """What a user may know: the owner, whose name is empty, everything; others what they did themselves."""
        if not principal:
            return self.metrics
        return self._metrics_by_user.setdefault(principal, ServerMetrics(self.metrics))

    def revoked(self, principal: str) -> asyncio.Event:
        """Set once a user's key is no longer valid; never for users without one."""
        return asyncio.Event() if self._keeper is None else self._keeper.revoked(principal)

    def request(self, principal: str, interface: str) -> None:
        """Count a request for text.

        Raises:
            QuotaError: the user's key does not allow it now.
        """
        self.metrics_of(principal).requested(interface)
        if self._keeper is not None:
            self._keeper.quotas.admit(principal)

    def refused(self) -> None:
        """Count somebody without access."""
        self.metrics.rejected(ACCESS)

    async def engine_stats(self, principal: str) -> Mapping[str, object]:
        """The engine's figures of a user, the owner's being those of all; empty while it is being built."""
        engine = self._engine
        return {} if engine is None else await asyncio.to_thread(engine.stats, principal)

    async def exposition(self, principal: str) -> str:
        """The figures of a user, the owner's being those of all, as Prometheus reads them."""
        stats = await self.engine_stats(principal)
        return exposition(metrics_of(self.metrics_of(principal), self._status, stats))

    def admit(self, principal: str) -> bool:
        """Count a new connection; returns whether the limits permit it, if need be after one that is idle has gone."""
        metrics = self.metrics_of(principal)
        if not self._make_room(principal):
            metrics.refused()
            return False
        metrics.connected()
        self._cancel_idle_timer()
        return True

    def join(self, guest: Guest) -> None:
        """A connection that was admitted may be asked to go from now on."""
        self._guests.append(guest)
        if self._is_ending:
            guest.move(must_leave=True)

    def move_sessions(self, is_elsewhere: Callable[[str], bool]) -> None:
        """Ask connections once to move to another replica; those without a session id are at home anywhere.

        Args:
            is_elsewhere: whether a session, by its id, is at home at another replica.
        """
        for guest in tuple(self._guests):
            if guest.session_id and is_elsewhere(guest.session_id):
                guest.move(must_leave=False)

    def end_sessions(self) -> None:
        """Ask all connections to move to another replica, those to come too: this one ends."""
        self._is_ending = True
        for guest in tuple(self._guests):
            guest.move(must_leave=True)

    def leave(self, guest: Guest, listener: OnStatus) -> None:
        """Count a closed connection."""
        if guest in self._guests:
            self._guests.remove(guest)
        self._listeners.discard(listener)
        self.metrics_of(guest.principal).disconnected()
        self._watch_idle()

    def _make_room(self, principal: str) -> bool:
        """At a limit, close the connection that is idle for longest, of the user who has the most."""
        counts = Counter(guest.principal for guest in self._guests)
        if principal and counts[principal] >= self.config.max_user_connections:
            candidates = [guest for guest in self._guests if guest.principal == principal]
        elif len(self._guests) >= self.config.max_connections:
            candidates = [guest for guest in self._guests if counts[guest.principal] >= counts[principal]]
        else:
            return True
        idle = [
            (counts[guest.principal], idle_s, guest) for guest in candidates if (idle_s := guest.idle_s()) is not None
        ]
        if not idle or self.metrics.num_connections >= self.config.max_connections + MAX_LEAVING:
            return False
        *_, oldest = max(idle, key=lambda found: found[:2])
        logger.warning("closed an idle connection to make room for another")
        self._guests.remove(oldest)
        oldest.evict()
        return True

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """While the context lasts the server is not idle, as with a connection."""
        self._num_uses += 1
        self._cancel_idle_timer()
        try:
            yield
        finally:
            self._num_uses -= 1
            self._watch_idle()

    def _watch_idle(self) -> None:
        timeout_s = self.config.idle_timeout_s
        is_used = self.metrics.num_connections > 0 or self._num_uses > 0
        if not is_used and timeout_s is not None and self._loop is not None:
            self._cancel_idle_timer()
            self._idle_timer = self._loop.call_later(timeout_s, self.hooks.idle)

    def _cancel_idle_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    # --- keys of documents

    def claim_document(self, uri: str, principal: str) -> DocumentKey:
        """The key of a document that a user's connection opens: the first window number that is free for its URI."""
        keys = (DocumentKey(window, uri, principal) for window in itertools.count(1))
        key = next(key for key in keys if key not in self._claimed)
        self._claimed.add(key)
        return key

    def release_document(self, key: DocumentKey) -> None:
        """Free a key."""
        self._claimed.discard(key)
