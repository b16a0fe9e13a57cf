"""The log: foreign libraries put user text into their records, and none of it may come out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from forelook_lsp.logs import FOREIGN_LOGGERS, set_up_logging

SECRET = "xyzzy_plugh"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in FOREIGN_LOGGERS}
    path = tmp_path / "lsp.log"
    set_up_logging("debug", path)
    yield path
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, former in levels.items():
        logging.getLogger(name).setLevel(former)


@pytest.mark.parametrize("name", ["pygls.protocol.json_rpc", "asyncio", "websockets.server", "cattrs", "pygls"])
def test_of_foreign_records_only_the_template_and_the_exceptions_name_are_kept(log: Path, name: str) -> None:
    logger = logging.getLogger(name)
    logger.info("Sending data: %s", SECRET)
    logger.warning("Failed to handle %r: %s", "method", SECRET)
    logger.warning(f"made by hand: {SECRET}")  # noqa: G004 - what a library does
    try:
        raise ValueError(SECRET)
    except ValueError:
        logger.exception("Exception occurred for message %s", SECRET)
    logger.error("with a stack %s", SECRET, stack_info=True)
    written = log.read_text()
    assert SECRET not in written
    assert "Failed to handle %r: %s" in written
    assert "ValueError" in written


def test_our_own_records_are_whole(log: Path) -> None:
    logging.getLogger("forelook_lsp.window").info("a document of %d lines", 3)
    assert "a document of 3 lines" in log.read_text()


def test_a_task_that_fails_unseen_is_logged_without_its_words(log: Path) -> None:
    async def fail() -> None:
        raise ValueError(SECRET)

    async def main() -> None:
        task = asyncio.ensure_future(fail())
        await asyncio.wait([task])
        del task

    asyncio.run(main())
    written = log.read_text()
    assert SECRET not in written
    assert "asyncio" in written
