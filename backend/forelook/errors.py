"""Every error Forelook raises on purpose, as one tree.

    ForelookError
    ├── ConfigError                     a setting outside its range
    ├── ModelError
    │   ├── ModelNotFoundError          no such folder, and no such hub id at hand
    │   ├── UnsupportedArchitectureError
    │   ├── CheckpointError             weights missing, damaged or of the wrong shape
    │   ├── TokenizerError              tokenizer missing, or without the infill sentinels
    │   ├── InsufficientMemoryError
    │   └── InsufficientDiskError       no room for a download
    ├── DecodingError
    │   ├── ContextOverflowError        prompt and output do not fit the model's positions
    │   └── RankLostError               a process that decodes with this one died or hangs
    ├── DocumentError
    │   ├── UnknownDocumentError
    │   ├── StaleDocumentError          the request names a version the backend does not hold
    │   ├── PositionError               a cursor outside the document
    │   └── DocumentTextError           not UTF-8, or too large
    ├── RequestCancelledError
    ├── ProtocolError
    │   ├── MalformedMessageError
    │   ├── UnknownMethodError
    │   ├── InvalidParamsError
    │   ├── ProtocolVersionError
    │   └── LimitError                  more bytes, documents or requests than the server accepts
    ├── EndpointError
    │   ├── BackendUnreachableError
    │   └── AuthenticationError
    ├── PrivacyError                    an ignore file that cannot be understood
    └── PoolCacheError                  a persistent pool that cannot be read or written

A message names the field, the value and the way out. Messages never carry text of a document.
"""

from __future__ import annotations


class ForelookError(Exception):
    """Base of all errors raised on purpose; ``code`` is its JSON-RPC error code."""

    code: int = -32000


class ConfigError(ForelookError):
    """A setting is outside its allowed range."""

    code = -32010

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field} = {value!r} is not allowed: it must be {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed


class ModelError(ForelookError):
    """A model cannot be loaded or run."""

    code = -32020


class ModelNotFoundError(ModelError):
    """Neither a folder nor a hub id that can be reached."""

    code = -32021


class UnsupportedArchitectureError(ModelError):
    """The checkpoint is not of the Llama family, or uses a variant the forward does not have."""

    code = -32022


class CheckpointError(ModelError):
    """Weights are missing, damaged, or of a shape the config does not announce."""

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


class DecodingError(ForelookError):
    """Decoding cannot go on."""

    code = -32030


class ContextOverflowError(DecodingError):
    """Prompt and output together exceed the model's positions."""

    code = -32031


class RankLostError(DecodingError):
    """A rank of lookahead parallelism died, hangs or did not come."""

    code = -32032


class DocumentError(ForelookError):
    """A document, or a place in it, is not as the request says."""

    code = -32040


class UnknownDocumentError(DocumentError):
    """The document was never opened, or has been closed."""

    code = -32041


class StaleDocumentError(DocumentError):
    """The request names a version that the mirror does not hold."""

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
    """A wire message that does not follow docs/protocol.md; ``request_id`` is its id where that could be read."""

    code = -32600
    request_id: int | str | None = None


class MalformedMessageError(ProtocolError):
    """Not JSON, or not a JSON-RPC 2.0 message."""

    code = -32700


class UnknownMethodError(ProtocolError):
    """No such method."""

    code = -32601


class InvalidParamsError(ProtocolError):
    """Params are missing, of the wrong type, or out of range; ``field`` is the one at fault."""

    code = -32602
    field: str | None = None


class ProtocolVersionError(ProtocolError):
    """Client and server speak different versions of the protocol."""

    code = -32050


class LimitError(ProtocolError):
    """A message, document or queue is larger than the server accepts."""

    code = -32051


class EndpointError(ForelookError):
    """The backend's address, lock or token is at fault."""

    code = -32060


class BackendUnreachableError(EndpointError):
    """Nothing answers where the backend should listen."""

    code = -32061


class AuthenticationError(EndpointError):
    """The token is missing or wrong, or the caller is a web page."""

    code = -32062


class PrivacyError(ForelookError):
    """An ignore file cannot be understood; everything it might cover is withheld."""

    code = -32070


class PoolCacheError(ForelookError):
    """A persistent pool cannot be read or written."""

    code = -32080
