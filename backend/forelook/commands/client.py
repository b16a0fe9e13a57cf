"""A blocking client of the backend for shell commands: one request at a time."""

from __future__ import annotations

import contextlib
import itertools
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect, unix_connect

from forelook import __version__
from forelook.errors import AuthenticationError, BackendUnreachableError, ModelError
from forelook.local.endpoint import Endpoint
from forelook.protocol import jsonrpc, messages
from forelook.protocol.jsonrpc import ErrorResponse, Message, NotificationMethod, Request, RequestMethod, Response

MAX_ANSWER_BYTES = 64 * 2**20  # chosen, not measured
OPEN_TIMEOUT_S = 10.0  # chosen, not measured

P = TypeVar("P")
R = TypeVar("R")


class BackendClient:
    """A connection to one backend after the hello; created by :func:`connected`."""

    def __init__(self, websocket: ClientConnection, on_status: Callable[[messages.Status], None] | None) -> None:
        self._websocket = websocket
        self._on_status = on_status
        self._ids = itertools.count(1)
        params = messages.HelloParams(messages.PROTOCOL_VERSION, "forelook", __version__)
        self.hello = self.call(messages.HELLO, params, OPEN_TIMEOUT_S)
        self.status = self.hello.status

    def notify(self, method: NotificationMethod[P], params: P) -> None:
        """Send a notification."""
        self._send(jsonrpc.encode_notification(method, params))

    def call(self, method: RequestMethod[P, R], params: P, timeout_s: float) -> R:
        """Send a request and wait for its result.

        Raises:
            ForelookError: the backend's error, or that of an earlier notification.
            BackendUnreachableError: the connection closed, or the result did not come in time.
        """
        request_id = next(self._ids)
        self._send(jsonrpc.encode_message(Request(request_id, method.name, messages.to_json(params))))
        deadline_s = time.monotonic() + timeout_s
        while True:
            message = self._receive(method.name, deadline_s)
            if isinstance(message, Response) and message.id == request_id:
                return messages.from_json(method.result, message.result, allow_unknown=True)
            if isinstance(message, ErrorResponse) and message.id in (request_id, None):
                raise message.to_error()

    def shut_down(self, timeout_s: float) -> None:
        """Stop the backend; a closed connection counts as an answer.

        Raises:
            ForelookError: the backend's error: this client may not stop it.
            BackendUnreachableError: it did not answer in time.
        """
        try:
            self.call(messages.SHUTDOWN, messages.Empty(), timeout_s)
        except BackendUnreachableError as error:
            if not isinstance(error.__cause__, ConnectionClosed):
                raise

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until the model is loaded.

        Raises:
            ModelError: the model cannot be loaded.
            BackendUnreachableError: it was not loaded in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while self.status.state is not messages.EngineState.READY:
            if self.status.state is messages.EngineState.ERROR:
                raise ModelError(self.status.message)
            self._receive("the model to load", deadline_s)

    def _send(self, text: str) -> None:
        try:
            self._websocket.send(text)
        except ConnectionClosed as error:
            raise BackendUnreachableError(f"the backend closed the connection: {error}") from error

    def _receive(self, awaited: str, deadline_s: float) -> Message:
        """The next message; status changes and refused notifications are handled here."""
        try:
            frame = self._websocket.recv(timeout=max(0.0, deadline_s - time.monotonic()))
        except TimeoutError as error:
            raise BackendUnreachableError(
                f"timed out waiting for {awaited}; see `forelook status` and the log"
            ) from error
        except ConnectionClosed as error:
            raise BackendUnreachableError(f"the backend closed the connection: {error}") from error
        message = jsonrpc.decode_message(frame if isinstance(frame, str) else frame.decode())
        if isinstance(message, jsonrpc.Notification):
            if message.method == messages.STATUS_CHANGED.name:
                self.status = messages.from_json(messages.Status, message.params, allow_unknown=True)
                if self._on_status is not None:
                    self._on_status(self.status)
            elif message.method == messages.NOTIFICATION_ERROR.name:
                refused = messages.from_json(messages.NotificationErrorParams, message.params, allow_unknown=True)
                raise ErrorResponse(None, refused.code, refused.message).to_error()
        return message


@contextlib.contextmanager
def connected(
    endpoint: Endpoint, on_status: Callable[[messages.Status], None] | None = None
) -> Iterator[BackendClient]:
    """A client whose hello the backend has accepted.

    Raises:
        BackendUnreachableError: no backend answers at ``endpoint``.
        AuthenticationError: it refuses the token, Host or Origin.
        ProtocolVersionError: it uses another version of the protocol.
    """
    with _open(endpoint) as websocket:
        yield BackendClient(websocket, on_status)


def _open(endpoint: Endpoint) -> ClientConnection:
    where = endpoint.description
    options: dict[str, Any] = {"compression": None, "max_size": MAX_ANSWER_BYTES, "open_timeout": OPEN_TIMEOUT_S}
    websocket: ClientConnection
    try:
        if endpoint.socket_path is not None:
            websocket = unix_connect(endpoint.socket_path, endpoint.url, **options)
        else:
            tls = ssl.create_default_context() if endpoint.tls else None
            websocket = connect(endpoint.url, additional_headers=endpoint.headers(), proxy=None, ssl=tls, **options)
    except InvalidStatus as error:
        status = error.response.status_code
        reason = error.response.body.decode("utf-8", "replace").strip() if error.response.body else ""
        kind = AuthenticationError if status in (401, 403, 421) else BackendUnreachableError
        raise kind(f"the backend at {where} refused the connection ({status}): {reason}") from error
    except (OSError, InvalidHandshake) as error:
        raise BackendUnreachableError(
            f"no backend answers at {where} ({type(error).__name__}: {error}); start it with `forelook serve`"
        ) from error
    return websocket
