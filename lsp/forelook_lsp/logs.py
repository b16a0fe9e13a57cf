"""The language server's log, on stderr or in a file. It never contains document text.

pygls, asyncio and websockets log message bodies and params. Of their records only the template and the exception's
name are kept.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from forelook.errors import ConfigError
from forelook.failures import LOG_FORMAT, OneLineFormatter
from forelook.local.log_handler import LogHandler

FOREIGN_LOGGERS = ("pygls", "asyncio", "websockets", "cattrs", "concurrent")


class WithoutArguments(logging.Filter):
    """Reduces records of other libraries to their template and the exception's name."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Remove everything that may come from a message."""
        if record.name.split(".")[0] in FOREIGN_LOGGERS:
            # Without arguments the template may be an f-string that contains a message.
            template = record.msg if isinstance(record.msg, str) and record.args else "(withheld)"
            kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
            record.msg = f"{template} {kind}".strip()
            record.args = ()
            record.exc_info = None
            record.exc_text = None
            record.stack_info = None
        return True


def set_up_logging(level: str, path: Path | None) -> None:
    """Write all records to ``path``, or to stderr, which editors show as the server's log.

    Raises:
        ConfigError: ``path`` cannot be written.
    """
    handler: logging.Handler
    if path is None:
        handler = LogHandler(sys.stderr)
    else:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            expected = f"a writable file: {error.strerror or error}"
            raise ConfigError("--log-file", str(path), expected) from error
        handler = LogHandler(os.fdopen(descriptor, "a", encoding="utf-8"), path)
    handler.setFormatter(OneLineFormatter(LOG_FORMAT))
    handler.addFilter(WithoutArguments())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in FOREIGN_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
