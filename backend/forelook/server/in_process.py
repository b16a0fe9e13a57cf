"""One completion without a server: the messages of a connection, handed over in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from forelook import __version__
from forelook.config import ServerConfig
from forelook.errors import BackendUnreachableError, ModelError
from forelook.local.outbox import Outbox
from forelook.protocol import messages
from forelook.protocol.messages import ErrorResponse, Message, Notification, Response
from forelook.server.backend import Backend, ExitHooks
from forelook.server.connection import Connection
from forelook.server.engine import EngineFactory


async def complete_in_process(
    factory: EngineFactory,
    opened: messages.DocumentOpenParams,
    params: messages.CompletionParams,
    on_status: Callable[[messages.Status], None],
    timeout_s: float,
) -> tuple[messages.CompletionResult, messages.Status, float]:
    """Load the model, complete, and let go of it.

    Args:
        factory: makes the engine.
        opened: the document.
        params: where to complete it.
        on_status: told how loading goes.
        timeout_s: for loading and completing together.

    Returns:
        The result, the model's status, and the completion's latency in milliseconds.

    Raises:
        ForelookError: what the engine or the protocol refused.
    """
    backend = Backend(factory, ServerConfig(idle_timeout_s=None), ExitHooks(idle=_nothing, shutdown=_nothing))
    inbox: asyncio.Queue[Message] = asyncio.Queue()

    async def deliver(text: str) -> None:
        inbox.put_nowait(messages.decode_message(text))

    outbox = Outbox(deliver)
    writer = asyncio.create_task(outbox.run())
    backend.start()
    backend.admit()
    connection = Connection(backend, outbox, "")
    try:
        conversation = _converse(connection, inbox, opened, params, on_status)
        return await asyncio.wait_for(conversation, timeout_s)
    except asyncio.TimeoutError as error:
        raise BackendUnreachableError(f"the model did not load and answer within {timeout_s:g} s") from error
    finally:
        connection.close()
        writer.cancel()
        await backend.stop()


def _nothing() -> None:
    """The process ends by itself."""


async def _converse(
    connection: Connection,
    inbox: asyncio.Queue[Message],
    opened: messages.DocumentOpenParams,
    params: messages.CompletionParams,
    on_status: Callable[[messages.Status], None],
) -> tuple[messages.CompletionResult, messages.Status, float]:
    hello = messages.HelloParams(messages.PROTOCOL_VERSION, "forelook", __version__)
    await connection.receive(messages.encode_request(1, messages.HELLO, hello))
    answer = await _answer(inbox)
    status = messages.from_json(messages.HelloResult, answer.result).status
    while status.state is not messages.EngineState.READY:
        if status.state is messages.EngineState.ERROR:
            raise ModelError(status.message)
        message = await inbox.get()
        if isinstance(message, Notification) and message.method == messages.STATUS_CHANGED.name:
            status = messages.from_json(messages.Status, message.params)
            on_status(status)
    await connection.receive(messages.encode_notification(messages.DOCUMENT_OPEN, opened))
    started_s = time.monotonic()
    await connection.receive(messages.encode_request(2, messages.COMPLETION, params))
    answer = await _answer(inbox)
    latency_ms = (time.monotonic() - started_s) * 1e3
    return messages.from_json(messages.CompletionResult, answer.result), status, latency_ms


async def _answer(inbox: asyncio.Queue[Message]) -> Response:
    while True:
        message = await inbox.get()
        if isinstance(message, Response):
            return message
        if isinstance(message, ErrorResponse):
            raise message.to_error()
        if isinstance(message, Notification) and message.method == messages.NOTIFICATION_ERROR.name:
            refused = messages.from_json(messages.NotificationErrorParams, message.params)
            raise ErrorResponse(None, refused.code, refused.message).to_error()
