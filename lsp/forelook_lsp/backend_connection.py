"""The connection to the backend: found or started, kept, and reopened when it is lost. See docs/protocol.md."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

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
STEADY_S = 10.0  # a connection that lasted this long resets the backoff; chosen, not measured
TRY_AGAIN_LATER = 1013
HELLO_TIMEOUT_S = 10.0  # chosen, not measured
MAX_ANSWER_BYTES = 64 * 2**20  # chosen, not measured


class BackendEvents(Protocol):
    """Events of a connection. Called on the event loop; must not block."""

    def backend_connected(self, hello: messages.HelloResult) -> None:
        """The backend answered ``hello``; documents must be opened again."""

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


class BackendConnection:
    """One window's connection to its backend."""

    def __init__(self, find: Callable[[], Endpoint], name: ClientName, events: BackendEvents) -> None:
        """Create a connection that ``start`` opens.

        Args:
            find: finds or starts the backend; blocks, so it runs in a thread of its own.
            name: name and version for ``hello``.
            events: receives the events.
        """
        self.request_ids = itertools.count(1)
        """Unused request ids, for ``request``."""
        self.limits: messages.ServerLimits | None = None
        """The backend's limits, ``None`` without a connection."""
        self._find = find
        self._name = name
        self._events = events
        self._task: asyncio.Task[None] | None = None
        self._websocket: ClientConnection | None = None
        self._closing: asyncio.Task[None] | None = None
        self._outgoing: Outbox | None = None
        self._must_wait = False
        self._pending: dict[int, tuple[asyncio.Future[object], type[object]]] = {}

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
        if not self.connected:
            return False
        self._post(jsonrpc.encode_notification(method, params))
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
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        if not self.connected and method is not messages.HELLO:
            future.set_exception(BackendUnreachableError("the backend is not connected"))
            return future
        if request_id is None:
            request_id = next(self.request_ids)
        self._pending[request_id] = (future, method.result)  # type: ignore[assignment]  # the pair belongs together
        self._post(jsonrpc.encode_request(request_id, method, params))
        return future

    def cancel(self, request_id: int) -> None:
        """Cancel a request; its future is cancelled at once."""
        pending = self._pending.pop(request_id, None)
        if pending is not None:
            pending[0].cancel()
            self.notify(messages.CANCEL, messages.CancelParams(request_id))

    def _post(self, message: str) -> None:
        assert self._outgoing is not None
        assert self._websocket is not None
        self._outgoing.post(message)
        if self._outgoing.overflowed.is_set():
            logger.warning("lost a backend that stopped reading its messages")
            self._websocket.transport.abort()

    # --- Inside ----------------------------------------------------------------------------------------------

    async def _run_after(self, former: asyncio.Task[None]) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await former
        self._events.backend_lost(None)
        await self._run()

    async def _run(self) -> None:
        attempt = 0
        loop = asyncio.get_running_loop()
        while True:
            error: ForelookError | None = None
            started_s = loop.time()
            try:
                endpoint = await run_in_thread(self._find)
                if not await self._serve(endpoint):
                    error = BackendUnreachableError("the backend closed the connection before it answered hello")
                elif self._must_wait:
                    attempt = len(BACKOFF_S) - 1  # others use the backend, which is at its limit of connections
                elif loop.time() - started_s > STEADY_S:
                    attempt = 0  # this backend does not exit right after starting
            except ForelookError as caught:
                error = caught
            finally:
                self._drop()
            logger.info("no backend: %s", error or "connection closed")
            self._events.backend_lost(error)
            await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
            attempt += 1

    async def _serve(self, endpoint: Endpoint) -> bool:
        """Exchange messages until the connection closes; return whether the backend has answered ``hello``."""
        from websockets.exceptions import ConnectionClosed, WebSocketException

        greeted = False
        try:
            self._websocket = await _connect(endpoint)
        except (OSError, TimeoutError, asyncio.TimeoutError, WebSocketException) as error:
            # The text of a refused opening request contains the status: 401, 403 or 503.
            raise BackendUnreachableError(
                f"cannot connect to the backend at {endpoint.description}: {type(error).__name__}: {error}"
            ) from error
        self._outgoing = Outbox(self._websocket.send, MAX_UNSENT_CHARS)
        sender = asyncio.get_running_loop().create_task(self._send(self._outgoing))
        hello = asyncio.get_running_loop().create_task(self._say_hello())
        try:
            async for frame in self._websocket:
                self._receive(frame)
        except ConnectionClosed:
            logger.info("the connection to the backend was lost")
        finally:
            sender.cancel()
            greeted = self.connected
            self._must_wait = self._websocket.close_code == TRY_AGAIN_LATER
            if not hello.done():
                hello.cancel()
            await self._websocket.close()
        if hello.done() and not hello.cancelled() and (failure := hello.exception()) is not None:
            if isinstance(failure, ForelookError):
                raise failure
            raise BackendUnreachableError(f"the backend did not answer hello within {HELLO_TIMEOUT_S:g} s") from failure
        return greeted

    async def _say_hello(self) -> None:
        assert self._websocket is not None
        params = messages.HelloParams(messages.PROTOCOL_VERSION, self._name.name, self._name.version)
        try:
            hello = await asyncio.wait_for(self.request(messages.HELLO, params), HELLO_TIMEOUT_S)
        except (ForelookError, asyncio.TimeoutError):
            # Closing ends the loop over the frames, which reads the error of this task.
            self._closing = asyncio.get_running_loop().create_task(self._websocket.close())
            raise
        self.limits = hello.limits
        self._events.backend_connected(hello)

    async def _send(self, outgoing: Outbox) -> None:
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed):  # the receiving side reports it
            await outgoing.run()

    def _receive(self, frame: str | bytes) -> None:
        try:
            if isinstance(frame, bytes):
                raise MalformedMessageError("binary frames are not supported")
            message = jsonrpc.decode_message(frame)
            if isinstance(message, jsonrpc.Response):
                self._settle(message)
            elif isinstance(message, jsonrpc.ErrorResponse):
                pending = self._pending.pop(message.id, None) if isinstance(message.id, int) else None
                if pending is not None and not pending[0].done():
                    pending[0].set_exception(message.to_error())
            elif isinstance(message, jsonrpc.Notification):
                self._notified(message)
        except ForelookError as error:
            logger.warning("invalid message from the backend: %s", error)

    def _settle(self, message: jsonrpc.Response) -> None:
        pending = self._pending.pop(message.id, None) if isinstance(message.id, int) else None
        if pending is None or pending[0].done():
            return
        try:
            result = from_json(pending[1], message.result, allow_unknown=True)
        except ForelookError as error:
            pending[0].set_exception(error)
        else:
            pending[0].set_result(result)

    def _notified(self, message: jsonrpc.Notification) -> None:
        if message.method == messages.STATUS_CHANGED.name:
            self._events.backend_status(from_json(messages.Status, message.params, allow_unknown=True))
        elif message.method == messages.COMPLETION_PARTIAL.name:
            partial = from_json(messages.CompletionPartialParams, message.params, allow_unknown=True)
            if isinstance(partial.id, int) and partial.id in self._pending:
                self._events.backend_progressed(partial.id, partial.text)
        elif message.method == messages.NOTIFICATION_ERROR.name:
            refused = from_json(messages.NotificationErrorParams, message.params, allow_unknown=True)
            logger.warning("the backend refused %s: %s", refused.method, refused.message)
            self._events.backend_refused(refused)

    def _drop(self) -> None:
        self.limits = None
        self._websocket = None
        pending, self._pending = self._pending, {}
        for future, _ in pending.values():
            if not future.done():
                future.set_exception(BackendUnreachableError("the connection to the backend was lost"))
                future.exception()  # marks it as retrieved: its awaiter may be gone


async def _connect(endpoint: Endpoint) -> ClientConnection:
    from websockets.asyncio.client import connect, unix_connect

    options: dict[str, Any] = {"max_size": MAX_ANSWER_BYTES, "compression": None, "close_timeout": 1}
    if endpoint.socket_path is not None:
        return await unix_connect(endpoint.socket_path, endpoint.url, open_timeout=5, **options)
    tls = ssl.create_default_context() if endpoint.tls else None
    headers = endpoint.headers()
    return await connect(endpoint.url, additional_headers=headers, open_timeout=10, proxy=None, ssl=tls, **options)


async def run_in_thread(function: Callable[[], T]) -> T:
    """Run a blocking call in a daemon thread; unlike a pool's, it does not delay the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # without an error there is a result

    def work() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = function()
        except ForelookError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - border of a thread: the awaiter receives the error
            failure = EndpointError(f"{type(error).__name__}: {error}")
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name="forelook-blocking-call", daemon=True).start()
    return await future
