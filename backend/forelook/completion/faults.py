"""What becomes of unforeseen errors on the engine's thread: one line in the log, never a document's text."""

from __future__ import annotations

import logging
from collections.abc import Callable

_LOG = logging.getLogger(__name__)


def guarded(what: str, work: Callable[[], None]) -> None:
    """Run background work; a fault in it is logged and the service goes on."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - border of the thread: background work must not end it
        _LOG.error("%s failed: %s", what, where(error))


def where(error: BaseException) -> str:
    """An unforeseen error's type and place; its message may hold text of a document and stays out of the log."""
    trace, places = error.__traceback__, []
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__} at {' > '.join(places[-5:])}"
