"""The connection to the backend: found or started, kept, and reopened when it is lost. See docs/protocol.md."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
from forelook.errors import BackendUnreachableError, EndpointError, ForelookError, MalformedMessageError
from forelook.local.outbox import Outbox
from forelook.protocol import jsonrpc, messages
from forelook.protocol.jsonrpc import NotificationMethod, RequestMethod
from forelook.protocol.messages import from_json

from forelook_lsp.limits import MAX_UNSENT_CHARS

if TYPE_CHECKING:
    from forelook.local.endpoint import Endpoint
    from websockets.asyncio.client import ClientConnection

logger = logging.getLogger(__name__)

P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")

BACKOFF_S = (0.1, 0.3, 1.0, 2.0, 5.0, 10.0)  # chosen, not measured
JITTER = 0.5  # of a wait before an attempt, so that the clients of a replica that ends do not all come at once
MOVE_SPREAD_S = 1.0  # chosen, not measured: over which the clients that must move spread
MOVE_ATTEMPTS = 4
RETIRE_TIMEOUT_S = 5.0  # for requests that still run on the connection before; chosen, not measured
STEADY_S = 10.0  # a connection that lasted this long resets the backoff; chosen, not measured
TRY_AGAIN_LATER = 1013
_MAX_REASON_BYTES = 200  # chosen, not measured
HELLO_TIMEOUT_S = 10.0  # chosen, not measured
MAX_ANSWER_BYTES = 64 * 2**20  # chosen, not measured


class BackendEvents(Protocol):
    """Events of a connection. Called on the event loop; must not block."""

    def backend_connected(self, hello: messages.HelloResult) -> None:
        """The backend answered ``hello``; documents must be opened again."""

    def backend_moved(self, hello: messages.HelloResult) -> None:
        """Another replica of the backend answered ``hello`` and takes over; documents must be opened again at once."""

    def backend_lost(self, error: ForelookError | None) -> None:
        """There is no connection; a retry follows. ``error`` is the cause, if there is one."""

    def backend_status(self, status: messages.Status) -> None:
        """The model's state changed."""

    def backend_progressed(self, request_id: int, text: str) -> None:
        """A running completion has generated ``text`` so far."""

    def backend_refused(self, error: messages.NotificationErrorParams) -> None:
        """A notification was refused; its document is closed in the backend."""


@dataclass(frozen=True, slots=True)
class ClientName:
    """Name and version of this client, for ``hello``."""

    name: str
    version: str


@dataclass(slots=True, eq=False)
class _Link:
    """One open websocket.

    Attributes:
        status: the latest status it has told.
        must_move: whether the backend has asked for another link in its place since the last attempt to move.
    """

    websocket: ClientConnection
    outgoing: Outbox
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    status: messages.Status | None = None
    must_move: bool = False


@dataclass(frozen=True, slots=True)
class _Pending:
    """A request that is not answered yet."""

    future: asyncio.Future[object]
    result: type[object]
    link: _Link


class BackendConnection:
    """One window's connection to its backend."""

    def __init__(
        self,
        find: Callable[[], Endpoint],
        name: ClientName,
        events: BackendEvents,
        workspace: Callable[[], str] = lambda: "",
    ) -> None:
        """Create a connection that ``start`` opens.

        Args:
            find: finds or starts the backend; blocks, so it runs in a thread of its own.
            name: name and version for ``hello``.
            events: receives the events.
            workspace: the URI of the window's first folder, by which a cluster chooses a replica; empty for none.
        """
        self.request_ids = itertools.count(1)
        """Unused request ids, for ``request``."""
        self.limits: messages.ServerLimits | None = None
        """The backend's limits, ``None`` without a connection."""
        self._find = find
        self._name = name
        self._events = events
        self._task: asyncio.Task[None] | None = None
        self._workspace = workspace
        self._link: _Link | None = None  # the one in use
        self._links: list[_Link] = []  # all that are open
        self._moving: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._must_wait = False
        self._pending: dict[int, _Pending] = {}

    @property
    def connected(self) -> bool:
        """Whether the backend has answered ``hello`` on an open connection."""
        return self.limits is not None

    def start(self) -> None:
        """Connect and stay connected until ``close``."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Close the connection for good."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def reconnect(self) -> None:
        """Close the connection, if there is one, and connect again at once."""
        if self._task is not None:
            self._task.cancel()
            self._task = asyncio.get_running_loop().create_task(self._run_after(self._task))

    def notify(self, method: NotificationMethod[P], params: P) -> bool:
        """Send a notification after earlier messages; return False without a connection."""
        if self._link is None:
            return False
        _post(self._link, jsonrpc.encode_notification(method, params))
        return True

    def request(self, method: RequestMethod[P, R], params: P, *, request_id: int | None = None) -> asyncio.Future[R]:
        """Send a request after earlier messages.

        Args:
            method: the request's method.
            params: its params.
            request_id: an id taken from ``request_ids``; needed to cancel the request.

        Returns:
            A future of the result, or of a ``ForelookError``.
        """
        if self._link is None:
            future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
            future.set_exception(BackendUnreachableError("the backend is not connected"))
            return future
        return self._ask(self._link, method, params, next(self.request_ids) if request_id is None else request_id)

    def cancel(self, request_id: int) -> None:
        """Cancel a request; its future is cancelled at once."""
        pending = self._pending.pop(request_id, None)
        if pending is not None:
            pending.future.cancel()
            _post(pending.link, jsonrpc.encode_notification(messages.CANCEL, messages.CancelParams(request_id)))

    # --- Inside ----------------------------------------------------------------------------------------------

    async def _run_after(self, former: asyncio.Task[None]) -> None:
        # Not `await former`, whose cancellation looks like that of this task: `close` would wait for ever.
        await asyncio.wait([former])
        self._events.backend_lost(None)
        await self._run()

    async def _run(self) -> None:
        attempt = 0
        loop = asyncio.get_running_loop()
        while True:
            error: ForelookError | None = None
            started_s = loop.time()
            try:
                await self._serve(await run_in_thread(self._find))
                if self._must_wait:
                    attempt = len(BACKOFF_S) - 1  # others use the backend, which is at its limit of connections
                elif loop.time() - started_s > STEADY_S:
                    attempt = 0  # this backend does not exit right after starting
            except ForelookError as caught:
                error = caught
            logger.info("no backend: %s", error or "connection closed")
            self._events.backend_lost(error)
            await asyncio.sleep(_spread(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]))
            attempt += 1

    async def _serve(self, endpoint: Endpoint) -> None:
        """Exchange messages until the connection closes, over one link after another where the backend asks to move.

        Raises:
            ForelookError: the backend has not answered ``hello``.
        """
        link: _Link | None = None
        try:
            link = await self._open(endpoint)
            self._use(link, await self._greet(link), self._events.backend_connected)
            while True:
                await asyncio.wait(link.tasks[:1])
                if self._link is None or self._link is link:
                    break
                link = self._link
        finally:
            self._must_wait = link is not None and link.websocket.close_code == TRY_AGAIN_LATER
            self._link = self.limits = None
            for task in (self._moving, *self._retiring):
                if task is not None:
                    task.cancel()
            self._moving = None
            for open_link in tuple(self._links):
                await self._close(open_link)

    async def _open(self, endpoint: Endpoint) -> _Link:
        from websockets.exceptions import WebSocketException

        try:
            websocket = await _connect(endpoint, self._workspace())
        except (OSError, TimeoutError, asyncio.TimeoutError, WebSocketException) as error:
            # The text of a refused opening request contains the status: 401, 403 or 503.
            raise BackendUnreachableError(
                f"cannot connect to the backend at {endpoint.description}: {type(error).__name__}: {error}"
                f"{_body_of(error)}"
            ) from error
        link = _Link(websocket, Outbox(websocket.send, MAX_UNSENT_CHARS))
        self._links.append(link)
        loop = asyncio.get_running_loop()
        link.tasks += [loop.create_task(self._read(link)), loop.create_task(self._send(link.outgoing))]
        return link

    async def _close(self, link: _Link) -> None:
        """Close a link; nothing waits for its answers any more."""
        if link in self._links:
            self._links.remove(link)
        for task in link.tasks:
            task.cancel()
        self._fail_pending(link)
        await link.websocket.close()

    async def _greet(self, link: _Link) -> messages.HelloResult:
        params = messages.HelloParams(messages.PROTOCOL_VERSION, self._name.name, self._name.version)
        try:
            with anyio.fail_after(HELLO_TIMEOUT_S):  # asyncio.wait_for before Python 3.12 can lose a cancellation
                return await self._ask(link, messages.HELLO, params, next(self.request_ids))
        except TimeoutError as error:
            reason = f"the backend did not answer hello within {HELLO_TIMEOUT_S:g} s"
            raise BackendUnreachableError(reason) from error
        except BackendUnreachableError as error:
            reason = "the backend closed the connection before it answered hello"
            raise BackendUnreachableError(reason) from error

    def _use(self, link: _Link, hello: messages.HelloResult, report: Callable[[messages.HelloResult], None]) -> None:
        """Send everything over a link from now on."""
        self._link, self.limits = link, hello.limits
        report(hello)
        if link.status is not None:  # it arrived right after the answer to hello
            self._events.backend_status(link.status)
        self._move_if_asked(link)

    def _move_if_asked(self, link: _Link) -> None:
        if link.must_move and link is self._link and self._moving is None:
            self._moving = asyncio.get_running_loop().create_task(self._move(link))

    async def _move(self, former: _Link) -> None:
        """Connect to the replica that serves this window from now on, and change over between two messages.

        If that fails, the connection stays in use until the backend asks again; a replica that ends closes it some
        time later.
        """
        for attempt in range(MOVE_ATTEMPTS):
            await asyncio.sleep(random.uniform(0.0, MOVE_SPREAD_S) + attempt)  # noqa: S311 - spreads the clients
            former.must_move = False
            link: _Link | None = None
            try:
                link = await self._open(await run_in_thread(self._find))
                hello = await self._greet(link)
            except ForelookError as error:
                logger.info("cannot move to another replica: %s", error)
                if link is not None:
                    await self._close(link)
                continue
            logger.info("moved to another replica of the backend")
            self._moving = None  # that replica may ask to move, too
            self._use(link, hello, self._events.backend_moved)
            task = asyncio.get_running_loop().create_task(self._retire(former))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
            return
        self._moving = None
        self._move_if_asked(former)  # asked while the last attempt was failing

    async def _retire(self, link: _Link) -> None:
        """Close a link once its requests are answered."""
        running = [pending.future for pending in self._pending.values() if pending.link is link]
        if running:
            await asyncio.wait(running, timeout=RETIRE_TIMEOUT_S)
        await self._close(link)

    async def _send(self, outgoing: Outbox) -> None:
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed):  # the receiving side reports it
            await outgoing.run()

    async def _read(self, link: _Link) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            async for frame in link.websocket:
                self._receive(link, frame)
        except ConnectionClosed:
            logger.info("the connection to the backend was lost")
        finally:
            self._fail_pending(link)

    def _ask(self, link: _Link, method: RequestMethod[P, R], params: P, request_id: int) -> asyncio.Future[R]:
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = _Pending(future, method.result, link)  # type: ignore[arg-type]  # they match
        _post(link, jsonrpc.encode_request(request_id, method, params))
        return future

    def _receive(self, link: _Link, frame: str | bytes) -> None:
        try:
            if isinstance(frame, bytes):
                raise MalformedMessageError("binary frames are not supported")
            message = jsonrpc.decode_message(frame)
            if isinstance(message, jsonrpc.Response | jsonrpc.ErrorResponse):
                self._settle(message)
            elif isinstance(message, jsonrpc.Notification):
                self._notified(link, message)
        except ForelookError as error:
            logger.warning("invalid message from the backend: %s", error)

    def _settle(self, message: jsonrpc.Response | jsonrpc.ErrorResponse) -> None:
        pending = self._pending.pop(message.id, None) if isinstance(message.id, int) else None
        if pending is None or pending.future.done():
            return
        try:
            if isinstance(message, jsonrpc.ErrorResponse):
                raise message.to_error()
            result = from_json(pending.result, message.result, allow_unknown=True)
        except ForelookError as error:
            pending.future.set_exception(error)
        else:
            pending.future.set_result(result)

    def _notified(self, link: _Link, message: jsonrpc.Notification) -> None:
        if message.method == messages.COMPLETION_PARTIAL.name:
            partial = from_json(messages.CompletionPartialParams, message.params, allow_unknown=True)
            if isinstance(partial.id, int) and partial.id in self._pending:
                self._events.backend_progressed(partial.id, partial.text)
        elif message.method == messages.STATUS_CHANGED.name:
            link.status = from_json(messages.Status, message.params, allow_unknown=True)
            if self._link is link:
                self._events.backend_status(link.status)
        elif message.method == messages.NOTIFICATION_ERROR.name:
            refused = from_json(messages.NotificationErrorParams, message.params, allow_unknown=True)
            logger.warning("the backend refused %s: %s", refused.method, refused.message)
            if self._link is link:
                self._events.backend_refused(refused)
        elif message.method == messages.CONNECTION_MOVE.name:
            link.must_move = True
            self._move_if_asked(link)

    def _fail_pending(self, link: _Link) -> None:
        for request_id in [number for number, pending in self._pending.items() if pending.link is link]:
            future = self._pending.pop(request_id).future
            if not future.done():
                future.set_exception(BackendUnreachableError("the connection to the backend was lost"))
                future.exception()  # marks it as retrieved: its awaiter may be gone


def _post(link: _Link, message: str) -> None:
    link.outgoing.post(message)
    if link.outgoing.overflowed.is_set():
        logger.warning("lost a backend that stopped reading its messages")
        link.websocket.transport.abort()


def _spread(seconds: float) -> float:
    return seconds * random.uniform(1.0 - JITTER, 1.0 + JITTER)  # noqa: S311 - spreads the clients


def _body_of(error: Exception) -> str:
    """What the backend says of its refusal, such as that a key was revoked."""
    from websockets.exceptions import InvalidStatus

    body = error.response.body if isinstance(error, InvalidStatus) else None
    text = (body or b"")[:_MAX_REASON_BYTES].decode("utf-8", "replace").strip()
    return f": {text}" if text.isprintable() and text else ""


async def _connect(endpoint: Endpoint, workspace: str) -> ClientConnection:
    from websockets.asyncio.client import connect, unix_connect

    options: dict[str, Any] = {"max_size": MAX_ANSWER_BYTES, "compression": None, "close_timeout": 1}
    if endpoint.socket_path is not None:
        return await unix_connect(endpoint.socket_path, endpoint.url, open_timeout=5, **options)
    tls = ssl.create_default_context() if endpoint.tls else None
    headers = endpoint.headers(workspace)
    return await connect(endpoint.url, additional_headers=headers, open_timeout=10, proxy=None, ssl=tls, **options)


async def run_in_thread(function: Callable[[], T]) -> T:
    """Run a blocking call in a daemon thread; unlike a pool's, it does not delay the end of the process."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # an awaiter that is cancelled cannot end the call, which then settles it

    def work() -> None:
        try:
            future.set_result(function())
        except ForelookError as error:
            future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - border of a thread: the awaiter receives the error
            future.set_exception(EndpointError(f"{type(error).__name__}: {error}"))

    threading.Thread(target=work, name="forelook-blocking-call", daemon=True).start()
    return await asyncio.wrap_future(future)
