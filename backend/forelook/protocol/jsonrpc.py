"""JSON-RPC 2.0 envelopes, one per websocket text frame. Standard library only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Annotated, Generic, TypeVar

from forelook.errors import ForelookError, MalformedMessageError, ProtocolError, QuotaError
from forelook.protocol.wire import MAX_INTEGER, Length, json_kind, to_json

INTERNAL_ERROR = -32603
MAX_ID_LENGTH = 256

RequestId = int | Annotated[str, Length(0, MAX_ID_LENGTH)]
P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class RequestMethod(Generic[P, R]):
    """A method that is answered."""

    name: str
    params: type[P]
    result: type[R]


@dataclass(frozen=True, slots=True)
class NotificationMethod(Generic[P]):
    """A method that is not answered."""

    name: str
    params: type[P]


@dataclass(frozen=True, slots=True)
class Request:
    """A message that is answered under its id."""

    id: RequestId
    method: str
    params: object


@dataclass(frozen=True, slots=True)
class Notification:
    """A message that is not answered."""

    method: str
    params: object


@dataclass(frozen=True, slots=True)
class Response:
    """The result of a request."""

    id: RequestId
    result: object


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """Why a request failed; ``id`` is ``None`` if the message had no readable one."""

    id: RequestId | None
    code: int
    message: str
    data: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, request_id: RequestId | None, error: ForelookError) -> ErrorResponse:
        """The response for ``error``."""
        data: dict[str, object] = {"type": type(error).__name__}
        name = getattr(error, "field", None)
        if isinstance(name, str):
            data["field"] = name
        if isinstance(error, QuotaError) and error.retry_after_s is not None:
            data["retry_after_s"] = math.ceil(error.retry_after_s)
        return cls(request_id, error.code, str(error), data)

    def to_error(self) -> ForelookError:
        """The error that a client raises for this response, of the class with this code."""
        error = _errors_by_code().get(self.code, ForelookError).from_message(self.message)
        error.code = self.code
        return error


Message = Request | Notification | Response | ErrorResponse


@cache
def _errors_by_code() -> Mapping[int, type[ForelookError]]:
    found: dict[int, type[ForelookError]] = {}
    pending: list[type[ForelookError]] = [ForelookError]
    while pending:
        cls = pending.pop()
        if "code" in cls.__dict__:  # one without its own is never sent
            found[cls.code] = cls
        pending.extend(cls.__subclasses__())
    return MappingProxyType(found)


def encode_message(message: Message) -> str:
    """Encode a message as the text of one websocket frame."""
    content: dict[str, object] = {"jsonrpc": "2.0"}
    if isinstance(message, Request):
        content |= {"id": message.id, "method": message.method, "params": message.params}
    elif isinstance(message, Notification):
        content |= {"method": message.method, "params": message.params}
    elif isinstance(message, Response):
        content |= {"id": message.id, "result": message.result}
    else:
        error: dict[str, object] = {"code": message.code, "message": message.message}
        if message.data:
            error["data"] = dict(message.data)
        content |= {"id": message.id, "error": error}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate is not valid in UTF-8, but JSON can escape it
        return json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text


def encode_request(request_id: RequestId, method: RequestMethod[P, R], params: P) -> str:
    """Encode a request as the text of one frame."""
    return encode_message(Request(request_id, method.name, to_json(params)))


def encode_notification(method: NotificationMethod[P], params: P) -> str:
    """Encode a notification as the text of one frame."""
    return encode_message(Notification(method.name, to_json(params)))


def decode_message(text: str) -> Message:
    """Decode one frame.

    Raises:
        MalformedMessageError: not JSON.
        ProtocolError: not one JSON-RPC 2.0 message; ``request_id`` is its id if that is readable.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise MalformedMessageError("invalid JSON: nested too deeply") from None
    except json.JSONDecodeError as error:
        # error.doc is the whole frame, which may contain document text
        raise MalformedMessageError(
            f"invalid JSON: {error.msg} at character {error.pos}; send one JSON-RPC 2.0 object per text frame"
        ) from None
    except ValueError as error:
        raise MalformedMessageError(f"invalid JSON: {error}") from None
    if isinstance(content, list):
        raise ProtocolError("batches are not supported; send each message in its own text frame")
    if not isinstance(content, dict):
        raise ProtocolError(f"invalid message: {json_kind(content)} (expected a JSON object)")
    return _decode_envelope(content)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def readable_id(value: object) -> RequestId | None:
    """The id of a message; ``None`` if it is none that a peer may choose, since ids are kept, compared and logged."""
    if isinstance(value, str):
        return value if len(value) <= MAX_ID_LENGTH else None
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER else None


def _decode_envelope(content: dict[str, object]) -> Message:
    has_id = "id" in content
    raw_id = content.get("id")
    request_id = readable_id(raw_id)

    def invalid(message: str) -> ProtocolError:
        error = ProtocolError(message)
        error.request_id = request_id
        return error

    if content.get("jsonrpc") != "2.0":
        raise invalid('invalid jsonrpc (expected "2.0")')
    if "method" in content:
        method = content["method"]
        if not isinstance(method, str):
            raise invalid(f"invalid method: {json_kind(method)} (expected a string)")
        params = content.get("params", {})
        if not has_id:
            return Notification(method, params)
        if request_id is None:
            raise invalid(
                f"invalid id: {json_kind(raw_id)} (expected an integer or a string of at most "
                f"{MAX_ID_LENGTH} characters)"
            )
        return Request(request_id, method, params)
    if "error" in content:
        error = content["error"]
        if not isinstance(error, dict):
            raise invalid(f"invalid error: {json_kind(error)} (expected an object)")
        code, text, data = error.get("code"), error.get("message"), error.get("data")
        if not isinstance(code, int) or abs(code) > MAX_INTEGER or not isinstance(text, str):
            raise invalid("invalid error (expected an integer code and a string message)")
        return ErrorResponse(request_id, code, text, data if isinstance(data, dict) else {})
    if "result" in content:
        if request_id is None:
            raise invalid("missing id (a result has the id of its request)")
        return Response(request_id, content["result"])
    raise invalid("missing method, result or error")
