"""Every error that Forelook raises on purpose, as one tree.

    ForelookError
    ├── ConfigError                     a setting outside its range
    ├── ModelError
    │   ├── ModelNotFoundError          neither a folder nor a hub id that can be reached
    │   ├── UnsupportedArchitectureError
    │   ├── CheckpointError             weights missing, damaged or of the wrong shape
    │   ├── TokenizerError              tokenizer missing, or without the infill sentinels
    │   ├── InsufficientMemoryError
    │   ├── InsufficientDiskError       no room for a download
    │   └── ModelChangedError           its files changed on disk; connect again
    ├── DecodingError
    │   ├── ContextOverflowError        prompt and output do not fit the model's positions
    │   └── RankLostError               another rank died or does not respond
    ├── DocumentError
    │   ├── UnknownDocumentError
    │   ├── StaleDocumentError          the request names another version than the backend has
    │   ├── PositionError               a cursor outside the document
    │   └── DocumentTextError           not UTF-8, or too large
    ├── RequestCancelledError
    ├── ProtocolError
    │   ├── MalformedMessageError
    │   ├── UnknownMethodError
    │   ├── InvalidParamsError
    │   ├── ProtocolVersionError
    │   └── LimitError                  more bytes, documents or requests than the server accepts
    │       └── QuotaError              more requests or tokens than a user's key allows for now
    ├── EndpointError
    │   ├── BackendUnreachableError
    │   └── AuthenticationError
    ├── PrivacyError                    an ignore file that cannot be parsed
    └── PoolCacheError                  a persistent pool that cannot be read or written

A message says what is wrong, with which value, and how to fix it. It never contains document text.
"""

from __future__ import annotations


class ForelookError(Exception):
    """Base class; ``code`` is the JSON-RPC error code."""

    code: int = -32000

    @classmethod
    def from_message(cls, message: str) -> ForelookError:
        """The error as a client raises it, from the message that the backend sent."""
        return cls(message)


class ConfigError(ForelookError):
    """A setting or an argument is outside its range.

    Attributes:
        field: its name, as the user spells it.
        value: what was given.
        expected: what is valid; reads on from "expected".
    """

    code = -32010

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(f"invalid {field}: {value!r} (expected {expected})")
        self.field = field
        self.value = value
        self.expected = expected

    @classmethod
    def from_message(cls, message: str) -> ForelookError:
        """The error without its details, which are not sent."""
        error = cls("", None, "")
        error.args = (message,)
        return error


class ModelError(ForelookError):
    """A model cannot be loaded or run."""

    code = -32020


class ModelNotFoundError(ModelError):
    """The model is neither a folder nor a hub id that can be reached."""

    code = -32021


class UnsupportedArchitectureError(ModelError):
    """The checkpoint is of a family that Forelook does not run, or an unsupported variant."""

    code = -32022


class CheckpointError(ModelError):
    """Weights are missing, damaged, or not of the shape in the config."""

    code = -32023


class TokenizerError(ModelError):
    """The tokenizer is missing, or lacks the infill sentinels of its family."""

    code = -32024


class InsufficientMemoryError(ModelError):
    """Weights and cache do not fit the device."""

    code = -32025


class InsufficientDiskError(ModelError):
    """A download does not fit the disk."""

    code = -32026


class ModelChangedError(ModelError):
    """The model's files changed on disk; another backend loads them."""

    code = -32027


class DecodingError(ForelookError):
    """Decoding cannot continue."""

    code = -32030


class ContextOverflowError(DecodingError):
    """Prompt and output together exceed the model's positions."""

    code = -32031


class RankLostError(DecodingError):
    """A rank of lookahead parallelism died, does not respond or did not join."""

    code = -32032


class DocumentError(ForelookError):
    """A document, or a position in it, is not as the request says."""

    code = -32040


class UnknownDocumentError(DocumentError):
    """The document was never opened, or has been closed."""

    code = -32041


class StaleDocumentError(DocumentError):
    """The request names another version of the document than the backend has."""

    code = -32042


class PositionError(DocumentError):
    """A cursor or range outside the document."""

    code = -32043


class DocumentTextError(DocumentError):
    """The text is not valid UTF-8, or is larger than the limit."""

    code = -32044


class RequestCancelledError(ForelookError):
    """The request was cancelled or superseded (LSP's RequestCancelled)."""

    code = -32800


class ProtocolError(ForelookError):
    """A message violates docs/protocol.md.

    Attributes:
        request_id: the message's id, if it could be read.
    """

    code = -32600
    request_id: int | str | None = None


class MalformedMessageError(ProtocolError):
    """The message is not JSON, or not JSON-RPC 2.0."""

    code = -32700


class UnknownMethodError(ProtocolError):
    """The method does not exist."""

    code = -32601


class InvalidParamsError(ProtocolError):
    """Params are missing, of the wrong type, or out of range.

    Attributes:
        field: the parameter at fault.
    """

    code = -32602
    field: str | None = None


class ProtocolVersionError(ProtocolError):
    """Client and backend use different versions of the protocol."""

    code = -32050


class LimitError(ProtocolError):
    """A message, document or queue exceeds a limit of the server."""

    code = -32051


class QuotaError(LimitError):
    """A user has asked as much as the key allows for now.

    Attributes:
        reason: the quota's name, for the metrics.
        retry_after_s: when to ask again.
    """

    code = -32052

    def __init__(self, message: str, reason: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class EndpointError(ForelookError):
    """The backend's address, lock or record cannot be used."""

    code = -32060


class BackendUnreachableError(EndpointError):
    """No backend answers, or it closed the connection."""

    code = -32061


class AuthenticationError(EndpointError):
    """The token is missing or wrong, or the caller is a web page."""

    code = -32062


class PrivacyError(ForelookError):
    """An ignore file cannot be parsed, or a document is excluded."""

    code = -32070


class PoolCacheError(ForelookError):
    """A persistent pool cannot be read or written."""

    code = -32080
