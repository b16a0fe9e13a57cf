"""Requests that are out of date, and documents that are not open."""

from __future__ import annotations

import asyncio

import pytest
from bench.lsp_client import LspClient, ResponseError

from tests.lsp.conformance.rows import (
    CANCELLED,
    Connected,
    Row,
    Rows,
)
from tests.lsp.conftest import URI
from tests.lsp.fake_backend import FakeBackend

row = Rows()


# --- Requests out of date --------------------------------------------------------------------------------------


@row("a cancelled request is answered as cancelled, and the backend's work ends")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.hold = asyncio.Event()
    await editor.open(URI, "a")
    request_id, future = await editor.start_complete(URI, 0, 1)
    await backend.wait_until(lambda: len(backend.completions) == 1)
    await editor.cancel(request_id)
    with pytest.raises(ResponseError) as caught:
        await future
    assert caught.value.code == CANCELLED
    await backend.wait_until(lambda: len(backend.cancelled) == 1)


@row("a request that a later one supersedes is answered as cancelled")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.hold = asyncio.Event()
    await editor.open(URI, "a")
    _, first = await editor.start_complete(URI, 0, 1)
    _, second = await editor.start_complete(URI, 0, 1)
    with pytest.raises(ResponseError) as caught:
        await first
    assert caught.value.code == CANCELLED
    backend.release()
    assert len((await second)["items"]) == 1
    assert len(backend.completions) == 1


@row("a request whose document changes under it is answered as cancelled")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.hold = asyncio.Event()
    await editor.open(URI, "a")
    _, future = await editor.start_complete(URI, 0, 1)
    await editor.type_text(URI, 2, 0, 1, "b")
    with pytest.raises(ResponseError) as caught:
        await future
    assert caught.value.code == CANCELLED


@row("two documents do not supersede each other")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.hold = asyncio.Event()
    await editor.open(URI, "a")
    await editor.open(URI + "2", "b")
    _, first = await editor.start_complete(URI, 0, 1)
    _, second = await editor.start_complete(URI + "2", 0, 1)
    await backend.wait_until(lambda: len(backend.completions) == 2)
    backend.release()
    assert [item["insertText"] for item in (await first)["items"]] == ["apass"]
    assert [item["insertText"] for item in (await second)["items"]] == ["bpass"]


@row("a request for another version of the document is answered as cancelled")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a", version=3)
    for version in (2, 4):
        with pytest.raises(ResponseError) as caught:
            await editor.complete(URI, 0, 1, version=version)
        assert caught.value.code == CANCELLED
    assert len(await editor.complete(URI, 0, 1, version=3)) == 1


@row("a document that was never opened gets no suggestion, and neither does a closed one")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    assert await editor.complete("file:///nowhere.py", 0, 0) == []
    await editor.change("file:///nowhere.py", 2, {"text": "x"})
    await editor.close("file:///nowhere.py")
    await editor.open(URI, "a")
    await editor.close(URI)
    assert await editor.complete(URI, 0, 1) == []


@row("closing a document answers its request as cancelled")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    backend.hold = asyncio.Event()
    await editor.open(URI, "a")
    _, future = await editor.start_complete(URI, 0, 1)
    await backend.wait_until(lambda: len(backend.completions) == 1)
    await editor.close(URI)
    with pytest.raises(ResponseError) as caught:
        await future
    assert caught.value.code == CANCELLED
    await backend.wait_until(lambda: len(backend.cancelled) == 1 and URI not in backend.connections[0].texts)


@row("a cancel of something unknown, or already answered, does nothing")
async def _(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a")
    await editor.cancel(4711)
    request_id, future = await editor.start_complete(URI, 0, 1)
    await future
    await editor.cancel(request_id)
    assert len(await editor.complete(URI, 0, 1)) == 1


@pytest.mark.parametrize(("transport", "found"), row.params())
async def test_conformance(transport: str, found: Row, connected: Connected, backend: FakeBackend) -> None:
    await found.run(transport, connected, backend)
