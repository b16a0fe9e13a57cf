"""Framing of the language server protocol: ``Content-Length`` headers around JSON. Standard library only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, BinaryIO


def encode(message: Mapping[str, Any] | str) -> bytes:
    """Return a message, or its JSON text, with its header."""
    body = (message if isinstance(message, str) else json.dumps(message)).encode()
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


def read(stream: BinaryIO) -> dict[str, Any] | None:
    """Read the next message, blocking; ``None`` at the end of the stream."""
    length = None
    while line := stream.readline():
        if line == b"\r\n" and length is not None:
            return _decode(stream.read(length))
        length = _length(line, length)
    return None


async def read_async(stream: asyncio.StreamReader) -> dict[str, Any] | None:
    """Read the next message; ``None`` at the end of the stream."""
    length = None
    while line := await stream.readline():
        if line == b"\r\n" and length is not None:
            return _decode(await stream.readexactly(length))
        length = _length(line, length)
    return None


def _length(header: bytes, known: int | None) -> int | None:
    name, _, value = header.partition(b":")
    return int(value) if name.lower() == b"content-length" else known


def _decode(body: bytes) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(body)
    return message
