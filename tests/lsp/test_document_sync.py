"""Documents: what is sent to the backend, and what happens when it refuses one."""

from __future__ import annotations

import pytest
from bench.lsp_client import LspClient, range_of
from forelook.errors import LimitError
from forelook.protocol import jsonrpc, messages
from forelook_lsp import document_sync

from tests.lsp.conftest import URI, execute
from tests.lsp.fake_backend import LIMITS, FakeBackend


async def test_a_document_the_backend_refuses_gets_no_suggestions_and_the_status_says_why(
    editor: LspClient, backend: FakeBackend
) -> None:
    await editor.open(URI, "a")
    await backend.wait_until(lambda: URI in backend.connections[0].texts)
    refused = messages.NotificationErrorParams("document/open", -32044, "the document is too long", URI)
    await backend.connections[0].websocket.send(jsonrpc.encode_notification(messages.NOTIFICATION_ERROR, refused))
    await execute(editor, "forelook.stats")  # answered after the refusal was read
    assert await editor.complete(URI, 0, 1) == []
    assert (await execute(editor, "forelook.status"))["message"] == "the document is too long"


async def test_a_document_whose_change_was_refused_is_opened_again_as_it_is(
    editor: LspClient, backend: FakeBackend
) -> None:
    await editor.open(URI, "a")
    await editor.type_text(URI, 2, 0, 1, "b")
    await backend.wait_until(lambda: backend.connections[0].texts.get(URI) == "ab")
    del backend.connections[0].texts[URI]
    refused = messages.NotificationErrorParams("document/change", -32043, "outside the document", URI)
    await backend.connections[0].websocket.send(jsonrpc.encode_notification(messages.NOTIFICATION_ERROR, refused))
    await backend.wait_until(lambda: backend.connections[0].texts.get(URI) == "ab")
    assert len(await editor.complete(URI, 0, 2)) == 1


async def test_a_document_longer_than_the_backend_takes_is_not_sent_until_it_is_shorter(
    editor: LspClient, backend: FakeBackend
) -> None:
    await editor.open(URI, "é" * (LIMITS.max_document_bytes // 2 + 1))
    assert await editor.complete(URI, 0, 1) == []
    assert "longer than 8388608 bytes" in (await execute(editor, "forelook.status"))["message"]
    assert "document/open" not in backend.methods
    await editor.close(URI)
    await editor.open(URI, "é")
    assert len(await editor.complete(URI, 0, 1)) == 1


async def test_a_huge_insertion_is_sent_as_a_new_document(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "a")
    await editor.complete(URI, 0, 1)  # the short text has been sent, not only the long one
    await editor.type_text(URI, 2, 0, 1, "x = 1\n" * 300_000)
    assert len(await editor.complete(URI, 300_000, 0)) == 1
    assert backend.methods.count("document/open") == 2
    assert backend.connections[0].versions[URI] == 2


async def test_an_untitled_document_gets_suggestions(editor: LspClient) -> None:
    await editor.open("untitled:Untitled-1", "a")
    assert len(await editor.complete("untitled:Untitled-1", 0, 1)) == 1


async def test_a_document_that_is_short_enough_again_is_sent_again(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "x = 1\n")
    huge = "é" * (LIMITS.max_document_bytes // 2 + 1)
    await editor.type_text(URI, 2, 0, 0, huge)
    assert await editor.complete(URI, 1, 0) == []
    assert "longer than 8388608 bytes" in (await execute(editor, "forelook.status"))["message"]
    assert URI not in backend.connections[0].texts
    await editor.change(URI, 3, {"range": range_of(0, 0, 0, len(huge)), "text": ""})
    assert len(await editor.complete(URI, 1, 0)) == 1
    assert backend.connections[0].texts[URI] == "x = 1\n"
    assert (await execute(editor, "forelook.status"))["message"] == ""


async def test_a_document_over_the_limit_of_documents_is_sent_once_another_is_closed(
    editor: LspClient, backend: FakeBackend
) -> None:
    limit = LIMITS.max_documents
    uris = [f"file:///home/ada/project/{number}.py" for number in range(limit + 1)]
    for uri in uris:
        await editor.open(uri, "a")
    # They are judged concurrently, so any of them may be the one for which there is no room.
    (refused,) = [uri for uri in uris if not await editor.complete(uri, 0, 1)]
    await editor.complete(refused, 0, 1)
    assert f"more than {limit} open documents" in (await execute(editor, "forelook.status"))["message"]
    assert len(backend.connections[0].texts) == limit
    await editor.close(next(uri for uri in uris if uri != refused))
    assert len(await editor.complete(refused, 0, 1)) == 1


async def test_a_document_that_the_backend_refused_for_its_text_is_sent_again_once_it_is_shorter(
    editor: LspClient, backend: FakeBackend
) -> None:
    await editor.open(URI, "abc")
    await backend.wait_until(lambda: URI in backend.connections[0].texts)
    del backend.connections[0].texts[URI]
    refused = messages.NotificationErrorParams("document/open", -32044, "too long", URI)
    await backend.connections[0].websocket.send(jsonrpc.encode_notification(messages.NOTIFICATION_ERROR, refused))
    await execute(editor, "forelook.stats")  # answered after the refusal was read
    await editor.type_text(URI, 2, 0, 3, "d")
    assert await editor.complete(URI, 0, 4) == []
    assert backend.methods.count("document/open") == 1, "it is not sent with each key"
    await editor.change(URI, 3, {"range": range_of(0, 1, 0, 4), "text": ""})
    assert len(await editor.complete(URI, 0, 1)) == 1


async def test_a_document_that_the_backend_had_no_room_for_is_sent_again_after_a_while_and_not_with_each_key(
    editor: LspClient, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_sync, "RETRY_S", 3.0)  # later than the two checks below, also on a busy machine
    await editor.open(URI, "abc")
    await backend.wait_until(lambda: URI in backend.connections[0].texts)
    del backend.connections[0].texts[URI]
    refused = messages.NotificationErrorParams("document/open", LimitError.code, "no memory left", URI)
    await backend.connections[0].websocket.send(jsonrpc.encode_notification(messages.NOTIFICATION_ERROR, refused))
    await execute(editor, "forelook.stats")  # answered after the refusal was read
    await editor.type_text(URI, 2, 0, 3, "d")
    assert await editor.complete(URI, 0, 4) == []
    assert backend.methods.count("document/open") == 1
    await backend.wait_until(lambda: backend.connections[0].texts.get(URI) == "abcd")
    assert len(await editor.complete(URI, 0, 4)) == 1


async def test_a_client_that_never_raises_versions_gets_suggestions(editor: LspClient, backend: FakeBackend) -> None:
    await editor.open(URI, "x")
    for number in range(5):
        await editor.type_text(URI, 1, 0, 1 + number, "y")
        assert len(await editor.complete(URI, 0, 2 + number, version=1)) == 1
    assert backend.connections[0].texts[URI] == "xyyyyy"
    assert backend.methods.count("document/open") == 1
    await editor.change(URI, -7, {"text": "z"})
    assert len(await editor.complete(URI, 0, 1)) == 1
    assert backend.connections[0].versions[URI] == 7


async def test_a_line_of_a_million_characters_gets_none_and_its_neighbors_do(
    editor: LspClient, backend: FakeBackend
) -> None:
    await editor.open(URI, "a = 1\n" + "b" * 1_000_000 + "\nc")
    assert await editor.complete(URI, 1, 500_000) == []
    assert await editor.complete(URI, 1, 1_000_000, trigger=1) == []
    assert backend.completions == []
    assert len(await editor.complete(URI, 0, 5)) == 1
    assert len(await editor.complete(URI, 2, 1)) == 1


async def test_on_a_long_line_the_item_repeats_nothing_that_was_there(editor: LspClient, backend: FakeBackend) -> None:
    backend.script = lambda _text, _params: "3]"
    await editor.open(URI, "x = [" + "1, " * 4_000)
    (item,) = await editor.complete(URI, 0, 12_005)
    assert item["insertText"] == "3]"
    assert item["range"] == range_of(0, 12_005, 0, 12_005)
