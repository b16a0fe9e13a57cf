"""The log: foreign libraries put user text into their records, and none of it may come out."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.lsp_client import ResponseError, stdio_server
from forelook_lsp.logs import FOREIGN_LOGGERS, set_up_logging

from tests.lsp.conftest import URI
from tests.lsp.fake_backend import FakeBackend

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


async def test_no_log_and_no_error_carries_the_users_text(environment: dict[str, str], backend: FakeBackend) -> None:
    secret = "xyzzy_plugh"
    backend.script = lambda text, params: secret
    async with stdio_server(environment, "--log-level", "debug") as server:
        editor = server.client
        await editor.initialize()
        await editor.wait_for_status("ready")
        await editor.open(URI, secret)
        await editor.complete(URI, 0, 3)
        wrong = {"textDocument": {"uri": URI, "version": 2}, "contentChanges": [{"text": secret, "range": secret}]}
        await editor.notify("textDocument/didChange", wrong)
        await editor.notify("textDocument/didOpen", {"textDocument": {"text": secret}})
        for method in ("textDocument/inlineCompletion", "workspace/executeCommand", "no/such"):
            with pytest.raises(ResponseError) as caught:
                await editor.request(method, {"textDocument": secret, "command": 3, "arguments": [secret]})
            assert secret not in str(caught.value)
        await editor.send(json.dumps({"jsonrpc": "2.0", "id": {"a": secret}, "method": "x"}))
        await backend.connections[0].websocket.send(json.dumps({"jsonrpc": "2.0", "method": "status", "x": secret}))
        await editor.type_text(URI, 2, 0, 0, secret)
        await editor.complete(URI, 0, 3)
        for message in editor.received:
            assert secret not in json.dumps(message)
        await editor.request("shutdown")
        await editor.notify("exit")
        assert await server.wait() == 0
    assert server.errors
    assert secret.encode() not in server.errors


async def test_the_log_can_go_to_a_file(environment: dict[str, str], backend: FakeBackend, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "lsp.log"
    async with stdio_server(environment, "--log-file", str(log), "--log-level", "info") as server:
        await server.client.initialize()
        await server.client.wait_for_status("ready")
        await server.client.complete(URI, 0, 0)
        await server.client.request("shutdown")
        await server.client.notify("exit")
        assert await server.wait() == 0
    assert "not open" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.parent.stat().st_mode & 0o077 == 0
    assert server.errors == b""
