"""Adapts pygls' protocol: no traceback in an answer, no document text in the log, LSP's order and life cycle.

What it changes in pygls 2.1: an exception's traceback becomes ``error.data``; a request with invalid params is never
answered; every failure pops up in the editor; requests run before ``initialize``; ``exit`` ends the process, which all
websocket connections share; documents follow ``str.splitlines``; the future of each notification is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import chain
from typing import Any

import attrs
from cattrs import Converter
from forelook.errors import ForelookError
from forelook.failures import log_failure
from forelook.heap import trim_heap
from forelook.protocol.jsonrpc import readable_id
from lsprotocol import types
from pygls.exceptions import (
    JsonRpcException,
    JsonRpcInternalError,
    JsonRpcInvalidParams,
    JsonRpcInvalidRequest,
    JsonRpcParseError,
    JsonRpcServerNotInitialized,
)
from pygls.protocol import LanguageServerProtocol, default_converter, lsp_method

from forelook_lsp.limits import TRIM_AFTER_S, TRIM_MESSAGE_BYTES
from forelook_lsp.mirror import EditorChange

logger = logging.getLogger(__name__)

MAX_UINTEGER = 2**31 - 1
LONG_MESSAGE_BYTES = 2**16  # chosen, not measured
_INTEGERS = {int}
_TEXTS = {str}
INTERNAL_ERROR_MESSAGE = "Forelook failed to handle this request; see its log"


@attrs.define
class VersionedInlineCompletionParams(types.InlineCompletionParams):
    """The params with the document version that Copilot's clients add."""

    version: int | None = attrs.field(default=None)


def make_converter() -> Converter:
    """Return LSP's converter, extended to accept the params of older clients."""
    converter: Converter = default_converter()  # type: ignore[no-untyped-call]  # pygls leaves it untyped
    structure = converter.get_structure_hook(types.InlineCompletionParams)

    def read_inline_completion(value: Any, _: type) -> VersionedInlineCompletionParams:
        context = value.get("context")
        # Drafts of the protocol numbered the trigger kinds from 0, and some clients send none.
        if not isinstance(context, dict):
            value = {**value, "context": {"triggerKind": types.InlineCompletionTriggerKind.Automatic.value}}
        elif context.get("triggerKind") in (0, None):
            value = {**value, "context": {**context, "triggerKind": types.InlineCompletionTriggerKind.Invoked.value}}
        read = structure(value, types.InlineCompletionParams)
        version = value["textDocument"].get("version")
        return VersionedInlineCompletionParams(
            context=read.context,
            text_document=read.text_document,
            position=read.position,
            work_done_token=read.work_done_token,
            version=version if isinstance(version, int) and not isinstance(version, bool) else None,
        )

    converter.register_structure_hook(types.InlineCompletionParams, read_inline_completion)
    converter.register_structure_hook(types.DidChangeTextDocumentParams, _read_change_params)
    return converter


def _handler_only(method: str) -> Callable[..., Generator[Any, Any, None]]:
    """A built-in method of pygls that calls the server's handler and does nothing else."""

    @lsp_method(method)
    def call(protocol: LanguageServerProtocol, params: Any) -> Generator[Any, Any, None]:
        handler = protocol.fm.features.get(method)
        if handler is not None:
            yield handler, (params,), None

    return call


def _read_change_params(value: Any, _: type) -> types.DidChangeTextDocumentParams:
    """Read the changes of a document as our own values: the converter takes 20 microseconds per change."""
    document = value["textDocument"]
    uri, version = document["uri"], document["version"]
    if not isinstance(uri, str) or not isinstance(version, int):
        raise TypeError("invalid textDocument")
    changes: Any = _read_changes(value["contentChanges"])
    return types.DidChangeTextDocumentParams(types.VersionedTextDocumentIdentifier(version, uri), changes)


def _read_changes(changes: list[dict[str, Any]]) -> Sequence[EditorChange]:
    """Read and check changes column by column: per change that is one tuple, and no call."""
    edits = [
        (start["line"], start["character"], end["line"], end["character"], change["text"])
        for change in changes
        if (where := change.get("range")) is not None
        for start, end in ((where["start"], where["end"]),)
    ]
    *numbers, texts = zip(*edits, strict=True) if edits else ((0,), ("",))
    if any(set(map(type, column)) != _INTEGERS or min(column) < 0 or max(column) > MAX_UINTEGER for column in numbers):
        raise TypeError("invalid position")
    whole = [change["text"] for change in changes if change.get("range") is None] if len(edits) < len(changes) else []
    if set(map(type, chain(texts, whole))) - _TEXTS:
        raise TypeError("invalid text")
    if not whole:
        return edits
    edit = iter(edits)
    return [change["text"] if change.get("range") is None else next(edit) for change in changes]


class ForelookProtocol(LanguageServerProtocol):
    """One connection with one editor window."""

    def __init__(self, server: Any, converter: Converter) -> None:
        super().__init__(server, converter)
        self._initialized = False
        self._trimming: asyncio.TimerHandle | None = None
        self.exit_code: asyncio.Future[int] | None = None

    # --- Messages --------------------------------------------------------------------------------------------

    def receive(self, body: bytes | str) -> None:
        """Handle one message; errors in it are answered, not raised."""
        if len(body) >= TRIM_MESSAGE_BYTES:
            self._trim_soon()
        if len(body) < LONG_MESSAGE_BYTES or not gc.isenabled():
            self._receive(body)
            return
        gc.disable()  # it would search the message's thousands of objects again and again; half of the time
        try:
            self._receive(body)
        finally:
            gc.enable()

    def _trim_soon(self) -> None:
        """Return what the message and its text leave behind to the system, once no more such messages come."""
        if self._trimming is not None:
            self._trimming.cancel()
        loop = asyncio.get_running_loop()
        self._trimming = loop.call_later(TRIM_AFTER_S, loop.run_in_executor, None, trim_heap)

    def _receive(self, body: bytes | str) -> None:
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            self._answer_error(None, JsonRpcParseError("the message is not valid JSON"))
            return
        if not isinstance(content, dict):
            self._answer_error(None, JsonRpcInvalidRequest("a message must be one JSON object"))
            return
        method, msg_id = content.get("method"), content.get("id")
        if not self._has_usable_ids(content):
            logger.warning("ignored a message with an invalid id")
            if method is not None and "id" in content:
                self._answer_error(None, JsonRpcInvalidRequest("an id must be a short string or an integer"))
            return
        if content.get("jsonrpc") != self.VERSION or not (method is None or isinstance(method, str)):
            self._answer_error(msg_id, JsonRpcInvalidRequest('a message needs "jsonrpc": "2.0" and a method'))
            return
        if method is not None and not self._may_run(method, msg_id):
            return
        try:
            message = self.structure_message(content)
        except JsonRpcException:
            logger.warning("%s: invalid params", method)
            self._initialized = self._initialized and method != types.INITIALIZE
            if method is not None and msg_id is not None:
                self._answer_error(msg_id, JsonRpcInvalidParams(f"{method}: invalid params; see the LSP specification"))
            return
        try:
            self.handle_message(message)
        except Exception as error:  # noqa: BLE001 - border to the editor: one message fails, not the connection
            log_failure("a message", error)

    def _has_usable_ids(self, content: dict[str, Any]) -> bool:
        """Whether the message's id, and the one that a cancellation names, can be used as keys."""
        if "id" in content and readable_id(content["id"]) is None:
            # JSON-RPC's answer to a message without a readable id has the id null.
            return content["id"] is None and "error" in content and "method" not in content
        if content.get("method") == types.CANCEL_REQUEST:
            params = content.get("params")
            return isinstance(params, dict) and readable_id(params.get("id")) is not None
        return True

    def _may_run(self, method: str, msg_id: Any) -> bool:
        """Enforce LSP's life cycle: before ``initialize`` and after ``shutdown`` only ``exit`` is allowed."""
        if method == types.EXIT:
            return True
        if method == types.INITIALIZE:
            if self._initialized:
                self._answer_error(msg_id, JsonRpcInvalidRequest("initialize was sent before"))
                return False
            self._initialized = True
            return True
        if self._initialized and not self._shutdown:
            return True
        if msg_id is not None and self._initialized:
            self._answer_error(msg_id, JsonRpcInvalidRequest(f"{method} was sent after shutdown"))
        elif msg_id is not None:
            self._answer_error(msg_id, JsonRpcServerNotInitialized(f"{method} was sent before initialize"))
        return False

    def _answer_error(self, msg_id: Any, error: JsonRpcException) -> None:
        if readable_id(msg_id) is None:
            msg_id = None
        self._send_data(types.ResponseErrorMessage(id=msg_id, error=error.to_response_error(), jsonrpc=self.VERSION))

    def _execute_handler(
        self,
        msg_id: Any,
        handler: Callable[..., Any],
        callback: Callable[..., Any],
        args: Any = None,
        kwargs: Any = None,
    ) -> None:
        """Forget the future of a handler that has ended: pygls does so for requests only."""

        def ended(future: Any) -> None:
            self._request_futures.pop(msg_id, None)
            callback(future)

        super()._execute_handler(msg_id, handler, ended, args, kwargs)

    # --- Life cycle ------------------------------------------------------------------------------------------

    @lsp_method(types.EXIT)
    def lsp_exit(self, *_: Any) -> None:  # type: ignore[override]  # there is no handler to yield
        """Close this connection; its transport decides whether the process ends."""
        if self.exit_code is not None and not self.exit_code.done():
            self.exit_code.set_result(0 if self._shutdown else 1)

    # --- Documents are mirrored by forelook_lsp.document_sync, with LSP's line rules -----------------------------

    lsp_text_document__did_open = _handler_only(types.TEXT_DOCUMENT_DID_OPEN)
    lsp_text_document__did_change = _handler_only(types.TEXT_DOCUMENT_DID_CHANGE)
    lsp_text_document__did_close = _handler_only(types.TEXT_DOCUMENT_DID_CLOSE)
    lsp_notebook_document__did_open = _handler_only(types.NOTEBOOK_DOCUMENT_DID_OPEN)
    lsp_notebook_document__did_change = _handler_only(types.NOTEBOOK_DOCUMENT_DID_CHANGE)
    lsp_notebook_document__did_close = _handler_only(types.NOTEBOOK_DOCUMENT_DID_CLOSE)


def quiet_errors(handler: Callable[..., Any], where: str) -> Callable[..., Any]:
    """Wrap a handler so that an exception becomes an answer of one line, without traceback or document text.

    Args:
        handler: the handler.
        where: its method or command, for the log.
    """

    async def run_async(*args: Any) -> Any:
        with _quiet(where):
            return await handler(*args)

    def run(*args: Any) -> Any:
        with _quiet(where):
            return handler(*args)

    wrapper: Callable[..., Any] = run_async if asyncio.iscoroutinefunction(handler) else run
    wrapper.__annotations__ = {}  # pygls tests them with `issubclass`, and on Python 3.10 `Any` is not a class
    return wrapper


@contextlib.contextmanager
def _quiet(where: str) -> Iterator[None]:
    """Turn errors into answers; unexpected ones are logged with their location but without their message."""
    try:
        yield
    except JsonRpcException:
        raise
    except ForelookError as error:
        raise JsonRpcException(str(error), error.code) from None
    except Exception as error:  # noqa: BLE001 - border to the editor
        log_failure(where, error)
        raise JsonRpcInternalError(INTERNAL_ERROR_MESSAGE) from None
