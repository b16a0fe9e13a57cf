"""The connection to the backend: found or started, greeted, kept, and made again when it is lost. docs/protocol.md."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from forelook.errors import BackendUnreachableError, EndpointError, ForelookError, MalformedMessageError
from forelook.protocol import messages
from forelook.protocol.messages import NotificationMethod, RequestMethod, from_json

if TYPE_CHECKING:
    from forelook.local.endpoint import Endpoint
    from websockets.asyncio.client import ClientConnection

logger = logging.getLogger(__name__)

P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")

BACKOFF_S = (0.1, 0.3, 1.0, 2.0, 5.0, 10.0)
STEADY_S = 10.0
HELLO_TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 64 * 2**20


class BackendEvents(Protocol):
    """What the owner of a connection is told. Called on the event loop; must not block."""

    def backend_connected(self, hello: messages.HelloResult) -> None:
        """The backend answered the greeting; documents must be opened again."""

    def backend_lost(self, error: ForelookError | None) -> None:
        """No connection; another attempt follows by itself. ``error`` says why the last one failed, if it did."""

    def backend_status(self, status: messages.Status) -> None:
        """The model's state changed."""

    def backend_said(self, request_id: int, text: str) -> None:
        """A running completion's text so far."""

    def backend_refused(self, error: messages.NotificationErrorParams) -> None:
        """A notification was refused; its document is closed there."""


@dataclass(frozen=True, slots=True)
class ClientName:
    """Who connects."""

    name: str
    version: str


class BackendConnection:
    """One window's connection to its backend."""

    def __init__(self, find: Callable[[], Endpoint], name: ClientName, events: BackendEvents) -> None:
        """Prepare; nothing happens before ``start``.

        Args:
            find: finds or starts the backend; blocks, so it runs in a thread of its own.
            name: for the greeting.
            events: who is told.
        """
        self._find = find
        self._name = name
        self._events = events
        self._task: asyncio.Task[None] | None = None
        self._websocket: ClientConnection | None = None
        self._outgoing: asyncio.Queue[str] = asyncio.Queue()
        self._pending: dict[int, tuple[asyncio.Future[object], type[object]]] = {}
        self._next_id = 1
        self.limits: messages.ServerLimits | None = None

    @property
    def connected(self) -> bool:
        """Whether the backend has answered the greeting on a living connection."""
        return self.limits is not None

    def start(self) -> None:
        """Connect, and stay connected until ``close``."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """End the connection and make no other."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def reconnect(self, find: Callable[[], Endpoint] | None = None) -> None:
        """Drop the connection, if there is one, and make another now."""
        if find is not None:
            self._find = find
        if self._task is not None:
            self._task.cancel()
            self._task = asyncio.get_running_loop().create_task(self._run_after(self._task))

    def notify(self, method: NotificationMethod[P], params: P) -> bool:
        """Send a notification in its turn; False without a connection."""
        if not self.connected:
            return False
        self._outgoing.put_nowait(messages.encode_notification(method, params))
        return True

    def request(self, method: RequestMethod[P, R], params: P) -> tuple[int, asyncio.Future[R]]:
        """Send a request in its turn; returns its id and what will hold its result or a ``ForelookError``."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        request_id = self._next_id
        self._next_id += 1
        if not self.connected and method is not messages.HELLO:
            future.set_exception(BackendUnreachableError("there is no connection to the backend"))
            return request_id, future
        self._pending[request_id] = (future, method.result)  # type: ignore[assignment]  # the pair belongs together
        self._outgoing.put_nowait(messages.encode_request(request_id, method, params))
        return request_id, future

    def cancel(self, request_id: int) -> None:
        """Cancel a request; its future is cancelled here at once."""
        pending = self._pending.pop(request_id, None)
        if pending is not None:
            pending[0].cancel()
            self.notify(messages.CANCEL, messages.CancelParams(request_id))

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
            begun_s = loop.time()
            try:
                endpoint = await run_in_thread(self._find)
                greeted = await self._serve(endpoint)
                if not greeted:
                    error = BackendUnreachableError("the backend closed the connection before it answered the greeting")
                elif loop.time() - begun_s > STEADY_S:
                    attempt = 0  # it is not one that ends as soon as it is started
            except ForelookError as caught:
                error = caught
            finally:
                self._drop()
            logger.info("no backend: %s", error or "it went away")
            self._events.backend_lost(error)
            await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
            attempt += 1

    async def _serve(self, endpoint: Endpoint) -> bool:
        """Talk until the connection ends; whether the backend had answered the greeting."""
        from websockets.exceptions import ConnectionClosed, WebSocketException

        greeted = False
        try:
            self._websocket = await _connect(endpoint)
        except (OSError, TimeoutError, asyncio.TimeoutError, WebSocketException) as error:
            # The reason of a refused opening request is the status line: it says 401, 403 or 503.
            raise BackendUnreachableError(
                f"no connection to the backend at {endpoint.description}: {type(error).__name__}: {error}"
            ) from error
        self._outgoing = asyncio.Queue()
        sender = asyncio.get_running_loop().create_task(self._send(self._websocket))
        greeting = asyncio.get_running_loop().create_task(self._greet())
        try:
            async for frame in self._websocket:
                self._receive(frame)
        except ConnectionClosed:
            logger.info("the connection to the backend broke")
        finally:
            sender.cancel()
            greeted = self.connected
            if not greeting.done():
                greeting.cancel()
            await self._websocket.close()
        if greeting.done() and not greeting.cancelled() and (failure := greeting.exception()) is not None:
            if isinstance(failure, ForelookError):
                raise failure
            raise BackendUnreachableError("the backend did not answer the greeting in time") from failure
        return greeted

    async def _greet(self) -> None:
        assert self._websocket is not None
        params = messages.HelloParams(messages.PROTOCOL_VERSION, self._name.name, self._name.version)
        _, future = self.request(messages.HELLO, params)
        try:
            hello = await asyncio.wait_for(future, HELLO_TIMEOUT_S)
        except (ForelookError, asyncio.TimeoutError):
            await self._websocket.close()
            raise
        self.limits = hello.limits
        self._events.backend_connected(hello)

    async def _send(self, websocket: ClientConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        outgoing = self._outgoing
        with contextlib.suppress(ConnectionClosed):  # the receiving side reports it
            while True:
                await websocket.send(await outgoing.get())

    def _receive(self, frame: str | bytes) -> None:
        try:
            if isinstance(frame, bytes):
                raise MalformedMessageError("frames are text")
            message = messages.decode_message(frame)
            if isinstance(message, messages.Response):
                self._settle(message)
            elif isinstance(message, messages.ErrorResponse):
                pending = self._pending.pop(message.id, None) if isinstance(message.id, int) else None
                if pending is not None and not pending[0].done():
                    pending[0].set_exception(message.to_error())
            elif isinstance(message, messages.Notification):
                self._notified(message)
        except ForelookError as error:
            logger.warning("a message of the backend cannot be read: %s", error)

    def _settle(self, message: messages.Response) -> None:
        pending = self._pending.pop(message.id, None) if isinstance(message.id, int) else None
        if pending is None or pending[0].done():
            return
        try:
            result = from_json(pending[1], message.result, allow_unknown=True)
        except ForelookError as error:
            pending[0].set_exception(error)
        else:
            pending[0].set_result(result)

    def _notified(self, message: messages.Notification) -> None:
        if message.method == messages.STATUS_CHANGED.name:
            self._events.backend_status(from_json(messages.Status, message.params, allow_unknown=True))
        elif message.method == messages.COMPLETION_PARTIAL.name:
            partial = from_json(messages.CompletionPartialParams, message.params, allow_unknown=True)
            if isinstance(partial.id, int) and partial.id in self._pending:
                self._events.backend_said(partial.id, partial.text)
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
                future.exception()  # taken note of: nobody may be waiting any more


async def _connect(endpoint: Endpoint) -> ClientConnection:
    from websockets.asyncio.client import connect, unix_connect

    if endpoint.socket_path is not None:
        return await unix_connect(
            endpoint.socket_path,
            endpoint.url,
            max_size=MAX_ANSWER_BYTES,
            compression=None,
            open_timeout=5,
            close_timeout=1,
        )
    return await connect(
        endpoint.url,
        additional_headers=endpoint.headers(),
        max_size=MAX_ANSWER_BYTES,
        compression=None,
        open_timeout=10,
        close_timeout=1,
        proxy=None,
        ssl=ssl.create_default_context() if endpoint.tls else None,
    )


async def run_in_thread(function: Callable[[], T]) -> T:
    """Run a blocking call in a thread that does not hold up the end of the process, unlike a pool's."""
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
        except Exception as error:  # noqa: BLE001 - the border of a thread: the error goes to whoever waits
            failure = EndpointError(f"{type(error).__name__}: {error}")
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name="forelook-blocking-call", daemon=True).start()
    return await future
