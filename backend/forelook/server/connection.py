"""One client: its documents, its pending requests, and a handler per method."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from forelook import __version__
from forelook.errors import (
    AuthenticationError,
    DocumentError,
    DocumentTextError,
    ForelookError,
    LimitError,
    MalformedMessageError,
    PrivacyError,
    ProtocolError,
    QuotaError,
    RequestCancelledError,
    UnknownDocumentError,
)
from forelook.failures import log_failure
from forelook.keys import DocumentKey, WorkspaceKey
from forelook.local.outbox import Outbox
from forelook.privacy.secrets import check_document, is_secret_path
from forelook.protocol import jsonrpc, messages
from forelook.protocol.jsonrpc import ErrorResponse, Notification, Request, RequestId, Response
from forelook.server.backend import Backend
from forelook.server.engine import RunningCompletion
from forelook.server.kept_files import KeptFiles
from forelook.server.metrics import EDITOR, LIMITS
from forelook.text import utf8_size_above

logger = logging.getLogger("forelook.server")

LONG_MESSAGE_CHARS = 2**18  # chosen, not measured: reading one takes about a millisecond
MANY_CHANGES = 500  # chosen, not measured: applying them takes about a millisecond
MOVE_TIMEOUT_S = 10.0  # chosen, not measured: several attempts of a client to connect elsewhere

R = TypeVar("R")
_Handler = Callable[..., Coroutine[Any, Any, None]]


@dataclass(slots=True, eq=False)
class _Completion:
    """A completion that is not answered yet; ``handle`` is ``None`` until the engine has accepted it."""

    id: RequestId
    started_s: float
    wants_partials: bool
    handle: RunningCompletion | None = None


class Connection:
    """Handles the messages of one client and posts the answers; independent of the socket.

    Args:
        backend: what all connections share.
        outbox: where answers and notifications go.
        principal: the user's name; empty on a user's own backend.
        session_id: what a cluster routes the connection by; empty for none.
    """

    def __init__(self, backend: Backend, outbox: Outbox, principal: str, session_id: str = "") -> None:
        self._backend = backend
        self._outbox = outbox
        self.principal = principal
        self.session_id = session_id
        self.evicted = asyncio.Event()
        """Set when it must make room for another connection."""
        self.overstayed = asyncio.Event()
        """Set when it is still open some time after it was asked to move."""
        self._must_leave: asyncio.TimerHandle | None = None
        self._heard_s = time.monotonic()
        self._metrics = backend.metrics_of(principal)
        self._loop = asyncio.get_running_loop()
        self._said_hello = False
        self._closed = False
        self._keys: dict[str, DocumentKey] = {}  # of open documents, by URI
        self._kept_files = KeptFiles()
        self._completions: dict[RequestId, _Completion] = {}
        self._tasks: dict[RequestId, asyncio.Task[None]] = {}
        self._requests: Mapping[str, _Handler] = {
            messages.HELLO.name: self._hello,
            messages.COMPLETION.name: self._complete,
            messages.STATUS.name: self._status,
            messages.STATS.name: self._stats,
            messages.POOL_STATS.name: self._pool_stats,
            messages.POOL_CLEAR.name: self._pool_clear,
            messages.SHUTDOWN.name: self._shutdown,
        }
        self._notifications: Mapping[str, _Handler] = {
            messages.DOCUMENT_OPEN.name: self._open,
            messages.DOCUMENT_CHANGE.name: self._change,
            messages.DOCUMENT_CURSOR.name: self._cursor,
            messages.DOCUMENT_CLOSE.name: self._close,
            messages.WORKSPACE_FILES.name: self._files,
            messages.WORKSPACE_FORGET.name: self._forget,
            messages.WORKSPACE_KEEP.name: self._keep,
            messages.COMPLETION_EVENT.name: self._event,
            messages.CANCEL.name: self._cancel,
        }

    # --- messages in

    async def receive(self, text: str) -> None:
        """Handle one text frame. Errors are answered, not raised."""
        self._heard_s = time.monotonic()
        try:
            self._check_size(text)
            # A thread keeps the other clients going: a message may take a large part of a second to read.
            message = await _off_loop(len(text) > LONG_MESSAGE_CHARS, jsonrpc.decode_message, text)
        except ProtocolError as error:
            self._refuse(error.request_id, error)
            return
        except Exception as error:  # noqa: BLE001 - edge: one message fails, not the connection
            log_failure("a message", error)
            self._refuse(None, MalformedMessageError("the message cannot be read"))
            return
        if isinstance(message, Request):
            await self._take_request(message)
        elif isinstance(message, Notification):
            await self._take_notification(message)
        else:
            self._refuse(None, ProtocolError("unexpected response; this server sends no requests"))

    def receive_binary(self) -> None:
        """Refuse a binary frame."""
        self._refuse(None, ProtocolError("binary frames are not supported; send JSON in a text frame"))

    def _check_size(self, text: str) -> None:
        limit = self._backend.config.max_message_bytes
        if num_bytes := utf8_size_above(text, limit):
            raise LimitError(
                f"the message has {num_bytes} bytes, over max_message_bytes = {limit}; split it or leave the file out"
            )

    async def _take_request(self, request: Request) -> None:
        try:
            method = messages.request_method(request.method)
            self._metrics.message(method.name)
            self._check_request(request)
            params: Any = messages.from_json(method.params, request.params)
            await self._requests[method.name](request.id, params)
        except ForelookError as error:
            self._refuse(request.id, error)
        except Exception as error:  # noqa: BLE001 - edge: one request fails, not the server
            self._fail(request.id, request.method, error)

    def _check_request(self, request: Request) -> None:
        if not self._said_hello and request.method != messages.HELLO.name:
            raise ProtocolError(f"{request.method} before hello; the first request must be hello")
        if request.id in self._completions or request.id in self._tasks:
            raise ProtocolError(f"id = {request.id!r} is already used by a pending request")
        limit = self._backend.config.max_pending_requests
        if len(self._completions) + len(self._tasks) >= limit:
            raise LimitError(f"too many pending requests on this connection (limit {limit})")

    async def _take_notification(self, notification: Notification) -> None:
        uri: str | None = None
        try:
            method = messages.notification_method(notification.method)
            self._metrics.message(method.name)
            if isinstance(notification.params, dict):
                uri = _readable_uri(notification.params.get("uri"))
            if not self._said_hello:
                raise ProtocolError(f"{notification.method} before hello; the first request must be hello")
            is_long = _has_many_changes(notification.params)
            params: Any = await _off_loop(is_long, messages.from_json, method.params, notification.params)
            await self._notifications[method.name](params)
        except ForelookError as error:
            self._report(notification.method, error.code, str(error), uri)
        except Exception as error:  # noqa: BLE001 - edge: one notification fails, not the server
            self._metrics.internal_error()
            log_failure(f"notification {notification.method}", error)
            self._report(notification.method, jsonrpc.INTERNAL_ERROR, _internal(error), uri)

    # --- messages out

    def _answer(self, request_id: RequestId, result: object, *, on_sent: Callable[[], None] | None = None) -> None:
        self._outbox.post(jsonrpc.encode_message(Response(request_id, messages.to_json(result))), on_sent=on_sent)

    def _refuse(self, request_id: RequestId | None, error: ForelookError) -> None:
        self._metrics.error(error.code)
        if isinstance(error, LimitError):
            self._metrics.rejected(error.reason if isinstance(error, QuotaError) else LIMITS)
        self._outbox.post(jsonrpc.encode_message(ErrorResponse.of(request_id, error)))

    def _fail(self, request_id: RequestId, method: str, error: Exception) -> None:
        self._completions.pop(request_id, None)
        self._metrics.internal_error()
        self._metrics.error(jsonrpc.INTERNAL_ERROR)
        log_failure(f"request {request_id!r} ({method})", error)
        data = {"type": "InternalError"}
        response = ErrorResponse(request_id, jsonrpc.INTERNAL_ERROR, _internal(error), data)
        self._outbox.post(jsonrpc.encode_message(response))

    def _report(self, method: str, code: int, message: str, uri: str | None) -> None:
        if uri is not None and method.startswith("document/"):
            self._drop_document(uri)  # its text may differ from the client's now
        self._metrics.error(code)
        params = messages.NotificationErrorParams(method=method[:100], code=code, message=message, uri=uri)
        self._outbox.post(jsonrpc.encode_notification(messages.NOTIFICATION_ERROR, params))

    def status_changed(self, status: messages.Status) -> None:
        """Send the model's status to the client."""
        self._outbox.post(jsonrpc.encode_notification(messages.STATUS_CHANGED, status), series="status")

    # --- requests

    async def _hello(self, request_id: RequestId, params: messages.HelloParams) -> None:
        messages.check_version(params.protocol_version)
        config = self._backend.config
        limits = {limit.name: getattr(config, limit.name) for limit in fields(messages.ServerLimits)}
        result = messages.HelloResult(
            protocol_version=messages.PROTOCOL_VERSION,
            server_version=__version__,
            pid=os.getpid(),
            status=self._backend.status,
            limits=messages.ServerLimits(**limits),
            settings=dict(self._backend.settings),
        )
        self._said_hello = True
        self._answer(request_id, result)
        self._backend.listen(self.status_changed)
        name, version = params.client_name[:80], params.client_version[:40]
        logger.info("client %s %s connected", name, version)

    async def _status(self, request_id: RequestId, params: messages.Empty) -> None:  # noqa: ARG002
        self._answer(request_id, self._backend.status)

    async def _complete(self, request_id: RequestId, params: messages.CompletionParams) -> None:
        started_s = time.monotonic()
        engine = await self._backend.engine()
        key = self._key(params.uri)
        self._backend.request(self.principal, EDITOR)
        running = _Completion(request_id, started_s, params.partial)
        self._completions[request_id] = running

        def on_partial(text: str) -> None:
            if running.wants_partials:
                self._loop.call_soon_threadsafe(self._partial, running, text)

        def on_done(outcome: messages.CompletionResult | ForelookError) -> None:
            self._loop.call_soon_threadsafe(self._complete_done, running, outcome)

        try:
            running.handle = engine.submit(key, params, on_partial, on_done)
        except ForelookError:
            self._completions.pop(request_id, None)
            raise

    def _partial(self, running: _Completion, text: str) -> None:
        if self._completions.get(running.id) is running:
            params = messages.CompletionPartialParams(running.id, text)
            message = jsonrpc.encode_notification(messages.COMPLETION_PARTIAL, params)
            self._outbox.post(message, series=("partial", running.id))

    def _complete_done(self, running: _Completion, outcome: messages.CompletionResult | ForelookError) -> None:
        if self._completions.get(running.id) is not running:
            return  # cancelled, and that was the answer
        del self._completions[running.id]
        if isinstance(outcome, ForelookError):
            self._metrics.completion(type(outcome).__name__)
            self._refuse(running.id, outcome)
            return
        latency_ms = (time.monotonic() - running.started_s) * 1e3
        self._metrics.completion("suggested" if outcome.suggestions else "empty", latency_ms)
        self._answer(running.id, outcome)

    async def _stats(self, request_id: RequestId, params: messages.Empty) -> None:  # noqa: ARG002
        def ask() -> messages.StatsResult:
            engine = self._backend.made_engine
            return messages.StatsResult(self._metrics.to_json(), engine.stats(self.principal) if engine else {})

        self._answer_from_thread(request_id, "stats", ask)

    async def _pool_stats(self, request_id: RequestId, params: messages.WorkspaceParams) -> None:
        engine, workspace = await self._backend.engine(), self._workspace(params.workspace)
        self._answer_from_thread(
            request_id, "pool/stats", lambda: messages.PoolStatsResult(engine.pool_stats(workspace))
        )

    async def _pool_clear(self, request_id: RequestId, params: messages.WorkspaceParams) -> None:
        engine, workspace = await self._backend.engine(), self._workspace(params.workspace)

        def clear() -> messages.Empty:
            engine.clear_pool(workspace)
            return messages.Empty()

        self._answer_from_thread(request_id, "pool/clear", clear)

    def _answer_from_thread(self, request_id: RequestId, method: str, ask: Callable[[], object]) -> None:
        """Answer with the result of ``ask``, which runs in a thread because it may block on the engine."""

        async def answer() -> None:
            try:
                self._answer(request_id, await asyncio.to_thread(ask))
            except ForelookError as error:
                self._refuse(request_id, error)
            except Exception as error:  # noqa: BLE001 - edge: one request fails, not the server
                self._fail(request_id, method, error)
            finally:
                self._tasks.pop(request_id, None)

        self._tasks[request_id] = asyncio.create_task(answer())

    async def _shutdown(self, request_id: RequestId, params: messages.Empty) -> None:  # noqa: ARG002
        shutdown = self._backend.hooks.shutdown
        if self.principal or shutdown is None:
            raise AuthenticationError("this backend is shared; only its owner can stop it")
        logger.info("a client requested shutdown")
        self._answer(request_id, messages.Empty(), on_sent=shutdown)

    # --- notifications

    async def _open(self, params: messages.DocumentOpenParams) -> None:
        engine = await self._backend.engine()
        config = self._backend.config
        check_document(params.workspace, params.uri)
        _check_text("text", params.text, config.max_document_bytes)
        if params.uri not in self._keys:
            if len(self._keys) >= (limit := config.max_documents):
                raise LimitError(f"too many open documents on this connection (limit {limit}); close some first")
            self._keys[params.uri] = self._backend.claim_document(params.uri, self.principal)
        workspace, key = self._workspace(params.workspace), self._keys[params.uri]
        engine.open_document(workspace, key, params.language_id, params.version, params.text)

    async def _change(self, params: messages.DocumentChangeParams) -> None:
        engine = await self._backend.engine()
        key, limit = self._key(params.uri), self._backend.config.max_document_bytes
        is_long = len(params.changes) > MANY_CHANGES
        await _off_loop(is_long, engine.change_document, key, params.version, params.changes, limit)

    async def _cursor(self, params: messages.DocumentCursorParams) -> None:
        engine = await self._backend.engine()
        engine.move_cursor(self._key(params.uri), params.version, params.offset)

    async def _close(self, params: messages.DocumentCloseParams) -> None:
        self._key(params.uri)
        self._drop_document(params.uri)

    async def _files(self, params: messages.WorkspaceFilesParams) -> None:
        engine = await self._backend.engine()
        for number, file in enumerate(params.files):
            _check_text(f"files[{number}].text", file.text, self._backend.config.max_document_bytes)
        permitted = [(file.path, file.text) for file in params.files if not is_secret_path(file.path)]
        engine.add_workspace_files(self._workspace(params.workspace), permitted)
        num_secret = len(params.files) - len(permitted)
        if num_secret:
            raise PrivacyError(f"skipped {num_secret} of {len(params.files)} files: their names match the secrets list")

    async def _forget(self, params: messages.WorkspaceForgetParams) -> None:
        engine = await self._backend.engine()
        engine.remove_workspace_files(self._workspace(params.workspace), params.paths)

    async def _keep(self, params: messages.WorkspaceKeepParams) -> None:
        kept = self._kept_files.take(params)
        if kept is None:
            return
        engine = await self._backend.engine()
        paths = frozenset(path for path in kept if not is_secret_path(path))
        engine.keep_workspace_files(self._workspace(params.workspace), paths)

    async def _event(self, params: messages.CompletionEventParams) -> None:
        engine = await self._backend.engine()
        engine.record_event(self._workspace(params.workspace), params)

    async def _cancel(self, params: messages.CancelParams) -> None:
        running = self._completions.pop(params.id, None)
        if running is not None:
            if running.handle is not None:
                running.handle.cancel()
            self._metrics.completion("cancelled")
            self._refuse(params.id, RequestCancelledError("cancelled by the client"))

    # --- keys

    def _key(self, uri: str) -> DocumentKey:
        try:
            return self._keys[uri]
        except KeyError:
            raise UnknownDocumentError("the document is not open; send document/open first") from None

    def _workspace(self, uri: str) -> WorkspaceKey:
        """The key of a workspace; users of a shared backend never share one."""
        return WorkspaceKey(self.principal, uri)

    def _drop_document(self, uri: str) -> None:
        key = self._keys.pop(uri, None)
        engine = self._backend.made_engine
        if key is None or engine is None:
            return
        self._backend.release_document(key)
        with contextlib.suppress(DocumentError):  # the engine may have refused to open it
            engine.close_document(key)

    def close(self) -> None:
        """Release the client's resources."""
        if self._closed:
            return
        self._closed = True
        if self._must_leave is not None:
            self._must_leave.cancel()
        for running in self._completions.values():
            if running.handle is not None:
                running.handle.cancel()
        self._completions.clear()
        for task in self._tasks.values():
            task.cancel()
        for uri in tuple(self._keys):
            self._drop_document(uri)
        self._backend.leave(self, self.status_changed)

    # --- making room

    def idle_s(self) -> float | None:
        """Seconds since its last message; ``None`` while requests run, or soon after a message about its documents."""
        quiet_s = time.monotonic() - self._heard_s
        is_soon = bool(self._keys) and quiet_s < self._backend.config.idle_connection_s
        return None if self._completions or self._tasks or is_soon else quiet_s

    def evict(self) -> None:
        """Have the transport close the connection."""
        self.evicted.set()

    def move(self, *, must_leave: bool) -> None:
        """Ask the client to connect again, to another replica.

        Args:
            must_leave: whether the connection is closed if it is still open later.
        """
        if self._closed:
            return
        self._outbox.post(jsonrpc.encode_notification(messages.CONNECTION_MOVE, messages.Empty()))
        if must_leave and self._must_leave is None:
            self._must_leave = self._loop.call_later(MOVE_TIMEOUT_S, self.overstayed.set)


async def _off_loop(is_long: bool, call: Callable[..., R], *args: Any) -> R:
    """Call in a thread if that may take long, so that it delays no other client; messages stay in order."""
    return await asyncio.to_thread(call, *args) if is_long else call(*args)


def _has_many_changes(params: object) -> bool:
    changes = params.get("changes") if isinstance(params, dict) else None
    return isinstance(changes, list) and len(changes) > MANY_CHANGES


def _readable_uri(value: object) -> str | None:
    """A URI that may be repeated in an error."""
    return value if isinstance(value, str) and len(value) <= messages.MAX_NAME_LENGTH else None


def _internal(error: Exception) -> str:
    return f"the backend failed ({type(error).__name__}); see its log"


def _check_text(name: str, text: str, max_bytes: int) -> None:
    if num_bytes := utf8_size_above(text, max_bytes):
        raise DocumentTextError(
            f"{name} has {num_bytes} bytes, over the limit of {max_bytes}; completion is disabled for this document"
        )
