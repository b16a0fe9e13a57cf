"""Unexpected errors in the log: type and location, never the message, which may contain document text."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import PurePath

from forelook.text import printable

logger = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_MAX_FRAMES = 6  # chosen, not measured: the innermost frames identify the fault


def describe(error: BaseException) -> str:
    """Type and location of an unexpected error. The message is omitted: it may contain document text."""
    frames: list[str] = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{PurePath(code.co_filename).name}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    location = " > ".join(frames[-_MAX_FRAMES:])
    return f"{type(error).__name__} at {location}" if location else type(error).__name__


def log_failure(what: str, error: BaseException) -> None:
    """Log that ``what`` failed, with the error's type and location."""
    logger.error("%s failed: %s", what, describe(error))


@contextlib.contextmanager
def logged(what: str) -> Iterator[None]:
    """Log an exception instead of letting it end the thread.

    Args:
        what: the work inside the context, for the log line.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - border of a thread: background work must not end it
        log_failure(what, error)


class OneLineFormatter(logging.Formatter):
    """Writes each message on one line, whatever a peer put into it, so a peer cannot forge a line of the log."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name of the standard library
        """The line, with control characters escaped."""
        record.message = printable(record.message)
        return super().formatMessage(record)
